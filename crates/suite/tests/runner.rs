//! The runner's everyday cases, on real agents: tests that pass, fail, skip, wait and are expected to fail.

mod support;

use std::fs;

use progress::Progress;
use suite::{RunOptions, Status};
use support::{ended, options, record, run, tests};

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
        name = "no-count"
        summary = "needs a guest whose time is the count of its instructions"
        requires = ["deterministic"]
        steps = [{ exec = "false" }]
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
    ended(&report, "no-count", Status::Skip, "missing: deterministic (the guest's time is not the count of");
    assert_eq!(record(&report, "no-count").missing, ["deterministic"]);
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
