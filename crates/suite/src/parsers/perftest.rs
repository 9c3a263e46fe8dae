//! The result table of perftest's programs (`ib_send_lat`, `ib_write_bw`…, version 25).
//!
//! ```text
//!  #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec] …   99% percentile[usec]
//!  2       1000          52.46          1234.22      53.92            …   61.75
//! ```
//!
//! The columns are read from the header, since they differ between latency and bandwidth, by iterations and by time
//! (`-D`), and with the unit of bandwidth. Other lines may stand anywhere between, such as the warning about CPU
//! frequency. With several message sizes (`-a`) a metric's name carries the size: `t_avg@64`.

use super::{Parsed, metric};
use crate::results::Evidence;

/// A column: the metric's name and its unit.
type Column = (String, String);

pub(super) fn parse(output: &str) -> Result<Parsed, String> {
    let mut lines = output.lines();
    let header = lines
        .find(|line| line.trim_start().starts_with("#bytes"))
        .ok_or("no table (a line that begins with `#bytes`): perftest ended before it measured")?;
    let columns = columns(header);
    let rows: Vec<(&str, Vec<f64>)> = lines.filter_map(|line| Some((line, row(line, columns.len())?))).collect();
    if rows.is_empty() {
        return Err(format!(
            "the table has a header and no row of {} numbers: perftest failed while measuring",
            columns.len()
        ));
    }
    let mut parsed = Parsed::default();
    for (_, row) in &rows {
        for ((name, unit), value) in columns.iter().zip(row) {
            let name = if rows.len() == 1 { name.clone() } else { format!("{name}@{}", row[0]) };
            if value.is_finite() && !name.starts_with("bytes@") {
                parsed.metrics.push(metric(name, unit, *value));
            }
        }
    }
    let lines = [header].into_iter().chain(rows.iter().map(|row| row.0)).map(|line| line.trim().to_string());
    parsed.evidence.push(Evidence { name: "result table".into(), lines: lines.collect() });
    Ok(parsed)
}

/// A column's title ends with its unit in brackets; `#bytes` and `#iterations` have none, and neither has the last
/// one with `-D`, `tps average`.
fn columns(header: &str) -> Vec<Column> {
    let mut columns = Vec::new();
    let mut title: Vec<&str> = Vec::new();
    for word in header.split_whitespace() {
        title.push(word);
        if word.ends_with(']') || word.starts_with('#') {
            columns.push(column(&title.join(" ")));
            title.clear();
        }
    }
    if !title.is_empty() {
        columns.push(column(&title.join(" ")));
    }
    columns
}

fn column(title: &str) -> Column {
    let (name, unit) = match title.split_once('[') {
        Some((name, unit)) => (name, unit.trim_end_matches(']')),
        None if title == "#bytes" => (title, "B"),
        None if title == "tps average" => (title, "1/s"),
        None => (title, "count"),
    };
    let name = match name.trim() {
        "BW peak" => "bw_peak".into(),
        "BW average" => "bw_average".into(),
        "MsgRate" => "msg_rate".into(),
        "tps average" => "tps_average".into(),
        name => match name.strip_suffix("% percentile") {
            Some(percent) => format!("p{percent}"),
            None => name.trim_start_matches('#').replace(' ', "_"),
        },
    };
    (name, unit.into())
}

/// A row may hold `-nan` where perftest's own arithmetic overflows; its first number, the size, is always whole.
fn row(line: &str, width: usize) -> Option<Vec<f64>> {
    let numbers: Option<Vec<f64>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
    numbers.filter(|numbers| numbers.len() == width && numbers.iter().take(1).all(|n| n.fract() == 0.0))
}
