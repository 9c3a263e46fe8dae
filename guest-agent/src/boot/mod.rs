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

use std::io;
use std::time::{Duration, Instant};

use protocol::{BootReport, BootStep, PORT_NAME};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::console::{self, Level};
use crate::kernel::links;
use crate::kernel::uevent::Uevents;
use crate::proc;
use crate::serve::port::{self, Port};
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

impl Boot {
    fn step<T>(&mut self, name: &str, work: impl FnOnce(&mut Vec<String>) -> T) -> T {
        let started = Instant::now();
        let known = self.report.faults.len();
        let result = work(&mut self.report.faults);
        for fault in &self.report.faults[known..] {
            console::log(Level::Error, fault);
        }
        self.report.steps.push(BootStep { name: name.into(), took_us: started.elapsed().as_micros() as u64 });
        result
    }
}

/// Brings the guest up. An error means that there is no channel, so nobody to serve.
pub fn boot() -> io::Result<Booted> {
    let mut report = BootReport { init: true, started_us: proc::uptime_us(), ..BootReport::default() };
    mounts::first(&mut report.faults);
    console::use_kernel_log();
    let parameters = Parameters::read();
    report.kernel_release = rustix::system::uname().release().to_string_lossy().into_owned();
    report.guest.clone_from(&parameters.guest);
    let mut boot = Boot { report };
    for fault in boot.report.faults.iter().chain(&parameters.unknown) {
        console::log(Level::Error, fault);
    }
    boot.report.faults.extend(parameters.unknown.iter().cloned());
    let uevents = Uevents::open()?;
    boot.step("modules", modules::load_all);
    if parameters.root == Root::Overlay {
        boot.step("root", |faults| root::enter(&uevents, Instant::now() + DEVICE_PATIENCE, faults));
    }
    boot.step("mounts", mounts::rest);
    boot.step("system", |faults| system(&parameters, faults));
    let path = boot.step("port", |_| uevents.until(Instant::now() + DEVICE_PATIENCE, || port::find(PORT_NAME)));
    let path = path.ok_or_else(|| {
        let text = format!("no virtio-serial port named {PORT_NAME} within {DEVICE_PATIENCE:?}");
        io::Error::new(io::ErrorKind::NotFound, text)
    })?;
    let file = uevents
        .until(Instant::now() + DEVICE_PATIENCE, || std::fs::File::options().read(true).write(true).open(&path).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("cannot open {}", path.display())))?;
    let port = Port::new(file.into(), true)?;
    boot.report.ready_us = proc::uptime_us();
    let Boot { report } = boot;
    let (started, ready) = (report.started_us / 1000, report.ready_us / 1000);
    console::log(Level::Info, &format!("serving {} (init began at {started} ms, ready at {ready} ms)", path.display()));
    Ok(Booted { port, report, nonce: parameters.nonce })
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
    check("bringing lo up", links::set_up(1));
    // RDMA and dma-buf tests pin memory; sockets and queues are file descriptors.
    for (resource, limit) in [(Resource::Memlock, None), (Resource::Nofile, Some(1 << 16)), (Resource::Stack, None)] {
        let soft = if resource == Resource::Stack { Some(8 << 20) } else { limit };
        let result = setrlimit(resource, Rlimit { current: soft, maximum: limit });
        check(&format!("setting the limit {resource:?}"), result.map_err(Into::into));
    }
}
