//! The JSON lines of `lab-verbs`: a case each, and a last one that sums them up.
//!
//! The sum is not taken on trust: it is counted again from the cases, and an output that was cut short has none.

use serde::Deserialize;

use super::{Parsed, metric};
use crate::results::Evidence;

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Sum { summary: Sum },
    Case(Case),
}

#[derive(Deserialize, Debug, Default, PartialEq)]
struct Sum {
    cases: u64,
    failed: u64,
    mismatches: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Case {
    case: String,
    ok: bool,
    mismatches: u64,
    #[serde(default)]
    operation: String,
}

/// How many failed cases are kept as proof; the output has the rest.
const KEPT: usize = 20;

pub(super) fn parse(output: &str) -> Result<Parsed, String> {
    let mut counted = Sum::default();
    let (mut said, mut failed, mut operations) = (None, Vec::new(), Vec::<(String, u64)>::new());
    for line in output.lines().filter(|line| !line.is_empty()) {
        match serde_json::from_str(line).map_err(|e| format!("line `{line}`: {e}"))? {
            Line::Sum { summary } => said = Some(summary),
            Line::Case(case) => {
                if said.is_some() {
                    return Err(format!("case `{}` comes after the sum", case.case));
                }
                counted.cases += 1;
                counted.mismatches += case.mismatches;
                if !case.ok {
                    counted.failed += 1;
                    failed.push(line.to_owned());
                }
                match operations.iter_mut().find(|(name, _)| *name == case.operation) {
                    Some((_, count)) => *count += 1,
                    None => operations.push((case.operation, 1)),
                }
            }
        }
    }
    let said = said.ok_or("no line with the sum: lab-verbs did not get to its end")?;
    counted.bytes = said.bytes;
    if said != counted {
        return Err(format!("the sum is {said:?}, but the cases make {counted:?}"));
    }
    if said.cases == 0 {
        return Err("no case: lab-verbs tried nothing".into());
    }
    let mut metrics = vec![
        metric("cases", "count", said.cases as f64),
        metric("failed_cases", "count", said.failed as f64),
        metric("mismatching_bytes", "B", said.mismatches as f64),
        metric("bytes", "B", said.bytes as f64),
    ];
    for (name, count) in operations.iter().filter(|(name, _)| !name.is_empty()) {
        metrics.push(metric(format!("cases_{}", name.replace('-', "_")), "count", *count as f64));
    }
    failed.truncate(KEPT);
    let evidence =
        if failed.is_empty() { vec![] } else { vec![Evidence { name: "failed cases".into(), lines: failed }] };
    Ok(Parsed { metrics, evidence })
}
