//! A file that one process at a time holds. The lock goes with the process, however that ends.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use progress::Progress;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How often a lock that somebody has is tried again.
const LOOK: Duration = Duration::from_millis(50);

/// Holds the file, once nobody else does; `waiting` is told to people who have to wait.
///
/// # Errors
/// When the file cannot be written, or the wait is cancelled.
pub(crate) fn hold(path: &Path, waiting: &str, progress: &Progress) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut told = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(e) => return Err(e).with_context(|| format!("cannot lock {}", path.display())),
        }
        if !told {
            progress.info(waiting.to_owned());
            told = true;
        }
        progress.check_cancelled()?;
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_a_cancelled_wait_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let (first, second) = (Progress::silent(), Progress::silent());
        let held = hold(&path, "waiting", &first).unwrap();
        second.cancel().cancel();
        assert!(hold(&path, "waiting", &second).unwrap_err().is::<progress::Cancelled>());
        drop(held);
        hold(&path, "waiting", &second).unwrap();
    }
}
