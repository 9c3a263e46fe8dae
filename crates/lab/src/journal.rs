//! Who supervises a lab, on disk, so that the next command finds it or cleans up after it.
//!
//! The journal names a process by id *and* start time (proc_pid_stat(5), field 22): process ids are reused, and nothing
//! foreign may ever be signalled. What the journal's process left behind when it was killed is sockets; its QEMU
//! processes die with it (`PR_SET_PDEATHSIG`).

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use machine::ProcessId;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::paths::LabPaths;

/// The supervisor of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The supervisor's process.
    pub process: ProcessId,
    /// Identity of what it launched.
    pub launch_id: String,
    /// Version of its control socket.
    pub control: u32,
}

/// What the journal and the process table say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No lab.
    Nothing,
    /// A supervisor runs.
    Running(Journal),
    /// A supervisor ran and was killed; what it left was removed.
    Stale,
}

impl Journal {
    /// Writes the journal; complete or not at all.
    pub fn save(&self, paths: &LabPaths) -> Result<()> {
        let path = paths.journal();
        let temporary = path.with_extension("new");
        let mut file = fs::File::create(&temporary).with_context(|| format!("cannot write {}", temporary.display()))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn load(path: &Path) -> Option<Journal> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

/// Looks for a lab's supervisor; removes what a dead one left.
pub fn find(paths: &LabPaths) -> Result<Found> {
    let path = paths.journal();
    if !path.exists() {
        return Ok(Found::Nothing);
    }
    match Journal::load(&path) {
        Some(journal) if journal.process.alive() => Ok(Found::Running(journal)),
        _ => {
            clean(paths)?;
            Ok(Found::Stale)
        }
    }
}

/// Removes the journal and the sockets.
pub fn clean(paths: &LabPaths) -> Result<()> {
    for dir in [&paths.runtime] {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
    }
    match fs::remove_file(paths.journal()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", paths.journal().display()))
        }
        _ => Ok(()),
    }
}

/// Asks a supervisor to end; by its socket if it answers, by SIGTERM if not, by SIGKILL as the last resort.
/// Returns once it is gone and nothing of it is left.
pub fn take_down(paths: &LabPaths, journal: &Journal, patience: Duration) -> Result<()> {
    let asked =
        UnixStream::connect(paths.control_socket()).is_ok() && crate::client::Client::new(paths.clone()).down().is_ok();
    if !asked {
        let _ = journal.process.signal(Signal::TERM);
    }
    if !gone(journal, patience) {
        let _ = journal.process.signal(Signal::KILL);
        if !gone(journal, Duration::from_secs(5)) {
            bail!("supervisor {} does not end, not even by SIGKILL; see `lab logs`", journal.process.pid);
        }
    }
    clean(paths)
}

fn gone(journal: &Journal, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while journal.process.alive() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
