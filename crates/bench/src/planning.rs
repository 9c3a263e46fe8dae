//! What a command costs that has nothing to do: `lab up --dry-run` with everything cached.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::ratio::{Bound, Ratio};
use crate::samples::Samples;
use crate::{Bench, Outcome};

/// Seconds.
const BOUND: f64 = 0.3;

/// Runs the benchmark.
pub(crate) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let mut ours = Samples::default();
    for _ in 0..bench.rounds(10) {
        bench.progress.check_cancelled()?;
        let started = Instant::now();
        let output = Command::new(&program)
            .args(["lab", "up", "--dry-run"])
            .current_dir(&bench.plan.lab.root)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let took = started.elapsed().as_secs_f64();
        ensure!(
            output.status.success(),
            "`lab up --dry-run` ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        ours.0.push(took);
    }
    let to_do = bench.plan.to_do().count();
    let cached = if to_do == 0 { "everything cached".to_owned() } else { format!("{to_do} steps not cached") };
    let build = if cfg!(debug_assertions) { "a debug build" } else { "a release build" };
    Ok(Outcome::Measured(vec![Ratio {
        name: "plan".into(),
        what: "planning and checks before a boot begins".into(),
        unit: "s",
        ours_is: format!("the whole process of `lab up --dry-run`, {cached}, {build}"),
        ours,
        peer_is: String::new(),
        peer: Samples::default(),
        bound: Bound::Value(BOUND),
        notes: Vec::new(),
    }]))
}
