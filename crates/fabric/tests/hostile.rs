//! Streams and frames that no honest NIC sends.

mod common;

use std::io::Write;
use std::time::Duration;

use common::{Lab, PATIENCE, frame, framed, mac};

#[test]
fn a_length_out_of_this_world_cuts_the_stream_and_no_other() {
    let lab = Lab::new(3);
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    for length in [u32::MAX, 69_633, 0x5555_5555] {
        a.send_to(mac("b"), 1);
        assert_eq!((b.expect(), c.expect()), (1, 1));
        a.stream.write_all(&length.to_be_bytes()).unwrap();
        assert!(a.is_cut());
        a = lab.plug("a");
    }
    assert_eq!(lab.counters("a").protocol_errors, 3);
    b.send_to(mac("c"), 2);
    assert_eq!(c.expect(), 2);
}

#[test]
fn frames_too_short_for_ethernet_are_dropped() {
    let lab = Lab::new(2);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    for len in 0..14 {
        a.send(&vec![2; len]);
    }
    a.send_to(mac("b"), 1);
    assert_eq!(b.expect(), 1);
    let counters = lab.counters("a");
    assert_eq!((counters.drops.malformed, counters.rx_frames, counters.protocol_errors), (14, 15, 0));
    // The shortest one there is: header and nothing else.
    a.send(&frame(mac("b"), a.mac, 0, 18)[..14]);
    assert_eq!(b.receive(PATIENCE).unwrap().len(), 14);
}

#[test]
fn a_group_sends_nothing() {
    let lab = Lab::new(2);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    a.mac = [0xff; 6];
    a.send_to(mac("b"), 1);
    lab.wait("a", |c| c.drops.malformed == 1);
    b.expect_nothing();
    assert_eq!(lab.switch.stations().unwrap(), []);
}

#[test]
fn the_mtu_bounds_frames_at_both_ends() {
    let lab = Lab::with(3, |c| c.ports[2].mtu = 1500);
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    // Header and two VLAN tags do not count.
    for (len, passes) in [(9022, true), (9023, false), (65_550, false), (69_632, false), (100, true)] {
        a.send(&frame([0xff; 6], a.mac, 0, len));
        if passes {
            assert_eq!(b.receive(PATIENCE).unwrap().len(), len);
        }
    }
    assert_eq!(lab.counters("a").drops.oversize, 3);
    assert_eq!(c.receive(PATIENCE).unwrap().len(), 100);
    assert_eq!(lab.counters("c").drops.oversize, 1);
    b.expect_nothing();
    c.send(&frame([0xff; 6], c.mac, 0, 1523));
    lab.wait("c", |c| c.drops.oversize == 2);
}

#[test]
fn frames_may_come_in_pieces() {
    let lab = Lab::new(2);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    let bytes = [framed(&frame(mac("b"), a.mac, 1, 64)), framed(&frame(mac("b"), a.mac, 2, 70))].concat();
    for byte in &bytes[..100] {
        a.stream.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_micros(100));
    }
    assert_eq!(b.expect(), 1);
    b.expect_nothing();
    a.stream.write_all(&bytes[100..]).unwrap();
    assert_eq!(b.expect(), 2);
}

#[test]
fn garbage_never_takes_the_switch_down() {
    let lab = Lab::with(3, |c| c.limits.addresses = 64);
    let (mut b, mut c) = (lab.plug("b"), lab.plug("c"));
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for round in 0..200 {
        let mut a = lab.plug("a");
        for _ in 0..random() % 20 {
            let mut bytes: Vec<u8> = (0..random() % 300).map(|_| random() as u8).collect();
            if random() % 3 > 0 {
                bytes = framed(&bytes);
            }
            // Cut off in the middle of it, now and then.
            if a.stream.write_all(&bytes).is_err() {
                break;
            }
        }
        drop(a);
        if round % 50 == 0 {
            b.discard();
            c.discard();
        }
    }
    lab.wait("a", |c| !c.connected);
    assert!(lab.counters("a").protocol_errors > 10);
    b.discard();
    c.discard();
    b.send_to(mac("c"), 42);
    assert_eq!(c.expect(), 42);
}
