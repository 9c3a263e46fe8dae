//! A lab's life: up, exec, copy, shell codes, faults, killed processes, two labs at once, down.

use std::fs;
use std::time::Duration;

use e2e::Project;
use e2e::labs::{ONE_STOCK_GUEST, PASSES};
use rustix::process::{Pid, Signal, kill_process};

fn project() -> Project {
    Project::new(ONE_STOCK_GUEST, &[("ends.toml", PASSES)]).unwrap()
}

#[test]
fn commands_have_exact_codes_and_files_arrive_whole() {
    let project = project();
    project.run(["lab", "up", "--no-test"]).expect(0);
    for code in [0, 1, 42, 255] {
        project.run(["lab", "exec", "a", "--", "sh", "-c", &format!("exit {code}")]).expect(code);
    }
    project.run(["lab", "exec", "a", "--", "sh", "-c", "kill -TERM $$"]).expect(143);
    let ran = project.run(["lab", "exec", "a", "--", "sh", "-c", "echo out; echo err >&2"]).expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    project.run(["lab", "exec", "a", "--", "no-such-program"]).expect(125).says("no-such-program");

    // Every byte value, across many chunks, there and back.
    let bytes: Vec<u8> = (0..3_000_001u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let sent = project.path().join("sent");
    fs::write(&sent, &bytes).unwrap();
    project.run(["lab", "cp", "sent", "a:/tmp/there"]).expect(0);
    project.run(["lab", "cp", "a:/tmp/there", "back"]).expect(0);
    assert_eq!(fs::read(project.path().join("back")).unwrap(), bytes);
    project.run(["lab", "cp", "a:/no/such/file", "back2"]).expect(125).says("/no/such/file");
    assert!(!project.path().join("back2").exists());

    project.run(["lab", "console", "--no-follow"]).expect(0).says("Linux version");
    let status: serde_json::Value =
        serde_json::from_str(&project.run(["lab", "status", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(status["guests"][0]["state"], "ready");

    // Nothing to build or boot a second time.
    project.run(["lab", "up", "--no-test"]).expect(0).says("nothing to build");
    let again: serde_json::Value =
        serde_json::from_str(&project.run(["lab", "status", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(status["supervisor_pid"], again["supervisor_pid"]);
    project.run(["lab", "why"]).expect(0).says("is in the cache");
    project.run(["lab", "down"]).expect(0);
    project.no_process_left(Duration::from_secs(5));
}

#[test]
fn a_killed_supervisor_takes_its_guests_along_and_the_next_command_cleans_up() {
    let project = project();
    project.run(["lab", "up", "--no-test"]).expect(0);
    let status: serde_json::Value =
        serde_json::from_str(&project.run(["lab", "status", "--json"]).expect(0).stdout).unwrap();
    let pid = i32::try_from(status["supervisor_pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    project.no_process_left(Duration::from_secs(5));
    project.run(["lab", "status"]).expect(125).says("was killed");
    project.run(["lab", "up"]).expect(0);
    project.run(["lab", "down"]).expect(0);
}

#[test]
fn a_killed_qemu_is_noticed_and_the_guest_comes_back() {
    let project = project();
    project.run(["lab", "up", "--no-test"]).expect(0);
    let status: serde_json::Value =
        serde_json::from_str(&project.run(["lab", "status", "--json"]).expect(0).stdout).unwrap();
    let pid = i32::try_from(status["guests"][0]["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !project.run(["lab", "status"]).stdout.contains("down") {
        assert!(std::time::Instant::now() < deadline, "nobody noticed that QEMU is gone");
    }
    project.run(["lab", "test"]).expect(0);
}

#[test]
fn two_labs_do_not_disturb_each_other() {
    let project = project();
    let one = project.start(["lab", "up", "--name", "one"]).unwrap();
    let two = project.start(["lab", "up", "--name", "two"]).unwrap();
    let patience = Duration::from_secs(180);
    e2e::finish(one, patience).unwrap().expect(0);
    e2e::finish(two, patience).unwrap().expect(0);
    project.run(["lab", "down", "--name", "one"]).expect(0);
    project.run(["lab", "exec", "--name", "two", "a", "--", "true"]).expect(0);
    project.run(["lab", "down", "--all"]).expect(0);
    project.no_process_left(Duration::from_secs(5));
}
