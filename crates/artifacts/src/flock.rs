//! Advisory locks between processes (`flock(2)`) on small files that live under the cache's `locks/`.
//!
//! The kernel drops such a lock when its holder dies, however it dies; so a lock that can be taken proves that nobody
//! is at work, and no pid has to be trusted. The file's content (pid and what for) is only for messages.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use progress::Progress;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How often a waiter looks again; it cannot simply block, since Ctrl-C must reach it.
const POLL: Duration = Duration::from_millis(50);

/// Shared by readers or owned by one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

/// A lock that is held until dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Takes the lock if nobody is in the way.
    pub(crate) fn try_take(path: &Path, mode: Mode) -> Result<Option<FileLock>> {
        let operation = match mode {
            Mode::Shared => FlockOperation::NonBlockingLockShared,
            Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            let file = open(path)?;
            match flock(&file, operation) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e).with_context(|| format!("cannot lock {}", path.display())),
            }
            // Prune may have unlinked the file between open and flock; then the lock is on a file nobody else sees.
            if is_still_at(&file, path) {
                return Ok(Some(FileLock { file, path: path.to_path_buf() }));
            }
        }
    }

    /// Takes the lock, waiting as long as another holds it; tells the listener once whom it waits for.
    pub(crate) fn take(path: &Path, mode: Mode, what: &str, progress: &Progress) -> Result<FileLock> {
        let mut told = false;
        loop {
            if let Some(lock) = Self::try_take(path, mode)? {
                return Ok(lock);
            }
            if !told {
                told = true;
                let holder = holder(path).unwrap_or_else(|| "another process".to_string());
                progress.info(format!("waiting for {holder}, which is at work on {what}"));
            }
            progress.check_cancelled()?;
            thread::sleep(POLL);
        }
    }

    /// Turns an exclusive lock into a shared one. The kernel may let another in between the two, so whoever calls
    /// checks again what it relies on.
    pub(crate) fn share(&self) -> Result<()> {
        flock(&self.file, FlockOperation::LockShared).with_context(|| format!("cannot share {}", self.path.display()))
    }

    /// Notes in the file who holds it, for the message a waiter prints.
    pub(crate) fn sign(&mut self) -> Result<()> {
        let text = format!("process {}\n", std::process::id());
        self.file
            .rewind()
            .and_then(|()| self.file.set_len(0))
            .and_then(|()| self.file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Removes the file; only for an exclusive holder, and safe since takers check that their file is still there.
    pub(crate) fn unlink(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing would do, were it not for programs another thread is just starting: between fork and exec they hold
        // a copy of every descriptor, and with it the lock. Unlocking lets go for all copies.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn open(path: &Path) -> Result<File> {
    let attempt = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    attempt()
        .or_else(|e| match (e.kind(), path.parent()) {
            (io::ErrorKind::NotFound, Some(parent)) => fs::create_dir_all(parent).and_then(|()| attempt()),
            _ => Err(e),
        })
        .with_context(|| format!("cannot open the lock file {}", path.display()))
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}

fn holder(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(64).read_to_string(&mut text).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}
