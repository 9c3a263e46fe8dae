//! What the lab is doing, as a stream of typed events.
//!
//! Library crates never draw: they open a [`Step`], feed it, and end it. Whoever started the work hands in a
//! listener ([`Progress::new`]): the terminal's bars, a JSON stream, a log file or a test. The same handle carries
//! cancellation, since whoever listens is also who presses Ctrl-C.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Names one step of a run, for instance `kernel:patched` or `fetch:guest`.
pub type StepId = String;

/// What the numbers of a step count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things of any kind: packages, files, object files, tests.
    Items,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The work was done now.
    Done,
    /// Nothing to do: the result was in the cache.
    Cached,
    /// It did not end well; the error itself travels by `Result`.
    Failed,
}

/// How loud a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Of interest to a person who watches.
    Info,
    /// Something a person should know, though work goes on.
    Warning,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A step began.
    Started {
        /// The step.
        step: StepId,
        /// A phrase for people.
        title: String,
    },
    /// The size of the work became known.
    Total {
        /// The step.
        step: StepId,
        /// How many units there are in all.
        total: u64,
        /// What they are.
        unit: Unit,
    },
    /// The work advanced.
    Advanced {
        /// The step.
        step: StepId,
        /// Units done since the step began.
        done: u64,
    },
    /// The step printed a line (a compiler's, a tool's).
    Line {
        /// The step.
        step: StepId,
        /// The line without its newline.
        line: String,
    },
    /// The step ended.
    Finished {
        /// The step.
        step: StepId,
        /// How.
        outcome: Outcome,
        /// Wall-clock time, in microseconds.
        wall_us: u64,
    },
    /// Something to tell that belongs to no step.
    Note {
        /// How loud.
        level: Level,
        /// The sentence.
        text: String,
    },
}

/// The work was cancelled (Ctrl-C).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Cancelled;

/// A flag that asks running work to stop; set from a signal handler or another thread.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    own: Arc<AtomicBool>,
    whole: Option<Arc<Cancel>>,
}

impl Cancel {
    /// Asks everything that holds this flag or one made from it to stop.
    pub fn cancel(&self) {
        self.own.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked this work, or the whole it is part of, to stop.
    pub fn is_cancelled(&self) -> bool {
        self.own.load(Ordering::SeqCst) || self.whole.as_ref().is_some_and(|whole| whole.is_cancelled())
    }

    /// The flag itself, for registration with a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.own)
    }

    /// A flag for a part of the work: stops with the whole, and can be stopped without it.
    pub fn part(&self) -> Cancel {
        Cancel { own: Arc::default(), whole: Some(Arc::new(self.clone())) }
    }
}

/// A cheap handle on the listener; clone it into threads.
#[derive(Clone)]
pub struct Progress {
    listener: Arc<dyn Fn(Event) + Send + Sync>,
    cancel: Cancel,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}

impl Progress {
    /// Sends every event to `listener`.
    pub fn new(cancel: Cancel, listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Progress { listener: Arc::new(listener), cancel }
    }

    /// Listens to nothing and is never cancelled: for tests and small tools.
    pub fn silent() -> Self {
        Progress::new(Cancel::default(), |_| {})
    }

    /// Begins a step. Drop without [`Step::done`] or [`Step::cached`] means it failed.
    pub fn step(&self, id: impl Into<StepId>, title: impl Into<String>) -> Step {
        let id = id.into();
        self.emit(Event::Started { step: id.clone(), title: title.into() });
        Step { progress: self.clone(), id, done: AtomicU64::new(0), begun: Instant::now(), ended: false }
    }

    /// A sentence for whoever watches.
    pub fn info(&self, text: impl Into<String>) {
        self.emit(Event::Note { level: Level::Info, text: text.into() });
    }

    /// A sentence a person should not miss.
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Note { level: Level::Warning, text: text.into() });
    }

    /// Sends an event as it is, for instance one that came from another process.
    pub fn emit(&self, event: Event) {
        (self.listener)(event);
    }

    /// The same listener for a part of the work that can be stopped by itself, see [`Cancel::part`].
    pub fn part(&self) -> Progress {
        Progress { listener: Arc::clone(&self.listener), cancel: self.cancel.part() }
    }

    /// The flag that stops this work.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// `Err(Cancelled)` once somebody asked to stop; long loops call it once a round.
    pub fn check_cancelled(&self) -> Result<(), Cancelled> {
        if self.cancel.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

/// A step under way. Shared by reference between the threads that do its work.
#[derive(Debug)]
pub struct Step {
    progress: Progress,
    id: StepId,
    done: AtomicU64,
    begun: Instant,
    ended: bool,
}

impl Step {
    /// How much there is to do.
    pub fn total(&self, total: u64, unit: Unit) {
        self.progress.emit(Event::Total { step: self.id.clone(), total, unit });
    }

    /// `n` more units are done.
    pub fn inc(&self, n: u64) {
        let done = self.done.fetch_add(n, Ordering::Relaxed) + n;
        self.progress.emit(Event::Advanced { step: self.id.clone(), done });
    }

    /// A line the step's tool printed.
    pub fn line(&self, line: impl Into<String>) {
        self.progress.emit(Event::Line { step: self.id.clone(), line: line.into() });
    }

    /// The handle this step reports to.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Wall-clock time since the step began.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Ends the step: the work was done.
    pub fn done(self) {
        self.end(Outcome::Done);
    }

    /// Ends the step: nothing was to do.
    pub fn cached(self) {
        self.end(Outcome::Cached);
    }

    fn end(mut self, outcome: Outcome) {
        self.ended = true;
        self.finished(outcome);
    }

    fn finished(&self, outcome: Outcome) {
        let wall_us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.progress.emit(Event::Finished { step: self.id.clone(), outcome, wall_us });
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.finished(Outcome::Failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn recorder() -> (Progress, Arc<Mutex<Vec<Event>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        (Progress::new(Cancel::default(), move |e| sink.lock().unwrap().push(e)), seen)
    }

    #[test]
    fn a_dropped_step_failed() {
        let (progress, seen) = recorder();
        drop(progress.step("kernel:patched", "build"));
        assert!(matches!(seen.lock().unwrap().last(), Some(Event::Finished { outcome: Outcome::Failed, .. })));
    }

    #[test]
    fn advances_are_cumulative() {
        let (progress, seen) = recorder();
        let step = progress.step("fetch:guest", "download");
        step.inc(2);
        step.inc(3);
        step.done();
        let done: Vec<u64> = seen
            .lock()
            .unwrap()
            .iter()
            .filter_map(|e| match e {
                Event::Advanced { done, .. } => Some(*done),
                _ => None,
            })
            .collect();
        assert_eq!(done, [2, 5]);
        assert!(matches!(seen.lock().unwrap().last(), Some(Event::Finished { outcome: Outcome::Done, .. })));
    }

    #[test]
    fn cancel_reaches_every_clone() {
        let (progress, _) = recorder();
        let other = progress.clone();
        progress.cancel().cancel();
        assert_eq!(other.check_cancelled(), Err(Cancelled));
    }

    #[test]
    fn a_part_stops_with_the_whole_but_not_the_whole_with_a_part() {
        let (progress, _) = recorder();
        let (stopped, running) = (progress.part(), progress.part().part());
        stopped.cancel().cancel();
        assert_eq!([&progress, &stopped, &running].map(|p| p.cancel().is_cancelled()), [false, true, false]);
        progress.cancel().cancel();
        assert!(running.cancel().is_cancelled());
    }
}
