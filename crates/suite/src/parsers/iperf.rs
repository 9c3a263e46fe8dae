//! The summary of `iperf3 -J` (version 3.18), TCP and UDP.

use serde::Deserialize;

use super::{Parsed, metric};

#[derive(Deserialize)]
struct Output {
    #[serde(default)]
    end: End,
    error: Option<String>,
}

#[derive(Deserialize, Default)]
struct End {
    sum_sent: Option<Sum>,
    sum_received: Option<Sum>,
}

#[derive(Deserialize)]
struct Sum {
    seconds: f64,
    bytes: f64,
    bits_per_second: f64,
    retransmits: Option<f64>,
    lost_percent: Option<f64>,
}

pub(super) fn parse(output: &str) -> Result<Parsed, String> {
    // Warnings may stand before the document.
    let start = output.find('{').ok_or("no JSON document: run iperf3 with -J")?;
    let document: Output =
        serde_json::from_str(&output[start..]).map_err(|e| format!("iperf3's JSON document cannot be read: {e}"))?;
    if let Some(error) = document.error {
        return Err(format!("iperf3 says: {error}"));
    }
    let mut parsed = Parsed::default();
    for (side, sum) in [("sent", document.end.sum_sent), ("received", document.end.sum_received)] {
        let Some(sum) = sum else { continue };
        parsed.metrics.push(metric(format!("{side}_rate"), "Mbit/s", sum.bits_per_second / 1e6));
        parsed.metrics.push(metric(format!("{side}_bytes"), "B", sum.bytes));
        parsed.metrics.push(metric(format!("{side}_seconds"), "s", sum.seconds));
        parsed.metrics.extend(sum.retransmits.map(|n| metric("retransmits", "count", n)));
        parsed.metrics.extend(sum.lost_percent.map(|n| metric(format!("{side}_lost"), "%", n)));
    }
    if parsed.metrics.is_empty() {
        return Err("iperf3 reports no transfer (`end.sum_sent` and `end.sum_received` are missing)".into());
    }
    Ok(parsed)
}
