//! Frames through rings, with a driver of the rings: nothing is lost, repeated or written elsewhere.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{BASE, Bench, Driver, RxRing, TxRing, bench, bench_with, config, frame, tcp4, udp6};
use gvnic::abi::dqo::About;
use gvnic::config::PortConfig;
use gvnic::port::{Loop, Pair, Port};
use gvnic::rx::{Delivery, RxFrame, RxPlace};
use gvnic::tx::{Limits, Scratch, TxPlace};

const BUDGET: usize = 64;

fn one() -> Bench {
    bench(PortConfig { queue_pairs: 1, ..config() })
}

/// A driver with a queue of each direction.
fn open<'a>(bench: &'a Bench, size: u16, header: u16) -> (Driver<'a>, TxRing, RxRing) {
    let mut driver = Driver::probe(bench, 1);
    let (tx, rx) = (driver.rings(size), driver.rings(size));
    assert_eq!(driver.execute(driver.create_tx(0, &tx)), 1);
    assert_eq!(driver.execute(driver.create_rx(0, &rx, header)), 1);
    let (tx, rx) = (TxRing::new(&driver, tx), RxRing::new(&driver, rx));
    (driver, tx, rx)
}

fn post(driver: &Driver<'_>, rx: &mut RxRing) {
    let tail = rx.post();
    driver.ring(&rx.ring, tail);
}

fn looped(bench: &Bench) -> Port<Loop> {
    Port::new(Arc::clone(bench.control.shared()), Loop::new(4096))
}

fn run<W: gvnic::port::Wire>(port: &mut Port<W>) {
    for _ in 0..10_000 {
        if !port.run_once(BUDGET) {
            return;
        }
    }
    panic!("it goes on for ever");
}

/// Every descriptor came back or was abandoned.
fn balanced(bench: &Bench) {
    bench.control.function_reset();
    let status = bench.control.status();
    for ledger in status.rx.iter().map(|q| q.buffers).chain(status.tx.iter().map(|q| q.descriptors)) {
        assert_eq!((ledger.outstanding(), ledger.excess()), (0, 0), "{ledger:?}");
        assert!(ledger.consumed >= ledger.returned, "{ledger:?}");
    }
}

#[test]
fn rings_wrap_many_times_and_every_frame_comes_back() {
    let bench = one();
    let (driver, mut tx, mut rx) = open(&bench, 64, 128);
    let mut port = looped(&bench);
    let memory = bench.ram.alloc(16 * 2048);
    let (mut sent, mut completed, mut reports) = (Vec::new(), 0, 0);
    for n in 0..1000usize {
        post(&driver, &mut rx);
        let bytes = frame(n % 1400 + 1, n);
        let at = memory + (n % 16) as u64 * 2048;
        bench.ram.poke(at, &bytes);
        assert!(tx.free() > 8, "the ring moves on: {} free at {n}", tx.free());
        tx.add(at, bytes.len(), (n % 32) as u16, [1 << 14, 600, 999][n % 3], None);
        sent.push(bytes);
        driver.ring(&tx.ring, tx.tail);
        if n % 3 == 2 {
            run(&mut port);
            for (kind, value) in tx.poll() {
                match kind {
                    2 => {
                        assert_eq!(usize::from(value), completed % 32);
                        completed += 1;
                    }
                    4 => reports += 1,
                    _ => panic!("completion {kind}"),
                }
            }
            let received = rx.poll();
            assert_eq!(received.len(), sent.len());
            for (got, sent) in received.iter().zip(sent.drain(..)) {
                assert!(got.bytes() == sent, "frame {n}");
                assert!(got.split && got.buffers == 1);
                let header = if sent[12] == 8 { 54 } else { 62 };
                assert_eq!(got.header.len(), header);
                assert_eq!(got.last[8] & 0b111_1010, 0b1010, "whole, processed, and both checksums right");
            }
        }
    }
    assert_eq!(completed, 999);
    assert!(reports > 50, "{reports}");
    balanced(&bench);
}

#[test]
fn every_payload_from_0_to_8192_is_split_where_it_should() {
    let bench = one();
    let (driver, mut tx, mut rx) = open(&bench, 64, 128);
    let mut port = looped(&bench);
    let at = bench.ram.alloc(16384);
    for length in 0..=8192usize {
        post(&driver, &mut rx);
        let bytes = tcp4(length, length);
        bench.ram.poke(at, &bytes);
        tx.add(at, bytes.len(), 0, 16383, None);
        driver.ring(&tx.ring, tx.tail);
        run(&mut port);
        tx.poll();
        let received = rx.poll();
        assert_eq!(received.len(), 1, "{length}");
        assert!((&received[0].header[..], &received[0].payload[..]) == bytes.split_at(54), "{length}");
        assert_eq!(received[0].buffers, length.div_ceil(4096).max(1));
    }
    balanced(&bench);
}

fn limits() -> Limits {
    Limits { mtu: 9000, link: true, packets: 64 }
}

#[test]
fn frames_of_64_kib_take_as_many_buffers_as_they_need() {
    for (header, split, overflow) in [(54, true, false), (0, false, false), (128, true, false), (129, false, true)] {
        let bench = one();
        let (driver, _, mut rx) = open(&bench, 64, 128);
        post(&driver, &mut rx);
        let view = bench.control.shared().view();
        let queue = view.queues.rx(0).unwrap();
        let mut place = RxPlace::default();
        let bytes = tcp4(65535 - 40, 5);
        let about = About { segment: Some(1448), hash: 0x0102_0304, ..About::default() };
        let memory = bench.control.shared().memory();
        let frame = RxFrame { bytes: &bytes, header, about };
        let needed = if split { (bytes.len() - header).div_ceil(4096) } else { bytes.len().div_ceil(4096) };
        for _ in 0..63 / needed {
            assert_eq!(place.deliver(queue, &queue.enter().unwrap(), memory, &frame), Delivery::Done);
        }
        let written = bench.ram.written();
        assert_eq!(place.deliver(queue, &queue.enter().unwrap(), memory, &frame), Delivery::Full);
        assert_eq!(bench.ram.written(), written, "nothing happened");
        for got in rx.poll() {
            assert!(got.bytes() == bytes);
            assert_eq!((got.split, got.overflow, got.buffers), (split, overflow, needed));
            assert_eq!(got.header.len(), if split { header } else { 0 });
            assert_eq!(got.last[7] & 4, 4, "merged");
            assert_eq!(got.last[14..20], [0xa8, 5, 4, 3, 2, 1]);
        }
        balanced(&bench);
    }
}

#[test]
fn a_queue_without_split_gets_whole_frames() {
    let bench = one();
    let (driver, mut tx, mut rx) = open(&bench, 64, 0);
    let mut port = looped(&bench);
    post(&driver, &mut rx);
    let at = bench.ram.alloc(16384);
    let bytes = udp6(8000, 1);
    bench.ram.poke(at, &bytes);
    tx.add(at, bytes.len(), 3, 5000, None);
    driver.ring(&tx.ring, tx.tail);
    run(&mut port);
    let received = rx.poll();
    assert_eq!((received.len(), received[0].split, received[0].buffers), (1, false, 2));
    assert!(received[0].payload == bytes);
}

#[test]
fn segments_wait_for_room_and_none_is_lost_or_repeated() {
    let bench = one();
    let (driver, mut tx, _) = open(&bench, 64, 128);
    let at = bench.ram.alloc(65536);
    let bytes = tcp4(20_000, 9);
    bench.ram.poke(at, &bytes);
    tx.add(at, bytes.len(), 7, 16383, Some((1448, 54)));
    tx.add(at, 500, 8, 16383, None);
    driver.ring(&tx.ring, tx.tail);
    let view = bench.control.shared().view();
    let queue = view.queues.tx(0).unwrap();
    let (mut place, mut scratch) = (TxPlace::default(), Scratch::default());
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for room in [3usize, 0, 5, 1, 0, 4, 2, 9] {
        let before = taken.len();
        let mut sink = |frame: &[u8]| {
            let fits = taken.len() < before + room;
            if fits {
                taken.push(frame.to_vec());
            }
            fits
        };
        let visit = queue.enter().unwrap();
        place.run(queue, &visit, bench.control.shared().memory(), &limits(), &mut scratch, &mut sink);
        let packets: Vec<u16> = tx.poll().into_iter().filter(|c| c.0 == 2).map(|c| c.1).collect();
        match taken.len() {
            14 if before < 14 => assert_eq!(packets, [7], "completed with its last segment"),
            15 if before < 14 => assert_eq!(packets, [7, 8]),
            15 if before < 15 => assert_eq!(packets, [8]),
            _ => assert!(packets.is_empty(), "{packets:?} after {}", taken.len()),
        }
    }
    assert_eq!(taken.len(), 15);
    let joined: Vec<u8> = taken[..14].iter().flat_map(|f| f[54..].to_vec()).collect();
    assert!(joined == bytes[54..]);
    for (n, segment) in taken[..14].iter().enumerate() {
        assert_eq!(u32::from_be_bytes(segment[38..42].try_into().unwrap()), 1 + n as u32 * 1448);
    }
    let counted = queue.counters().count();
    assert_eq!((counted.frames, counted.packets, counted.segmented_packets), (15, 2, 1));
    balanced(&bench);
}

#[test]
fn frames_wait_for_buffers_up_to_the_patience() {
    for (patience, arrive) in [(Duration::from_secs(3600), true), (Duration::ZERO, false)] {
        let bench = one();
        let (driver, mut tx, mut rx) = open(&bench, 64, 128);
        let mut port = looped(&bench).with_patience(patience);
        let at = bench.ram.alloc(16384);
        let bytes = tcp4(8800, 3);
        bench.ram.poke(at, &bytes);
        let frames = 100;
        for n in 0..frames {
            tx.add(at, bytes.len(), n, 16383, None);
            driver.ring(&tx.ring, tx.tail);
            run(&mut port);
            tx.poll();
        }
        assert_eq!(port.is_choked(), arrive);
        let mut arrived = 0;
        loop {
            post(&driver, &mut rx);
            run(&mut port);
            let received = rx.poll();
            assert!(received.iter().all(|got| got.bytes() == bytes));
            arrived += received.len() as u64;
            if received.is_empty() {
                break;
            }
        }
        let counted = bench.control.status().rx[0].frames;
        assert_eq!(arrived == 100, arrive, "{arrived}");
        assert_eq!((counted.frames, counted.drop_no_buffer), (arrived, 100 - arrived));
        balanced(&bench);
    }
}

#[test]
fn frames_go_from_port_to_port_and_a_queue_begins_anew_when_it_is_created_again() {
    let (left, right) = (one(), one());
    let (a, mut tx, _) = open(&left, 64, 128);
    let (mut b, _, mut rx) = open(&right, 64, 128);
    let (wire_a, wire_b) = Pair::new(64);
    let mut port_a = Port::new(Arc::clone(left.control.shared()), wire_a);
    let mut port_b = Port::new(Arc::clone(right.control.shared()), wire_b);
    let at = left.ram.alloc(4096);
    for round in 0..20usize {
        for n in 0..5 + round % 3 {
            post(&b, &mut rx);
            let bytes = frame(100 + n, n);
            left.ram.poke(at, &bytes);
            tx.add(at, bytes.len(), 0, 4096, None);
            a.ring(&tx.ring, tx.tail);
            run(&mut port_a);
            tx.poll();
            run(&mut port_b);
            let got = rx.poll();
            assert_eq!(got.len(), 1, "round {round}");
            assert!(got[0].bytes() == bytes);
        }
        assert_eq!(b.destroy_rx(0), 1);
        let ring = b.rings(64);
        assert_eq!(b.execute(b.create_rx(0, &ring, 128)), 1);
        rx = RxRing::new(&b, ring);
        right.ram.poke(ring.completions, &[0; 2048]);
    }
}

#[test]
fn a_link_that_is_down_passes_nothing_and_completes_everything() {
    let bench = one();
    let (driver, mut tx, mut rx) = open(&bench, 64, 128);
    let mut port = looped(&bench);
    post(&driver, &mut rx);
    bench.control.set_link(false);
    let at = bench.ram.alloc(4096);
    bench.ram.poke(at, &tcp4(100, 0));
    tx.add(at, 154, 4, 4096, None);
    driver.ring(&tx.ring, tx.tail);
    run(&mut port);
    assert_eq!(tx.poll(), [(2, 4)]);
    assert!(rx.poll().is_empty());
    assert_eq!(bench.control.status().tx[0].frames.drop_link_down, 1);
}

#[test]
fn one_event_for_a_burst() {
    let bench = one();
    let (driver, mut tx, mut rx) = open(&bench, 64, 128);
    let mut port = looped(&bench);
    post(&driver, &mut rx);
    driver.enable(0);
    driver.enable(1);
    let at = bench.ram.alloc(4096);
    bench.ram.poke(at, &tcp4(100, 0));
    for n in 0..10 {
        tx.add(at, 154, n, 4096, None);
    }
    driver.ring(&tx.ring, tx.tail);
    bench.raised.take();
    run(&mut port);
    assert_eq!(bench.raised.take(), [0, 1]);
    assert_eq!((tx.poll().len(), rx.poll().len()), (10, 10));
}

/// Descriptors of a packet that is refused, and what is counted.
#[test]
fn hostile_packets_are_dropped_and_completed() {
    enum Count {
        Malformed,
        BadAddress,
        Oversize,
    }
    use Count::{BadAddress, Malformed, Oversize};
    const END: u8 = 1 << 5;
    let at = BASE + (7 << 20);
    let piece = TxRing::piece;
    let cut = TxRing::segmentation;
    let mut unknown = [0u8; 16];
    unknown[8] = 0x1f;
    let mut disabled = cut(4946, 1448, 54);
    disabled[8] = 0x5;
    let two = |first, second| vec![first, second];
    let cases: Vec<(&str, Vec<[u8; 16]>, Count)> = vec![
        ("no memory there", vec![piece(1, 100, 9, END)], BadAddress),
        ("around the end of the address space", vec![piece(u64::MAX - 10, 100, 9, END)], BadAddress),
        ("over the end of memory", vec![piece(BASE + (8 << 20) - 50, 100, 9, END)], BadAddress),
        ("second piece nowhere", two(piece(at, 100, 9, 0), piece(0, 100, 9, END)), BadAddress),
        ("no bytes", vec![piece(at, 0, 9, END)], Malformed),
        ("too short", vec![piece(at, 16, 9, END)], Malformed),
        ("an empty piece", two(piece(at, 0, 9, 0), piece(at, 100, 9, END)), Malformed),
        ("longer than the MTU", vec![piece(at, 9019, 9, END)], Oversize),
        ("longer in pieces", two(piece(at, 9000, 9, 0), piece(at, 9000, 9, END)), Oversize),
        ("unknown descriptor", two(unknown, piece(at, 100, 9, END)), Malformed),
        ("context in between", vec![piece(at, 60, 9, 0), TxRing::context(), piece(at, 60, 9, END)], Malformed),
        ("segmentation in between", vec![piece(at, 60, 9, 0), cut(60, 100, 54), piece(at, 60, 9, END)], Malformed),
        ("segmentation twice", vec![cut(4946, 1448, 54), cut(4946, 1448, 54), piece(at, 5000, 9, END)], Malformed),
        ("segmentation that is off", two(disabled, piece(at, 5000, 9, END)), Malformed),
        ("segments of nothing", two(cut(4946, 0, 54), piece(at, 5000, 9, END)), Malformed),
        ("small segments", two(cut(4946, 87, 54), piece(at, 5000, 9, END)), Malformed),
        ("large segments", two(cut(4946, 9729, 54), piece(at, 5000, 9, END)), Malformed),
        ("segments over the MTU", two(cut(11946, 9000, 54), piece(at, 12000, 9, END)), Oversize),
        ("too much payload", two(cut(4947, 1448, 54), piece(at, 5000, 9, END)), Malformed),
        ("too little payload", two(cut(4945, 1448, 54), piece(at, 5000, 9, END)), Malformed),
        ("no payload", two(cut(0, 1448, 54), piece(at, 54, 9, END)), Malformed),
        ("no headers", two(cut(5000, 1448, 0), piece(at, 5000, 9, END)), Malformed),
        ("other headers", two(cut(4900, 1448, 100), piece(at, 5000, 9, END)), Malformed),
        ("payload beyond all", two(cut(0xff_ffff, 1448, 54), piece(at, 5000, 9, END)), Malformed),
        (
            "more than 262143",
            [vec![cut(16383 * 17 - 54, 1448, 54)], vec![piece(at, 16383, 9, 0); 16], vec![piece(at, 16383, 9, END)]]
                .concat(),
            Malformed,
        ),
        ("too many pieces", [vec![piece(at, 1, 9, 0); 200], vec![piece(at, 1, 9, END)]].concat(), Malformed),
    ];
    let bench = one();
    let (driver, mut tx, _) = open(&bench, 512, 128);
    let mut port = looped(&bench);
    for (what, descriptors, count) in cases {
        bench.ram.poke(at, &tcp4(4946, 0));
        let before = bench.control.status().tx[0].frames;
        for descriptor in &descriptors {
            tx.put(descriptor);
        }
        driver.ring(&tx.ring, tx.tail);
        run(&mut port);
        assert_eq!(tx.poll(), [(2, 9)], "{what}");
        let after = bench.control.status().tx[0].frames;
        let counts = |of: gvnic::stats::TxCount| match count {
            Malformed => of.drop_malformed,
            BadAddress => of.drop_bad_address,
            Oversize => of.drop_oversize,
        };
        assert_eq!(counts(after), counts(before) + 1, "{what}");
        assert_eq!((after.drops(), after.frames), (before.drops() + 1, before.frames), "{what}");
        // And the ring goes on.
        tx.add(at, 1000, 1, 4096, None);
        driver.ring(&tx.ring, tx.tail);
        run(&mut port);
        assert_eq!(tx.poll().first(), Some(&(2, 1)), "{what}");
    }
    balanced(&bench);
}

#[test]
fn buffers_that_are_nowhere_go_back_with_an_error() {
    for (offset, length) in [(8, 100), (8, 8000), (16, 100)] {
        let bench = one();
        let (driver, mut tx, mut rx) = open(&bench, 64, 128);
        let mut port = looped(&bench);
        let at = bench.ram.alloc(16384);
        post(&driver, &mut rx);
        bench.ram.poke(rx.ring.ring + 32 + offset, &u64::MAX.to_le_bytes());
        for n in 0..3 {
            bench.ram.poke(at, &tcp4(length, 0));
            tx.add(at, 54 + length, n, 16383, None);
        }
        driver.ring(&tx.ring, tx.tail);
        run(&mut port);
        let received = rx.poll();
        assert_eq!(received.len(), 2, "{offset} {length}");
        assert_eq!(rx.errors, length.div_ceil(4096));
        assert_eq!(bench.control.status().rx[0].frames.drop_bad_address, 1);
        balanced(&bench);
    }
}

/// xorshift64 (Marsaglia, 2003).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn whatever_is_in_the_rings_it_ends_and_the_books_balance() {
    for seed in 1..=40u64 {
        let bench = bench_with(PortConfig { queue_pairs: 1, ..config() }, 2 << 20);
        let (driver, mut tx, mut rx) = open(&bench, 64, 128);
        let mut port = looped(&bench).with_patience(Duration::ZERO);
        let at = bench.ram.alloc(16384);
        bench.ram.poke(at, &tcp4(8000, 0));
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        rx.post();
        for n in 0..60u16 {
            let draw = random(&mut state);
            match draw % 4 {
                0 => tx.add(at, 60 + (draw >> 8) as usize % 8000, n, 700, None),
                1 => tx.add(at, 8054, n, 16383, Some((1448, 54))),
                _ => tx.add(at, 200, n, 16383, None),
            }
            // A few bytes of either ring, and of the frame, are something else now.
            for _ in 0..draw >> 60 {
                let draw = random(&mut state);
                let (ring, size) = match draw % 3 {
                    0 => (tx.ring.ring, 64 * 16),
                    1 => (rx.ring.ring, 64 * 32),
                    _ => (at, 80),
                };
                bench.ram.poke(ring + (draw >> 8) % size, &[(draw >> 32) as u8]);
            }
            driver.ring(&tx.ring, (random(&mut state) % 64) as u32);
            driver.ring(&rx.ring, (random(&mut state) % 64) as u32);
            run(&mut port);
        }
        balanced(&bench);
    }
}
