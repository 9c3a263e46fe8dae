//! Who waits for whom, and for how long.

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use common::{BROADCAST, JUMBO, Lab, Nic, PATIENCE, QUEUE, frame, framed, mac, number};

fn patient(c: &mut fabric::SwitchConfig) {
    c.limits.stall_after = Duration::from_secs(600);
}

#[test]
fn a_sender_is_held_back_and_nothing_is_lost() {
    let lab = Lab::with(2, patient);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    let (whole, rest) = a.fill(&lab, "b");
    let counters = lab.counters("b");
    // By a read's worth more than the limit at most.
    assert!((QUEUE..QUEUE + (256 << 10) + 9018).contains(&counters.backlog_bytes), "{counters:?}");
    // Bounded: a queue, an input buffer and the sockets themselves.
    assert!((whole as usize) * JUMBO < 5 * (256 << 10), "{whole} frames");
    let sender = std::thread::spawn(move || {
        a.stream.write_all(&rest).unwrap();
        for n in whole + 1..whole + 1000 {
            a.send(&frame(mac("b"), a.mac, n, JUMBO));
        }
        a
    });
    for n in 0..whole + 1000 {
        if n % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(b.expect(), n);
    }
    drop(sender.join().unwrap());
    assert_eq!(lab.counters("b").drops.total(), 0);
}

#[test]
fn a_sender_that_waits_holds_up_nobody_else() {
    let lab = Lab::with(4, patient);
    let (mut a, mut b, mut c, mut d) = (lab.plug("a"), lab.plug("b"), lab.plug("c"), lab.plug("d"));
    for nic in [&mut a, &mut b, &mut c, &mut d] {
        nic.announce(&lab);
    }
    for nic in [&mut a, &mut c, &mut d] {
        nic.drain();
    }
    // Port b reads nothing: a waits, and its own port gives and takes nothing less for it.
    a.fill(&lab, "b");
    for n in 0..50 {
        c.send_to(mac("d"), n);
        assert_eq!(d.expect(), n);
        d.send_to(mac("a"), n);
        assert_eq!(a.expect(), n);
    }
    assert!(!lab.counters("b").stalled);
}

#[test]
fn a_stalled_port_is_given_up_until_it_reads_again() {
    let stall = Duration::from_millis(200);
    let lab = Lab::with(3, |c| c.limits.stall_after = stall);
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    for nic in [&mut a, &mut b, &mut c] {
        nic.announce(&lab);
    }
    a.drain();
    c.drain();
    let start = Instant::now();
    let bytes = framed(&frame(mac("b"), a.mac, 0, JUMBO));
    while !lab.counters("b").stalled {
        a.stream.write_all(&bytes).unwrap();
    }
    assert!(start.elapsed() >= stall, "given up after {:?}", start.elapsed());
    let counters = lab.counters("b");
    assert!(counters.drops.stalled > 20, "{counters:?}");
    assert!(counters.backlog_bytes < 9018, "only the frame that was begun is kept: {counters:?}");
    // Now a is free, and what it sends to b is dropped.
    for n in 0..1000 {
        a.send(&frame(mac("b"), a.mac, n, JUMBO));
    }
    a.send_to(mac("c"), 1234);
    assert_eq!(c.expect(), 1234);
    assert!(lab.counters("b").drops.stalled >= counters.drops.stalled + 1000);
    assert_eq!(lab.counters("b").drops.overflow, 0);
    // Once b reads, frames reach it again, and the stream is still in step.
    while lab.counters("b").stalled {
        b.receive(common::QUIET);
    }
    b.discard();
    a.send_to(mac("b"), 4321);
    assert_eq!(b.expect(), 4321);
}

#[test]
fn broadcast_never_waits() {
    let lab = Lab::with(3, patient);
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    // Port b reads nothing; port c keeps pace.
    for n in 0..1000 {
        a.send(&frame(BROADCAST, a.mac, n, JUMBO));
        assert_eq!(c.expect(), n);
    }
    let counters = lab.counters("b");
    assert!(counters.drops.overflow > 500, "{counters:?}");
    assert_eq!(lab.counters("c").drops.total(), 0);
    let got = b.drain();
    assert_eq!(got.len() as u64 + counters.drops.overflow, 1000);
    assert_eq!(got, (0..got.len() as u32).collect::<Vec<_>>(), "the oldest are kept");
}

#[test]
fn senders_share_a_slow_port() {
    let lab = Lab::with(4, patient);
    let (a, b, c, mut d) = (lab.plug("a"), lab.plug("b"), lab.plug("c"), lab.plug("d"));
    d.announce(&lab);
    let flood = |mut nic: Nic| {
        std::thread::spawn(move || {
            nic.discard();
            let bytes = framed(&frame(mac("d"), nic.mac, 0, 9014));
            // Until the switch is gone.
            while nic.stream.write_all(&bytes).is_ok() {}
        })
    };
    let senders = [flood(a), flood(b), flood(c)];
    let mut from = [0u32; 3];
    for n in 0..3000 {
        // Much slower than they are, so that all of them always have something to send.
        if n % 20 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let frame = d.receive(PATIENCE).unwrap();
        from[usize::from(frame[11] - b'a')] += 1;
    }
    assert!(from.iter().all(|n| *n > 500), "{from:?} of 3000 frames");
    drop(lab);
    for sender in senders {
        sender.join().unwrap();
    }
}

#[test]
fn many_frames_cross_both_ways_in_order() {
    let lab = Lab::new(2);
    let (a, b) = (lab.plug("a"), lab.plug("b"));
    let count = 20_000;
    let run = |mut nic: Nic, to: [u8; 6]| {
        let mut out = nic.twin();
        let sender = std::thread::spawn(move || {
            for n in 0..count {
                out.send(&frame(to, out.mac, n, 64 + (n as usize * 37) % 8900));
            }
        });
        std::thread::spawn(move || {
            for n in 0..count {
                let got = nic.receive(PATIENCE).unwrap();
                assert_eq!((number(&got), got.len()), (n, 64 + (n as usize * 37) % 8900));
            }
            sender.join().unwrap();
            nic
        })
    };
    let ends = [run(a, mac("b")), run(b, mac("a"))].map(|end| end.join().unwrap());
    assert_eq!(lab.counters("a").tx_frames, u64::from(count));
    assert_eq!(lab.counters("a").tx_bytes, lab.counters("b").rx_bytes);
    drop(ends);
}
