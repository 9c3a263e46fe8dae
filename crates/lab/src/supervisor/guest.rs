//! One guest under supervision: a thread that launches it, watches it, resets it on request and powers it off.
//!
//! The thread owns the machine and lives as long as the lab, which matters: QEMU is killed when the thread that
//! started it dies (`PR_SET_PDEATHSIG`, prctl(2)). Everyone else sees the guest through [`Slot`]: its state behind a
//! lock, its channel, and a queue of commands.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use machine::crash::Crash;
use machine::{Health, Machine};
use progress::Progress;
use protocol::host::Session;
use suite::CrashInfo;

use crate::control::{GuestStatus, HealthReport};
use crate::launch::GuestLaunch;
use crate::supervisor::network;

/// How often a guest that nobody asks about is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How long a guest has to power off in order.
const POWER_OFF: Duration = Duration::from_secs(10);

/// What a guest is doing.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// On its way up.
    Booting,
    /// Its agent answers.
    Ready,
    /// Its console showed a crash.
    Crashed(CrashInfo),
    /// Its agent went silent.
    Hung(Duration),
    /// There is no machine, and why.
    Down(String),
}

/// What is known about a guest now.
pub(crate) struct State {
    pub phase: Phase,
    pub session: Option<Session>,
    pub accelerator: String,
    pub pid: Option<i32>,
    pub boot_ms: Option<u64>,
    pub boots: u32,
}

pub(crate) enum Command {
    Reboot { reason: String, reply: Sender<Result<()>> },
    Stop { reply: Sender<()> },
}

/// A guest as the rest of the supervisor sees it.
pub(crate) struct Slot {
    pub launch: GuestLaunch,
    pub boot_timeout: Duration,
    state: Mutex<State>,
    changed: Condvar,
    commands: Sender<Command>,
}

impl Slot {
    /// A slot and the receiving end of its commands, for [`watch`].
    pub fn new(launch: GuestLaunch, boot_timeout: Duration) -> (Self, Receiver<Command>) {
        let (commands, receiver) = channel();
        let state = State {
            phase: Phase::Booting,
            session: None,
            accelerator: String::new(),
            pid: None,
            boot_ms: None,
            boots: 0,
        };
        (Slot { launch, boot_timeout, state: Mutex::new(state), changed: Condvar::new(), commands }, receiver)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.state());
        self.changed.notify_all();
    }

    /// The channel to the agent.
    ///
    /// # Errors
    /// Why there is none.
    pub fn session(&self) -> Result<Session> {
        let state = self.state();
        match (&state.phase, &state.session) {
            (Phase::Ready | Phase::Hung(_) | Phase::Crashed(_), Some(session)) => Ok(session.clone()),
            (Phase::Booting, _) => bail!("guest `{}` is still booting", self.launch.plan.name),
            (Phase::Crashed(info), _) => bail!("guest `{}` crashed: {}", self.launch.plan.name, info.title),
            (Phase::Down(why), _) => bail!("guest `{}` is down: {why}", self.launch.plan.name),
            (Phase::Hung(_) | Phase::Ready, None) => bail!("guest `{}` has no channel", self.launch.plan.name),
        }
    }

    /// Waits until the guest is no longer booting.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn wait_settled(&self, timeout: Duration) -> Option<Result<()>> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        loop {
            let name = &self.launch.plan.name;
            match &state.phase {
                Phase::Booting => {}
                Phase::Ready => return Some(Ok(())),
                Phase::Crashed(info) => {
                    return Some(Err(anyhow::anyhow!(
                        "guest `{name}` crashed while booting: {}\n{}",
                        info.title,
                        info.trace
                    )));
                }
                Phase::Hung(_) => return Some(Err(anyhow::anyhow!("guest `{name}` hangs"))),
                Phase::Down(why) => return Some(Err(anyhow::anyhow!("guest `{name}`: {why}"))),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Resets the guest and waits until its agent is ready.
    pub fn reboot(&self, reason: &str) -> Result<()> {
        let (reply, answer) = channel();
        self.commands
            .send(Command::Reboot { reason: reason.into(), reply })
            .map_err(|_| anyhow::anyhow!("guest `{}` is no longer supervised", self.launch.plan.name))?;
        answer.recv().map_err(|_| anyhow::anyhow!("the lab is going down"))?
    }

    /// Powers the guest off; returns when its process is gone.
    pub fn stop(&self) {
        let (reply, answer) = channel();
        if self.commands.send(Command::Stop { reply }).is_ok() {
            let _ = answer.recv();
        }
    }

    /// For health questions.
    pub fn health(&self) -> HealthReport {
        let state = self.state();
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        match &state.phase {
            Phase::Booting => HealthReport::Down { reason: "it is booting".into() },
            Phase::Ready => {
                HealthReport::Alive { idle_us: state.session.as_ref().map_or(0, |s| micros(s.last_heard().elapsed())) }
            }
            Phase::Crashed(info) => HealthReport::Crashed(info.clone()),
            Phase::Hung(idle) => HealthReport::Hung { idle_us: micros(*idle) },
            Phase::Down(reason) => HealthReport::Down { reason: reason.clone() },
        }
    }

    /// For `lab status`.
    pub fn status(&self) -> GuestStatus {
        let state = self.state();
        let (word, detail) = match &state.phase {
            Phase::Booting => ("booting", String::new()),
            Phase::Ready => ("ready", String::new()),
            Phase::Crashed(info) => ("crashed", info.title.clone()),
            Phase::Hung(idle) => ("hung", format!("nothing heard for {} s", idle.as_secs())),
            Phase::Down(why) => ("down", why.clone()),
        };
        let plan = &self.launch.plan;
        GuestStatus {
            name: plan.name.clone(),
            kernel: self.launch.kernel.clone(),
            kernel_release: self.launch.kernel_release.clone(),
            kernel_tree: self.launch.kernel_tree.clone(),
            state: word.into(),
            detail,
            accelerator: state.accelerator.clone(),
            deterministic: plan.icount,
            pid: state.pid,
            boot_ms: state.boot_ms,
            boots: state.boots,
            console: plan.console_log(),
            gdb: plan
                .gdb
                .as_ref()
                .map(|g| g.listen.map_or_else(|| plan.gdb_socket().display().to_string(), |a| a.to_string())),
            nics: self.launch.nics.clone(),
        }
    }
}

/// The body of a guest's thread: until [`Command::Stop`], keeps the machine and its [`Slot`] true to each other.
pub(crate) fn watch(slot: &Slot, commands: &Receiver<Command>, progress: &Progress) {
    let mut machine = None;
    // The error is in the slot, for whoever asks.
    let _ = boot(slot, &mut machine, progress);
    loop {
        match commands.recv_timeout(LOOK) {
            Ok(Command::Reboot { reason, reply }) => {
                progress.info(format!("guest `{}` is rebooted: {reason}", slot.launch.plan.name));
                // Whoever asked may be gone by now.
                let _ = reply.send(boot(slot, &mut machine, progress));
            }
            Ok(Command::Stop { reply }) => {
                slot.update(|s| (s.session, s.phase) = (None, Phase::Down("the lab is going down".into())));
                if let Some(machine) = machine.take()
                    && let Err(e) = machine.power_down(POWER_OFF)
                {
                    progress.warn(format!("guest `{}`: {e}", slot.launch.plan.name));
                }
                slot.update(|s| s.pid = None);
                let _ = reply.send(());
                return;
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(machine) = &machine {
                    look(slot, machine);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Launches the guest, or resets it when it was launched before, and brings it to where a test may use it. A machine that
/// ended stays here: its console's log goes on with the next boot.
fn boot(slot: &Slot, machine: &mut Option<Machine>, progress: &Progress) -> Result<()> {
    let name = &slot.launch.plan.name;
    slot.update(|s| (s.phase, s.boots, s.session) = (Phase::Booting, s.boots + 1, None));
    let step = progress.step(format!("boot:{name}"), format!("boot guest {name} ({})", slot.launch.kernel));
    let mut up = || -> Result<()> {
        let machine = match machine.as_ref() {
            Some(machine) => {
                machine.reset(progress)?;
                machine
            }
            None => &*machine.insert(Machine::launch(slot.launch.plan.clone(), progress)?),
        };
        slot.update(|s| s.pid = Some(machine.process().pid));
        let ready = machine.wait_ready(slot.boot_timeout, progress)?;
        slot.update(|s| {
            s.accelerator = ready.engine.to_string();
            s.pid = Some(machine.process().pid);
            s.boot_ms = u64::try_from(ready.took.as_millis()).ok();
        });
        let session = machine.session();
        network::set_up(&session, &slot.launch)?;
        slot.update(|s| (s.phase, s.session) = (Phase::Ready, Some(session)));
        Ok(())
    };
    let booted = up();
    match &booted {
        Ok(()) => step.done(),
        Err(e) => {
            if let Some(machine) = machine.as_ref() {
                // A guest that did not come up is of no use, and its error was taken down already.
                let _ = machine.kill();
            }
            slot.update(|s| (s.phase, s.pid) = (Phase::Down(format!("{e:#}")), None));
        }
    }
    booted
}

/// Looks whether the machine still lives, whether its console shows a crash, whether its agent is heard.
fn look(slot: &Slot, machine: &Machine) {
    if matches!(slot.state().phase, Phase::Crashed(_) | Phase::Down(_)) {
        return;
    }
    let phase = match machine.health() {
        // A debugger that holds the guest is no reason to call it hung.
        Health::Alive { .. } | Health::Booting { .. } | Health::Paused { .. } => Phase::Ready,
        Health::Crashed(crash) => Phase::Crashed(describe(&crash, &slot.launch)),
        Health::Hung { idle, .. } => Phase::Hung(idle),
        Health::Down { exit } => Phase::Down(format!("QEMU ended with {exit}")),
        Health::DeviceLost { nic, exit, said } => {
            // QEMU has no way to get the device back, and every access to it from now on would time out.
            let _ = machine.kill();
            Phase::Down(format!("the device process of NIC {nic} ended with {exit}: {said}"))
        }
    };
    let mut state = slot.state();
    if matches!((&state.phase, &phase), (Phase::Ready, Phase::Ready)) {
        return;
    }
    if matches!(phase, Phase::Down(_)) {
        (state.session, state.pid) = (None, None);
    }
    state.phase = phase;
    drop(state);
    slot.changed.notify_all();
}

/// A crash as the suite wants it, with addresses turned into names where the kernel's symbols are at hand.
fn describe(crash: &Crash, launch: &GuestLaunch) -> CrashInfo {
    CrashInfo {
        kind: crash.kind.to_string(),
        title: crash.title.clone(),
        fingerprint: crash.fingerprint.clone(),
        trace: crate::symbols::decode(crash, launch),
    }
}
