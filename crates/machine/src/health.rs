//! How a guest is, telling quiet from busy from dead.
//!
//! A guest whose heartbeat is late may be asleep for good (its virtual CPUs are halted and nothing wakes the agent),
//! spinning (they run and the agent gets no turn), or starved (they would run if the host let them). The threads of
//! the virtual CPUs tell: their time on a CPU and their time waiting for one, against the clock. A halted guest that
//! misses heartbeats is soon declared hung, a spinning one later (the kernel's own watchdogs speak first, and their
//! report is better than ours), a starved one last.

use std::fmt;
use std::time::{Duration, Instant};

use crate::crash::{Crash, Severity};
use crate::machine::{Machine, State};
use crate::process::{Exit, ThreadTime};

/// How a guest is.
#[derive(Debug, Clone, PartialEq)]
pub enum Health {
    /// QEMU runs and the agent has not greeted yet.
    Booting {
        /// Since QEMU's start.
        since: Duration,
    },
    /// The agent answers, or has been silent for too short a time to say.
    Alive {
        /// Since it was last heard.
        idle: Duration,
    },
    /// The console shows a crash.
    Crashed(Box<Crash>),
    /// The agent has been silent for too long and the console says nothing.
    Hung {
        /// Since it was last heard.
        idle: Duration,
        /// What the virtual CPUs do.
        activity: Activity,
    },
    /// The machine is stopped from outside, for instance by gdb.
    Paused {
        /// QEMU's run state.
        status: String,
    },
    /// A device that is a process of its own has ended, and the machine cannot go on without it.
    DeviceLost {
        /// Which NIC, from 0.
        nic: usize,
        /// How it ended.
        exit: Exit,
        /// Its last line.
        said: String,
    },
    /// QEMU has ended with no crash on the console.
    Down {
        /// How.
        exit: Exit,
    },
}

/// What the virtual CPUs were doing since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Not known: too short a time, or the host does not tell.
    Unknown,
    /// They wait for an interrupt.
    Halted,
    /// At least one executes; the number is percent of one CPU, all together.
    Busy(u32),
    /// They want to execute and mostly wait for a CPU of the host.
    Starved,
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Activity::Unknown => f.write_str("unknown"),
            Activity::Halted => f.write_str("halted"),
            Activity::Busy(percent) => write!(f, "busy, {percent} % of a CPU"),
            Activity::Starved => f.write_str("waiting for a CPU of the host"),
        }
    }
}

/// How long an agent may be silent, by what the virtual CPUs do. The agent's heartbeat comes every second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HangRule {
    /// While they are halted.
    pub halted: Duration,
    /// While they execute. The kernel's soft-lockup watchdog reports after 20 s, its RCU stall detector after 21 s.
    pub busy: Duration,
    /// While the host starves them, or nothing is known.
    pub starved: Duration,
}

impl Default for HangRule {
    fn default() -> Self {
        HangRule { halted: Duration::from_secs(15), busy: Duration::from_secs(60), starved: Duration::from_secs(180) }
    }
}

/// Two looks at the virtual CPUs' threads.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    threads: Vec<i64>,
    last: Option<(Instant, ThreadTime)>,
    activity: Option<Activity>,
}

/// Shortest time between two looks, and between two questions to QEMU.
const LOOK: Duration = Duration::from_secs(1);

/// A report without an end mark counts as complete when the console has been quiet for this long.
const SETTLE: Duration = Duration::from_millis(1500);

impl Machine {
    /// How the guest is now. Cheap enough to ask several times a second.
    pub fn health(&self) -> Health {
        let mut state = self.lock();
        let exit = state.qemu.process.try_wait().ok().flatten();
        // An unreadable log means no crash is seen; the machine's other signs still count.
        let _ = state.look(self.console());
        if exit.is_some() {
            state.watch.watcher.finish();
        }
        if let Some(crash) = state.crash(exit.is_some()) {
            return Health::Crashed(Box::new(crash));
        }
        if let Some(exit) = exit {
            return Health::Down { exit };
        }
        if let Some(lost) = state.qemu.lost_device() {
            let said = lost.said.0.last().cloned().unwrap_or_default();
            return Health::DeviceLost { nic: lost.nic, exit: lost.exit, said };
        }
        if !state.ready {
            return Health::Booting { since: state.qemu.started.elapsed() };
        }
        let idle = state.qemu.session.0.last_heard().elapsed();
        if idle < 2 * LOOK {
            return Health::Alive { idle };
        }
        let activity = state.activity();
        if idle < state.hang.halted {
            return Health::Alive { idle };
        }
        if let Ok(status) = state.qemu.qmp.status()
            && !matches!(status, qapi::qmp::RunState::running)
        {
            return Health::Paused { status: qapi::Enum::name(&status).to_owned() };
        }
        let limit = match activity {
            Activity::Halted => state.hang.halted,
            Activity::Busy(_) => state.hang.busy,
            Activity::Starved | Activity::Unknown => state.hang.starved,
        };
        if idle < limit { Health::Alive { idle } } else { Health::Hung { idle, activity } }
    }
}

impl State {
    /// The first crash of this boot that is worse than a complaint, else the first complaint; once it is all there.
    pub(crate) fn crash(&self, ended: bool) -> Option<Crash> {
        let crashes = self.watch.watcher.crashes();
        let complete = |c: &&Crash| c.complete || ended || self.watch.grew.elapsed() > SETTLE;
        let worst = crashes.iter().max_by_key(|c| (c.severity(), std::cmp::Reverse(c.offset)))?;
        (worst.severity() >= Severity::Complaint).then_some(worst).filter(complete).cloned()
    }

    /// What the virtual CPUs have been doing lately.
    pub(crate) fn activity(&mut self) -> Activity {
        if self.gauge.threads.is_empty() {
            self.gauge.threads = self.qemu.qmp.cpu_threads().unwrap_or_default();
        }
        let pid = self.qemu.process.id().pid;
        let times = self.gauge.threads.iter().map(|&tid| ThreadTime::of(pid, tid));
        let now = times.fold(ThreadTime::default(), |a, b| ThreadTime {
            ran_ns: a.ran_ns + b.ran_ns,
            waited_ns: a.waited_ns + b.waited_ns,
        });
        self.gauge.look(Instant::now(), now)
    }
}

impl Gauge {
    fn look(&mut self, at: Instant, now: ThreadTime) -> Activity {
        let known = self.activity.unwrap_or(Activity::Unknown);
        let Some((before, last)) = self.last else {
            self.last = Some((at, now));
            return known;
        };
        let clock = at.duration_since(before);
        if clock < LOOK {
            return known;
        }
        self.last = Some((at, now));
        let activity =
            classify(clock, now.ran_ns.saturating_sub(last.ran_ns), now.waited_ns.saturating_sub(last.waited_ns));
        // A look after a long pause says little about the present.
        let activity = if clock > 10 * LOOK { Activity::Unknown } else { activity };
        self.activity = Some(activity);
        activity
    }
}

/// A halted virtual CPU still wakes for timers: under TCG that costs a few percent of a CPU.
const HALTED_PERCENT: u64 = 15;

fn classify(clock: Duration, ran_ns: u64, waited_ns: u64) -> Activity {
    let clock_ns = u64::try_from(clock.as_nanos()).unwrap_or(u64::MAX).max(1);
    let percent = |ns: u64| ns.saturating_mul(100) / clock_ns;
    let (ran, waited) = (percent(ran_ns), percent(waited_ns));
    if ran + waited < HALTED_PERCENT {
        Activity::Halted
    } else if waited > 2 * ran {
        Activity::Starved
    } else {
        Activity::Busy(u32::try_from(ran).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn quiet_busy_and_starved_are_told_apart() {
        let clock = Duration::from_secs(1);
        assert_eq!(classify(clock, SECOND / 50, SECOND / 100), Activity::Halted);
        assert_eq!(classify(clock, SECOND, 0), Activity::Busy(100));
        assert_eq!(classify(clock, 2 * SECOND, SECOND / 2), Activity::Busy(200));
        assert_eq!(classify(clock, SECOND / 4, 3 * SECOND / 4), Activity::Starved);
    }

    #[test]
    fn a_gauge_needs_two_looks_a_second_apart() {
        let mut gauge = Gauge::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let ran = |ran_ns| ThreadTime { ran_ns, waited_ns: 0 };
        assert_eq!(gauge.look(at(0), ran(0)), Activity::Unknown);
        assert_eq!(gauge.look(at(500), ran(SECOND / 2)), Activity::Unknown);
        assert_eq!(gauge.look(at(1000), ran(SECOND)), Activity::Busy(100));
        assert_eq!(gauge.look(at(1500), ran(SECOND)), Activity::Busy(100));
        assert_eq!(gauge.look(at(2500), ran(SECOND)), Activity::Halted);
        assert_eq!(gauge.look(at(60_000), ran(SECOND)), Activity::Unknown);
    }
}
