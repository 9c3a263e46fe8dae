//! `cargo xtask ci`: everything a change must pass, in the order in which a mistake is cheapest to find.
//!
//! Each part is a cargo command whose output is shown as it comes; test counts are read from the test harness's own
//! summary lines. The last line is always `N passed, N failed`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use progress::Progress;

use crate::flags::CiArgs;
use crate::state;
use crate::terminal::human_time;

/// One part of the run.
struct Part {
    title: &'static str,
    args: &'static [&'static str],
    /// Whether the part prints a test harness's summaries; otherwise it counts as one test itself.
    tests: bool,
}

const FAST: &[Part] = &[
    Part { title: "format", args: &["fmt", "--all", "--check"], tests: false },
    Part {
        title: "lints",
        args: &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
        tests: false,
    },
    Part { title: "tests", args: &["test", "--workspace", "--locked", "--no-fail-fast"], tests: true },
];

/// Real boots. One at a time: two emulated guests fill a small machine, and a crowded one fails deadlines.
const END_TO_END: Part = Part {
    title: "end to end",
    args: &[
        "test",
        "--package",
        "e2e",
        "--features",
        "boot",
        "--locked",
        "--no-fail-fast",
        "--",
        "--test-threads=1",
        "--nocapture",
    ],
    tests: true,
};

/// Tests on the real package roots, which the end-to-end tests have put into the cache by then; plain `cargo test` leaves
/// them out, since it would have to fetch a quarter of a gigabyte.
const ROOTS: Part = Part {
    title: "with the package roots",
    args: &[
        "test",
        "--package",
        "toolroot",
        "--package",
        "kernel",
        "--package",
        "image",
        "--test",
        "roots",
        "--test",
        "build",
        "--test",
        "developer",
        "--test",
        "real",
        "--locked",
        "--no-fail-fast",
        "--",
        "--ignored",
    ],
    tests: true,
};

const SLOW: Part = Part {
    title: "end to end, slow groups",
    args: &[
        "test",
        "--package",
        "e2e",
        "--features",
        "boot,slow",
        "--locked",
        "--no-fail-fast",
        "--",
        "--test-threads=1",
        "--nocapture",
    ],
    tests: true,
};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

/// Runs it all; a part that fails does not keep the next from running, except that nothing is booted when nothing builds.
pub fn run(args: &CiArgs, progress: &Progress) -> Result<ExitCode> {
    let mut total = Count::default();
    let parts = FAST.iter().chain([if args.full { &SLOW } else { &END_TO_END }, &ROOTS]);
    for part in parts {
        progress.check_cancelled()?;
        let begun = Instant::now();
        println!("==> {}", part.title);
        let count = run_part(part)?;
        println!(
            "<== {}: {} passed, {} failed ({})\n",
            part.title,
            count.passed,
            count.failed,
            human_time(begun.elapsed())
        );
        total.passed += count.passed;
        total.failed += count.failed;
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(ExitCode::from(u8::from(total.failed > 0)))
}

fn run_part(part: &Part) -> Result<Count> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(state::project()?).args(part.args).stdin(Stdio::null()).stdout(Stdio::piped());
    // The end-to-end tests run this very program.
    command.env("DEVMEM_LAB_XTASK", std::env::current_exe().context("cannot find this program's own file")?);
    let mut child = command.spawn().with_context(|| format!("cannot run cargo {}", part.args.join(" ")))?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(summary) = summary(&line) {
                count.passed += summary.passed;
                count.failed += summary.failed;
            }
            writeln!(std::io::stdout().lock(), "{line}")?;
        }
    }
    let good = child.wait()?.success();
    if !part.tests {
        return Ok(if good { Count { passed: 1, failed: 0 } } else { Count { passed: 0, failed: 1 } });
    }
    // A test binary that did not build or died says nothing that could be counted.
    if !good && count.failed == 0 {
        count.failed = 1;
    }
    // Nothing ran at all: that is no success.
    if good && count.passed == 0 {
        count.failed = 1;
    }
    Ok(count)
}

/// `test result: ok. 3 passed; 0 failed; …` of the standard test harness.
fn summary(line: &str) -> Option<Count> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let number = |word: &str| -> Option<u64> {
        let end = rest.find(word)?;
        rest[..end].trim_end().rsplit([' ', '.']).next()?.parse().ok()
    };
    Some(Count { passed: number(" passed")?, failed: number(" failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(summary(line), Some(Count { passed: 12, failed: 3 }));
        assert_eq!(summary("test result: ok. 7 passed; 0 failed; 0 ignored"), Some(Count { passed: 7, failed: 0 }));
        assert_eq!(summary("running 3 tests"), None);
    }
}
