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

use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use crate::console::{self, Level};

/// The pipe.
pub struct Port {
    file: File,
    /// Whether a host may come back after it has left.
    lasting: bool,
    epoll: OwnedFd,
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
    pub fn new(fd: OwnedFd, lasting: bool) -> io::Result<Port> {
        let file = File::from(fd);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        if lasting {
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, &file, epoll::EventData::new_u64(0), flags)?;
        }
        Ok(Port { file, lasting, epoll })
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
    pub fn wait_for_host(&self) {
        let mut events = Vec::with_capacity(1);
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), None);
    }

    /// Where to write. A write waits while no host is connected.
    pub fn writer(&self) -> &File {
        &self.file
    }
}

/// The device of the port with this name. Where there is only one port it is taken for that one, without a look at sysfs,
/// whose first use would cost more than opening the port.
pub fn find(name: &str) -> Option<PathBuf> {
    let ports: Vec<_> = fs::read_dir("/dev").ok()?.flatten().map(|entry| entry.file_name()).filter(is_port).collect();
    let port = match ports.as_slice() {
        [one] => one,
        _ => ports.iter().find(|port| {
            let told = fs::read_to_string(Path::new("/sys/class/virtio-ports").join(port).join("name"));
            told.is_ok_and(|told| told.trim_end() == name)
        })?,
    };
    Some(Path::new("/dev").join(port))
}

/// `vport0p1` and the like (drivers/char/virtio_console.c, `add_port`).
fn is_port(name: &OsString) -> bool {
    name.to_string_lossy().starts_with("vport")
}
