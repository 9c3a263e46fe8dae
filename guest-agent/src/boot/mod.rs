//! From the kernel's start of init to a guest that can be used.
//!
//! Two ways (`lab.root=` on the kernel's command line): `overlay` puts the image on the disks together and moves into
//! it; `none` stays in the initramfs, for trying a kernel that has no image yet. What goes wrong is a fault in the
//! report rather than the end: a guest that can say what it lacks beats one that panics. Nothing here sleeps: devices
//! are waited for on the kernel's own event socket.
//!
//! [`boot`] does what the greeting needs, [`settle`] what programs need, while the host takes the greeting in. Under
//! emulation code costs when it runs for the first time, whichever processor runs it: so one thread, and no call into a
//! part of the kernel or of a library that nothing else here needs.

mod cmdline;
mod modules;
mod mounts;
mod root;
mod system;

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use protocol::{BootReport, BootStep, PORT_NAME};

use crate::console::{self, Level};
use crate::kernel::uevent;
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

/// Notes how long a step takes and what goes wrong in it.
fn step<T>(report: &mut BootReport, name: &str, work: impl FnOnce(&mut Vec<String>) -> T) -> T {
    let started = Instant::now();
    let mut faults = Vec::new();
    let result = work(&mut faults);
    report.steps.push(BootStep { name: name.into(), took_us: started.elapsed().as_micros() as u64 });
    note(report, faults);
    result
}

fn note(report: &mut BootReport, faults: Vec<String>) {
    for fault in &faults {
        console::log(Level::Error, fault);
    }
    report.faults.extend(faults);
}

/// Brings the guest up as far as the greeting needs. An error means that there is no channel, so nobody to serve.
pub fn boot() -> io::Result<Booted> {
    let mut report = BootReport { init: true, started_us: proc::uptime_us(), ..BootReport::default() };
    console::use_kernel_log();
    let mut faults = Vec::new();
    mounts::first(&mut faults);
    let parameters = Parameters::read();
    faults.extend(parameters.unknown);
    note(&mut report, faults);
    step(&mut report, "modules", modules::load_all);
    let overlay = parameters.root == Root::Overlay;
    let assembled =
        if overlay { step(&mut report, "disks", |_| root::assemble(Instant::now() + DEVICE_PATIENCE)) } else { Ok(()) };
    // Before the move, which covers the folder its device is in.
    let file = step(&mut report, "port", |_| open_port())?;
    let entered =
        assembled.and_then(|()| if overlay { step(&mut report, "switch", |_| root::switch()) } else { Ok(()) });
    if let Err(fault) = entered {
        // There the agent can still be asked what is wrong.
        note(&mut report, vec![format!("{fault}; the guest stays in its initramfs")]);
    }
    let port = Port::new(file.into(), true);
    report.guest = parameters.guest;
    report.ready_us = proc::uptime_us();
    Ok(Booted { port, report, nonce: parameters.nonce })
}

/// Sets up what programs rely on and the greeting does not. No request is served before it is done.
pub fn settle(report: &mut BootReport) {
    report.kernel_release = rustix::system::uname().release().to_string_lossy().into_owned();
    let (release, guest) = (report.kernel_release.clone(), report.guest.clone());
    step(report, "mounts", |faults| mounts::rest(&release, faults));
    step(report, "system", |faults| system::set_up(&guest, faults));
}

/// Opens the channel, once the host has told the kernel its name and the kernel has made its node.
fn open_port() -> io::Result<File> {
    let look = || {
        let port = port::find(PORT_NAME, || mounts::sysfs(&mut Vec::new()))?;
        File::options().read(true).write(true).open(port).ok()
    };
    uevent::until(Instant::now() + DEVICE_PATIENCE, look)?.ok_or_else(|| {
        let text = format!("no virtio-serial port named {PORT_NAME} could be opened within {DEVICE_PATIENCE:?}");
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}
