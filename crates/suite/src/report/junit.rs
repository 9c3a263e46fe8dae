//! JUnit XML, in the shape of the Jenkins schema (junit-10.xsd) that CI systems agree on.
//!
//! An expected failure is told as `skipped`, since the schema has no word for it; an unexpected pass is a plain pass
//! with its message in `system-out`. Infrastructure trouble is an `error`, kernel trouble a `failure`. The bounds of comparisons
//! are a suite of their own.

use std::fmt::{Display, Formatter, Write};

use super::bound::{Bound, bounds};
use crate::results::{Record, Report, Status};

/// The report as one XML document.
pub fn junit(report: &Report) -> String {
    let mut suites: Vec<(&str, Vec<&Record>)> = Vec::new();
    for record in &report.records {
        let suite = record.test.split('/').next().unwrap_or_default();
        match suites.iter_mut().find(|(name, _)| *name == suite) {
            Some((_, records)) => records.push(record),
            None => suites.push((suite, vec![record])),
        }
    }
    let all: Vec<&Record> = report.records.iter().collect();
    let bounds = bounds(report);
    let total = counts(&all).plus(&count_bounds(&bounds));
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    push(&mut out, format_args!("<testsuites name=\"{}\" {}>\n", escape(&report.provenance.lab), total));
    for (suite, records) in suites {
        push(&mut out, format_args!("  <testsuite name=\"{}\" {}>\n", escape(suite), counts(&records)));
        properties(&mut out, report);
        for record in records {
            case(&mut out, suite, record);
        }
        out.push_str("  </testsuite>\n");
    }
    if !bounds.is_empty() {
        push(&mut out, format_args!("  <testsuite name=\"comparisons\" {}>\n", count_bounds(&bounds)));
        properties(&mut out, report);
        bounds.iter().for_each(|bound| requirement(&mut out, bound));
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn requirement(out: &mut String, bound: &Bound<'_>) {
    let told = match bound.missed() {
        Some(cells) => format!("<failure type=\"missed\" message=\"{}\"/>", escape(&cells)),
        None if bound.open() => "<skipped message=\"nothing was measured that it speaks of\"/>".into(),
        None => String::new(),
    };
    let suite = if bound.suite.is_empty() { "comparisons" } else { bound.suite };
    push(
        out,
        format_args!(
            "    <testcase name=\"{}\" classname=\"{}\" time=\"0\">{told}</testcase>\n",
            escape(&bound.name),
            escape(suite)
        ),
    );
}

fn push(out: &mut String, text: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

/// What the schema wants to know of a suite.
#[derive(Default)]
struct Counts {
    tests: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
    millis: u64,
}

impl Counts {
    fn plus(&self, other: &Counts) -> Counts {
        Counts {
            tests: self.tests + other.tests,
            failures: self.failures + other.failures,
            errors: self.errors + other.errors,
            skipped: self.skipped + other.skipped,
            millis: self.millis + other.millis,
        }
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Counts { tests, failures, errors, skipped, millis } = self;
        let time = *millis as f64 / 1000.0;
        write!(
            f,
            "tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{time:.3}\""
        )
    }
}

fn counts(records: &[&Record]) -> Counts {
    let count = |wanted: fn(Status) -> bool| records.iter().filter(|record| wanted(record.status)).count();
    Counts {
        tests: records.len(),
        failures: count(is_failure),
        errors: count(is_error),
        skipped: count(is_skipped),
        millis: records.iter().map(|record| record.duration_ms).sum(),
    }
}

fn count_bounds(bounds: &[Bound<'_>]) -> Counts {
    Counts {
        tests: bounds.len(),
        failures: bounds.iter().filter(|bound| bound.missed().is_some()).count(),
        skipped: bounds.iter().filter(|bound| bound.open()).count(),
        ..Counts::default()
    }
}

fn is_failure(status: Status) -> bool {
    matches!(status, Status::Fail | Status::Crash | Status::Timeout)
}

fn is_error(status: Status) -> bool {
    matches!(status, Status::Error | Status::DidNotFinish)
}

fn is_skipped(status: Status) -> bool {
    matches!(status, Status::Skip | Status::Xfail | Status::NotRun)
}

fn properties(out: &mut String, report: &Report) {
    let what = &report.provenance;
    let scale = report.time_scale.to_string();
    out.push_str("    <properties>\n");
    for (name, value) in [
        ("kernel", &what.kernel),
        ("kernel.release", &what.kernel_release),
        ("kernel.tree", &what.kernel_tree),
        ("lock.sha256", &what.lock_sha256),
        ("config.sha256", &what.config_sha256),
        ("accelerator", &what.accelerator),
        ("time-scale", &scale),
    ] {
        let (name, value) = (escape(name), escape(value));
        push(out, format_args!("      <property name=\"{name}\" value=\"{value}\"/>\n"));
    }
    out.push_str("    </properties>\n");
}

fn case(out: &mut String, suite: &str, record: &Record) {
    let name = record.test.split_once('/').map_or(record.test.as_str(), |(_, name)| name);
    let name = if record.iteration > 1 { format!("{name} #{}", record.iteration) } else { name.to_string() };
    let time = record.duration_ms as f64 / 1000.0;
    push(
        out,
        format_args!("    <testcase name=\"{}\" classname=\"{}\" time=\"{time:.3}\"", escape(&name), escape(suite)),
    );
    let (kind, message) = (record.status.word(), escape(&record.message));
    let body = escape(&body(record));
    let told = match record.status {
        status if is_failure(status) => {
            format!("      <failure type=\"{kind}\" message=\"{message}\">{body}</failure>\n")
        }
        status if is_error(status) => format!("      <error type=\"{kind}\" message=\"{message}\">{body}</error>\n"),
        status if is_skipped(status) => {
            let word = if status == Status::Skip { String::new() } else { format!("{kind}: ") };
            format!("      <skipped message=\"{word}{message}\"/>\n")
        }
        _ => String::new(),
    };
    let output = escape(&facts(record));
    let output = if output.is_empty() { output } else { format!("      <system-out>{output}</system-out>\n") };
    if told.is_empty() && output.is_empty() {
        out.push_str("/>\n");
    } else {
        push(out, format_args!(">\n{told}{output}    </testcase>\n"));
    }
}

/// What explains a failure.
fn body(record: &Record) -> String {
    let mut lines = Vec::new();
    if let Some(crash) = &record.crash {
        lines.push(format!("guest {}: {} ({})", crash.guest, crash.info.title, crash.info.fingerprint));
        lines.push(crash.info.trace.clone());
    }
    if let Some(hang) = &record.hang {
        lines.extend(hang.last_output.iter().chain(&hang.processes).cloned());
    }
    lines.extend(record.leaks.iter().map(|leak| format!("left in {}: {} {}", leak.guest, leak.kind, leak.what)));
    lines.join("\n")
}

/// Metrics, parts, proof and notes, one a line.
fn facts(record: &Record) -> String {
    let mut lines = Vec::new();
    if record.status == Status::Xpass {
        lines.push(record.message.clone());
    }
    lines.extend(record.metrics.iter().map(|metric| format!("{} = {} {}", metric.name, metric.value, metric.unit)));
    lines.extend(record.subtests.iter().map(|s| format!("{} {} {}", s.status.word(), s.name, s.message)));
    lines.extend(record.evidence.iter().flat_map(|evidence| evidence.lines.iter().cloned()));
    lines.extend(record.notes.iter().cloned());
    lines.join("\n")
}

/// Text for attributes and elements. Characters that XML 1.0 cannot hold at all (most control characters) become `?`.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
