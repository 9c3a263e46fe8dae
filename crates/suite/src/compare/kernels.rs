//! Several kernels in one run: their reports beside each other.
//!
//! In: one report a kernel, over the same tests. Out: one report with the records of all, the tables of each, and tables
//! that have a column for each kernel: those declared with `columns = "kernel"`, and one for each headline metric, so
//! that every test with a number is in one. The first kernel is what the others are held against.

use serde::{Deserialize, Serialize};

use super::{Comparison, KERNEL, Table, table, tables};
use crate::report::headline;
use crate::results::{Provenance, Record, Report};

/// What a report over several kernels is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelPair {
    /// What was tested, a kernel each; the first is what others are held against.
    pub kernels: Vec<Provenance>,
    /// Why their difference says little about the series; nothing for a fair pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfair: Option<String>,
    /// Tests that did not end alike.
    pub unlike: Vec<String>,
}

/// Lays reports over the same tests side by side, each on one kernel. Bounds between kernels are not held against an
/// unfair pair.
pub fn beside(reports: &[Report], comparisons: &[Comparison], unfair: Option<String>) -> Option<Report> {
    let mut whole = reports.last()?.clone();
    let of = |report: &Report| report.provenance.kernel.clone();
    whole.started_ms = reports[0].started_ms;
    whole.duration_ms = reports.iter().map(|report| report.duration_ms).sum();
    whole.complete = reports.iter().all(|report| report.complete);
    whole.cancelled = reports.iter().any(|report| report.cancelled);
    whole.records = reports.iter().flat_map(|report| report.records.clone()).collect();
    whole.guests = reports.iter().flat_map(|report| report.guests.clone()).collect();
    let own = reports.iter().flat_map(|report| {
        report
            .comparisons
            .iter()
            .map(|table| Table { title: format!("{} ({})", table.title, of(report)), ..table.clone() })
    });
    whole.comparisons = own.collect();
    let mut between: Vec<Comparison> =
        comparisons.iter().filter(|comparison| comparison.columns == KERNEL).cloned().collect();
    if unfair.is_some() {
        between.iter_mut().for_each(|comparison| comparison.bounds.clear());
    }
    whole.comparisons.extend(tables(&between, &whole.records));
    whole.comparisons.extend(headlines(&whole.records));
    let kernels = reports.iter().map(|report| report.provenance.clone()).collect();
    whole.pair = Some(KernelPair { kernels, unfair, unlike: unlike(reports) });
    Some(whole)
}

/// A table for each headline metric: a row for each test, a column for each kernel.
fn headlines(records: &[Record]) -> Vec<Table> {
    let mut metrics: Vec<&str> = Vec::new();
    for metric in records.iter().filter_map(headline) {
        if !metrics.contains(&metric.name.as_str()) {
            metrics.push(&metric.name);
        }
    }
    metrics.into_iter().filter_map(|name| table::by_test(name, records)).collect()
}

/// `SUITE/NAME: xfail on baseline, pass on patched`, for each test and round that did not end alike.
fn unlike(reports: &[Report]) -> Vec<String> {
    let mut told = Vec::new();
    for record in &reports[0].records {
        let others = reports.iter().map(|report| {
            let same = |other: &&Record| other.test == record.test && other.iteration == record.iteration;
            let found = report.records.iter().find(same);
            (report.provenance.kernel.as_str(), found.map_or("not run", |other| other.status.word()))
        });
        let ended: Vec<(&str, &str)> = others.collect();
        if ended.iter().any(|(_, word)| *word != ended[0].1) {
            let list: Vec<String> = ended.iter().map(|(kernel, word)| format!("{word} on {kernel}")).collect();
            let round = if record.iteration > 1 { format!(" #{}", record.iteration) } else { String::new() };
            told.push(format!("{}{round}: {}", record.test, list.join(", ")));
        }
    }
    told
}
