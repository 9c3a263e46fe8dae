//! A switch that has nothing to do does nothing, whatever state its ports are in.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{Lab, frame, framed, mac};
use fabric::{Fault, LinkFault, SwitchConfig};

const LONG: Duration = Duration::from_secs(600);

/// Processor time of a switch's thread so far, in ticks of 10 ms (proc_pid_stat(5), fields 14 and 15).
fn ticks(network: &str) -> u64 {
    for task in fs::read_dir("/proc/self/task").unwrap() {
        // Threads of other tests come and go.
        let Ok(stat) = fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        let (head, tail) = stat.rsplit_once(')').unwrap();
        if head.ends_with(&format!("(switch {network}")) {
            let fields: Vec<&str> = tail.split_whitespace().collect();
            return fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    // A thread gives itself its name.
    std::thread::sleep(Duration::from_millis(1));
    ticks(network)
}

/// A busy loop would use up to 40 ticks.
fn assert_idle(network: &str) {
    let before = ticks(network);
    std::thread::sleep(Duration::from_millis(400));
    let used = ticks(network) - before;
    assert!(used <= 2, "{used} ticks of 10 ms within 400 ms");
}

fn lab(name: &str, change: impl FnOnce(&mut SwitchConfig)) -> Lab {
    Lab::with(2, |config| {
        config.name = name.into();
        config.limits.stall_after = LONG;
        change(config);
    })
}

#[test]
fn with_nothing_or_much_plugged_in() {
    let lab = lab("plugged", |_| {});
    assert_idle("plugged");
    let _a = lab.plug("a");
    let _waits = UnixStream::connect(lab.socket("a")).unwrap();
    assert_idle("plugged");
}

#[test]
fn with_a_port_that_does_not_read() {
    let lab = lab("full", |_| {});
    let (mut a, _b) = (lab.plug("a"), lab.plug("b"));
    a.fill(&lab, "b");
    assert_idle("full");
}

#[test]
fn with_a_stalled_port() {
    let lab = lab("stalled", |c| c.limits.stall_after = Duration::from_millis(10));
    let (mut a, _b) = (lab.plug("a"), lab.plug("b"));
    let bytes = framed(&frame(mac("b"), a.mac, 0, 9014));
    while !lab.counters("b").stalled {
        a.stream.write_all(&bytes).unwrap();
    }
    assert_idle("stalled");
}

#[test]
fn with_a_sender_that_went_while_it_waited() {
    let lab = lab("gone", |_| {});
    let (mut a, _b) = (lab.plug("a"), lab.plug("b"));
    a.fill(&lab, "b");
    drop(a);
    assert_idle("gone");
}

#[test]
fn with_frames_on_their_way() {
    let slow = Fault { delay: Duration::from_secs(30), ..Fault::default() };
    let lab = lab("delayed", |c| c.faults = vec![LinkFault { from: "a".into(), to: "b".into(), fault: slow }]);
    let (mut a, _b) = (lab.plug("a"), lab.plug("b"));
    a.send_to(mac("b"), 1);
    lab.wait("b", |c| c.backlog_bytes > 0);
    assert_idle("delayed");
}
