//! The program inside a guest: init, and the one the host talks to.
//!
//! As process 1 it brings the guest up ([`boot`]) and serves the host for as long as the guest lives ([`serve`]). With
//! `--serve-fd N` it only serves, on a socket it inherited, as an ordinary process: that is how everything but booting
//! is tested without a machine. It is linked statically, since it runs before there is any library.
//!
//! The C library calls [`main`] directly: what Rust's own start adds (a handler for stack overflows with a stack of its
//! own, a look at the limits of the first stack, `poll` on the standard descriptors) is a fifth of the time between the
//! kernel's start of init and the greeting under emulation, and of no use to process 1, whose end is the kernel's.

#![cfg_attr(not(test), no_main)]

mod boot;
mod children;
mod console;
mod kernel;
mod lease;
mod proc;
mod scope;
mod serve;
mod sys;

use std::ffi::{c_char, c_int};
use std::thread;
use std::time::Duration;

use console::Level;
use protocol::BootReport;
use serve::port::Port;

const USAGE: &str = "usage: guest-agent --serve-fd N | --version (or run as process 1 of a guest)";

/// Where the C library begins. The arguments are read through `std::env`, which has them from the loader already.
// SAFETY: no other `main` is linked: `no_main` leaves Rust's out.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    c_int::from(run())
}

/// The program: its exit code.
fn run() -> u8 {
    console::install_panic_hook();
    if std::process::id() == 1 {
        return init();
    }
    sys::ignore_broken_pipes();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--version"] => {
            println!("{} protocol {}", serve::BUILD, protocol::VERSION);
            0
        }
        ["--serve-fd", number] => match number.parse::<i32>().map_err(|error| error.to_string()).and_then(serve_fd) {
            Ok(()) => 0,
            Err(error) => complain(&format!("--serve-fd {number}: {error}")),
        },
        _ => complain(USAGE),
    }
}

fn complain(text: &str) -> u8 {
    eprintln!("{text}");
    2
}

/// Serves one host on an inherited socket until it leaves.
fn serve_fd(number: i32) -> Result<(), String> {
    let port = sys::adopt(number).map(|fd| Port::new(fd, false)).map_err(|error| error.to_string())?;
    // As init does, so that what its programs leave behind is reaped here too.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).map_err(|error| error.to_string())?;
    let now = proc::uptime_us();
    let kernel_release = rustix::system::uname().release().to_string_lossy().into_owned();
    let report = BootReport { kernel_release, started_us: now, ready_us: now, ..BootReport::default() };
    serve::run(&port, report, None, |_| ());
    Ok(())
}

/// Boots and serves. Init must not end: the kernel would panic. That is also the last resort when there is no channel,
/// since with `panic=-1` the guest then ends and the host sees why on the console.
fn init() -> u8 {
    match boot::boot() {
        Ok(booted) => {
            serve::run(&booted.port, booted.report, booted.nonce, boot::settle);
            console::log(Level::Critical, "the channel to the host is gone: this guest can no longer be reached");
        }
        Err(error) => console::log(Level::Critical, &format!("no channel to the host: {error}")),
    }
    // Time for the console to take the line.
    thread::sleep(Duration::from_millis(200));
    1
}
