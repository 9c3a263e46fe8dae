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

use crate::accel::{self, Accelerator, Engine, Fault, Known, Verdicts};
use crate::boot::LaunchError;
use crate::console::Console;
use crate::crash::{Crash, Watcher};
use crate::health::{Gauge, HangRule};
use crate::plan::LaunchPlan;
use crate::process::{Exit, ProcessId, ThreadTime};
use crate::qmp::Qmp;
use crate::start::Qemu;

/// How much CPU time a virtual CPU under KVM may use before the kernel's first console byte. A working KVM needs a few
/// tenths of a second for firmware and decompression; CPU time, unlike the clock, does not run on a busy host.
const KVM_EFFORT: Duration = Duration::from_secs(2);

/// How long a kernel under KVM may stay silent, whatever the host's load.
const KVM_SILENCE: Duration = Duration::from_secs(20);

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
        let (qemu, fallback) = first_start(&plan, &console, progress)?;
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

fn console_length(plan: &LaunchPlan, console: &Console) -> Result<u64, LaunchError> {
    let file =
        |source| LaunchError::File { guest: plan.name.clone(), what: "log", path: console.path().into(), source };
    console.len().map_err(file)
}

/// The nonce after this one; 0 means "none" to the channel.
fn next_nonce(nonce: u32) -> u32 {
    nonce.checked_add(1).unwrap_or(1)
}

/// Decides the accelerator by trying.
fn first_start(
    plan: &LaunchPlan,
    console: &Console,
    progress: &Progress,
) -> Result<(Qemu, Option<String>), LaunchError> {
    let tcg = |reason: String, remembered: bool| {
        let remembered = if remembered { ", as seen before in this boot of the host" } else { "" };
        progress.warn(format!("guest `{}`: KVM is not used ({reason}{remembered}); emulating with TCG", plan.name));
        Ok((Qemu::start(plan, Engine::Tcg, progress)?, Some(reason)))
    };
    match plan.accelerator {
        Accelerator::Tcg => return Ok((Qemu::start(plan, Engine::Tcg, progress)?, None)),
        Accelerator::Kvm => {
            accel::kvm_opens().map_err(|reason| LaunchError::NoKvm { guest: plan.name.clone(), reason })?;
            return Ok((Qemu::start(plan, Engine::Kvm, progress)?, None));
        }
        Accelerator::Auto if plan.icount => {
            return Ok((Qemu::start(plan, Engine::Tcg, progress)?, Some("deterministic time needs TCG".into())));
        }
        Accelerator::Auto => {}
    }
    if let Err(reason) = accel::kvm_opens() {
        return tcg(reason, false);
    }
    let verdicts = plan.verdict_dir.as_ref().map(Verdicts::new);
    // Held until there is a verdict, so that guests started together do not all try. Not being able to remember costs
    // time, not correctness.
    let _turn = verdicts.as_ref().and_then(|v| v.lock().ok());
    match verdicts.as_ref().map_or(Known::Nothing, |v| v.known(&plan.kernel)) {
        Known::Works => return Ok((Qemu::start(plan, Engine::Kvm, progress)?, None)),
        Known::Broken(reason) => return tcg(reason, true),
        Known::Nothing => {}
    }
    let fault = match Qemu::start(plan, Engine::Kvm, progress) {
        Ok(mut qemu) => match prove(plan, &mut qemu, console, progress)? {
            None => {
                remember(plan, None, progress);
                return Ok((qemu, None));
            }
            Some(fault) => fault,
        },
        // Anything else that is wrong with the command line will fail again on TCG, and be reported from there.
        Err(LaunchError::Exited { said, exit, .. }) => match said.0.iter().find(|l| l.to_lowercase().contains("kvm")) {
            Some(line) => Fault::Hypervisor(line.clone()),
            None => Fault::Kernel(format!("QEMU ended with {exit}")),
        },
        Err(other) => return Err(other),
    };
    remember(plan, Some(&fault), progress);
    // What the attempt wrote is not part of the boot that counts, and QEMU appends.
    let log = |source| LaunchError::File { guest: plan.name.clone(), what: "log", path: console.path().into(), source };
    std::fs::File::create(console.path()).map_err(log)?;
    tcg(fault.reason().to_owned(), false)
}

/// Writes a verdict down. A memory that cannot be written is worth a word, no more.
pub(crate) fn remember(plan: &LaunchPlan, fault: Option<&Fault>, progress: &Progress) {
    let Some(dir) = &plan.verdict_dir else { return };
    let verdicts = Verdicts::new(dir);
    let written = match fault {
        None => verdicts.works(),
        Some(fault) => verdicts.fault(&plan.kernel, fault),
    };
    if let Err(e) = written {
        progress.warn(format!("cannot remember in {} whether KVM works: {e}; it will be tried again", dir.display()));
    }
}

/// Watches a machine under KVM until its kernel has spoken (`None`) or has shown that it will not.
fn prove(
    plan: &LaunchPlan,
    qemu: &mut Qemu,
    console: &Console,
    progress: &Progress,
) -> Result<Option<Fault>, LaunchError> {
    if plan.gdb.as_ref().is_some_and(|g| g.hold) {
        return Ok(None);
    }
    let deadline = Instant::now() + KVM_SILENCE;
    let threads = qemu.qmp.cpu_threads().unwrap_or_default();
    let pid = qemu.process.id().pid;
    let effort = || Duration::from_nanos(threads.iter().map(|&tid| ThreadTime::of(pid, tid).ran_ns).sum());
    while Instant::now() < deadline && effort() < KVM_EFFORT {
        progress.check_cancelled()?;
        if let Some(fault) = hypervisor_fault(qemu) {
            return Ok(Some(fault));
        }
        if console_length(plan, console)? > 0 {
            return Ok(None);
        }
        if let Ok(Some(exit)) = qemu.process.try_wait() {
            return Ok(Some(Fault::Kernel(format!("QEMU ended with {exit} before the kernel wrote anything"))));
        }
        let known = qemu.qmp.events(0).len();
        qemu.qmp.wait_event(known, Duration::from_millis(20));
    }
    let (spent, after) = (effort(), qemu.started.elapsed());
    Ok(Some(Fault::Kernel(format!("no console output after {after:.1?} and {spent:.1?} of CPU time"))))
}

/// The hypervisor gave up on the guest.
pub(crate) fn hypervisor_fault(qemu: &Qemu) -> Option<Fault> {
    let stopped = matches!(qemu.qmp.status(), Ok(qapi::qmp::RunState::internal_error));
    stopped.then(|| {
        let first = qemu.said_about("KVM").unwrap_or_else(|| "QEMU reports internal-error".into());
        let why = ["emulation failure", "Suberror"].iter().find_map(|p| qemu.said_about(p)).filter(|l| *l != first);
        Fault::Hypervisor(match why {
            Some(why) => format!("{} ({why})", first.trim_end_matches('.')),
            None => first,
        })
    })
}
