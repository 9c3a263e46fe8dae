//! The race of a boot: the agent's greeting against QEMU's exit, a crash on the console, a stopped machine, the clock.

use std::thread;
use std::time::{Duration, Instant};

use progress::Progress;
use protocol::ChannelError;

use crate::accel::{Accelerator, Engine, Fault, Verdicts};
use crate::boot::{BootError, Hint, Ready};
use crate::console::{Console, ConsoleTail};
use crate::crash::Severity;
use crate::device::Lost;
use crate::hints;
use crate::machine::{Machine, State};
use crate::process::Exit;
use crate::trial::{hypervisor_fault, remember};

/// One round of the race; the greeting itself wakes us at once.
const ROUND: Duration = Duration::from_millis(20);

/// Pause between questions about the health of a silent hypervisor.
const ASK: Duration = Duration::from_millis(500);

/// Console lines shown in an error.
const LINES: usize = 15;

/// How long a report may take to be written once its first line is there.
const REPORT: Duration = Duration::from_secs(3);

/// What a round of the race found.
enum Found {
    Ready(Ready),
    Fault(Fault),
    Error(BootError),
}

impl Machine {
    /// Waits until the agent has greeted us, or says why it will not.
    ///
    /// `timeout` counts from QEMU's start. If the hypervisor fails under `auto`, the guest is started again on TCG with
    /// the whole timeout before it.
    pub fn wait_ready(&self, timeout: Duration, progress: &Progress) -> Result<Ready, BootError> {
        loop {
            progress.check_cancelled()?;
            // The lock is released before the wait: others may ask how the guest is.
            let (session, started) = {
                let state = self.lock();
                (state.qemu.session.0.clone(), state.qemu.started)
            };
            let greeted = session.wait_hello(ROUND);
            let left = timeout.checked_sub(started.elapsed());
            match self.round(greeted, timeout, left)? {
                None => {}
                Some(Found::Ready(ready)) => {
                    self.acquit(&ready);
                    return Ok(ready);
                }
                Some(Found::Error(error)) => return Err(error),
                Some(Found::Fault(fault)) => self.fall_back(&fault, progress)?,
            }
        }
    }

    fn round(
        &self,
        greeted: Result<protocol::Hello, ChannelError>,
        timeout: Duration,
        left: Option<Duration>,
    ) -> Result<Option<Found>, BootError> {
        let mut state = self.lock();
        let closed = match greeted {
            Ok(hello) => {
                state.ready = true;
                return Ok(Some(Found::Ready(Ready {
                    hello,
                    took: state.qemu.started.elapsed(),
                    engine: state.qemu.engine,
                    fallback: state.fallback.clone(),
                })));
            }
            Err(ChannelError::NoHello { .. }) => false,
            // Whoever closed it will be found below; if nobody did, time will be up.
            Err(ChannelError::Closed { .. }) => true,
            Err(source) => return Ok(Some(Found::Error(BootError::Agent { guest: state.plan.name.clone(), source }))),
        };
        let log = |state: &State, source| BootError::Log {
            guest: state.plan.name.clone(),
            path: self.console_path().into(),
            source,
        };
        let exit = state.qemu.process.try_wait().ok().flatten();
        state.look(self.console()).map_err(|e| log(&state, e))?;
        if exit.is_some() {
            state.watch.watcher.finish();
        }
        let dead = state.crash(exit.is_some()).filter(|c| c.severity() == Severity::Dead);
        if dead.is_some() {
            return Ok(Some(Found::Error(state.crashed(self.console()))));
        }
        if let Some(exit) = exit {
            return Ok(Some(state.ended(exit, self.console())));
        }
        if let Some(Lost { nic, exit, said }) = state.qemu.lost_device() {
            let guest = state.plan.name.clone();
            return Ok(Some(Found::Error(BootError::DeviceLost { guest, nic, exit, said })));
        }
        if let Some(fault) = fault(&mut state) {
            let auto = state.plan.accelerator == Accelerator::Auto && state.qemu.engine == Engine::Kvm;
            return Ok(Some(if auto {
                Found::Fault(fault)
            } else {
                Found::Error(state.stopped(&fault, self.console()))
            }));
        }
        if left.is_none() {
            return Ok(Some(Found::Error(state.late(timeout, self.console()))));
        }
        drop(state);
        if closed {
            thread::sleep(ROUND);
        }
        Ok(None)
    }

    /// A kernel that KVM could not run and TCG can is not to blame.
    fn acquit(&self, ready: &Ready) {
        let plan = self.plan();
        if let (Some(dir), true, Engine::Tcg) = (&plan.verdict_dir, ready.fallback.is_some(), ready.engine) {
            // Only costs another try next time.
            let _ = Verdicts::new(dir).ran_elsewhere(&plan.kernel);
        }
    }

    fn fall_back(&self, fault: &Fault, progress: &Progress) -> Result<(), BootError> {
        let plan = {
            let mut state = self.lock();
            // An error here would mean a process that cannot be killed; starting the next one reports the sockets.
            let _ = state.qemu.process.kill();
            state.plan.clone()
        };
        remember(&plan, Some(fault), progress);
        let reason = fault.reason().to_owned();
        progress.warn(format!("guest `{}`: KVM gave up ({reason}); starting again with TCG", plan.name));
        self.replace(plan, Engine::Tcg, Some(reason), progress)?;
        Ok(())
    }
}

/// Asks QEMU only when an event says that the machine stopped, or now and then while a kernel under KVM is silent: the
/// question is cheap, but it wakes QEMU's main loop.
fn fault(state: &mut State) -> Option<Fault> {
    let stopped = state.qemu.qmp.events(0).iter().any(|e| e.name == "STOP");
    let silent = state.qemu.engine == Engine::Kvm && state.watch.read == state.console_start;
    let due = silent && state.asked.elapsed() > ASK;
    if !stopped && !due {
        return None;
    }
    state.asked = Instant::now();
    hypervisor_fault(&state.qemu)
}

impl State {
    fn tail(&self, console: &Console) -> ConsoleTail {
        console.last_lines(self.console_start, LINES).unwrap_or_default()
    }

    /// The console of this boot as text, for hints.
    fn text(&self, console: &Console) -> String {
        console.last_lines(self.console_start, usize::MAX).unwrap_or_default().0.join("\n")
    }

    /// A crash, as an error, once its report is complete.
    fn crashed(&mut self, console: &Console) -> BootError {
        let begun = Instant::now();
        while begun.elapsed() < REPORT && !matches!(self.qemu.process.try_wait(), Ok(Some(_))) {
            thread::sleep(ROUND);
        }
        // What could not be read is missing from the report; the report itself is there.
        let _ = self.look(console);
        self.watch.watcher.finish();
        let (guest, engine) = (self.plan.name.clone(), self.qemu.engine);
        match self.crash(true) {
            Some(crash) => BootError::Crashed {
                guest,
                engine,
                crash: Box::new(crash),
                console: self.tail(console),
                hint: hints::console(&self.text(console)),
            },
            None => self.late(begun.elapsed(), console),
        }
    }

    fn ended(&self, exit: Exit, console: &Console) -> Found {
        let after = self.qemu.started.elapsed();
        let said = self.qemu.said(LINES);
        let kvm = said.0.iter().find(|l| l.contains("KVM") || l.contains("kvm"));
        if let Some(line) = kvm
            && self.plan.accelerator == Accelerator::Auto
            && self.qemu.engine == Engine::Kvm
        {
            return Found::Fault(Fault::Hypervisor(line.clone()));
        }
        let hint = match hints::qemu(&said.0.join("\n")) {
            Hint(None) => hints::console(&self.text(console)),
            known => known,
        };
        let guest = self.plan.name.clone();
        Found::Error(BootError::Exited { guest, exit, after, said, console: self.tail(console), hint })
    }

    fn stopped(&self, fault: &Fault, console: &Console) -> BootError {
        BootError::Stopped {
            guest: self.plan.name.clone(),
            engine: self.qemu.engine,
            status: fault.reason().to_owned(),
            said: self.qemu.said(LINES),
            console: self.tail(console),
            hint: Hint(Some("this hypervisor cannot run the guest: choose accelerator `auto` or `tcg`".into())),
        }
    }

    fn late(&mut self, waited: Duration, console: &Console) -> BootError {
        // Two looks make one measurement.
        self.activity();
        thread::sleep(Duration::from_millis(1050));
        let activity = self.activity().to_string();
        // An oops or a lockup explains the silence better than the silence itself.
        self.watch.watcher.finish();
        let (guest, engine) = (self.plan.name.clone(), self.qemu.engine);
        let broken = self.crash(true).filter(|c| c.severity() >= Severity::Broken);
        let (text, tail) = (self.text(console), self.tail(console));
        match broken {
            Some(crash) => {
                BootError::Crashed { guest, engine, crash: Box::new(crash), console: tail, hint: hints::console(&text) }
            }
            None => BootError::Timeout { guest, engine, waited, activity, console: tail, hint: hints::silence(&text) },
        }
    }
}
