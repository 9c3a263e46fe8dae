//! Plain text for terminals and logs: one line a test, aligned, and a summary.

use crate::compare::KERNEL;
use crate::results::{Metric, Record, Report, Status, Subtest};

/// Metrics worth a place on the line, best first; a test that has none of them shows its first one.
const HEADLINES: [&str; 8] =
    ["t_avg", "bw_average", "tps_average", "pings", "received_rate", "roce_packets_dropped", "uptime", "iterations"];
/// Lines are cut here: terminals wrap badly.
const WIDTH: usize = 160;

/// One line about a record: status, test, time, and what matters about it.
pub fn line(record: &Record) -> String {
    let time = format!("{:.1} s", record.duration_ms as f64 / 1000.0);
    let mut line = format!("{:<14} {:<36} {time:>8}", record.status.word(), name(record));
    let detail = detail(record);
    if !detail.is_empty() {
        line.push_str("  ");
        line.push_str(&detail);
    }
    cut(&line)
}

/// The whole table. With `all` false, what passed is only counted.
pub fn table(report: &Report, all: bool) -> String {
    let told = |record: &&Record| all || record.status != Status::Pass || skipped(record).next().is_some();
    let shown: Vec<&Record> = report.records.iter().filter(told).collect();
    let width = |of: fn(&Record) -> usize, least: usize| shown.iter().map(|r| of(r)).max().unwrap_or(0).max(least);
    let status = width(|r| r.status.word().len(), "STATUS".len());
    let test = width(|r| name(r).chars().count(), "TEST".len());
    let mut out = String::new();
    if !shown.is_empty() {
        out.push_str(&format!("{:<status$}  {:<test$}  {:>8}  DETAIL\n", "STATUS", "TEST", "TIME"));
    }
    for record in &shown {
        let time = format!("{:.1} s", record.duration_ms as f64 / 1000.0);
        let row = format!("{:<status$}  {:<test$}  {time:>8}  {}", record.status.word(), name(record), detail(record));
        out.push_str(cut(&row).trim_end());
        out.push('\n');
        for line in below(record) {
            out.push_str(&format!("{:status$}    {}\n", "", cut(&line)));
        }
    }
    out.push_str(&summary(report));
    for table in &report.comparisons {
        out.push('\n');
        out.push_str(&crate::compare::text(table));
    }
    out
}

/// What lies between the kernels of a report over several: its tables that have a column for each, and what did not end
/// alike.
pub fn pair(report: &Report) -> String {
    let Some(pair) = &report.pair else { return String::new() };
    let names: Vec<&str> = pair.kernels.iter().map(|one| one.kernel.as_str()).collect();
    let mut out = format!("# {}\n", names.join(" and "));
    if let Some(why) = &pair.unfair {
        out.push_str(&format!("No fair pair: {why}.\n"));
    }
    for table in report.comparisons.iter().filter(|table| table.columns_by == KERNEL) {
        out.push('\n');
        out.push_str(&crate::compare::text(table));
    }
    if !pair.unlike.is_empty() {
        out.push_str("\nNot alike:\n");
        out.extend(pair.unlike.iter().map(|line| format!("  {line}\n")));
    }
    out
}

fn summary(report: &Report) -> String {
    let totals = report.totals();
    let parts: Vec<String> = totals.iter().map(|(status, count)| format!("{count} {}", status.word())).collect();
    let tests = report.records.len();
    let what = &report.provenance;
    let mut out = format!(
        "{tests} {}: {} in {:.0} s",
        if tests == 1 { "test" } else { "tests" },
        if parts.is_empty() { "none ran".into() } else { parts.join(", ") },
        report.duration_ms as f64 / 1000.0
    );
    let place: Vec<&str> = [&what.kernel, &what.kernel_release, &what.accelerator]
        .into_iter()
        .map(String::as_str)
        .filter(|text| !text.is_empty())
        .collect();
    if !place.is_empty() {
        out.push_str(&format!(" ({})", place.join(", ")));
    }
    if report.cancelled {
        out.push_str(", interrupted");
    }
    out.push('\n');
    out
}

fn name(record: &Record) -> String {
    if record.iteration > 1 { format!("{} #{}", record.test, record.iteration) } else { record.test.clone() }
}

fn detail(record: &Record) -> String {
    if !record.message.is_empty() {
        return record.message.replace('\n', " ");
    }
    let mut metrics: Vec<&Metric> = record.metrics.iter().filter(|metric| rank(metric) < HEADLINES.len()).collect();
    metrics.sort_by_key(|metric| rank(metric));
    if metrics.is_empty() {
        metrics.extend(record.metrics.first());
    }
    let mut parts: Vec<String> = metrics.iter().take(2).map(|metric| told(metric)).collect();
    if !record.subtests.is_empty() {
        let skipped = skipped(record).count();
        let aside = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
        let plural = if record.subtests.len() == 1 { "" } else { "s" };
        parts.push(format!("{} part{plural}{aside}", record.subtests.len()));
    }
    parts.join(", ")
}

/// The name without the step it came from.
fn bare(metric: &Metric) -> &str {
    metric.name.rsplit('.').next().unwrap_or(&metric.name)
}

/// The metric that says most about a record.
pub fn headline(record: &Record) -> Option<&Metric> {
    record.metrics.iter().filter(|metric| rank(metric) < HEADLINES.len()).min_by_key(|metric| rank(metric))
}

fn rank(metric: &Metric) -> usize {
    HEADLINES.iter().position(|name| *name == bare(metric)).unwrap_or(HEADLINES.len())
}

fn told(metric: &Metric) -> String {
    let value =
        if metric.value.fract() == 0.0 { format!("{:.0}", metric.value) } else { format!("{:.2}", metric.value) };
    let unit = if metric.unit == "count" { String::new() } else { format!(" {}", metric.unit) };
    format!("{} {value}{unit}", metric.name)
}

/// What follows a row that is not fine: the trace, what hung, what was left.
fn below(record: &Record) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(crash) = &record.crash {
        lines.push(format!("fingerprint {}", crash.info.fingerprint));
        lines.extend(crash.info.trace.lines().take(12).map(String::from));
    }
    if let Some(hang) = &record.hang {
        lines.extend(hang.processes.iter().take(4).cloned());
    }
    let failed = record.subtests.iter().filter(|s| matches!(s.status, Status::Fail | Status::Timeout));
    lines.extend(failed.take(4).map(|s| format!("{}: {}", s.status.word(), s.name)));
    lines.extend(reasons(record));
    if record.status != Status::Pass {
        lines.extend(record.leaks.iter().take(8).map(|l| format!("left in {}: {} {}", l.guest, l.kind, l.what)));
    }
    lines.extend(record.rebooted.iter().map(|text| format!("rebooted {text}")));
    lines
}

/// The parts of a test that were skipped while others were not; a test skipped as a whole says why itself.
fn skipped(record: &Record) -> impl Iterator<Item = &Subtest> {
    let whole = record.status == Status::Skip;
    record.subtests.iter().filter(move |part| !whole && part.status == Status::Skip)
}

/// Why parts were skipped: each reason once, with the first part it holds for, since parts come by the dozen.
fn reasons(record: &Record) -> Vec<String> {
    let mut found: Vec<(&Subtest, usize)> = Vec::new();
    for part in skipped(record) {
        match found.iter_mut().find(|(first, _)| first.message == part.message) {
            Some((_, count)) => *count += 1,
            None => found.push((part, 1)),
        }
    }
    let told = |(part, count): (&Subtest, usize)| match count {
        1 => format!("skip: {}: {}", part.name, part.message),
        _ => format!("skip: {} and {} more: {}", part.name, count - 1, part.message),
    };
    found.into_iter().map(told).collect()
}

fn cut(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_string();
    }
    let mut short: String = line.chars().take(WIDTH - 1).collect();
    short.push('…');
    short
}
