//! Orderly end of the guest.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::mux::MuxStream;
use protocol::{Event, Failure, FailureKind};
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::system::{RebootCommand, reboot};

use super::answer::{failed, failure, send};
use crate::console::{self, Level};
use crate::proc;

/// How long the host may take to show that it has read the answer, which it does by closing the stream.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long programs may take to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(1);

static UNDER_WAY: AtomicBool = AtomicBool::new(false);

/// Whether the guest is about to end: its devices then go, and that is no error.
pub fn under_way() -> bool {
    UNDER_WAY.load(Ordering::Relaxed)
}

/// Serves `PowerOff`.
pub fn off(stream: &MuxStream, again: bool) -> Result<(), Failure> {
    if std::process::id() != 1 {
        return Err(failure(FailureKind::Invalid, "this agent is not process 1 of a guest: it cannot power it off"));
    }
    let _ = send(stream, &Event::Done);
    let farewell = Instant::now() + FAREWELL;
    while matches!(stream.recv(farewell.saturating_duration_since(Instant::now())), Ok(Some(_))) {}
    UNDER_WAY.store(true, Ordering::Relaxed);
    end_programs();
    unmount_all();
    rustix::fs::sync();
    let command = if again { RebootCommand::Restart } else { RebootCommand::PowerOff };
    reboot(command).map_err(|error| failed("the reboot system call", &error.into()))
}

/// Ends every program: first asked, then killed.
fn end_programs() {
    let deadline = Instant::now() + TERM_GRACE;
    let running = || proc::processes().into_iter().filter(|process| process.pid != 1 && !process.is_kernel_thread());
    if running().next().is_none() {
        return;
    }
    for process in running() {
        let _ = crate::sys::kill(process.pid, false, libc::SIGTERM);
    }
    while running().any(|process| process.state != 'Z') {
        if Instant::now() >= deadline {
            for process in running() {
                let _ = crate::sys::kill(process.pid, false, libc::SIGKILL);
            }
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Unmounts what can be, last mounted first, and makes the rest read-only.
fn unmount_all() {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    for point in points.iter().rev().filter(|point| **point != "/" && **point != "/proc" && **point != "/dev") {
        if unmount(*point, UnmountFlags::empty()).is_err() {
            // Busy, and lost with the machine anyway if it lives in memory; a disk's must at least be clean.
            let _ = mount_remount(*point, MountFlags::RDONLY, "");
        }
    }
    if mount_remount("/", MountFlags::RDONLY, "").is_err() {
        console::log(Level::Info, "the root stays writable until the end; it lives in memory");
    }
}
