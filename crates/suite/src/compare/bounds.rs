//! Bounds held against a table.

use super::{Bound, Cell, Limit, Table, Verdict};

/// Checks a bound on every cell that it speaks of and that has what it limits.
pub(super) fn judge(bound: &Bound, table: &Table) -> Verdict {
    let mut verdict = Verdict { bound: told(bound, table), checked: 0, missed: Vec::new() };
    for row in table.rows.iter().filter(|row| bound.row.as_ref().is_none_or(|only| *only == row.name)) {
        for (column, cell) in table.columns.iter().zip(&row.cells) {
            let Some(cell) = cell else { continue };
            if bound.column.as_ref().is_some_and(|only| only != column) {
                continue;
            }
            let Some((has, holds)) = check(bound.limit, cell, &table.unit) else { continue };
            verdict.checked += 1;
            if !holds {
                verdict.missed.push(format!("{} {}, {} {column}: {has}", table.rows_by, row.name, table.columns_by));
            }
        }
    }
    verdict
}

/// What the cell has, and whether that is enough; nothing where the cell has no such number.
fn check(limit: Limit, cell: &Cell, unit: &str) -> Option<(String, bool)> {
    let share = |value: f64| format!("{value:.1} %");
    let plain = |value: f64| format!("{value:.2} {unit}");
    Some(match limit {
        Limit::Gain(least) => (share(cell.gain?), cell.gain? >= least),
        Limit::Difference(most) => (share(cell.gain?), cell.gain?.abs() <= most),
        Limit::AtLeast(least) => (plain(cell.value), cell.value >= least),
        Limit::AtMost(most) => (plain(cell.value), cell.value <= most),
        // One round cannot lie apart from itself.
        Limit::Spread(most) => (share(cell.spread), (cell.rounds.len() > 1).then_some(cell.spread <= most)?),
    })
}

fn told(bound: &Bound, table: &Table) -> String {
    let mut place: Vec<String> = Vec::new();
    place.extend(bound.row.as_ref().map(|row| format!("{} {row}", table.rows_by)));
    place.extend(bound.column.as_ref().map(|column| format!("{} {column}", table.columns_by)));
    let place = if place.is_empty() { "everywhere".into() } else { place.join(", ") };
    let against = format!("{} {}", table.columns_by, table.baseline);
    match bound.limit {
        Limit::Gain(least) => format!("{place}: gain over {against} at least {least} %"),
        Limit::Difference(most) => format!("{place}: difference to {against} at most {most} %"),
        Limit::AtLeast(least) => format!("{place}: at least {least} {}", table.unit),
        Limit::AtMost(most) => format!("{place}: at most {most} {}", table.unit),
        Limit::Spread(most) => format!("{place}: rounds agree within {most} %"),
    }
}
