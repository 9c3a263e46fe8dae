//! The runner's own cases, on real agents: tests that pass, fail, skip, hang, leak, crash and lose their agent.

mod support;

use std::fs;
use std::path::Path;

use progress::{Cancel, Progress};
use suite::results::HangKind;
use suite::{Record, Report, RunOptions, Status};
use support::Local;

fn options(dir: &Path) -> RunOptions {
    RunOptions { report_dir: dir.join("report"), repeat: 1, time_scale: 1.0, provenance: Default::default() }
}

/// Loads a suite from text; `CONSOLE` and `DIR` stand for paths of the lab.
fn tests(lab: &Local, suite: &str, text: &str) -> Vec<suite::Test> {
    let console = lab.console_path("a");
    let text = text.replace("CONSOLE", console.to_str().unwrap()).replace("DIR", lab.dir().to_str().unwrap());
    suite::load_texts(&[(format!("{suite}.toml").into(), text)]).unwrap_or_else(|e| panic!("{e}"))
}

fn run(lab: &Local, suite: &str, text: &str) -> Report {
    let report = suite::run(&tests(lab, suite, text), lab, &options(lab.dir()), &Progress::silent()).unwrap();
    for record in &report.records {
        eprintln!("{}", suite::report::line(record));
    }
    report
}

fn record<'a>(report: &'a Report, name: &str) -> &'a Record {
    let found = report.records.iter().find(|record| record.test.ends_with(&format!("/{name}")));
    found.unwrap_or_else(|| panic!("no record of {name}"))
}

#[track_caller]
fn ended(report: &Report, name: &str, status: Status, message: &str) {
    let record = record(report, name);
    assert_eq!(record.status, status, "{name}: {}", record.message);
    assert!(record.message.contains(message), "{name}: `{}` lacks `{message}`", record.message);
}

macro_rules! lab {
    ($($name:literal),+) => {
        match Local::start(&[$($name),+], "stock") {
            Some(lab) => lab,
            None => return,
        }
    };
}

#[test]
fn pass_fail_and_skip() {
    let lab = lab!("a");
    let rping = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rping/v4.client.txt");
    let text = r#"
        [[test]]
        name = "measures"
        summary = "parses an output into metrics and evidence"
        steps = [
            { exec = "cat RPING", as = "client" },
            { parse = "client", with = "rping" },
            { metric = "pings", at-least = 5, at-most = 5 },
            { check = "client", has = "rdma-ping-4", lacks = "rdma-ping-5" },
        ]
        [[test]]
        name = "fails"
        summary = "exits with a status that is not expected"
        steps = [{ exec = ["sh", "-c", "echo almost; echo broken >&2; exit 17"], as = "client" }]
        [[test]]
        name = "dies"
        summary = "is killed by a signal"
        steps = [{ exec = ["sh", "-c", "kill -SEGV $$"] }]
        [[test]]
        name = "metric"
        summary = "measures too little"
        steps = [
            { exec = "cat RPING", as = "client" },
            { parse = "client", with = "rping" },
            { metric = "pings", at-least = 6 },
        ]
        [[test]]
        name = "expects-failure"
        summary = "a program must fail, and does"
        steps = [{ exec = "false", exit = "failure" }, { exec = "sh -c 'exit 3'", exit = 3 }]
        [[test]]
        name = "no-tool"
        summary = "needs a tool that is not there"
        steps = [{ exec = "no-such-tool --version" }]
        [[test]]
        name = "no-guest"
        summary = "needs more guests than there are"
        guests = ["a", "b"]
        steps = [{ exec = "true", guest = "b" }]
    "#;
    let report = run(&lab, "basic", &text.replace("RPING", rping));
    ended(&report, "measures", Status::Pass, "");
    assert_eq!(record(&report, "measures").metrics[0].value, 5.0);
    assert_eq!(record(&report, "measures").evidence[0].name, "client: ping data");
    ended(&report, "fails", Status::Fail, "`client`: exit status 17: broken");
    ended(&report, "dies", Status::Fail, "killed by signal 11");
    ended(&report, "metric", Status::Fail, "pings is 5 count, less than 6");
    ended(&report, "expects-failure", Status::Pass, "");
    ended(&report, "no-tool", Status::Skip, "missing: tool:no-such-tool (no program no-such-tool in ");
    assert_eq!(record(&report, "no-tool").missing, ["tool:no-such-tool"]);
    ended(&report, "no-guest", Status::Skip, "missing: guests:2 (the lab has 1)");
    assert_eq!(report.exit_code(), 1);
    assert!(lab.reboots.lock().unwrap().is_empty());

    let stderr = lab.dir().join("report/tests/basic.fails/client.stderr");
    assert_eq!(fs::read_to_string(stderr).unwrap(), "broken\n");
    let read = suite::report::read(&lab.dir().join("report")).unwrap();
    assert_eq!(read, report);
}

#[test]
fn hangs_are_told_apart() {
    let lab = lab!("a");
    let report = run(
        &lab,
        "hangs",
        r#"
        [[test]]
        name = "quiet"
        summary = "waits for ever"
        timeout = "1s"
        steps = [{ exec = ["sh", "-c", "echo waiting; sleep 1000"] }]
        [[test]]
        name = "busy"
        summary = "spins for ever"
        timeout = "1s"
        steps = [{ exec = ["sh", "-c", "while :; do :; done"], as = "spin" }]
        [[test]]
        name = "step"
        summary = "one step has a limit of its own"
        steps = [{ exec = "sleep 1000", timeout = "200ms" }]
        [[test]]
        name = "silent"
        summary = "the agent itself stops"
        steps = [{ exec = ["sh", "-c", "kill -STOP $PPID"] }]
        [[test]]
        name = "after"
        summary = "the guest is back"
        steps = [{ exec = "true" }]
        "#,
    );
    ended(&report, "quiet", Status::Timeout, "while it only waited");
    ended(&report, "quiet", Status::Timeout, "last output: waiting");
    let quiet = record(&report, "quiet").hang.as_ref().unwrap();
    assert!(quiet.processes.iter().any(|p| p.contains("sleep 1000: state S")), "{:?}", quiet.processes);
    ended(&report, "busy", Status::Timeout, "step `spin`: time ran out while it was busy");
    ended(&report, "step", Status::Timeout, "while it only waited");
    ended(&report, "silent", Status::Timeout, "has not been heard for");
    assert_eq!(record(&report, "silent").hang.as_ref().unwrap().kind, HangKind::Guest);
    ended(&report, "after", Status::Pass, "");
    // The first three left nothing behind, so only the one that took the agent along cost a reboot.
    assert_eq!(*lab.reboots.lock().unwrap(), ["a: it no longer answers"]);
}

#[test]
fn crash_and_lost_agent() {
    let lab = lab!("a");
    let report = run(
        &lab,
        "crashes",
        r#"
        [[test]]
        name = "panics"
        summary = "the console shows a panic and the agent is gone"
        steps = [
            { exec = ["sh", "-c", "echo 'Kernel panic - not syncing: sysrq triggered crash' >> CONSOLE; kill -9 $PPID; sleep 9"] },
        ]
        [[test]]
        name = "complains"
        summary = "every step is fine, but the console is not"
        steps = [{ exec = ["sh", "-c", "echo 'Kernel panic - not syncing: late' >> CONSOLE"] }]
        [[test]]
        name = "killed"
        summary = "the agent is gone and the console says nothing"
        steps = [{ exec = ["sh", "-c", "kill -9 $PPID; sleep 9"] }]
        [[test]]
        name = "after"
        summary = "the guest is back"
        steps = [{ exec = "true" }]
        "#,
    );
    ended(&report, "panics", Status::Crash, "panic: Kernel panic - not syncing: sysrq triggered crash");
    let crash = record(&report, "panics").crash.as_ref().unwrap();
    assert!(crash.guest == "a" && crash.info.trace.contains("sysrq"));
    assert!(record(&report, "panics").artifacts.iter().any(|artifact| artifact.name == "console-a.log"));
    ended(&report, "complains", Status::Crash, "late");
    ended(&report, "killed", Status::Error, "guest `a`");
    ended(&report, "after", Status::Pass, "");
    assert_eq!(lab.reboots.lock().unwrap().len(), 3);
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn infrastructure_alone_exits_with_125() {
    let mut lab = lab!("a");
    lab.no_reboot = Some("the image is gone".into());
    let report = run(
        &lab,
        "infrastructure",
        r#"
        [[test]]
        name = "killed"
        summary = "the agent is gone"
        steps = [{ exec = ["sh", "-c", "kill -9 $PPID; sleep 9"] }]
        [[test]]
        name = "after"
        summary = "cannot run"
        steps = [{ exec = "true" }]
        "#,
    );
    ended(&report, "killed", Status::Error, "");
    ended(
        &report,
        "after",
        Status::Error,
        "guest `a` was lost earlier: guest `a` could not be rebooted: the image is gone",
    );
    assert_eq!(lab.reboots.lock().unwrap().len(), 1);
    assert_eq!(report.exit_code(), 125);
}

#[test]
fn what_is_left_behind() {
    let lab = lab!("a");
    let report = run(
        &lab,
        "leaks",
        r#"
        [[test]]
        name = "sysctl"
        summary = "turns on forwarding and leaves it"
        steps = [{ exec = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"] }]
        [[test]]
        name = "clean"
        summary = "the guest is as new"
        steps = [{ exec = "grep -x 0 /proc/sys/net/ipv4/ip_forward" }]
        [[test]]
        name = "allowed"
        summary = "says what it leaves"
        leaves = ["sysctl:net.ipv4.ip_forward"]
        steps = [{ exec = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"] }]
        [[test]]
        name = "tidies"
        summary = "its cleanup runs although it fails"
        steps = [{ exec = "mount -t tmpfs tmpfs /mnt" }, { exec = "false" }]
        cleanup = [{ exec = "umount /mnt" }]
        [[test]]
        name = "stray"
        summary = "a process that left its session is found and killed"
        steps = [{ exec = ["sh", "-c", "setsid sleep 1000 < /dev/null > /dev/null 2>&1 &"] }]
        "#,
    );
    ended(&report, "sysctl", Status::Fail, "left behind: sysctl changed: net.ipv4.ip_forward from \"0\" to \"1\"");
    assert_eq!(record(&report, "sysctl").rebooted, ["a: leaks/sysctl left something behind"]);
    ended(&report, "clean", Status::Pass, "");
    ended(&report, "allowed", Status::Pass, "");
    ended(&report, "tidies", Status::Fail, "exit status 1");
    assert!(record(&report, "tidies").leaks.is_empty());
    ended(&report, "stray", Status::Pass, "");
    let notes = &record(&report, "stray").notes;
    assert!(notes.iter().any(|note| note.contains("killed a process") && note.contains("sleep 1000")), "{notes:?}");
    assert_eq!(lab.reboots.lock().unwrap().len(), 1);
}

#[test]
fn servers_and_conditions() {
    let lab = lab!("a");
    let report = run(
        &lab,
        "servers",
        r#"
        [setup.server]
        vars = { ready = "DIR/ready" }
        steps = [
            { spawn = ["sh", "-c", "echo up > {ready}; cat; echo done"], stdin = "hello", as = "server" },
            { wait = "file-contains", path = "{ready}", text = "up" },
        ]
        cleanup = [{ exec = "rm {ready}" }]
        [[test]]
        name = "joins"
        summary = "a spawned program is waited for"
        setup = ["server"]
        steps = [{ join = "server" }, { check = "server", has = ["hello", "done"] }]
        [[test]]
        name = "stops"
        summary = "a spawned program is stopped"
        steps = [{ spawn = "sleep 1000", as = "sleeper" }, { stop = "sleeper", signal = "INT" }]
        [[test]]
        name = "dies"
        summary = "a server that dies is not waited for"
        timeout = "50s"
        steps = [
            { spawn = ["sh", "-c", "echo no device >&2; exit 2"], as = "server" },
            { wait = "tcp-listen", port = 18515 },
        ]
        [[test]]
        name = "never"
        summary = "a condition that never comes true"
        steps = [{ wait = "file-exists", path = "DIR/never", timeout = "300ms" }]
        [[test]]
        name = "files"
        summary = "files go there and come back"
        steps = [
            { push = "DIR/pushed", content = "left {{right}}\n", mode = 0o755 },
            { exec = "test -x DIR/pushed" },
            { pull = "DIR/pushed", as = "back" },
        ]
        cleanup = [{ exec = "rm DIR/pushed" }]
        "#,
    );
    ended(&report, "joins", Status::Pass, "");
    ended(&report, "stops", Status::Pass, "");
    ended(&report, "dies", Status::Fail, "`server`: exit status 2: no device");
    assert!(record(&report, "dies").duration_ms < 20_000);
    ended(&report, "never", Status::Fail, "gave up after");
    ended(&report, "files", Status::Pass, "");
    let back = lab.dir().join("report/tests/servers.files/back-pushed");
    assert_eq!(fs::read_to_string(back).unwrap(), "left {right}\n");
}

#[test]
fn known_failures() {
    let lab = lab!("a");
    let report = run(
        &lab,
        "known",
        r#"
        [[test]]
        name = "xfail"
        summary = "fails where it should"
        expect.stock = "fail"
        expect-at = "client"
        because = "the fix is not in that kernel"
        steps = [{ exec = "true" }, { exec = "false", as = "client" }]
        [[test]]
        name = "elsewhere"
        summary = "fails, but not where it should"
        expect.stock = "fail"
        expect-at = "client"
        because = "the fix is not in that kernel"
        steps = [{ exec = "false" }, { exec = "true", as = "client" }]
        [[test]]
        name = "xpass"
        summary = "passes though it should not"
        expect.stock = "fail"
        because = "the fix is not in that kernel"
        steps = [{ exec = "true" }]
        [[test]]
        name = "strict"
        summary = "must not pass"
        expect.stock = "fail"
        because = "the fix is not in that kernel"
        strict = true
        steps = [{ exec = "true" }]
        [[test]]
        name = "other-kernel"
        summary = "the expectation is about another kernel"
        expect.baseline = "fail"
        because = "the fix is not in that kernel"
        steps = [{ exec = "false" }]
        "#,
    );
    ended(
        &report,
        "xfail",
        Status::Xfail,
        "as known of kernel `stock`: the fix is not in that kernel (`client`: exit status 1: it printed nothing)",
    );
    ended(&report, "elsewhere", Status::Fail, "");
    ended(&report, "xpass", Status::Xpass, "it passed though kernel `stock` is expected to fail");
    ended(&report, "strict", Status::Fail, "it passed though");
    ended(&report, "other-kernel", Status::Fail, "");
}

#[test]
fn selftests() {
    let lab = lab!("a");
    let script = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = lab.dir().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("ok.sh", "echo TAP version 13; echo 1..2; echo ok 1 a; echo ok 2 b '# SKIP no tun'");
    script("skip.sh", "echo 'SKIP: Kernel module tun not found.' >&2; exit 4");
    script("short.sh", "echo TAP version 13; echo 1..2; echo ok 1 a");
    script("lacks.sh", "no-such-tool; exit 0");
    script("where.sh", "test -e ./ok.sh");
    let one = |name: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\nsummary = \"a selftest\"\nsteps = [{{ kselftest = \"DIR/{name}.sh\" }}]\n"
        )
    };
    let text: String = ["ok", "skip", "short", "lacks", "where", "absent"].map(one).concat();
    let report = run(&lab, "selftests", &text);
    ended(&report, "ok", Status::Pass, "");
    assert_eq!(record(&report, "ok").subtests[1].status, Status::Skip);
    ended(&report, "skip", Status::Skip, "Kernel module tun not found.");
    ended(&report, "short", Status::Fail, "planned 2 results, got 1");
    ended(&report, "lacks", Status::Skip, "tool:no-such-tool: the script calls it and the guest lacks it");
    assert_eq!(record(&report, "lacks").missing, ["tool:no-such-tool"]);
    ended(&report, "where", Status::Pass, "");
    ended(&report, "absent", Status::Skip, "absent.sh");
}

#[test]
fn the_record_is_there_before_the_test() {
    let lab = lab!("a");
    let report = run(
        &lab,
        "journal",
        r#"
        [[test]]
        name = "looks"
        summary = "reads its own record from inside"
        steps = [
            { exec = "cat DIR/report/journal.jsonl", as = "journal" },
            { check = "journal", has = ['"test":"journal/looks","iteration":1,"status":"did-not-finish"'] },
            { exec = "test ! -e DIR/report/results.json" },
            { exec = "cp DIR/report/journal.jsonl DIR/died" },
        ]
        "#,
    );
    ended(&report, "looks", Status::Pass, "");
    // What a run that dies within the test leaves.
    let died = lab.dir().join("dead-run");
    fs::create_dir(&died).unwrap();
    let journal = fs::read_to_string(lab.dir().join("died")).unwrap();
    fs::write(died.join(suite::JOURNAL), format!("{journal}{{\"test\":\"cut sho")).unwrap();
    let recovered = suite::report::read(&died).unwrap();
    assert_eq!(recovered.records[0].status, Status::DidNotFinish);
    assert!(!recovered.complete);
    assert_eq!(recovered.exit_code(), 125);
}

#[test]
fn cancelled_in_the_middle() {
    let lab = lab!("a");
    let text = r#"
        [[test]]
        name = "first"
        summary = "ends"
        steps = [{ exec = "true" }]
        [[test]]
        name = "second"
        summary = "is interrupted"
        steps = [{ exec = "touch DIR/second" }, { exec = "sleep 1000" }]
        [[test]]
        name = "third"
        summary = "never begins"
        steps = [{ exec = "touch DIR/third" }]
    "#;
    let tests = tests(&lab, "cancel", text);
    let cancel = Cancel::default();
    let progress = Progress::new(cancel.clone(), |_| {});
    let report = std::thread::scope(|scope| {
        let marker = lab.dir().join("second");
        scope.spawn(move || {
            while !marker.exists() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            cancel.cancel();
        });
        suite::run(&tests, &lab, &options(lab.dir()), &progress).unwrap()
    });
    ended(&report, "first", Status::Pass, "");
    ended(&report, "second", Status::DidNotFinish, "interrupted");
    ended(&report, "third", Status::NotRun, "");
    assert!(report.cancelled && !report.complete && !lab.dir().join("third").exists());
    assert_eq!(report.exit_code(), 130);
    assert_eq!(suite::report::read(&lab.dir().join("report")).unwrap(), report);
}

#[test]
fn two_guests_and_rounds() {
    let lab = lab!("a", "b");
    let text = r#"
        [[test]]
        name = "both"
        summary = "each role runs in its own guest"
        guests = ["client", "b"]
        steps = [
            { exec = "mount -t tmpfs tmpfs /mnt", guest = "b" },
            { exec = "grep -c ' /mnt tmpfs' /proc/mounts", guest = "client", exit = 1 },
            { exec = "umount /mnt", guest = "b" },
        ]
    "#;
    let options = RunOptions { repeat: 3, ..options(lab.dir()) };
    let report = suite::run(&tests(&lab, "rounds", text), &lab, &options, &Progress::silent()).unwrap();
    let rounds: Vec<(u32, Status)> = report.records.iter().map(|r| (r.iteration, r.status)).collect();
    assert_eq!(rounds, [(1, Status::Pass), (2, Status::Pass), (3, Status::Pass)]);
    let used: Vec<&str> = report.records[0].guests.iter().map(|used| used.guest.as_str()).collect();
    assert_eq!(used, ["a", "b"]);
    assert_eq!(report.exit_code(), 0);
}
