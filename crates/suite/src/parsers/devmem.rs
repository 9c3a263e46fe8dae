//! The JSON object that `lab-devmem receive --json` and `send --json` print: every number in it becomes a metric.
//!
//! It is found among other lines, as the stream itself may be one of them, and it must be one of the two: a percentage without
//! the bytes it is of would prove nothing.

use serde_json::{Map, Value};

use super::{Parsed, metric};
use crate::results::Evidence;

pub(super) fn parse(output: &str) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    for line in output.lines().filter(|line| line.starts_with('{')) {
        let report: Map<String, Value> = serde_json::from_str(line).map_err(|e| format!("line `{line}`: {e}"))?;
        if !report.contains_key("devmem_bytes") && !report.contains_key("sent_bytes") {
            return Err(format!("line `{line}` has neither devmem_bytes nor sent_bytes: no report of lab-devmem"));
        }
        for (name, value) in &report {
            let Some(value) = value.as_f64() else { continue };
            parsed.metrics.push(metric(name.as_str(), unit(name), value));
        }
        let faults = report.get("faults").and_then(Value::as_array).into_iter().flatten();
        let lines: Vec<String> = faults.filter_map(Value::as_str).map(str::to_owned).collect();
        if !lines.is_empty() {
            parsed.evidence.push(Evidence { name: "faults".into(), lines });
        }
    }
    if parsed.metrics.is_empty() {
        return Err("no line with a JSON object: lab-devmem did not get to its end, or ran without --json".into());
    }
    Ok(parsed)
}

fn unit(name: &str) -> &'static str {
    match name {
        name if name.ends_with("_bytes") => "B",
        name if name.ends_with("_percent") => "%",
        name if name.ends_with("_seconds") => "s",
        name if name.ends_with("_gbit_per_second") => "Gbit/s",
        "first_wrong" => "B",
        _ => "count",
    }
}
