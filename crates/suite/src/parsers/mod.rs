//! Readers of tools' outputs: text in, [`Metric`]s and [`Evidence`] out.
//!
//! A parser fails when the output does not hold what it is there to measure, and says what it looked for: a tool that
//! printed nothing must not read as a measurement. Each has a table test over real outputs in `tests/data/`.

mod counts;
mod devmem;
mod iperf;
mod perftest;
mod rping;
mod verbs;

use crate::results::{Evidence, Metric};

/// What a parser found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// Numbers.
    pub metrics: Vec<Metric>,
    /// Lines to keep as proof.
    pub evidence: Vec<Evidence>,
}

/// Names of the parsers, as in `parse = …, with = NAME`.
pub const NAMES: [&str; 6] = ["counts", "devmem", "iperf3", "perftest", "rping", "verbs"];

/// Runs the parser `name` over an output.
pub fn parse(name: &str, output: &str) -> Result<Parsed, String> {
    match name {
        "counts" => counts::parse(output),
        "devmem" => devmem::parse(output),
        "iperf3" => iperf::parse(output),
        "perftest" => perftest::parse(output),
        "rping" => rping::parse(output),
        "verbs" => verbs::parse(output),
        other => Err(format!("there is no parser `{other}`")),
    }
}

fn metric(name: impl Into<String>, unit: &str, value: f64) -> Metric {
    Metric { name: name.into(), unit: unit.into(), value }
}
