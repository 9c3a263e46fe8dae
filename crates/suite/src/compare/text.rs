//! A table as plain text.

use super::{Better, Table};

/// The table, what its rounds agree to, and its bounds.
pub fn text(table: &Table) -> String {
    let way = match table.better {
        Better::Lower => ", lower is better",
        Better::Higher => ", higher is better",
        Better::Neither => "",
    };
    let suite = if table.suite.is_empty() { String::new() } else { format!("{}: ", table.suite) };
    let mut out = format!("{}\n{suite}{} in {}{way}\n\n", table.title, table.metric, table.unit);
    let beside = if table.better == Better::Neither { "change" } else { "gain" };
    let mut lines = vec![vec![table.rows_by.clone()]];
    for name in &table.columns {
        lines[0].push(format!("{} {name}", table.columns_by));
        if *name != table.baseline {
            lines[0].push(beside.into());
        }
    }
    for row in &table.rows {
        let mut line = vec![row.name.clone()];
        for (name, cell) in table.columns.iter().zip(&row.cells) {
            line.push(cell.as_ref().map_or("-".into(), |cell| number(cell.value)));
            if *name != table.baseline {
                let gain = cell.as_ref().and_then(|cell| cell.gain);
                line.push(gain.map_or("-".into(), |gain| format!("{gain:.1} %")));
            }
        }
        lines.push(line);
    }
    out.push_str(&aligned(&lines));
    out.push_str(&spread(table));
    for verdict in &table.bounds {
        let word = match (verdict.checked, verdict.missed.is_empty()) {
            (0, _) => "open",
            (_, true) => "holds",
            (_, false) => "MISSED",
        };
        out.push_str(&format!("{word:<8}{}\n", verdict.bound));
        for missed in &verdict.missed {
            out.push_str(&format!("        {missed}\n"));
        }
    }
    out
}

/// How far the rounds lie apart where they do so most.
fn spread(table: &Table) -> String {
    let cells = table.rows.iter().flat_map(|row| {
        let name = |column: &String| format!("{} {}, {} {column}", table.rows_by, row.name, table.columns_by);
        table.columns.iter().zip(&row.cells).filter_map(move |(column, cell)| Some((name(column), cell.as_ref()?)))
    });
    let widest = cells.filter(|(_, cell)| cell.rounds.len() > 1).max_by(|a, b| a.1.spread.total_cmp(&b.1.spread));
    match widest {
        Some((place, cell)) => {
            format!("{} rounds agree within {:.1} % ({place})\n", cell.rounds.len(), cell.spread)
        }
        None => String::new(),
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The first column to the left, numbers to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| lines.iter().filter_map(|l| l.get(n)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(n, (cell, width))| match n {
            0 => format!("{cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        });
        out.push_str(cells.collect::<String>().trim_end());
        out.push('\n');
    }
    out
}
