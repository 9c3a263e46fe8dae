//! NICs that come and go, and sockets that were there before.

mod common;

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use common::{BROADCAST, Lab, QUEUE, config, frame, framed, mac};
use fabric::{FabricError, Fault, LinkFault, Switch};

#[test]
fn a_nic_that_restarts_is_let_in_again() {
    let lab = Lab::new(3);
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    b.announce(&lab);
    a.drain();
    c.drain();
    drop(b);
    let counters = lab.wait("b", |c| !c.connected);
    assert_eq!(counters.connects, 1);
    // Its address went with it: frames to it are for strangers again.
    a.send_to(mac("b"), 1);
    assert_eq!(c.expect(), 1);
    let mut b = lab.plug("b");
    assert_eq!(lab.counters("b").connects, 2);
    a.send_to(BROADCAST, 2);
    assert_eq!(b.expect(), 2, "nothing from before it was plugged in");
    b.send_to(mac("a"), 3);
    assert_eq!(a.expect(), 3);
}

#[test]
fn a_restart_is_let_in_though_the_switch_has_not_seen_the_end_yet() {
    let lab = Lab::new(2);
    let mut a = lab.plug("a");
    for round in 0..50 {
        let mut b = UnixStream::connect(lab.socket("b")).unwrap();
        b.write_all(&framed(&frame(mac("a"), mac("b"), round, 64))).unwrap();
        assert_eq!(a.expect(), round);
        // Closed and connected again with nothing between.
    }
    lab.wait("b", |c| c.connects == 50 && !c.connected);
}

#[test]
fn a_second_nic_waits_for_the_first_to_go() {
    let lab = Lab::new(2);
    let (mut a, b) = (lab.plug("a"), lab.plug("b"));
    let mut second = UnixStream::connect(lab.socket("b")).unwrap();
    second.write_all(&framed(&frame(mac("a"), mac("b"), 1, 64))).unwrap();
    a.expect_nothing();
    assert_eq!(lab.counters("b").connects, 1);
    drop(b);
    assert_eq!(a.expect(), 1);
    assert_eq!(lab.counters("b").connects, 2);
}

#[test]
fn what_was_sent_before_the_end_arrives() {
    let lab = Lab::new(2);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    for n in 0..100 {
        a.send_to(mac("b"), n);
    }
    drop(a);
    for n in 0..100 {
        assert_eq!(b.expect(), n);
    }
}

#[test]
fn a_port_that_is_unplugged_frees_those_who_wait_for_it() {
    let lab = Lab::with(3, |c| c.limits.stall_after = Duration::from_secs(600));
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    b.announce(&lab);
    a.drain();
    let mut twin = a.twin();
    let sender = std::thread::spawn(move || {
        for n in 0..1000 {
            twin.send(&frame(mac("b"), twin.mac, n, 9014));
        }
    });
    lab.wait("b", |c| c.backlog_bytes > QUEUE);
    drop(b);
    // What is for b from now on is for a stranger, and nobody waits for those who hear that: the sender comes to its end.
    sender.join().unwrap();
    c.discard();
    a.send_to(mac("b"), 1000);
    assert_eq!(c.expect(), 1000);
    assert!(lab.counters("b").drops.unplugged > 28);
    assert_eq!(lab.counters("b").backlog_bytes, 0);
}

#[test]
fn a_sender_that_waits_may_go_too() {
    let lab = Lab::with(2, |c| c.limits.stall_after = Duration::from_secs(600));
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    let (whole, _) = a.fill(&lab, "b");
    drop(a);
    // Everything whole that it sent before still arrives, and its port is free then.
    for n in 0..whole {
        assert_eq!(b.expect(), n);
    }
    assert_eq!(lab.wait("a", |c| !c.connected).rx_frames, u64::from(whole));
    lab.plug("a").send_to(mac("b"), 77);
    assert_eq!(b.expect(), 77);
}

#[test]
fn delayed_frames_go_with_the_port_they_are_for() {
    let slow = Fault { delay: Duration::from_secs(30), ..Fault::default() };
    let lab = Lab::with(2, |c| c.faults = vec![LinkFault { from: "a".into(), to: "b".into(), fault: slow }]);
    let (mut a, b) = (lab.plug("a"), lab.plug("b"));
    a.send_to(mac("b"), 1);
    lab.wait("b", |c| c.backlog_bytes == 64);
    drop(b);
    let counters = lab.wait("b", |c| !c.connected);
    assert_eq!((counters.drops.unplugged, counters.backlog_bytes), (1, 0));
}

#[test]
fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a listener that dies leaves its file");
    let switch = Switch::start(config(&dir, 2)).unwrap();
    let other = Switch::start(config(&dir, 2)).unwrap_err();
    assert!(matches!(other, FabricError::SocketInUse { .. }), "{other}");
    assert_eq!(
        other.to_string(),
        format!("port `a` cannot listen on {}: another process does; stop the lab it belongs to", path.display())
    );
    assert!(path.exists());
    switch.stop().unwrap();
    assert!(!path.exists() && !dir.path().join("b").exists());
    switch.stop().unwrap();
}

#[test]
fn a_failed_start_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b");
    std::fs::write(&file, "precious").unwrap();
    let error = Switch::start(config(&dir, 3)).unwrap_err().to_string();
    assert!(error.starts_with(&format!("port `b` cannot listen on {}: ", file.display())), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert!(!dir.path().join("a").exists() && !dir.path().join("c").exists());
    let mut long = config(&dir, 1);
    long.ports[0].socket = dir.path().join("x".repeat(120));
    let error = Switch::start(long).unwrap_err().to_string();
    assert!(error.contains("path must be shorter than"), "{error}");
}

#[test]
fn wrong_configurations_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut twins = config(&dir, 2);
    twins.ports[1].name = "a".into();
    assert_eq!(Switch::start(twins).unwrap_err().to_string(), "network `test` has two ports called `a`");
    let mut tiny = config(&dir, 1);
    tiny.ports[0].mtu = 67;
    assert_eq!(
        Switch::start(tiny).unwrap_err().to_string(),
        "port `a` of network `test`: MTU 67; an MTU is 68 to 65535 bytes"
    );
    let mut stray = config(&dir, 1);
    stray.faults = vec![LinkFault { from: "a".into(), to: "z".into(), fault: Fault::default() }];
    assert_eq!(Switch::start(stray).unwrap_err().to_string(), "network `test` has no port `z`; it has a");
}
