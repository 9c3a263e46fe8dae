//! What the agent tells whoever reads the console: lines in the kernel's log, so that they stand in order with the
//! kernel's own.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process is the guest's init; otherwise lines go to standard error.
static INIT: AtomicBool = AtomicBool::new(false);

/// How loud a line is, by the kernel's log levels. On a `quiet` command line the console shows errors only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The guest is lost.
    Critical = 2,
    /// Something is missing or failed.
    Error = 3,
    /// Course of events.
    Info = 6,
}

/// From now on lines go to the kernel's log.
pub fn use_kernel_log() {
    INIT.store(true, Ordering::Relaxed);
}

/// Writes a line. Nowhere to write it is no error: there is nobody to tell.
pub fn log(level: Level, text: &str) {
    let line = format!("<{}>guest-agent: {}\n", level as u8, text.replace('\n', "; "));
    if INIT.load(Ordering::Relaxed) {
        if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
            let _ = kmsg.write_all(line.as_bytes());
        }
    } else {
        let _ = std::io::stderr().write_all(&line.as_bytes()[3..]);
    }
}

/// Has panics say so on the console. In a thread that serves one request a panic costs that request; in the main
/// thread it ends init, and the kernel panics right after this line.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        log(Level::Critical, &format!("panicked in thread {}: {info}", thread.name().unwrap_or("unnamed")));
    }));
}
