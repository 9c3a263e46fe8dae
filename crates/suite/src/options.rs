//! How a run is to be made.

use std::path::PathBuf;

use crate::compare::Comparison;
use crate::results::Provenance;

/// What [`crate::run`] needs besides tests and guests.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// Where records, artefacts and reports go. Made if missing; an earlier run's reports in it are replaced.
    pub report_dir: PathBuf,
    /// Rounds over all selected tests; at least 1.
    pub repeat: u32,
    /// Every timeout is multiplied by this. [`time_scale`] gives the value for an accelerator.
    pub time_scale: f64,
    /// How numbers of the tests are put side by side.
    pub comparisons: Vec<Comparison>,
    /// What is being tested, copied into the report.
    pub provenance: Provenance,
}

/// By how much an accelerator stretches time: emulation of every instruction is slow, and slower still on a host
/// that has other things to do.
pub fn time_scale(accelerator: &str) -> f64 {
    if accelerator == "tcg" { 6.0 } else { 1.0 }
}
