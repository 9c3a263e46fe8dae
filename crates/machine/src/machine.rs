//! A machine that runs: started by trying accelerators, ended by a ladder from polite to certain.
//!
//! Methods take `&self`, so that a supervisor can share a machine between the thread that waits for it and those that
//! ask how it is. The state sits behind one lock that is never held while something is waited for.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use progress::Progress;
use protocol::Request;
use protocol::host::Session;

use crate::accel::Engine;
use crate::boot::LaunchError;
use crate::console::Console;
use crate::crash::{Crash, Watcher};
use crate::health::{Gauge, HangRule};
use crate::plan::LaunchPlan;
use crate::process::{Exit, ProcessId};
use crate::qmp::Qmp;
use crate::start::Qemu;
use crate::trial;

/// A guest's machine.
#[derive(Debug)]
pub struct Machine {
    console: Console,
    log_dir: PathBuf,
    pub(crate) state: Mutex<State>,
}

/// What changes while a machine lives.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) plan: LaunchPlan,
    pub(crate) qemu: Qemu,
    /// Why KVM is not used though `auto` would have liked to.
    pub(crate) fallback: Option<String>,
    /// Where this boot's console begins.
    pub(crate) console_start: u64,
    pub(crate) watch: Watch,
    pub(crate) ready: bool,
    /// When the hypervisor was last asked whether it runs the guest.
    pub(crate) asked: Instant,
    pub(crate) gauge: Gauge,
    pub(crate) hang: HangRule,
}

/// The crash watcher and how far it has read.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) watcher: Watcher,
    pub(crate) read: u64,
    pub(crate) grew: Instant,
}

/// Which rung of the ladder ended a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerDown {
    /// It had ended before.
    Already,
    /// The agent synced and powered off.
    Agent,
    /// QEMU was told to quit.
    Quit,
    /// QEMU was killed.
    Killed,
}

impl Machine {
    /// Starts the machine. Returns once QEMU runs and, under `auto`, the accelerator is decided; the guest still boots:
    /// [`Machine::wait_ready`] waits for its agent.
    ///
    /// Logs of an earlier machine in the same `log_dir` are overwritten.
    pub fn launch(plan: LaunchPlan, progress: &Progress) -> Result<Machine, LaunchError> {
        Qemu::prepare(&plan)?;
        let console = Console::new(plan.console_log());
        let (qemu, fallback) = trial::first_start(&plan, &console, progress)?;
        Ok(Machine { log_dir: plan.log_dir.clone(), state: Mutex::new(State::new(plan, qemu, fallback, 0)), console })
    }

    /// The handle to the agent's channel. It belongs to the present boot.
    pub fn session(&self) -> Session {
        self.lock().qemu.session.0.clone()
    }

    /// The control socket of the present QEMU.
    pub fn qmp(&self) -> Qmp {
        self.lock().qemu.qmp.clone()
    }

    /// The console's log.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Where the console's log is.
    pub fn console_path(&self) -> &Path {
        self.console.path()
    }

    /// Where the logs are.
    pub fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    /// Offset in the console's log at which the present boot begins.
    pub fn boot_offset(&self) -> u64 {
        self.lock().console_start
    }

    /// The QEMU process.
    pub fn process(&self) -> ProcessId {
        self.lock().qemu.process.id()
    }

    /// What runs the guest, and why it is not KVM when `auto` might have chosen that.
    pub fn engine(&self) -> (Engine, Option<String>) {
        let state = self.lock();
        (state.qemu.engine, state.fallback.clone())
    }

    /// The plan as it runs now (a reboot takes the next nonce).
    pub fn plan(&self) -> LaunchPlan {
        self.lock().plan.clone()
    }

    /// When a silent guest is declared hung.
    pub fn set_hang_rule(&self, rule: HangRule) {
        self.lock().hang = rule;
    }

    /// Kills the guest and boots it again on the same accelerator, with the next nonce. The console's log goes on.
    pub fn reset(&self, progress: &Progress) -> Result<(), LaunchError> {
        let (mut plan, engine, fallback) = {
            let mut state = self.lock();
            kill(&mut state)?;
            (state.plan.clone(), state.qemu.engine, state.fallback.clone())
        };
        plan.nonce = next_nonce(plan.nonce);
        self.replace(plan, engine, fallback, progress)
    }

    /// Puts a fresh QEMU in place of one that has ended.
    pub(crate) fn replace(
        &self,
        plan: LaunchPlan,
        engine: Engine,
        fallback: Option<String>,
        progress: &Progress,
    ) -> Result<(), LaunchError> {
        let start = console_length(&plan, &self.console)?;
        // The next one listens in the same places.
        self.lock().qemu.end();
        let qemu = Qemu::start(&plan, engine, progress)?;
        let mut state = self.lock();
        *state = State { hang: state.hang, ..State::new(plan, qemu, fallback, start) };
        Ok(())
    }

    /// How the machine ended, if it has.
    pub fn exited(&self) -> Option<Exit> {
        self.lock().qemu.process.try_wait().ok().flatten()
    }

    /// Waits until the machine ends or time is up.
    pub fn wait_exit(&self, patience: Duration) -> Option<Exit> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(exit) = self.exited() {
                return Some(exit);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the machine: the agent powers the guest off; if that does not happen within `patience`, QEMU is told to
    /// quit, and at last killed. (The ACPI power button is no rung: it only tells process 1, which is the agent that did
    /// not answer.)
    pub fn power_down(&self, patience: Duration) -> Result<PowerDown, LaunchError> {
        if self.exited().is_some() {
            return Ok(PowerDown::Already);
        }
        let (session, ready, qmp) = {
            let state = self.lock();
            (state.qemu.session.0.clone(), state.ready, state.qemu.qmp.clone())
        };
        if ready && !patience.is_zero() {
            let asked = Instant::now();
            // The guest may be off before the answer is sent; what counts is that QEMU ends.
            let _ = session.call(Request::PowerOff { reboot: false }, patience);
            if self.wait_exit(patience.saturating_sub(asked.elapsed())).is_some() {
                return Ok(PowerDown::Agent);
            }
        }
        if qmp.quit().is_ok() && self.wait_exit(Duration::from_secs(5)).is_some() {
            return Ok(PowerDown::Quit);
        }
        self.kill()?;
        Ok(PowerDown::Killed)
    }

    /// Ends the machine at once.
    pub fn kill(&self) -> Result<Exit, LaunchError> {
        kill(&mut self.lock())
    }

    /// The crash reports of the present boot, complete or not.
    pub fn crashes(&self) -> Vec<Crash> {
        let mut state = self.lock();
        // An unreadable log shows as an error where the log itself is asked for.
        let _ = state.look(&self.console);
        state.watch.watcher.crashes()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It outlives a QEMU, since a reboot needs it again.
        let _ = std::fs::remove_file(self.lock().plan.disk_descriptor());
    }
}

impl State {
    fn new(plan: LaunchPlan, qemu: Qemu, fallback: Option<String>, console_start: u64) -> State {
        let watch = Watch { watcher: Watcher::at(console_start), read: console_start, grew: Instant::now() };
        State {
            plan,
            qemu,
            fallback,
            console_start,
            watch,
            ready: false,
            asked: Instant::now(),
            gauge: Gauge::default(),
            hang: HangRule::default(),
        }
    }

    /// Reads what is new on the console.
    pub(crate) fn look(&mut self, console: &Console) -> std::io::Result<()> {
        loop {
            let (bytes, next) = console.read_from(self.watch.read)?;
            if bytes.is_empty() {
                return Ok(());
            }
            self.watch.watcher.feed(&bytes);
            self.watch.read = next;
            self.watch.grew = Instant::now();
        }
    }
}

fn kill(state: &mut State) -> Result<Exit, LaunchError> {
    let file = |source| LaunchError::File {
        guest: state.plan.name.clone(),
        what: "process of",
        path: state.plan.qmp_socket(),
        source,
    };
    state.qemu.process.kill().map_err(file)
}

pub(crate) fn console_length(plan: &LaunchPlan, console: &Console) -> Result<u64, LaunchError> {
    let file =
        |source| LaunchError::File { guest: plan.name.clone(), what: "log", path: console.path().into(), source };
    console.len().map_err(file)
}

/// The nonce after this one; 0 means "none" to the channel.
fn next_nonce(nonce: u32) -> u32 {
    nonce.checked_add(1).unwrap_or(1)
}
