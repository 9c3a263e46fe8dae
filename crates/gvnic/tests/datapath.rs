//! Devices with their engines, joined by a cable: what one driver sends, another gets, with registers, queues, doorbells and
//! interrupts as they are.

mod common;
mod rings;

use std::time::Duration;

use common::{BASE, Driver};
use gvnic::engine::Direction;
use rings::{Guest, Random, Recipe, Tso, TxDriver, cable, flow, lab, number, numbered};

#[test]
fn what_one_sends_the_other_gets_both_ways() {
    let (a, b) = lab(4);
    let (one, other) = cable(8);
    let (mut a, mut b) = (Guest::new(&a, 4, 64, one), Guest::new(&b, 4, 256, other));
    a.post();
    b.post();
    for turn in 0..2 {
        let (from, to) = if turn == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        let got = flow(from, to, 3000, numbered);
        let mut numbers: Vec<_> = got.iter().map(number).collect();
        numbers.sort_unstable();
        assert!(numbers == (0..3000).collect::<Vec<_>>());
        for frame in &got {
            assert!(frame.frame() == numbered(number(frame)));
            assert_eq!((frame.processed, frame.errors, frame.split), (true, (false, false), true));
            assert_ne!(frame.hash, 0);
            assert!(frame.timestamp.is_some());
        }
        let status = to.bench.control.status();
        assert!(status.rx.iter().take(4).all(|queue| queue.frames.frames > 300), "flows are spread");
    }
    a.accounted();
    b.accounted();
    assert!(!a.bench.raised.take().is_empty() && !b.bench.raised.take().is_empty());
}

#[test]
fn a_stream_is_cut_here_and_merged_there() {
    let (a, b) = lab(1);
    let (one, other) = cable(64);
    let (mut a, mut b) = (Guest::new(&a, 1, 256, one), Guest::new(&b, 1, 256, other));
    a.post();
    b.post();
    let mut random = Random(5);
    let mut sequence = 7_u32;
    for n in 0..50 {
        let payload = random.bytes(60_000);
        let recipe = Recipe { sequence, v6: n % 2 == 0, flags: 0x18, ..Recipe { payload, ..Recipe::tcp(0) } };
        sequence = sequence.wrapping_add(60_000);
        let tso = Tso { mss: 8000, header: recipe.header() as u8 };
        a.tx[0].send(&recipe.packet(), &[recipe.header(), 4096, 32_000], Some(tso), true).unwrap();
        a.kick();
        a.engine.run_once(8);
        b.engine.run_once(8);
        let got = b.poll();
        a.poll();
        assert_eq!((got.len(), got[0].segment, got[0].errors), (1, 8000, (false, false)));
        assert!(got[0].frame() == recipe.frame() && got[0].data == recipe.payload, "{n}");
    }
    a.accounted();
    b.accounted();
}

#[test]
fn a_full_wire_and_an_empty_ring_lose_nothing() {
    let (a, b) = lab(1);
    let (one, other) = cable(4);
    let (mut a, mut b) = (Guest::new(&a, 1, 64, one), Guest::new(&b, 1, 64, other));
    b.engine.receiver.set_patience(Duration::from_secs(3600));
    let mut sent = 0;
    let fill = |a: &mut Guest<'_>, sent: &mut usize| {
        while a.tx[0].send(&numbered(*sent), &[], None, true).is_some() {
            *sent += 1;
        }
        a.kick();
        let turn = a.engine.run_once(64);
        a.poll();
        turn
    };
    // First the backlog fills, then the cable, then the sender's ring.
    let stuck = loop {
        let (from, to) = (fill(&mut a, &mut sent), b.engine.run_once(64));
        if from.sent == 0 && to.received == 0 {
            break (from, to);
        }
        assert!(sent < 10_000, "what waits is bounded");
    };
    assert!(stuck.0.port_full && stuck.1.held && stuck.1.due.is_some() && !stuck.1.more);
    let mut numbers = Vec::new();
    b.post();
    while numbers.len() < sent {
        a.engine.run_once(64);
        b.engine.run_once(64);
        numbers.extend(b.poll().iter().map(number));
        a.poll();
    }
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>(), "in order, and all");
    a.accounted();
    b.accounted();
}

/// TCP over IPv4 to port 5200 + n goes to queue n.
fn steer(driver: &mut Driver<'_>, queues: u16) {
    for queue in 0..queues {
        let mut rule = [0; 84];
        (rule[1], rule[3]) = (0, queue as u8);
        rule[4 + 34..4 + 36].copy_from_slice(&(5200 + queue).to_be_bytes());
        rule[44 + 34..44 + 36].fill(0xff);
        assert_eq!(driver.flow_rule(0, u32::from(queue), &rule), 1);
    }
}

#[test]
fn a_queue_that_starves_loses_its_own_frames_and_holds_up_no_other() {
    let (a, b) = lab(2);
    let (one, other) = cable(64);
    let (mut a, mut b) = (Guest::new(&a, 1, 256, one), Guest::new(&b, 2, 64, other));
    steer(&mut b.driver, 2);
    b.engine.receiver.set_patience(Duration::from_secs(3600));
    let post = |b: &mut Guest<'_>, queue: usize| {
        b.rx[queue].post(u32::MAX);
        b.driver.ring(&b.resources[queue].1, b.rx[queue].doorbell);
    };
    let send = |a: &mut Guest<'_>, b: &mut Guest<'_>, queue: u16, count: u16| {
        for n in 0..count {
            let frame = Recipe { ports: (n, 5200 + queue), ..Recipe::tcp(100) }.frame();
            a.tx[0].send(&frame, &[], None, true).unwrap();
        }
        a.kick();
        a.engine.run_once(64);
        a.poll();
        b.engine.run_once(64)
    };
    let counts = |b: &Guest<'_>, queue: usize| {
        let frames = b.bench.control.status().rx[queue].frames;
        (frames.frames, frames.drop_no_buffer)
    };
    post(&mut b, 0);
    let turn = send(&mut a, &mut b, 1, 20);
    assert!(turn.received == 20 && !turn.held && turn.due.is_some());
    send(&mut a, &mut b, 0, 20);
    assert_eq!((counts(&b, 0), counts(&b, 1)), ((20, 0), (0, 0)), "what is behind is not held up");
    // Its patience ends: what waits is lost, and from then on everything, at once.
    b.engine.receiver.set_patience(Duration::ZERO);
    assert_eq!(b.engine.run_once(64).due, None);
    assert_eq!(counts(&b, 1), (0, 20));
    b.engine.receiver.set_patience(Duration::from_secs(3600));
    send(&mut a, &mut b, 1, 5);
    assert_eq!(counts(&b, 1), (0, 25));
    // With buffers it goes on, and may be waited for again.
    post(&mut b, 1);
    send(&mut a, &mut b, 1, 30);
    assert_eq!(counts(&b, 1), (30, 25));
    send(&mut a, &mut b, 1, 10);
    assert_eq!(counts(&b, 1), (32, 25), "buffers come in 32s; the rest waits");
    assert_eq!(b.poll().len(), 20 + 32);
    b.engine.run_once(64);
    assert_eq!((counts(&b, 1), b.poll().len()), ((40, 25), 8));
    b.accounted();
}

/// Frames that wait for a queue that ends are lost with it, and counted.
#[test]
fn what_waits_for_a_queue_ends_with_it_or_with_the_link() {
    let (a, b) = lab(1);
    let (one, other) = cable(64);
    let (mut a, mut b) = (Guest::new(&a, 1, 64, one), Guest::new(&b, 1, 64, other));
    b.engine.receiver.set_patience(Duration::from_secs(3600));
    for n in 0..9 {
        a.tx[0].send(&numbered(n), &[], None, true).unwrap();
    }
    a.kick();
    a.engine.run_once(64);
    b.engine.run_once(4);
    b.bench.control.set_link(false);
    b.engine.run_once(0);
    b.bench.control.set_link(true);
    b.engine.run_once(64);
    assert_eq!(b.driver.destroy_rx(0), 1);
    b.engine.run_once(64);
    let frames = b.bench.control.status().rx[0].frames;
    assert_eq!((frames.drop_link_down, frames.drop_no_queue, frames.frames), (4, 5, 0));
}

#[test]
fn a_wrong_ring_stops_its_queue_and_no_other() {
    let (a, b) = lab(2);
    let (one, other) = cable(64);
    let (mut a, mut b) = (Guest::new(&a, 2, 64, one), Guest::new(&b, 2, 64, other));
    a.post();
    b.post();
    a.tx[0].push([0xff; 16]);
    a.kick();
    a.engine.run_once(8);
    let (direction, queue, wrong) = a.engine.take_wrong().unwrap();
    assert_eq!((direction, queue), (Direction::Tx, 0));
    assert_eq!(wrong.to_string(), "descriptor 0 is of type 0x1f, which does not exist");
    assert_eq!(a.engine.take_wrong(), None);
    a.tx[1].send(&numbered(1), &[], None, true).unwrap();
    a.kick();
    assert_eq!((a.engine.run_once(8).sent, a.engine.take_wrong()), (1, None));
    b.engine.run_once(8);
    assert_eq!(b.poll().len(), 1);
    // Created anew, it works.
    assert_eq!(a.driver.destroy_tx(0), 1);
    let create = a.driver.create_tx(0, &a.resources[0].0);
    assert_eq!(a.driver.execute(create), 1);
    a.bench.ram.poke(a.tx[0].setup.completion_ring, &[0; 64 * 8]);
    a.tx[0] = TxDriver::over(&a.bench.ram, a.tx[0].setup, 64 << 10);
    a.tx[0].send(&numbered(2), &[], None, true).unwrap();
    a.kick();
    assert_eq!((a.engine.run_once(8).sent, a.tx[0].poll().len()), (1, 1));
}

#[test]
fn a_wrong_buffer_stops_its_queue() {
    let (a, b) = lab(1);
    let (one, other) = cable(64);
    let (mut a, mut b) = (Guest::new(&a, 1, 64, one), Guest::new(&b, 1, 64, other));
    b.post();
    b.bench.ram.poke(b.rx[0].setup.buffer_ring + 8, &(BASE - 4096).to_le_bytes());
    for n in 0..3 {
        a.tx[0].send(&numbered(n), &[], None, true).unwrap();
    }
    a.kick();
    a.engine.run_once(8);
    assert_eq!(b.engine.run_once(8).received, 3, "they are dropped");
    let (direction, queue, wrong) = b.engine.take_wrong().unwrap();
    assert_eq!((direction, queue), (Direction::Rx, 0));
    assert!(wrong.to_string().starts_with("RX buffer 0: the guest gave 200 bytes"), "{wrong}");
    assert_eq!(b.bench.control.status().rx[0].frames.drop_bad_address, 3);
}

#[test]
fn a_link_that_is_down_drops_both_ways_and_completes() {
    let (a, b) = lab(1);
    let (one, other) = cable(64);
    let (mut a, mut b) = (Guest::new(&a, 1, 64, one), Guest::new(&b, 1, 64, other));
    a.post();
    b.post();
    b.bench.control.set_link(false);
    assert_eq!(flow(&mut a, &mut b, 10, numbered).len(), 0);
    a.bench.control.set_link(false);
    assert_eq!(flow(&mut a, &mut b, 10, numbered).len(), 0);
    let (at_a, at_b) = (a.bench.control.status().tx[0].frames, b.bench.control.status().rx[0].frames);
    assert_eq!((at_a.drop_link_down, at_b.drop_link_down), (10, 10));
    a.bench.control.set_link(true);
    b.bench.control.set_link(true);
    assert_eq!(flow(&mut a, &mut b, 10, numbered).len(), 10);
    a.accounted();
    b.accounted();
}

/// 1,000 resets, 1,000 restarts of a queue and 1,000 link flaps in the middle of traffic: it goes on each time, and the books
/// balance.
#[test]
fn queues_and_devices_restart_in_mid_traffic() {
    let (a, b) = lab(1);
    let (one, other) = cable(16);
    let mut a = Guest::new(&a, 1, 64, one);
    let mut b = Guest::new(&b, 1, 64, other);
    a.post();
    b.post();
    let mut random = Random(9);
    for n in 0..3000 {
        for n in 0..random.between(1, 12) {
            a.tx[0].send(&numbered(n), &[], None, true);
        }
        a.kick();
        a.engine.run_once(random.between(1, 8));
        b.engine.run_once(random.between(1, 8));
        let (bench, size) = (b.bench, 64);
        if n % 3 == 0 {
            bench.control.set_link(false);
            a.engine.run_once(random.between(0, 8));
            b.engine.run_once(random.between(0, 8));
            bench.control.set_link(true);
        } else if n % 3 == 1 {
            b.driver.release();
            bench.ram.free_all();
            b.driver = Driver::probe(bench, 1);
            (b.resources, b.tx, b.rx) = Guest::open(&mut b.driver, bench, 1, size);
        } else {
            assert_eq!(b.driver.destroy_rx(0), 1);
            let written = bench.ram.written();
            b.engine.run_once(8);
            assert_eq!(bench.ram.written(), written, "a queue that has ended is not touched");
            let setup = b.rx[0].setup;
            bench.ram.poke(setup.completion_ring, &[0; 64 * 32]);
            let create = b.driver.create_rx(0, &b.resources[0].1, 128);
            assert_eq!(b.driver.execute(create), 1);
            // Its buffers are where they were.
            b.rx[0].restart();
        }
        b.poll();
        let before = b.bench.control.status().rx[0].frames.frames;
        a.poll();
        while a.engine.run_once(8).sent + b.engine.run_once(8).received > 0 {}
        a.tx[0].send(&numbered(1), &[], None, true).expect("room");
        a.kick();
        while a.engine.run_once(8).sent + b.engine.run_once(8).received > 0 {}
        assert!(b.bench.control.status().rx[0].frames.frames > before, "{n}: traffic goes on");
        assert!(!b.poll().is_empty());
        a.poll();
    }
    assert_eq!(b.driver.destroy_rx(0), 1);
    let buffers = b.bench.control.status().rx[0].buffers;
    assert_eq!((buffers.posted, buffers.excess()), (buffers.returned + buffers.abandoned, 0), "none is leaked");
    a.accounted();
}

/// A rule sends a flow to its queue, whatever the hash says.
#[test]
fn rules_and_hashes_choose_the_queue() {
    let (a, b) = lab(4);
    let (one, other) = cable(64);
    let (mut a, mut b) = (Guest::new(&a, 4, 64, one), Guest::new(&b, 4, 64, other));
    a.post();
    b.post();
    steer(&mut b.driver, 4);
    let tcp = |n: usize| Recipe { ports: (n as u16, 5203), ..Recipe::tcp(100) }.frame();
    assert_eq!(flow(&mut a, &mut b, 100, tcp).len(), 100);
    let frames: Vec<_> = b.bench.control.status().rx.iter().take(4).map(|q| q.frames.frames).collect();
    assert_eq!(frames, [0, 0, 0, 100]);
}
