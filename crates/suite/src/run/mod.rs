//! Runs tests over the guests of a lab.
//!
//! One test at a time, each from a record that says "did not finish", through capabilities, snapshot, set-ups, steps,
//! cleanup and leak check, to a final record; both are on disk before anything else happens. A guest that crashed,
//! hangs or is not clean is rebooted, and the rest runs. Nothing here knows of QEMU: see [`crate::Guests`].

mod artifacts;
mod binding;
mod capability;
mod claim;
mod clean;
mod context;
mod hang;
mod journal;
mod one;
mod programs;
mod steps;
mod upkeep;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use progress::{Progress, Unit};
use protocol::Snapshot;

use crate::guests::{GuestInfo, Guests};
use crate::model::Test;
use crate::options::RunOptions;
use crate::report;
use crate::results::{Report, SCHEMA, Status};
use capability::Capabilities;
use journal::Journal;

pub(crate) use context::{Context, Stop};
pub(crate) use journal::replace;
pub use journal::{JOURNAL, JournalError, recover};
pub(crate) use steps::push;

/// A run under way.
struct Runner<'a> {
    guests: &'a dyn Guests,
    infos: Vec<GuestInfo>,
    options: &'a RunOptions,
    progress: &'a Progress,
    capabilities: Capabilities,
    /// State of each guest since the last test, when it is known to be clean.
    states: BTreeMap<String, Snapshot>,
    /// Guests that did not come back from a reboot, and why.
    lost: BTreeMap<String, String>,
    /// Guests that carry this run's mark.
    claimed: BTreeSet<String>,
    /// Guests that a test was interrupted in.
    unclean: BTreeSet<String>,
}

/// Runs `tests` in order, `options.repeat` times over, and writes all reports.
///
/// Returns an error only when results cannot be written down; everything else is in the report. When cancelled, the
/// test under way is recorded as `did-not-finish`, the rest as `not-run`.
pub fn run(
    tests: &[Test],
    guests: &dyn Guests,
    options: &RunOptions,
    progress: &Progress,
) -> Result<Report, JournalError> {
    let begun = Instant::now();
    let infos = guests.guests();
    let dir = &options.report_dir;
    fs::create_dir_all(dir).map_err(|source| JournalError { path: dir.clone(), source })?;
    report::remove_old(dir)?;
    let mut report = Report {
        schema: SCHEMA,
        complete: false,
        cancelled: false,
        started_ms: now_ms(),
        duration_ms: 0,
        time_scale: options.time_scale,
        repeat: options.repeat,
        provenance: options.provenance.clone(),
        guests: infos.clone(),
        records: Vec::new(),
        comparisons: Vec::new(),
        pair: None,
    };
    let mut journal = Journal::create(dir, &report)?;
    let mut runner = Runner {
        guests,
        infos,
        options,
        progress,
        capabilities: Capabilities::for_tests(tests),
        states: BTreeMap::new(),
        lost: BTreeMap::new(),
        claimed: BTreeSet::new(),
        unclean: BTreeSet::new(),
    };
    let rounds = options.repeat.max(1);
    let whole = progress.step("suite", format!("{} tests", tests.len() * rounds as usize));
    whole.total(tests.len() as u64 * u64::from(rounds), Unit::Items);
    for iteration in 1..=rounds {
        for test in tests {
            if progress.cancel().is_cancelled() {
                report.records.push(runner.blank(test, iteration, Status::NotRun));
                continue;
            }
            let mut blank = runner.blank(test, iteration, Status::DidNotFinish);
            blank.message = "the run ended within this test".into();
            journal.record(&blank)?;
            let step = progress.step(format!("test:{}", blank.test), test.summary.clone());
            let record = runner.one(test, blank);
            journal.record(&record)?;
            step.line(report::line(&record));
            if matches!(record.status, Status::Pass | Status::Xfail | Status::Xpass | Status::Skip) {
                step.done();
            }
            whole.inc(1);
            report.records.push(record);
        }
    }
    runner.release();
    report.comparisons = crate::compare::tables(&options.comparisons, &report.records);
    report.cancelled = progress.cancel().is_cancelled();
    report.complete = !report.cancelled;
    report.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    report::write_all(&report, dir)?;
    whole.done();
    Ok(report)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
