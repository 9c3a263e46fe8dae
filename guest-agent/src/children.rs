//! Every child of the agent: the programs it started, and the orphans that init inherits.
//!
//! One thread reaps them all. It looks at who has ended first, and reaps under the lock that is also held while a
//! program is started or signalled: so an exit status always finds its owner, `Command`'s own wait for a program that
//! could not be executed is not stolen, and a signal never goes to a pid that was given away again.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::console::{self, Level};
use crate::sys::{self, Usage};

/// How a child ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Raw wait status.
    pub status: i32,
    /// What it used.
    pub usage: Usage,
    /// When it was reaped.
    pub at: Instant,
}

enum Entry {
    /// Runs; the eventfd is written when it ends.
    Running(OwnedFd),
    Ended(Ended),
}

/// The table of programs that somebody waits for.
pub struct Children {
    table: Mutex<HashMap<u32, Entry>>,
    changed: Condvar,
}

/// The process's only table: children belong to the process.
pub fn children() -> &'static Children {
    static CHILDREN: OnceLock<Children> = OnceLock::new();
    CHILDREN.get_or_init(|| Children { table: Mutex::default(), changed: Condvar::new() })
}

impl Children {
    fn table(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the reaping thread when there is the first child. Before, there is nothing to reap, orphans included.
    fn start_reaping() -> io::Result<()> {
        static STARTED: Mutex<bool> = Mutex::new(false);
        let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        if !*started {
            let thread = std::thread::Builder::new().name("reap".into()).stack_size(128 * 1024);
            thread.spawn(|| children().reap_for_ever())?;
            *started = true;
        }
        Ok(())
    }

    /// Starts a program. The eventfd is written when it has ended; then ask [`Children::take_ended`].
    pub fn spawn(&self, command: &mut Command, notify: OwnedFd) -> io::Result<Child> {
        Self::start_reaping()?;
        let mut table = self.table();
        let child = command.spawn()?;
        table.insert(child.id(), Entry::Running(notify));
        self.changed.notify_all();
        Ok(child)
    }

    /// How a program ended, once; `None` while it runs.
    pub fn take_ended(&self, pid: u32) -> Option<Ended> {
        let mut table = self.table();
        match table.get(&pid) {
            Some(Entry::Ended(ended)) => {
                let ended = *ended;
                table.remove(&pid);
                Some(ended)
            }
            _ => None,
        }
    }

    /// Waits for the end of a program.
    pub fn wait(&self, pid: u32) -> Ended {
        let mut table = self.table();
        loop {
            if let Some(Entry::Ended(ended)) = table.get(&pid) {
                let ended = *ended;
                table.remove(&pid);
                return ended;
            }
            table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Signals the process group of a program, unless the program was reaped already.
    pub fn signal_group(&self, pid: u32, signal: i32) -> io::Result<()> {
        let table = self.table();
        match table.get(&pid) {
            Some(Entry::Running(_)) => sys::kill(pid, true, signal),
            _ => Ok(()),
        }
    }

    /// Kills every process of the session a program leads: background jobs of a shell have process groups of their own.
    pub fn kill_session(&self, pid: u32) {
        let table = self.table();
        if !matches!(table.get(&pid), Some(Entry::Running(_))) {
            return;
        }
        // More than once, for those that were just being born; not for ever, for those that cannot die yet.
        for _ in 0..8 {
            let processes = crate::proc::processes();
            let mut members =
                processes.iter().filter(|process| process.session == pid && process.state != 'Z').peekable();
            if members.peek().is_none() {
                return;
            }
            for process in members {
                let _ = sys::kill(process.pid, false, libc::SIGKILL);
            }
        }
    }

    fn reap_for_ever(&self) {
        loop {
            let pid = match sys::wait_any() {
                Ok(pid) => pid,
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    // Orphans come from children only: without any there is nothing to inherit.
                    let table = self.table();
                    if !table.values().any(|entry| matches!(entry, Entry::Running(_))) {
                        drop(self.changed.wait(table).unwrap_or_else(PoisonError::into_inner));
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    console::log(Level::Error, &format!("waiting for children failed: {error}"));
                    return;
                }
            };
            let mut table = self.table();
            let Ok(Some((status, usage))) = sys::reap(pid) else { continue };
            if let Some(entry) = table.get_mut(&pid) {
                let ended = Entry::Ended(Ended { status, usage, at: Instant::now() });
                if let Entry::Running(notify) = std::mem::replace(entry, ended) {
                    // An eventfd takes 2^64 - 2 of these before a write could fail.
                    let _ = rustix::io::write(&notify, &1_u64.to_ne_bytes());
                }
                self.changed.notify_all();
            }
        }
    }
}
