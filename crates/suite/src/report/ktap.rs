//! KTAP version 1, so that tools made for kernel tests can read a run. Parts of a test are a nested block.

use std::fmt::Write;

use super::bound::bounds;
use crate::results::{Record, Report, Status, Subtest};

/// The report as KTAP; the bounds of its comparisons follow the tests.
pub fn ktap(report: &Report) -> String {
    let bounds = bounds(report);
    let mut out = format!("KTAP version 1\n1..{}\n", report.records.len() + bounds.len());
    for (at, record) in report.records.iter().enumerate() {
        if !record.subtests.is_empty() {
            nested(&mut out, &record.subtests);
        }
        for line in remarks(record) {
            push(&mut out, format_args!("# {line}\n"));
        }
        let round = if record.iteration > 1 { format!(" round {}", record.iteration) } else { String::new() };
        push(&mut out, format_args!("{} {} {}{round}{}\n", ok(record.status), at + 1, record.test, directive(record)));
    }
    for (number, bound) in (report.records.len() + 1..).zip(&bounds) {
        let missed = bound.missed();
        if let Some(cells) = &missed {
            push(&mut out, format_args!("# missed: {cells}\n"));
        }
        let ok = if missed.is_none() { "ok" } else { "not ok" };
        let open = if bound.open() { " # SKIP nothing was measured that it speaks of" } else { "" };
        push(&mut out, format_args!("{ok} {number} {}{open}\n", name(&bound.name)));
    }
    out
}

fn push(out: &mut String, text: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

fn nested(out: &mut String, subtests: &[Subtest]) {
    push(out, format_args!("    KTAP version 1\n    1..{}\n", subtests.len()));
    for (at, subtest) in subtests.iter().enumerate() {
        let word = match subtest.status {
            Status::Skip => format!(" # SKIP {}", one_line(&subtest.message)),
            Status::Xfail => " # XFAIL".into(),
            Status::Timeout => " # TIMEOUT".into(),
            _ => String::new(),
        };
        push(out, format_args!("    {} {} {}{}\n", ok(subtest.status), at + 1, name(&subtest.name), word.trim_end()));
    }
}

fn ok(status: Status) -> &'static str {
    if matches!(status, Status::Pass | Status::Skip | Status::Xfail | Status::Xpass) { "ok" } else { "not ok" }
}

fn directive(record: &Record) -> String {
    match record.status {
        Status::Skip => format!(" # SKIP {}", one_line(&record.message)),
        Status::Xfail => format!(" # XFAIL {}", one_line(&record.message)),
        Status::Xpass => format!(" # XPASS {}", one_line(&record.message)),
        Status::Timeout => " # TIMEOUT".into(),
        Status::Error | Status::DidNotFinish | Status::NotRun => format!(" # ERROR {}", record.status.word()),
        Status::Pass | Status::Fail | Status::Crash => String::new(),
    }
}

fn remarks(record: &Record) -> Vec<String> {
    let mut lines = Vec::new();
    if !record.message.is_empty() && !matches!(record.status, Status::Skip | Status::Xfail | Status::Xpass) {
        lines.push(format!("{}: {}", record.status.word(), one_line(&record.message)));
    }
    if let Some(crash) = &record.crash {
        lines.extend(crash.info.trace.lines().map(one_line));
    }
    lines.extend(record.metrics.iter().map(|metric| format!("{} {} {}", metric.name, metric.value, metric.unit)));
    lines
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A `#` in a name would begin a directive.
fn name(text: &str) -> String {
    one_line(text).replace('#', "_")
}
