//! From the kernel's start of init to a guest that can be used.
//!
//! Two ways (`lab.root=` on the kernel's command line): `overlay` puts the image on the disks together and moves into
//! it; `none` stays in the initramfs, for trying a kernel that has no image yet. What goes wrong is a fault in the
//! report rather than the end: a guest that can say what it lacks beats one that panics. Nothing here sleeps: devices
//! are waited for on the kernel's own event socket, and under emulation every program started would cost more than all
//! of this together.

mod cmdline;
mod modules;
mod mounts;
mod root;

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use protocol::{BootReport, BootStep, PORT_NAME};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::console::{self, Level};
use crate::kernel::uevent;
use crate::proc;
use crate::serve::port::{self, Port};
use crate::sys;
pub use cmdline::{Parameters, Root};

/// How long a disk or the port may take to appear. Only reached when it never will.
const DEVICE_PATIENCE: Duration = Duration::from_secs(20);

/// A guest that has come up.
pub struct Booted {
    /// The channel.
    pub port: Port,
    /// How it went.
    pub report: BootReport,
    /// The first session's nonce.
    pub nonce: Option<u32>,
}

/// Notes how long each step takes and what goes wrong in it.
struct Boot {
    report: BootReport,
}

/// Does a step: its result, what went wrong, and how long it took.
fn timed<T>(work: impl FnOnce(&mut Vec<String>) -> T) -> (T, Vec<String>, Duration) {
    let started = Instant::now();
    let mut faults = Vec::new();
    let result = work(&mut faults);
    (result, faults, started.elapsed())
}

impl Boot {
    fn step<T>(&mut self, name: &str, work: impl FnOnce(&mut Vec<String>) -> T) -> T {
        self.note(name, timed(work))
    }

    fn note<T>(&mut self, name: &str, (result, faults, took): (T, Vec<String>, Duration)) -> T {
        self.report.steps.push(BootStep { name: name.into(), took_us: took.as_micros() as u64 });
        self.faults(faults);
        result
    }

    fn faults(&mut self, faults: Vec<String>) {
        for fault in &faults {
            console::log(Level::Error, fault);
        }
        self.report.faults.extend(faults);
    }
}

/// Brings the guest up. An error means that there is no channel, so nobody to serve.
pub fn boot() -> io::Result<Booted> {
    let mut report = BootReport { init: true, started_us: proc::uptime_us(), ..BootReport::default() };
    let mut faults = Vec::new();
    mounts::first(&mut faults);
    console::use_kernel_log();
    let parameters = Parameters::read();
    report.kernel_release = rustix::system::uname().release().to_string_lossy().into_owned();
    report.guest.clone_from(&parameters.guest);
    let mut boot = Boot { report };
    boot.faults(faults);
    boot.faults(parameters.unknown.clone());
    boot.step("modules", modules::load_all);
    let automatic = mounts::stop_module_loading();
    // Things that have nothing to do with each other, shared out evenly over two processors if there are two.
    let overlay = parameters.root == Root::Overlay;
    let (assembled, file) = thread::scope(|scope| {
        let aside = scope.spawn(|| {
            let system = timed(|faults| {
                system(&parameters, faults);
                mounts::static_nodes(faults);
            });
            (system, overlay.then(|| timed(mounts::below)))
        });
        let assembled = if overlay {
            boot.step("disks", |_| root::assemble(Instant::now() + DEVICE_PATIENCE))
        } else {
            boot.step("mounts", mounts::below);
            Ok(())
        };
        let file = boot.step("port", |_| open_port());
        match aside.join() {
            Ok((system, mounts)) => {
                boot.note("system", system);
                if let Some(mounts) = mounts {
                    boot.note("mounts", mounts);
                }
            }
            Err(_) => boot.faults(vec!["setting up the system panicked".into()]),
        }
        (assembled, file)
    });
    mounts::resume_module_loading(automatic);
    let entered = assembled.and_then(|()| if overlay { boot.step("switch", |_| root::switch()) } else { Ok(()) });
    if let Err(fault) = entered {
        // There the agent can still be asked what is wrong.
        boot.faults(vec![format!("{fault}; the guest stays in its initramfs")]);
    }
    boot.step("memory", mounts::memory);
    let file = file?;
    let port = Port::new(file.into(), true)?;
    boot.report.ready_us = proc::uptime_us();
    Ok(Booted { port, report: boot.report, nonce: parameters.nonce })
}

/// Opens the channel, once the host has told the kernel its name and the kernel has made its node.
fn open_port() -> io::Result<File> {
    let look = || File::options().read(true).write(true).open(port::find(PORT_NAME)?).ok();
    uevent::until(Instant::now() + DEVICE_PATIENCE, look)?.ok_or_else(|| {
        let text = format!("no virtio-serial port named {PORT_NAME} could be opened within {DEVICE_PATIENCE:?}");
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

/// Small things every program relies on.
fn system(parameters: &Parameters, faults: &mut Vec<String>) {
    let mut check = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            faults.push(format!("{what}: {error}"));
        }
    };
    if !parameters.guest.is_empty() {
        let name = rustix::system::sethostname(parameters.guest.as_bytes());
        check("setting the host name", name.map_err(Into::into));
    }
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(io::Error::from);
    check("bringing lo up", socket.and_then(|socket| sys::bring_up(&socket, "lo")));
    // RDMA and dma-buf tests pin memory; sockets and queues are file descriptors.
    for (resource, limit) in [(Resource::Memlock, None), (Resource::Nofile, Some(1 << 16)), (Resource::Stack, None)] {
        let soft = if resource == Resource::Stack { Some(8 << 20) } else { limit };
        let result = setrlimit(resource, Rlimit { current: soft, maximum: limit });
        check(&format!("setting the limit {resource:?}"), result.map_err(Into::into));
    }
}
