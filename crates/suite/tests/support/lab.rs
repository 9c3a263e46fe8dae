//! Suites from text over local guests, and what the tests of the runner ask of the records.

use std::path::Path;

use progress::Progress;
use suite::{Record, Report, RunOptions, Status};

use super::Local;

/// How tests run suites over a lab in `dir`.
pub fn options(dir: &Path) -> RunOptions {
    RunOptions {
        report_dir: dir.join("report"),
        repeat: 1,
        time_scale: 1.0,
        comparisons: Vec::new(),
        provenance: Default::default(),
    }
}

/// Loads a suite from text; `CONSOLE` and `DIR` stand for paths of the lab.
pub fn tests(lab: &Local, suite: &str, text: &str) -> Vec<suite::Test> {
    let console = lab.console_path("a");
    let text = text.replace("CONSOLE", console.to_str().unwrap()).replace("DIR", lab.dir().to_str().unwrap());
    suite::load_texts(&[(format!("{suite}.toml").into(), text)]).unwrap_or_else(|e| panic!("{e}")).tests
}

/// Loads and runs a suite.
pub fn run(lab: &Local, suite: &str, text: &str) -> Report {
    let report = suite::run(&tests(lab, suite, text), lab, &options(lab.dir()), &Progress::silent()).unwrap();
    for record in &report.records {
        eprintln!("{}", suite::report::line(record));
    }
    report
}

/// The record of a test.
pub fn record<'a>(report: &'a Report, name: &str) -> &'a Record {
    let found = report.records.iter().find(|record| record.test.ends_with(&format!("/{name}")));
    found.unwrap_or_else(|| panic!("no record of {name}"))
}

/// Requires a status, and a text in the message.
#[track_caller]
pub fn ended(report: &Report, name: &str, status: Status, message: &str) {
    let record = record(report, name);
    assert_eq!(record.status, status, "{name}: {}", record.message);
    assert!(record.message.contains(message), "{name}: `{}` lacks `{message}`", record.message);
}

/// Local guests of these names, or the end of the test where they cannot be had.
#[macro_export]
macro_rules! lab {
    ($($name:literal),+) => {
        match $crate::support::Local::start(&[$($name),+], "stock") {
            Some(lab) => lab,
            None => return,
        }
    };
}
