//! Links that go bad, and heal.

mod common;

use std::time::{Duration, Instant};

use common::{BROADCAST, Lab, PATIENCE, frame, mac, number};
use fabric::{FabricError, Fault, LinkFault, SwitchConfig};

const MS: Duration = Duration::from_millis(1);

fn link(from: &str, to: &str, fault: Fault) -> LinkFault {
    LinkFault { from: from.into(), to: to.into(), fault }
}

/// Numbers of those of `count` frames from a to b that arrive, with a fault on the link.
fn arrivals(seed: u64, fault: Fault, count: u32, pause_every: u32) -> Vec<u32> {
    let lab = Lab::with(2, |c: &mut SwitchConfig| {
        c.seed = seed;
        c.faults = vec![link("a", "b", fault)];
    });
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    let receiver = std::thread::spawn(move || {
        let mut got = Vec::new();
        while let Some(frame) = b.receive(PATIENCE) {
            if number(&frame) == u32::MAX {
                break;
            }
            got.push(number(&frame));
        }
        got
    });
    for n in 0..count {
        a.send_to(mac("b"), n);
        if n % pause_every == 0 {
            std::thread::sleep(MS);
        }
    }
    lab.wait("a", |c| c.rx_frames == u64::from(count));
    // What is on its way arrives before the mark that follows it.
    lab.switch.set_link_fault("a", "b", Fault::default()).unwrap();
    std::thread::sleep(5 * MS);
    a.send_to(mac("b"), u32::MAX);
    let got = receiver.join().unwrap();
    let counters = lab.counters("b");
    if fault.loss > 0.0 {
        assert_eq!(counters.drops.loss, u64::from(count) - got.len() as u64);
    }
    assert_eq!(counters.tx_frames, got.len() as u64 + 1);
    got
}

#[test]
fn loss_is_what_it_says_and_a_seed_repeats_it() {
    let lossy = Fault { loss: 0.1, ..Fault::default() };
    let first = arrivals(1, lossy, 4000, 100);
    // 3600 expected; the standard deviation is 19.
    assert!((3500..3700).contains(&first.len()), "{}", first.len());
    assert_eq!(first, arrivals(1, lossy, 4000, 333), "the same seed, at another pace");
    assert_ne!(first, arrivals(2, lossy, 4000, 100), "another seed");
}

#[test]
fn duplicates_come_twice() {
    let got = arrivals(1, Fault { duplicate: 0.2, ..Fault::default() }, 2000, 100);
    let twice = got.windows(2).filter(|w| w[0] == w[1]).count();
    assert_eq!(got.len(), 2000 + twice);
    assert!((300..500).contains(&twice), "{twice}");
}

#[test]
fn reordered_frames_overtake_or_fall_behind() {
    for delay in [Duration::ZERO, 2 * MS] {
        let got = arrivals(1, Fault { reorder: 0.05, delay, ..Fault::default() }, 2000, 100);
        let mut sorted = got.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..2000).collect::<Vec<_>>(), "none is lost");
        // Those that overtook with a delay, those that fell behind without.
        let early = (0..got.len()).filter(|i| got[i + 1..].iter().any(|later| later < &got[*i])).count();
        let late = (0..got.len()).filter(|i| got[..*i].iter().any(|earlier| earlier > &got[*i])).count();
        let misplaced = early.min(late);
        assert!((20..200).contains(&misplaced), "{misplaced} with a delay of {delay:?}");
    }
}

#[test]
fn one_bit_is_flipped() {
    let lab = Lab::with(2, |c| c.faults = vec![link("a", "b", Fault { corrupt: 0.5, ..Fault::default() })]);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    let mut flipped = 0;
    for n in 0..1000 {
        let sent = frame(mac("b"), a.mac, n, 200);
        a.send(&sent);
        let got = b.receive(PATIENCE).unwrap();
        assert_eq!(got.len(), sent.len());
        let bits: u32 = sent.iter().zip(&got).map(|(x, y)| (x ^ y).count_ones()).sum();
        assert!(bits <= 1);
        flipped += bits;
    }
    assert!((400..600).contains(&flipped), "{flipped}");
}

#[test]
fn a_delay_is_kept_and_so_is_the_order() {
    let slow = Fault { delay: 30 * MS, jitter: 10 * MS, ..Fault::default() };
    let lab = Lab::with(2, |c| c.faults = vec![link("a", "b", slow)]);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    for round in 0..5 {
        let sent = Instant::now();
        for n in 0..50 {
            a.send_to(mac("b"), round * 50 + n);
        }
        assert_eq!(b.expect(), round * 50);
        let first = sent.elapsed();
        assert!(first >= 20 * MS, "the first came after {first:?}");
        for n in 1..50 {
            assert_eq!(b.expect(), round * 50 + n);
        }
        // The way back is sound.
        b.send_to(mac("a"), 7);
        assert_eq!(a.expect(), 7);
    }
}

#[test]
fn delays_shorter_than_a_millisecond_are_delays() {
    let lab = Lab::with(2, |c| c.faults = vec![link("a", "b", Fault { delay: MS / 5, ..Fault::default() })]);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    let mut times = Vec::new();
    for n in 0..200 {
        let sent = Instant::now();
        a.send_to(mac("b"), n);
        assert_eq!(b.expect(), n);
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    assert!(times[0] >= MS / 5, "{:?}", times[0]);
    assert!(times[0] < MS, "not one of 200 took less than {:?}", times[0]);
}

#[test]
fn a_partition_cuts_one_way_at_once() {
    let lab = Lab::new(3);
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    for nic in [&mut a, &mut b, &mut c] {
        nic.announce(&lab);
    }
    for nic in [&mut a, &mut b, &mut c] {
        nic.drain();
    }
    let cut = Fault { partition: true, ..Fault::default() };
    lab.switch.set_link_fault("a", "b", cut).unwrap();
    assert_eq!(lab.switch.link_fault("a", "b").unwrap(), cut);
    a.send_to(mac("b"), 1);
    a.send_to(BROADCAST, 2);
    assert_eq!(c.expect(), 2);
    b.expect_nothing();
    assert_eq!(lab.counters("b").drops.partition, 2);
    b.send_to(mac("a"), 3);
    c.send_to(mac("b"), 4);
    assert_eq!((a.expect(), b.expect()), (3, 4));
    lab.switch.set_link_fault("a", "b", Fault::default()).unwrap();
    a.send_to(mac("b"), 5);
    assert_eq!(b.expect(), 5);
    // A port's fault holds for frames from everybody to it.
    lab.switch.set_port_fault("b", cut).unwrap();
    a.send_to(mac("b"), 6);
    c.send_to(mac("b"), 7);
    b.expect_nothing();
    b.send_to(mac("c"), 8);
    assert_eq!(c.expect(), 8);
}

#[test]
fn a_partition_takes_what_is_on_the_way() {
    let slow = Fault { delay: Duration::from_secs(30), ..Fault::default() };
    let lab = Lab::with(2, |c| c.faults = vec![link("a", "b", slow)]);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    a.send_to(mac("b"), 1);
    lab.wait("b", |c| c.backlog_bytes == 64);
    lab.switch.set_port_fault("b", Fault { partition: true, ..Fault::default() }).unwrap();
    let counters = lab.counters("b");
    assert_eq!((counters.drops.partition, counters.backlog_bytes), (1, 0));
    lab.switch.set_port_fault("b", Fault::default()).unwrap();
    a.send_to(mac("b"), 2);
    assert_eq!(b.expect(), 2);
}

#[test]
fn frames_on_the_way_are_bounded_and_none_is_lost() {
    let lab = Lab::with(2, |c| {
        c.faults = vec![link("a", "b", Fault { delay: 20 * MS, ..Fault::default() })];
        c.limits.delayed_bytes = 100_000;
    });
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    let sender = std::thread::spawn(move || {
        for n in 0..500 {
            a.send(&frame(mac("b"), a.mac, n, 9014));
        }
        a
    });
    for n in 0..500 {
        assert_eq!(b.expect(), n);
        assert!(lab.counters("b").backlog_bytes < 120_000 + (512 << 10));
    }
    drop(sender.join().unwrap());
    assert_eq!(lab.counters("b").drops.total(), 0);
}

#[test]
fn impossible_requests_are_refused() {
    let lab = Lab::new(2);
    let fault = Fault::default();
    let said = |e: Result<(), FabricError>| e.unwrap_err().to_string();
    assert_eq!(said(lab.switch.set_port_fault("x", fault)), "network `test` has no port `x`; it has a, b");
    assert_eq!(
        said(lab.switch.set_link_fault("a", "a", fault)),
        "port `a` of network `test` has no link to itself: a fault needs two ports"
    );
    let wrong = Fault { loss: 2.0, ..fault };
    assert_eq!(
        said(lab.switch.set_link_fault("a", "b", wrong)),
        "no link can have loss = 2: a probability from 0 to 1"
    );
    lab.switch.stop().unwrap();
    assert_eq!(said(lab.switch.set_port_fault("a", fault)), "the switch of network `test` has stopped");
}
