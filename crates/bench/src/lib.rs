//! Measures what the lab promises about its own speed, each time beside a peer in the same run.
//!
//! In: a plan of the lab and the names of benchmarks. Out: [`Ratio`]s, which [`table`] shows. Ours and the peer's
//! repetitions alternate, so that a busy moment of the machine hits both; what counts is the ratio of the medians, and
//! the spread says how much to believe it. A ratio beyond its bound is a result, not an error: wall-clock time on a
//! shared machine decides no build. An error is a benchmark that could not run; a peer that is not installed is a skip
//! that says how to get it.

mod bare;
mod boot;
mod compile;
mod cpu;
mod images;
mod listen;
mod mmdebstrap;
mod planning;
mod ratio;
mod repository;
mod samples;
mod switch;
mod tiny;
mod virtme;
mod vng;

use std::path::PathBuf;

use anyhow::{Result, bail};
use lab::plan::Plan;
use progress::Progress;

pub use ratio::{Bound, Machine, Ratio, Report, Skipped, table};
pub use samples::Samples;

/// What benchmarks run on.
#[derive(Debug, Clone, Copy)]
pub struct Bench<'a> {
    /// The lab, with the kernel its guests boot.
    pub plan: &'a Plan,
    /// Repetitions; each benchmark has its own number when not given.
    pub rounds: Option<usize>,
    /// Listens.
    pub progress: &'a Progress,
}

/// A benchmark: its name, whether it runs when none is named, and what it does.
type Entry = (&'static str, bool, fn(&Bench<'_>) -> Result<Outcome>);

/// Every benchmark, the quick ones first.
const ALL: [Entry; 6] = [
    ("plan", true, planning::run),
    ("fabric", true, switch::run),
    ("boot", true, boot::run),
    ("image", true, images::run),
    ("vng", false, vng::run),
    ("kernel", false, compile::run),
];

/// How a benchmark went.
enum Outcome {
    Measured(Vec<Ratio>),
    /// Its peer is not here: what is missing, and how to get it.
    Skipped(String),
}

impl Bench<'_> {
    /// Repetitions of a benchmark that makes `usual` of them by itself.
    fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(usual).max(1)
    }

    /// A directory of this run's own on the cache's file system, so that packages can be linked into it.
    fn scratch(&self) -> Result<Scratch> {
        let work = self.plan.cache.with_progress(self.progress).work("bench")?;
        let dir = tempfile::Builder::new().prefix("run-").tempdir_in(work.path())?;
        Ok(Scratch { dir, _work: work })
    }
}

/// Removed when dropped; only one benchmark at a time has one.
struct Scratch {
    dir: tempfile::TempDir,
    _work: artifacts::WorkDir,
}

impl Scratch {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Runs the benchmarks named in `which`, or those that need nothing but the lab when none is named.
///
/// # Errors
/// When a name is unknown or the work was cancelled. A benchmark that fails is told in the report; the others run.
pub fn run(bench: &Bench<'_>, which: &[String]) -> Result<Report> {
    if let Some(unknown) = which.iter().find(|name| !ALL.iter().any(|(known, ..)| known == name)) {
        let names: Vec<&str> = ALL.iter().map(|(name, ..)| *name).collect();
        bail!("there is no benchmark `{unknown}`; there are {}", names.join(", "));
    }
    let mut report = Report { machine: Machine::now(), ..Report::default() };
    for (name, usual, run) in ALL {
        let wanted = if which.is_empty() { usual } else { which.iter().any(|w| w == name) };
        if !wanted {
            continue;
        }
        let step = bench.progress.step(format!("bench:{name}"), format!("benchmark {name}"));
        match run(bench) {
            Ok(Outcome::Measured(ratios)) => report.ratios.extend(ratios),
            Ok(Outcome::Skipped(why)) => report.skipped.push(Skipped { bench: name.into(), why }),
            Err(error) => {
                bench.progress.check_cancelled()?;
                report.failed.push(Skipped { bench: name.into(), why: format!("{error:#}") });
                continue;
            }
        }
        step.done();
    }
    report.machine.load_after = ratio::load();
    Ok(report)
}
