//! The pipe to the host: a virtio-serial port in a guest, any socket in a test.
//!
//! The port blocks in read and write, but a read with no host connected returns 0 at once, again and again
//! (drivers/char/virtio_console.c, `port_fops_read`). Waiting for the next host is then a matter of edge-triggered
//! epoll: the driver wakes its waiters when a host comes (`handle_control_message`, `VIRTIO_CONSOLE_PORT_OPEN`), and
//! level-triggered polling would spin on the hang-up it reports until then.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fs::{Mode, OFlags};

use crate::console::{self, Level};

/// The pipe.
pub struct Port {
    file: File,
    /// Whether a host may come back after it has left.
    lasting: bool,
    /// Made when a host is waited for, which at most boots never happens.
    epoll: OnceLock<OwnedFd>,
}

/// What a read gave.
pub enum Heard {
    /// So many bytes.
    Bytes(usize),
    /// The host closed its end; another may come.
    HostLeft,
    /// The pipe is gone, and why.
    Gone(String),
}

impl Port {
    /// Uses an open file; `lasting` says that it survives its host.
    pub fn new(fd: OwnedFd, lasting: bool) -> Port {
        Port { file: File::from(fd), lasting, epoll: OnceLock::new() }
    }

    /// Waits for bytes.
    pub fn read(&self, buffer: &mut [u8]) -> Heard {
        loop {
            match (&self.file).read(buffer) {
                Ok(0) if self.lasting => return Heard::HostLeft,
                Ok(0) => return Heard::Gone("the host closed the channel".into()),
                Ok(length) => return Heard::Bytes(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let reason = format!("reading the channel failed: {error}");
                    console::log(Level::Error, &reason);
                    return Heard::Gone(reason);
                }
            }
        }
    }

    /// Waits until a host is there. It may return too early; the next read then says so.
    pub fn wait_for_host(&self) -> io::Result<()> {
        let epoll = match self.epoll.get() {
            Some(epoll) => epoll,
            None => {
                let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
                let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
                epoll::add(&epoll, &self.file, epoll::EventData::new_u64(0), flags)?;
                self.epoll.get_or_init(|| epoll)
            }
        };
        let mut events = Vec::with_capacity(1);
        let _ = epoll::wait(epoll, spare_capacity(&mut events), None);
        Ok(())
    }

    /// Where to write. A write waits while no host is connected.
    pub fn writer(&self) -> &File {
        &self.file
    }
}

/// The first port of the first device, and what there is beside it only if a second port or a second device has one.
const FIRST: &str = "/dev/vport0p1";
const OTHERS: [&str; 3] = ["/dev/vport0p2", "/dev/vport1p1", "/dev/vport1p2"];

/// The device of the port with this name. Where there is only [`FIRST`] it is taken for that one, without a look at
/// sysfs, whose first use would cost more than opening the port; otherwise `sysfs` is to mount it.
pub fn find(name: &str, sysfs: impl FnOnce()) -> Option<PathBuf> {
    let exists = |path: &str| rustix::fs::open(path, OFlags::PATH, Mode::empty()).is_ok();
    if exists(FIRST) && !OTHERS.into_iter().any(exists) {
        return Some(FIRST.into());
    }
    sysfs();
    let mut ports = fs::read_dir("/dev").ok()?.flatten().map(|entry| entry.file_name()).filter(is_port);
    let port = ports.find(|port| {
        let told = fs::read_to_string(Path::new("/sys/class/virtio-ports").join(port).join("name"));
        told.is_ok_and(|told| told.trim_end() == name)
    })?;
    Some(Path::new("/dev").join(port))
}

/// `vport0p1` and the like (drivers/char/virtio_console.c, `add_port`).
fn is_port(name: &OsString) -> bool {
    name.to_string_lossy().starts_with("vport")
}
