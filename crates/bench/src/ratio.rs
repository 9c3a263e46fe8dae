//! What a benchmark found, and the table that shows it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::samples::Samples;

/// What is promised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Ours over the peer's, at most.
    Ratio(f64),
    /// Ours alone, in the unit of the samples, at most.
    Value(f64),
    /// Nothing is promised.
    None,
}

/// Ours beside a peer's. Less is better.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// `boot`, `image`…
    pub name: String,
    /// What is measured, in a few words.
    pub what: String,
    /// Unit of the samples.
    pub unit: &'static str,
    /// What ours is.
    pub ours_is: String,
    /// Ours.
    pub ours: Samples,
    /// What the peer is; empty where there is none.
    pub peer_is: String,
    /// The peer's.
    pub peer: Samples,
    /// What is promised.
    pub bound: Bound,
    /// How it was measured, as far as the numbers depend on it.
    pub notes: Vec<String>,
}

impl Ratio {
    /// Median over median; `None` without a peer.
    pub fn ratio(&self) -> Option<f64> {
        (!self.peer.0.is_empty()).then(|| self.ours.median() / self.peer.median())
    }

    /// Whether it is within its bound; `None` where nothing is promised.
    pub fn holds(&self) -> Option<bool> {
        match self.bound {
            Bound::Ratio(most) => self.ratio().map(|ratio| ratio <= most),
            Bound::Value(most) => Some(self.ours.median() <= most),
            Bound::None => None,
        }
    }
}

/// A benchmark without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Which.
    pub bench: String,
    /// Why, and what to do.
    pub why: String,
}

/// What the numbers were measured on.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Machine {
    /// Processors this program may use.
    pub cpus: usize,
    /// Load average over a minute before the first benchmark.
    pub load_before: f64,
    /// The same after the last.
    pub load_after: f64,
}

impl Machine {
    /// This one, now.
    pub fn now() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Machine { cpus, load_before: load(), load_after: load() }
    }
}

/// Load average over a minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Everything a run found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// The results.
    pub ratios: Vec<Ratio>,
    /// Benchmarks whose peer is not here.
    pub skipped: Vec<Skipped>,
    /// Benchmarks that could not run.
    pub failed: Vec<Skipped>,
}

/// The report for people.
pub fn table(report: &Report) -> String {
    let mut rows =
        vec![["benchmark", "ours", "min..max", "peer", "min..max", "unit", "ratio", "bound", ""].map(str::to_owned)];
    for one in &report.ratios {
        let spread = |s: &Samples| {
            if s.0.is_empty() { String::new() } else { format!("{}..{}", number(s.min()), number(s.max())) }
        };
        let middle = |s: &Samples| if s.0.is_empty() { "-".to_owned() } else { number(s.median()) };
        rows.push([
            one.name.clone(),
            middle(&one.ours),
            spread(&one.ours),
            middle(&one.peer),
            spread(&one.peer),
            one.unit.to_owned(),
            one.ratio().map_or_else(|| "-".into(), |r| format!("{r:.3}")),
            match one.bound {
                Bound::Ratio(most) => format!("<= {most}"),
                Bound::Value(most) => format!("<= {most} {}", one.unit),
                Bound::None => "-".into(),
            },
            match one.holds() {
                Some(true) => "holds".into(),
                Some(false) => "MISSED".into(),
                None => String::new(),
            },
        ]);
    }
    let mut out = if report.ratios.is_empty() { String::new() } else { columns(&rows) };
    for one in &report.ratios {
        let versus = if one.peer_is.is_empty() { String::new() } else { format!("; peer: {}", one.peer_is) };
        let _ =
            writeln!(out, "\n{}: {}. Ours: {}{versus}; {} rounds.", one.name, one.what, one.ours_is, one.ours.0.len());
        for note in &one.notes {
            let _ = writeln!(out, "  {note}");
        }
    }
    for (word, list) in [("skipped", &report.skipped), ("FAILED", &report.failed)] {
        for one in list {
            let _ = writeln!(out, "\n{}: {word}: {}", one.bench, one.why);
        }
    }
    let machine = &report.machine;
    let _ = writeln!(
        out,
        "\n{} processors, load {:.1} before and {:.1} after (with nothing else running, expect about 0 before)",
        machine.cpus, machine.load_before, machine.load_after
    );
    out
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|n| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or_default());
    let mut out = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(ours: f64, peer: &[f64], bound: Bound) -> Ratio {
        Ratio {
            name: "boot".into(),
            what: "a boot".into(),
            unit: "s",
            ours_is: "the lab".into(),
            ours: Samples(vec![ours]),
            peer_is: "a bare kernel".into(),
            peer: Samples(peer.to_vec()),
            bound,
            notes: vec!["emulated".into()],
        }
    }

    #[test]
    fn bounds_are_inclusive_and_need_what_they_compare() {
        assert_eq!(ratio(1.0, &[2.0], Bound::Ratio(0.5)).holds(), Some(true));
        assert_eq!(ratio(1.1, &[2.0], Bound::Ratio(0.5)).holds(), Some(false));
        assert_eq!(ratio(1.0, &[], Bound::Ratio(0.5)).holds(), None);
        assert_eq!(ratio(0.2, &[], Bound::Value(0.3)).holds(), Some(true));
        assert_eq!(ratio(0.4, &[], Bound::Value(0.3)).holds(), Some(false));
        assert_eq!(ratio(1.0, &[2.0], Bound::None).holds(), None);
    }

    #[test]
    fn the_table_says_what_missed_and_what_did_not_run() {
        let report = Report {
            ratios: vec![ratio(3.0, &[2.0, 4.0, 2.0], Bound::Ratio(1.15))],
            skipped: vec![Skipped { bench: "image".into(), why: "no mmdebstrap".into() }],
            failed: vec![Skipped { bench: "vng".into(), why: "no 9p".into() }],
            ..Report::default()
        };
        let text = table(&report);
        let row = text.lines().nth(1).unwrap();
        assert_eq!(
            row.split_ascii_whitespace().collect::<Vec<_>>(),
            ["boot", "3.00", "3.00..3.00", "2.00", "2.00..4.00", "s", "1.500", "<=", "1.15", "MISSED"]
        );
        assert!(text.contains("image: skipped: no mmdebstrap") && text.contains("vng: FAILED: no 9p"), "{text}");
    }
}
