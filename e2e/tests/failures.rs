//! What the lab says and leaves behind when something goes wrong.

use std::time::Duration;

use e2e::labs::{ENDS, ONE_STOCK_GUEST, PASSES, unbootable};
use e2e::{Project, finish};

/// Every way a test can end, in one run: the statuses are right, a crashed and a dirty guest come back, the rest runs.
#[test]
fn every_end_of_a_test_is_told_apart() {
    let project = Project::new(ONE_STOCK_GUEST, &[("ends.toml", ENDS)]).unwrap();
    let ran = project.run(["lab", "up"]).expect(1);
    for (test, status) in [
        ("passes", "pass"),
        ("fails", "fail"),
        ("panics", "crash"),
        ("after-the-panic", "pass"),
        ("hangs", "timeout"),
        ("leaks", "fail"),
        ("after-the-leak", "pass"),
        ("lacks-a-tool", "skip"),
        ("known-to-fail", "xfail"),
    ] {
        assert_eq!(project.status_of(&format!("ends/{test}")).unwrap(), status, "{test}\n{}", ran.all());
    }
    let results = project.results().unwrap();
    let record =
        |name: &str| results["records"].as_array().unwrap().iter().find(|r| r["test"] == name).unwrap().clone();
    let trace = record("ends/panics")["crash"]["trace"].as_str().unwrap_or_default().to_owned();
    assert!(trace.contains("sysrq"), "the trace names no frame of sysrq:\n{trace}");
    assert!(record("ends/leaks")["message"].as_str().unwrap_or_default().contains("left-behind"));
    assert!(record("ends/lacks-a-tool")["message"].as_str().unwrap_or_default().contains("no-such-tool"));
    // The same lab goes on: one passing test alone is exit 0.
    project.run(["lab", "test", "ends/passes"]).expect(0);
    project.run(["lab", "down"]).expect(0);
    project.no_process_left(Duration::from_secs(5));
}

#[test]
fn a_kernel_that_does_not_boot_is_told_with_its_panic() {
    let project = Project::new(&unbootable(), &[("ends.toml", PASSES)]).unwrap();
    let ran = project.run(["lab", "up"]).expect(125).says("panic");
    assert!(!ran.all().contains("no greeting"), "the boot's whole time was waited out:\n{}", ran.all());
    project.no_process_left(Duration::from_secs(5));
}

#[test]
fn a_lock_with_a_wrong_hash_is_told_with_the_package() {
    let project = Project::new(ONE_STOCK_GUEST, &[("ends.toml", PASSES)]).unwrap();
    project
        .edit("lab.lock", |text| {
            // A package that every boot needs: the last digit of its hash is another now.
            let entry = text.find("name = \"seabios\"").unwrap();
            let at = entry + text[entry..].find("sha256 = \"").unwrap() + "sha256 = \"".len() + 63;
            let other = if &text[at..=at] == "0" { "1" } else { "0" };
            format!("{}{other}{}", &text[..at], &text[at + 1..])
        })
        .unwrap();
    project.run(["lab", "up", "--offline", "--no-test"]).expect(125).says("seabios");
    project.run(["lab", "up", "--no-test"]).expect(125).says("seabios");
    project.no_process_left(Duration::from_secs(5));
}

#[test]
fn a_wrong_filter_and_a_wrong_file_are_told_before_anything_runs() {
    let project = Project::new(ONE_STOCK_GUEST, &[("ends.toml", PASSES)]).unwrap();
    project.run(["lab", "test", "no-such-test"]).expect(125).says("no-such-test");
    let wrong = Project::new(&ONE_STOCK_GUEST.replace("memory", "memry"), &[("ends.toml", PASSES)]).unwrap();
    wrong.run(["lab", "up"]).expect(2).says("memry").says("lab.toml:");
    assert!(!wrong.path().join("target").exists(), "a wrong lab.toml left a target folder");
}

#[test]
fn ctrl_c_while_booting_leaves_nothing() {
    let project = Project::new(ONE_STOCK_GUEST, &[("ends.toml", PASSES)]).unwrap();
    let mut child = project.start(["lab", "up"]).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    // QEMU runs: the boot is under way.
    while !project.processes().iter().any(|p| p.contains("qemu-system")) {
        assert!(std::time::Instant::now() < deadline, "QEMU never started");
        assert!(child.try_wait().unwrap().is_none(), "`lab up` ended before it could be interrupted");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ran = finish(child, Duration::from_secs(30)).unwrap();
    assert_eq!(ran.code, 130, "{}", ran.all());
    project.no_process_left(Duration::from_secs(5));
    project.run(["lab", "status"]).expect(125).says("not up");
}
