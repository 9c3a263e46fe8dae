//! Numbers of several tests side by side: what a suite file declares in `[[compare]]`, and the tables that come of it.
//!
//! In: [`Comparison`]s and the records of a run. Out: [`Table`]s for the terminal and `results.json`. Tests are told
//! apart by the variables of their cases, and by [`KERNEL`] where a run had several kernels. A bound is data too: one
//! that is missed fails the run, one that nothing could be checked on says so.

mod bounds;
mod kernels;
mod table;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Place;
use crate::results::Record;

pub use kernels::{KernelPair, beside};
pub use table::tables;
pub use text::text;

/// The variable every test has without declaring it: the kernel its first guest boots.
pub const KERNEL: &str = "kernel";

/// One declared comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The suite it belongs to; only tests of that suite are compared.
    pub suite: String,
    /// Where it is declared.
    pub place: Place,
    /// What the table shows.
    pub title: String,
    /// The metric.
    pub metric: String,
    /// Variables that a test must have with these values.
    pub only: BTreeMap<String, String>,
    /// The variable whose values are the rows.
    pub rows: String,
    /// The variable whose values are the columns.
    pub columns: String,
    /// The column that others are held against; empty for kernels, where it is the first of the run.
    pub baseline: String,
    /// Which way is good.
    pub better: Better,
    /// What cells must keep to.
    pub bounds: Vec<Bound>,
}

impl Comparison {
    /// What a record has for a variable.
    fn value<'a>(&self, record: &'a Record, name: &str) -> Option<&'a str> {
        match name {
            KERNEL => record.guests.first().map(|used| used.kernel.as_str()),
            name => record.case.get(name).map(String::as_str),
        }
    }

    /// Row and column of a record that takes part.
    fn field<'a>(&self, record: &'a Record) -> Option<(&'a str, &'a str)> {
        let suite = record.test.split('/').next().unwrap_or_default();
        let fits = self.only.iter().all(|(name, value)| self.value(record, name) == Some(value));
        if suite != self.suite || !fits {
            return None;
        }
        Some((self.value(record, &self.rows)?, self.value(record, &self.columns)?))
    }
}

/// Which way a metric is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Less is better: a latency.
    Lower,
    /// More is better: a bandwidth.
    Higher,
    /// Neither: only the difference is told.
    #[default]
    Neither,
}

/// A requirement on cells of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// Where it is declared.
    pub place: Place,
    /// The row; all if none is named.
    pub row: Option<String>,
    /// The column; all if none is named.
    pub column: Option<String>,
    /// What is required there.
    pub limit: Limit,
}

/// What a bound limits. Shares are in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// The gain over the baseline, at least.
    Gain(f64),
    /// The difference to the baseline either way, at most.
    Difference(f64),
    /// The value, at least.
    AtLeast(f64),
    /// The value, at most.
    AtMost(f64),
    /// How far the rounds of one cell lie apart, at most.
    Spread(f64),
}

/// A comparison of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// The suite it is of; empty for all.
    pub suite: String,
    /// The metric.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// Which way is good.
    pub better: Better,
    /// The variable of the rows.
    pub rows_by: String,
    /// The variable of the columns.
    pub columns_by: String,
    /// The column the others are held against.
    pub baseline: String,
    /// The columns, in the order in which they were measured, the baseline first.
    pub columns: Vec<String>,
    /// The rows, in the order in which they were measured.
    pub rows: Vec<Row>,
    /// The bounds and what came of them.
    pub bounds: Vec<Verdict>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The value of the rows' variable.
    pub name: String,
    /// A cell for each column; none where nothing was measured.
    pub cells: Vec<Option<Cell>>,
}

/// What one test measured, over all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Mean of the rounds.
    pub value: f64,
    /// Each round.
    pub rounds: Vec<f64>,
    /// How far the rounds lie apart, in percent of their mean.
    pub spread: f64,
    /// Difference to the baseline's cell, in percent of that: the gain where one way is better, else the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
}

/// What came of a bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The bound, as people say it.
    pub bound: String,
    /// Cells it was checked on.
    pub checked: usize,
    /// The cells that miss it, each with what it has.
    pub missed: Vec<String>,
}

impl Table {
    /// The cell of a row and column, if something was measured there.
    pub fn cell(&self, row: &str, column: &str) -> Option<&Cell> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.rows.iter().find(|one| one.name == row)?.cells[at].as_ref()
    }

    /// Whether no bound is missed.
    pub fn holds(&self) -> bool {
        self.bounds.iter().all(|verdict| verdict.missed.is_empty())
    }
}
