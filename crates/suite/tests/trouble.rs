//! The runner's bad days, on real agents: hangs, crashes, lost agents, leaks, interruptions.

mod support;

use progress::{Cancel, Progress};
use suite::Status;
use suite::results::HangKind;
use support::{ended, options, record, run, tests};

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
        name = "known"
        summary = "the same where the kernel is known for it"
        expect = { stock = "crash" }
        because = "it is slow to complain"
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
    ended(&report, "known", Status::Xfail, "it is slow to complain");
    ended(&report, "killed", Status::Error, "guest `a`");
    ended(&report, "after", Status::Pass, "");
    assert_eq!(lab.reboots.lock().unwrap().len(), 4);
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
        steps = [{ exec = ["sh", "-c", """setsid sleep 1000 < /dev/null > /dev/null 2>&1 &
            # A program has no command line before it is executed.
            until tr '\\0' ' ' < /proc/$!/cmdline | grep -q '^sleep 1000'; do :; done"""] }]
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

    // The next run does not trust a guest that a test was interrupted in; the one after it does.
    for reboots in ["a: an earlier run was broken off in it", ""] {
        lab.reboots.lock().unwrap().clear();
        let report = suite::run(&tests[..1], &lab, &options(lab.dir()), &Progress::silent()).unwrap();
        ended(&report, "first", Status::Pass, "");
        assert_eq!(lab.reboots.lock().unwrap().join(", "), reboots);
    }
}

#[test]
fn reports_of_an_interrupted_run() {
    let lab = lab!("a");
    let tests = tests(&lab, "interrupted", "[[test]]\nname = \"t\"\nsummary = \"s\"\nsteps = [{ exec = \"true\" }]\n");
    let cancel = Cancel::default();
    cancel.cancel();
    let report = suite::run(&tests, &lab, &options(lab.dir()), &Progress::new(cancel, |_| {})).unwrap();
    ended(&report, "t", Status::NotRun, "");
    assert_eq!(suite::report::read(&lab.dir().join("report")).unwrap(), report);
}
