//! Every console log in `tests/data/crash` gives exactly the reports in the `.expect` file beside it.
//!
//! Logs of `real-*` were written by guests whose kernel was made to fail; the others were put together after the
//! kernel's source for what is hard to provoke, and for what must not be taken for a crash. After a change that is meant
//! to change reports, `UPDATE_EXPECT=1 cargo test -p machine --test crash_logs` rewrites the expectations for review.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use machine::crash::{self, Watcher};

fn logs() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/crash");
    let mut all: Vec<PathBuf> = fs::read_dir(dir).expect("test data").map(|e| e.expect("entry").path()).collect();
    all.retain(|p| p.extension().is_some_and(|e| e == "log"));
    all.sort();
    all
}

fn describe(crashes: &[crash::Crash]) -> String {
    let mut out = String::new();
    if crashes.is_empty() {
        out.push_str("no crash\n");
    }
    for c in crashes {
        let names: Vec<String> = c.frames.iter().take(6).map(ToString::to_string).collect();
        writeln!(out, "{} ({:?}{})", c.kind, c.severity(), if c.fatal { ", fatal" } else { "" }).expect("string");
        writeln!(out, "  title: {}", c.title).expect("string");
        writeln!(out, "  fingerprint: {}", c.fingerprint).expect("string");
        writeln!(out, "  frames: {}", names.join(", ")).expect("string");
        let (first, last) = (c.trace.lines().next().unwrap_or(""), c.trace.lines().last().unwrap_or(""));
        writeln!(out, "  text: {} lines, `{first}` … `{last}`", c.trace.lines().count()).expect("string");
        writeln!(out, "  seen: {} times, complete: {}", c.times, c.complete).expect("string");
    }
    out
}

#[test]
fn logs_give_the_reports_beside_them() {
    let logs = logs();
    assert!(logs.len() >= 40, "only {} logs: is the test data complete?", logs.len());
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = Vec::new();
    for log in logs {
        let expect = log.with_extension("expect");
        let seen = describe(&crash::scan(&fs::read(&log).expect("log")));
        if update {
            fs::write(&expect, &seen).expect("write expectation");
        }
        let wanted = fs::read_to_string(&expect).unwrap_or_else(|e| panic!("{}: {e}", expect.display()));
        if wanted != seen {
            wrong.push(format!("{}:\nexpected\n{wanted}\nseen\n{seen}", log.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pieces_give_the_same_reports_as_the_whole() {
    for log in logs() {
        let bytes = fs::read(&log).expect("log");
        let whole = crash::scan(&bytes);
        for size in [1, 7, 4096] {
            let mut watcher = Watcher::at(0);
            bytes.chunks(size).for_each(|piece| watcher.feed(piece));
            watcher.finish();
            assert_eq!(watcher.crashes(), whole, "{} in pieces of {size}", log.display());
        }
    }
}

#[test]
fn offsets_point_at_headlines() {
    for log in logs() {
        let bytes = fs::read(&log).expect("log");
        let mut watcher = Watcher::at(1000);
        watcher.feed(&bytes);
        watcher.finish();
        for crash in watcher.crashes() {
            let at = usize::try_from(crash.offset - 1000).expect("offset");
            let line = String::from_utf8_lossy(&bytes[at..]).lines().next().unwrap_or_default().to_owned();
            let headline = crash.title.split(" in ").next().unwrap_or_default().split(": ").next().unwrap_or_default();
            assert!(line.contains(headline), "{}: `{line}` is not the headline of `{}`", log.display(), crash.title);
        }
    }
}
