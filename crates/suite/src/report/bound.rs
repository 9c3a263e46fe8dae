//! The bounds of a run's comparisons, as tests of their own: a missed one fails the run, so whoever reads only the list
//! of tests has to find it there.

use crate::compare::Verdict;
use crate::results::Report;

/// One bound of one table.
pub(super) struct Bound<'a> {
    /// The suite of the table; empty for all of them.
    pub suite: &'a str,
    /// The table and what is required of it.
    pub name: String,
    verdict: &'a Verdict,
}

impl Bound<'_> {
    /// Whether nothing was measured that it speaks of.
    pub fn open(&self) -> bool {
        self.verdict.checked == 0
    }

    /// The cells that miss it, each with what it has; `None` where none does.
    pub fn missed(&self) -> Option<String> {
        (!self.verdict.missed.is_empty()).then(|| self.verdict.missed.join("; "))
    }
}

/// Every bound of a run, in the order of the tables.
pub(super) fn bounds(report: &Report) -> Vec<Bound<'_>> {
    let tables = report.comparisons.iter();
    let all = tables.flat_map(|table| {
        table.bounds.iter().map(move |verdict| Bound {
            suite: &table.suite,
            name: format!("{}: {}", table.title, verdict.bound),
            verdict,
        })
    });
    all.collect()
}
