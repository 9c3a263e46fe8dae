//! Source lines for the frames of a crash report, from the kernel that crashed.

use kernel::KernelArtifacts;
use machine::crash::{Crash, Decoder};

use crate::launch::GuestLaunch;

/// The report's text with source lines behind the frames, where the kernel was built with debug information; else as the
/// kernel printed it, which names functions and offsets by itself.
pub fn decode(crash: &Crash, launch: &GuestLaunch) -> String {
    let Ok(kernel) = KernelArtifacts::load(&launch.kernel_dir) else { return crash.trace.clone() };
    let mut decoder = Decoder::new().system_map(&kernel.system_map).modules(&kernel.modules);
    if let Some(vmlinux) = &kernel.vmlinux {
        decoder = decoder.vmlinux(vmlinux);
    }
    if !launch.addr2line.is_empty() {
        decoder = decoder.addr2line(launch.addr2line.clone());
    }
    decoder.decode(crash).map_or_else(|_| crash.trace.clone(), |decoded| decoded.trace)
}
