//! From records to tables: which record is which cell, means over rounds, gains against the baseline.

use super::{Better, Cell, Comparison, KERNEL, Row, Table, bounds};
use crate::results::{Record, Status};

/// The tables of a run. A comparison of which nothing was measured has none, nor has one of kernels in a run on a
/// single kernel.
pub fn tables(comparisons: &[Comparison], records: &[Record]) -> Vec<Table> {
    comparisons.iter().filter_map(|comparison| table(comparison, records)).collect()
}

fn table(comparison: &Comparison, records: &[Record]) -> Option<Table> {
    let frame = Table {
        title: comparison.title.clone(),
        suite: comparison.suite.clone(),
        metric: comparison.metric.clone(),
        better: comparison.better,
        rows_by: comparison.rows.clone(),
        columns_by: comparison.columns.clone(),
        baseline: comparison.baseline.clone(),
        ..Table::default()
    };
    let mut table = filled(frame, records, |record| comparison.field(record))?;
    table.bounds = comparison.bounds.iter().map(|bound| bounds::judge(bound, &table)).collect();
    Some(table)
}

/// One metric of all tests that have it, with a column for each kernel.
pub(super) fn by_test(metric: &str, records: &[Record]) -> Option<Table> {
    let frame = Table {
        title: format!("{metric} by test and kernel"),
        metric: metric.into(),
        rows_by: "test".into(),
        columns_by: KERNEL.into(),
        ..Table::default()
    };
    filled(frame, records, |record| Some((record.test.as_str(), record.guests.first()?.kernel.as_str())))
}

/// Puts records into the fields of a table.
fn filled<'a>(
    mut table: Table,
    records: &'a [Record],
    field: impl Fn(&'a Record) -> Option<(&'a str, &'a str)>,
) -> Option<Table> {
    let mut rows: Vec<&str> = Vec::new();
    let mut columns: Vec<&str> = Vec::new();
    let mut found: Vec<(&str, &str, f64)> = Vec::new();
    for record in records.iter().filter(|record| matches!(record.status, Status::Pass | Status::Xpass)) {
        let Some((row, column)) = field(record) else { continue };
        let Some(metric) = record.metrics.iter().find(|metric| metric.name == table.metric) else { continue };
        for (list, name) in [(&mut rows, row), (&mut columns, column)] {
            if !list.contains(&name) {
                list.push(name);
            }
        }
        table.unit.clone_from(&metric.unit);
        found.push((row, column, metric.value));
    }
    if found.is_empty() || (table.columns_by == KERNEL && columns.len() < 2) {
        return None;
    }
    if table.columns_by == KERNEL {
        table.baseline = columns[0].into();
    }
    // Stable: the others keep their order.
    columns.sort_by_key(|name| *name != table.baseline);
    let baseline = columns.iter().position(|column| *column == table.baseline);
    for name in rows {
        let rounds = |column: &str| -> Vec<f64> {
            found.iter().filter(|(r, c, _)| *r == name && *c == column).map(|(_, _, value)| *value).collect()
        };
        let mut cells: Vec<Option<Cell>> = columns.iter().map(|column| cell(rounds(column))).collect();
        if let Some((at, base)) = baseline.and_then(|at| Some((at, cells[at].as_ref()?.value))) {
            let others = cells.iter_mut().enumerate().filter(|(n, _)| *n != at);
            for cell in others.filter_map(|(_, cell)| cell.as_mut()) {
                cell.gain = gain(table.better, base, cell.value);
            }
        }
        table.rows.push(Row { name: name.into(), cells });
    }
    table.columns = columns.into_iter().map(str::to_string).collect();
    Some(table)
}

fn cell(rounds: Vec<f64>) -> Option<Cell> {
    let (least, most) =
        rounds.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| (least.min(*v), most.max(*v)));
    let value = rounds.iter().sum::<f64>() / rounds.len() as f64;
    let spread = if least == most { 0.0 } else { 100.0 * (most - least) / value.abs() };
    value.is_finite().then_some(Cell { value, rounds, spread, gain: None })
}

/// Nothing can be told in shares of nothing.
fn gain(better: Better, base: f64, value: f64) -> Option<f64> {
    let change = 100.0 * (value - base) / base;
    change.is_finite().then_some(if better == Better::Lower { -change } else { change })
}
