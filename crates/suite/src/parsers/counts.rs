//! `name value` lines, as the lab's own guest programs print them: each becomes a metric of that name. Lines that begin with
//! `#` are kept as evidence.

use super::{Parsed, metric};
use crate::results::Evidence;

pub(super) fn parse(output: &str) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut remarks = Vec::new();
    for line in output.lines() {
        if let Some(remark) = line.strip_prefix("# ") {
            remarks.push(remark.to_string());
            continue;
        }
        let (name, value) = line.split_once(' ').ok_or_else(|| format!("`{line}` is no `name value`"))?;
        let value: f64 = value.trim().parse().map_err(|_| format!("`{line}`: `{value}` is not a number"))?;
        parsed.metrics.push(metric(name, "count", value));
    }
    if parsed.metrics.is_empty() {
        return Err("no line `name value`".into());
    }
    if !remarks.is_empty() {
        parsed.evidence.push(Evidence { name: "remarks".into(), lines: remarks });
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_remarks() {
        let parsed = parse("frames_sent 100000\nframes_refused 12\n# v4-RC-0x04: 5,112 corruptions\n").unwrap();
        assert_eq!(parsed.metrics[0], metric("frames_sent", "count", 100_000.0));
        assert_eq!((parsed.metrics.len(), parsed.evidence[0].lines.len()), (2, 1));
        for (bad, why) in [("", "no line"), ("frames\n", "is no `name value`"), ("frames many\n", "not a number")] {
            assert!(parse(bad).unwrap_err().contains(why), "{bad}");
        }
    }
}
