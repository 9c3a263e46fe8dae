//! Who gets a frame.

mod common;

use std::time::Duration;

use common::{BROADCAST, Lab, mac};

const NOBODY: [u8; 6] = [2, 0, 0, 0, 9, 9];

#[test]
fn strangers_are_flooded_and_stations_found() {
    let lab = Lab::new(3);
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    a.send_to(mac("b"), 1);
    assert_eq!((b.expect(), c.expect()), (1, 1));
    b.send_to(mac("a"), 2);
    assert_eq!(a.expect(), 2);
    a.send_to(mac("b"), 3);
    assert_eq!(b.expect(), 3);
    c.expect_nothing();
    a.expect_nothing();
    let stations = lab.switch.stations().unwrap();
    let known: Vec<_> = stations.iter().map(|s| (s.mac, s.port.as_str())).collect();
    assert_eq!(known, [(mac("a"), "a"), (mac("b"), "b")]);
    let counters = lab.counters("a");
    assert_eq!((counters.rx_frames, counters.rx_bytes, counters.tx_frames, counters.tx_bytes), (2, 128, 1, 64));
    assert_eq!(counters.drops.total(), 0);
    assert_eq!(lab.counters("c").tx_frames, 1);
}

#[test]
fn groups_are_flooded_to_everybody_else() {
    let lab = Lab::new(3);
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    a.send_to(BROADCAST, 1);
    a.send_to([0x33, 0x33, 0, 0, 0, 1], 2);
    assert_eq!((b.expect(), b.expect()), (1, 2));
    assert_eq!((c.expect(), c.expect()), (1, 2));
    a.expect_nothing();
}

#[test]
fn a_station_that_moves_is_followed() {
    let lab = Lab::new(3);
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    b.announce(&lab);
    a.drain();
    c.drain();
    // The station of port b turns up behind port c.
    c.mac = mac("b");
    c.send_to(mac("a"), 1);
    lab.wait("c", |c| c.moves == 1);
    a.send_to(mac("b"), 2);
    assert_eq!(c.expect(), 2);
    assert_eq!(b.drain(), [1], "only what was sent before a was known");
}

#[test]
fn the_silent_are_forgotten() {
    let lab = Lab::with(3, |c| c.limits.ageing = Duration::from_millis(50));
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    b.send_to(mac("c"), 0);
    assert_eq!(c.expect(), 0);
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(lab.switch.stations().unwrap(), []);
    a.send_to(mac("b"), 1);
    assert_eq!((b.expect(), c.expect()), (1, 1));
}

#[test]
fn strangers_beyond_the_table_are_flooded() {
    let lab = Lab::with(3, |c| c.limits.addresses = 2);
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    a.announce(&lab);
    b.announce(&lab);
    c.drain();
    c.send_to(mac("a"), 1);
    assert_eq!(lab.switch.stations().unwrap().len(), 2);
    b.drain();
    a.drain();
    a.send_to(mac("c"), 2);
    assert_eq!((b.expect(), c.expect()), (2, 2));
}

#[test]
fn a_frame_never_goes_back_where_it_came_from() {
    let lab = Lab::new(2);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    // Two stations behind one port hear each other without the switch.
    a.send_to(NOBODY, 1);
    a.mac = NOBODY;
    a.send_to(mac("a"), 2);
    lab.wait("a", |c| c.drops.unreachable == 1);
    assert_eq!(b.drain(), [1]);
    a.expect_nothing();
}

#[test]
fn a_port_alone_is_no_trouble() {
    let lab = Lab::new(1);
    let mut a = lab.plug("a");
    a.send_to(BROADCAST, 1);
    a.send_to(NOBODY, 2);
    let counters = lab.wait("a", |c| c.rx_frames == 2);
    assert_eq!(counters.drops.total(), 0);
    a.expect_nothing();
}
