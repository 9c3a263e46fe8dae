//! Scopes: control groups that hold everything a test started, so that it can be ended whole.
//!
//! A scope is `lab/NAME` in the unified hierarchy. Programs cannot leave it by forking or by new sessions, and
//! `cgroup.kill` (Documentation/admin-guide/cgroup-v2.rst) kills all of it without a race.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use protocol::{Failure, FailureKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::proc;
use crate::serve::answer::{failed, failure};

/// How long killed processes may take to go: one that is stuck in the kernel may never.
const DEATH: Duration = Duration::from_secs(10);

/// Folder of all scopes. It is looked up once: the mount does not move.
fn folder() -> Result<&'static Path, Failure> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOLDER.get_or_init(|| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mounts.lines().find_map(unified_mount).map(|mount| mount.join("lab"))
    });
    found.as_deref().ok_or_else(|| failure(FailureKind::NotFound, "scopes need cgroup2, which is not mounted"))
}

/// The mount point, if the line of mountinfo (proc_pid_mountinfo(5)) is of type cgroup2.
fn unified_mount(line: &str) -> Option<PathBuf> {
    let (place, kind) = line.split_once(" - ")?;
    let is_unified = kind.split(' ').next() == Some("cgroup2");
    is_unified.then(|| place.split(' ').nth(4).map(PathBuf::from)).flatten()
}

fn path(scope: &str) -> Result<PathBuf, Failure> {
    if scope.is_empty() || scope.starts_with('.') || scope.contains(['/', '\0']) || scope.len() > 200 {
        return Err(failure(
            FailureKind::Invalid,
            format!("{scope:?} is no name for a scope: 1 to 200 bytes, no slash, no leading dot"),
        ));
    }
    Ok(folder()?.join(scope))
}

/// Makes the scope if needed; writing `0` to the returned file moves the writer into it.
pub fn enter(scope: &str) -> Result<OwnedFd, Failure> {
    let path = path(scope)?;
    let trouble = |error: io::Error| failed(&format!("making the control group {}", path.display()), &error);
    fs::create_dir_all(&path).map_err(trouble)?;
    let procs = File::options().write(true).open(path.join("cgroup.procs")).map_err(trouble)?;
    Ok(procs.into())
}

/// Kills everything in the scope and removes it. What was killed, as `pid command line`.
pub fn end(scope: &str) -> Result<Vec<String>, Failure> {
    let path = path(scope)?;
    let trouble = |error: io::Error| failed(&format!("ending the control group {}", path.display()), &error);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut killed = Vec::new();
    list(&path, &mut killed).map_err(trouble)?;
    fs::write(path.join("cgroup.kill"), "1").map_err(trouble)?;
    if !wait_empty(&path).map_err(trouble)? {
        let mut left = Vec::new();
        list(&path, &mut left).map_err(trouble)?;
        return Err(failure(
            FailureKind::TimedOut,
            format!("after SIGKILL and {DEATH:?} the scope {scope} still holds: {}", left.join(", ")),
        ));
    }
    remove(&path).map_err(trouble)?;
    Ok(killed)
}

fn list(path: &Path, into: &mut Vec<String>) -> io::Result<()> {
    for pid in fs::read_to_string(path.join("cgroup.procs"))?.split_ascii_whitespace() {
        // A zombie cannot be killed; one that is in the middle of exec has no command line, but a name.
        if let Some(process) = pid.parse().ok().and_then(proc::stat).filter(|process| process.state != 'Z') {
            into.push(format!("{pid} {}", process.command()));
        }
    }
    for entry in fs::read_dir(path)?.flatten().filter(|entry| entry.path().is_dir()) {
        list(&entry.path(), into)?;
    }
    Ok(())
}

/// Waits until nothing runs in the group or below; false when that takes too long.
fn wait_empty(path: &Path) -> io::Result<bool> {
    let deadline = Instant::now() + DEATH;
    let events = path.join("cgroup.events");
    let watched = File::open(&events)?;
    loop {
        // Read through the watched file, or the kernel goes on reporting the same change.
        let mut text = [0; 256];
        let length = rustix::io::pread(&watched, &mut text, 0)?;
        if text[..length].starts_with(b"populated 0") {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        poll(&mut [PollFd::new(&watched, PollFlags::PRI)], Some(&timeout))?;
    }
}

fn remove(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove(&entry.path())?;
    }
    // The group is empty, but the kernel may need a moment to let go of the last process.
    for _ in 0..100 {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(Duration::from_millis(1)),
            other => return other,
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_among_others() {
        let line = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(unified_mount(line), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(unified_mount("32 24 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), None);
    }

    #[test]
    fn a_scope_cannot_lead_out_of_its_folder() {
        for name in ["", "..", ".x", "a/b", "/"] {
            assert!(path(name).is_err_and(|failure| failure.kind == FailureKind::Invalid), "{name:?}");
        }
    }
}
