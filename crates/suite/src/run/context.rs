//! One test's hold on its guests: programs it runs and has spawned, their output, and the watch over both.
//!
//! Everything that waits does so through [`Context::pump`], which also takes in what spawned programs print (else
//! they would stall once their credits are used up) and asks [`Context::watch`] whether to go on: cancelled, out of
//! time, crashed and hung are noticed within a quarter of a second wherever the test happens to be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use progress::Progress;
use protocol::{Channel, Event, Exit, Input, Request};

use crate::guests::{GuestError, GuestInfo, GuestStream, Guests, Health};
use crate::results::{Crash, Evidence, Metric, Subtest};

/// How long to wait for an event before looking around.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// How often to ask how the guests are.
const HEALTH_EVERY: Duration = Duration::from_millis(250);
/// How long the console may take to show why a channel broke, before the time scale.
const EXPLAIN: Duration = Duration::from_secs(3);
/// How much of one output is kept.
const OUTPUT_LIMIT: usize = 8 << 20;

/// Why a step, and with it the test, ends early.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stop {
    /// Something is not as the test requires.
    Failed(String),
    /// The test says that it cannot run here.
    Skipped(String),
    /// The test says of itself that it failed as expected.
    Xfailed(String),
    /// The test says of itself that it passed unexpectedly.
    Xpassed(String),
    /// The kernel crashed.
    Crashed(Crash),
    /// A guest no longer answers.
    Hung(String),
    /// The test's own time, or the step's, is up.
    TimedOut,
    /// The lab did not do its part.
    Infrastructure(String),
    /// Somebody wants the run to end.
    Cancelled,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Failed(why)
            | Stop::Skipped(why)
            | Stop::Xfailed(why)
            | Stop::Xpassed(why)
            | Stop::Hung(why)
            | Stop::Infrastructure(why) => f.write_str(why),
            Stop::Crashed(crash) => write!(f, "guest `{}`: {}: {}", crash.guest, crash.info.kind, crash.info.title),
            Stop::TimedOut => f.write_str("time ran out"),
            Stop::Cancelled => f.write_str("interrupted"),
        }
    }
}

impl From<GuestError> for Stop {
    fn from(error: GuestError) -> Self {
        match error {
            // The agent runs and says no: a program that is not there, a path that cannot be written.
            GuestError::Refused { .. } => Stop::Failed(error.to_string()),
            other => Stop::Infrastructure(other.to_string()),
        }
    }
}

/// What a program has printed, and how it ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Bytes beyond the limit that were not kept.
    pub dropped: u64,
    pub exit: Option<Exit>,
}

impl Output {
    pub(super) fn take(&mut self, channel: Channel, bytes: &[u8]) {
        let kept = match channel {
            Channel::Stdout => &mut self.stdout,
            Channel::Stderr => &mut self.stderr,
        };
        let room = OUTPUT_LIMIT.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
        self.dropped += (bytes.len() - room) as u64;
    }

    /// The last lines that say something: of standard error if there are any, else of standard output.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let says = |line: &&str| line.chars().any(char::is_alphanumeric);
        let of = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let all: Vec<&str> = text.lines().filter(says).collect();
            all[all.len().saturating_sub(lines)..].iter().map(|line| line.trim().to_string()).collect::<Vec<_>>()
        };
        Some(of(&self.stderr)).filter(|told| !told.is_empty()).unwrap_or_else(|| of(&self.stdout))
    }
}

/// A program that was started and has not been waited for.
pub(super) struct Running {
    pub role: String,
    pub stream: Box<dyn GuestStream>,
}

/// State of one test under way.
pub(crate) struct Context<'a> {
    guests: &'a dyn Guests,
    progress: &'a Progress,
    /// Every guest of the lab.
    pub infos: Vec<GuestInfo>,
    /// Role → guest.
    pub roles: BTreeMap<String, String>,
    /// Values of `{nic.ROLE.FIELD}`.
    pub nics: BTreeMap<String, String>,
    /// The control group of everything the test runs.
    pub scope: String,
    /// Factor of every limit.
    pub scale: f64,
    deadline: Instant,
    next_look: Instant,
    /// When output last came.
    pub last_output: Instant,
    /// The program being waited for, when it is not a spawned one.
    pub current: Option<String>,
    pub(super) outputs: BTreeMap<String, Output>,
    pub(super) running: BTreeMap<String, Running>,
    /// Labels of spawned programs that nobody has waited for.
    pub(super) unjoined: BTreeSet<String>,
    /// Whether a spawned program that fails ends the step under way.
    pub guard_spawned: bool,
    pub metrics: Vec<Metric>,
    /// Readings that were put aside, by name.
    pub kept: BTreeMap<String, BTreeMap<String, f64>>,
    pub evidence: Vec<Evidence>,
    pub subtests: Vec<Subtest>,
    pub notes: Vec<String>,
    /// Files pulled from guests: name and content.
    pub files: Vec<(String, Vec<u8>)>,
}

impl<'a> Context<'a> {
    pub fn new(guests: &'a dyn Guests, progress: &'a Progress, roles: BTreeMap<String, String>, scope: &str) -> Self {
        let now = Instant::now();
        Context {
            guests,
            progress,
            infos: Vec::new(),
            roles,
            nics: BTreeMap::new(),
            scope: scope.into(),
            scale: 1.0,
            deadline: now,
            next_look: now,
            last_output: now,
            current: None,
            outputs: BTreeMap::new(),
            running: BTreeMap::new(),
            unjoined: BTreeSet::new(),
            guard_spawned: false,
            metrics: Vec::new(),
            kept: BTreeMap::new(),
            evidence: Vec::new(),
            subtests: Vec::new(),
            notes: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Gives what follows this long, stretched by the time scale.
    pub fn allow(&mut self, time: Duration) {
        self.deadline = Instant::now() + time.mul_f64(self.scale);
    }

    /// The lab.
    pub fn guests(&self) -> &'a dyn Guests {
        self.guests
    }

    /// The guest that plays a role.
    pub fn guest(&self, role: &str) -> Result<String, Stop> {
        let known = self.roles.get(role).cloned();
        known.ok_or_else(|| Stop::Infrastructure(format!("no guest plays the role `{role}`")))
    }

    /// What the lab says of the guest that plays a role.
    pub fn guest_info(&self, role: &str) -> Result<GuestInfo, Stop> {
        let guest = self.guest(role)?;
        let known = self.infos.iter().find(|info| info.name == guest).cloned();
        known.ok_or_else(|| Stop::Infrastructure(format!("the lab has no guest `{guest}`")))
    }

    /// Fills `{nic.…}` into a string of the test.
    pub fn fill(&self, text: &str) -> Result<String, Stop> {
        crate::vars::fill_nics(text, &self.nics).map_err(Stop::Infrastructure)
    }

    /// Whether to go on.
    pub(super) fn watch(&mut self) -> Result<(), Stop> {
        if self.progress.cancel().is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + HEALTH_EVERY;
            for guest in self.roles.values() {
                match self.guests.health(guest) {
                    Health::Alive { .. } => {}
                    Health::Crashed(info) => return Err(Stop::Crashed(Crash { guest: guest.clone(), info })),
                    Health::Hung { idle } => {
                        let text = format!("guest `{guest}` has not been heard for {:.1} s", idle.as_secs_f64());
                        return Err(Stop::Hung(text));
                    }
                    Health::Down { reason } => {
                        return Err(Stop::Infrastructure(format!("guest `{guest}` went down: {reason}")));
                    }
                }
            }
        }
        if now >= self.deadline { Err(Stop::TimedOut) } else { Ok(()) }
    }

    /// A channel broke. A dying kernel takes its agent along, so the console gets a moment to say so first.
    pub(super) fn explain(&mut self, error: GuestError) -> Stop {
        if matches!(error, GuestError::Refused { .. } | GuestError::Unknown(_)) {
            return error.into();
        }
        let patience = Instant::now() + EXPLAIN.mul_f64(self.scale);
        while Instant::now() < patience {
            for guest in self.roles.values() {
                if let Health::Crashed(info) = self.guests.health(guest) {
                    return Stop::Crashed(Crash { guest: guest.clone(), info });
                }
            }
            if self.progress.cancel().is_cancelled() {
                return Stop::Cancelled;
            }
            std::thread::sleep(TICK);
        }
        error.into()
    }

    /// Takes in what spawned programs have printed meanwhile.
    pub(super) fn drain(&mut self) -> Result<(), Stop> {
        let labels: Vec<String> = self.running.keys().cloned().collect();
        for label in labels {
            while let Some(running) = self.running.get_mut(&label) {
                match running.stream.recv(Duration::ZERO) {
                    Ok(Some(event)) => self.spawned_event(&label, event)?,
                    Ok(None) => break,
                    Err(error) => return Err(self.explain(error)),
                }
            }
        }
        Ok(())
    }

    pub(super) fn spawned_event(&mut self, label: &str, event: Event) -> Result<(), Stop> {
        let output = self.outputs.entry(label.into()).or_default();
        match event {
            Event::Output { channel, bytes } => {
                self.last_output = Instant::now();
                output.take(channel, &bytes);
            }
            Event::Exited(exit) => {
                let fell = !exit.success();
                output.exit = Some(exit.clone());
                self.running.remove(label);
                if fell && self.guard_spawned {
                    return Err(Stop::Failed(self.ending(label, &exit)));
                }
            }
            Event::Failed(failure) => {
                self.running.remove(label);
                return Err(Stop::Failed(format!("`{label}` did not start: {}", failure.message)));
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends a request and hands every event to `take` until that returns something. `limit` is the step's own, if it
    /// has one; the test's counts anyway.
    pub fn pump<T>(
        &mut self,
        role: &str,
        request: Request,
        limit: Option<Duration>,
        take: impl FnMut(&mut Self, Event) -> Result<Option<T>, Stop>,
    ) -> Result<T, Stop> {
        let mut stream = self.open(role, request)?;
        self.pump_stream(stream.as_mut(), limit, take)
    }

    /// As [`Context::pump`], with input sent first.
    pub fn call<T>(
        &mut self,
        role: &str,
        request: Request,
        inputs: Vec<Input>,
        limit: Option<Duration>,
        take: impl FnMut(&mut Self, Event) -> Result<Option<T>, Stop>,
    ) -> Result<T, Stop> {
        let mut stream = self.open(role, request)?;
        for input in inputs {
            stream.send(input).map_err(|error| self.explain(error))?;
        }
        self.pump_stream(stream.as_mut(), limit, take)
    }

    pub(super) fn pump_stream<T>(
        &mut self,
        stream: &mut dyn GuestStream,
        limit: Option<Duration>,
        mut take: impl FnMut(&mut Self, Event) -> Result<Option<T>, Stop>,
    ) -> Result<T, Stop> {
        let limit = limit.map(|limit| Instant::now() + limit.mul_f64(self.scale));
        loop {
            match stream.recv(TICK) {
                Ok(Some(event)) => {
                    if let Some(done) = take(self, event)? {
                        return Ok(done);
                    }
                }
                Ok(None) => {}
                Err(error) => return Err(self.explain(error)),
            }
            self.drain()?;
            self.watch()?;
            if limit.is_some_and(|limit| Instant::now() >= limit) {
                return Err(Stop::TimedOut);
            }
        }
    }

    pub(super) fn open(&mut self, role: &str, request: Request) -> Result<Box<dyn GuestStream>, Stop> {
        let guest = self.guest(role)?;
        self.guests.open(&guest, request).map_err(|error| self.explain(error))
    }
}
