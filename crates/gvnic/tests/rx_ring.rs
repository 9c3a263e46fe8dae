//! One RX queue against a driver that does what gve does: every frame arrives as it was, every buffer comes back.

mod common;
mod rings;

use std::sync::{Arc, Mutex};

use common::{BASE, Ram};
use gvnic::abi::dqo::rx::Integrity;
use gvnic::bus::{BadAddress, Memory};
use gvnic::frame::segment::Cut;
use gvnic::frame::{checksum, parse, parse_whole};
use gvnic::queues::RxSetup;
use gvnic::rx::{Delivery, Mark, RxRing};
use gvnic::stats::RxCount;
use gvnic::wrong::Wrong;
use rings::{Random, Received, Recipe, RxDriver};

struct Queue {
    driver: RxDriver,
    ring: RxRing,
    count: RxCount,
}

impl Queue {
    fn new(size: u16, buffer: u16, header: u16, merge: bool) -> Queue {
        let ram = Arc::new(Ram::new(8 << 20));
        let mut driver = RxDriver::new(&ram, 3, size, buffer, header, merge);
        driver.post(u32::MAX);
        let ring = RxRing::new(driver.setup);
        Queue { driver, ring, count: RxCount::default() }
    }

    fn offer(&mut self, frame: &[u8], mark: Mark) -> Result<Delivery, Wrong> {
        let ram = Arc::clone(&self.driver.ram);
        let headers = parse(frame);
        let mark = Mark { integrity: checksum::verify(frame, &headers), ..mark };
        self.ring.deliver(&*ram, self.driver.doorbell, frame, &headers, &mark, &mut self.count)
    }

    /// Delivers, polling and posting when there is no room.
    fn deliver(&mut self, frame: &[u8], mark: Mark, into: &mut Vec<Received>) {
        for _ in 0..2 {
            if self.offer(frame, mark).unwrap() != Delivery::Full {
                return;
            }
            into.extend(self.driver.poll());
            self.driver.post(u32::MAX);
        }
        panic!("no room for {} bytes", frame.len());
    }

    fn flush(&mut self) {
        let ram = Arc::clone(&self.driver.ram);
        self.ring.flush(&*ram, &mut self.count).unwrap();
    }

    /// Everything the device has taken is back.
    fn accounted(&self) {
        assert_eq!((self.ring.taken(), self.ring.returned()), (self.driver.back, self.driver.back));
        assert!(self.driver.given >= self.driver.back);
    }
}

#[test]
fn frames_arrive_whole_for_turns_of_the_ring() {
    let mut random = Random(1);
    for (size, buffer, header) in [(64, 2048, 0), (64, 4096, 128), (256, 2048, 128), (512, 4096, 0)] {
        let mut queue = Queue::new(size, buffer, header, false);
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        while queue.ring.returned() < 5 * u64::from(size) {
            let length = random.below(8900);
            let recipe = Recipe::random(&mut random, length);
            let frame = recipe.frame();
            let mark = Mark { hash: random.next() as u32, timestamp: Some(7), ..Mark::default() };
            queue.deliver(&frame, mark, &mut got);
            sent.push((recipe, frame, mark));
        }
        got.extend(queue.driver.poll());
        queue.accounted();
        assert_eq!((got.len(), queue.count.frames), (sent.len(), sent.len() as u64));
        for ((recipe, frame, mark), received) in sent.iter().zip(&got) {
            assert_eq!(&received.frame(), frame);
            assert_eq!((received.hash, received.timestamp, received.segment), (mark.hash, Some(7), 0));
            let split = header > 0;
            assert_eq!((received.split, received.overflow), (split, split && recipe.header() > 128));
            assert_eq!(received.header.len(), if split && recipe.header() <= 128 { recipe.header() } else { 0 });
            let l4 = if recipe.udp { 3 } else { 2 };
            assert_eq!(received.packet_type, if recipe.v6 { 3 << 3 | l4 } else { 2 << 3 | l4 });
            let extended = recipe.extension == rings::Extension::Destination;
            assert_eq!((received.processed, received.errors), (!extended, (false, false)));
            assert_eq!(received.extended, extended);
            let (last, full) = received.buffers.split_last().unwrap();
            assert!(full.iter().all(|n| *n == usize::from(buffer)) && *last <= usize::from(buffer));
        }
    }
}

#[test]
fn every_payload_size_is_split_where_it_should_be() {
    for buffer in [2048_u16, 4096] {
        let mut queue = Queue::new(64, buffer, 128, false);
        for payload in 0..=8192 {
            let recipe = Recipe { v6: payload % 2 == 1, udp: payload % 3 == 1, ..Recipe::tcp(payload) };
            let frame = recipe.frame();
            let mut got = Vec::new();
            queue.deliver(&frame, Mark::default(), &mut got);
            got.extend(queue.driver.poll());
            let [received] = &got[..] else { panic!("{} frames of {payload} bytes", got.len()) };
            assert!(received.split && received.header == frame[..recipe.header()], "{payload}");
            assert!(received.data == recipe.payload, "{payload}");
            assert_eq!(received.buffers.len(), payload.div_ceil(usize::from(buffer)).max(1), "{payload}");
        }
        queue.accounted();
        assert_eq!(queue.count.payload_bytes, (0..=8192).sum::<u64>());
        assert_eq!(queue.count.split_frames, 8193);
    }
}

#[test]
fn padding_is_split_off_with_nothing() {
    let mut queue = Queue::new(64, 2048, 128, false);
    let mut frame = Recipe::tcp(0).frame();
    frame.resize(60, 0);
    queue.deliver(&frame, Mark::default(), &mut Vec::new());
    let got = queue.driver.poll();
    assert_eq!((got[0].header.len(), got[0].buffers.as_slice()), (54, &[0][..]), "a buffer with nothing in it");
}

#[test]
fn what_cannot_be_split_is_whole() {
    let mut arp = vec![0xff; 60];
    (arp[12], arp[13]) = (8, 6);
    let mut fragment = Recipe::udp(1000).frame();
    fragment[20] = 0x20;
    let long = Recipe { tags: 2, ip_options: vec![1; 40], tcp_options: vec![1; 40], ..Recipe::tcp(3000) };
    let plain = Recipe::tcp(3000).frame();
    let missed = Mark { unsplit: true, ..Mark::default() };
    let cases = [
        ("ARP", arp, Mark::default(), false),
        ("a fragment", fragment, Mark::default(), false),
        ("headers of 142 bytes", long.frame(), Mark::default(), true),
        ("a missed split", plain, missed, false),
    ];
    for (what, frame, mark, overflow) in cases {
        let mut queue = Queue::new(64, 2048, 128, true);
        queue.deliver(&frame, mark, &mut Vec::new());
        queue.flush();
        let got = queue.driver.poll();
        assert_eq!((got.len(), &got[0].data, got[0].header.len()), (1, &frame, 0), "{what}");
        assert_eq!((got[0].split, got[0].overflow), (overflow, overflow), "{what}");
        assert_eq!((queue.count.split_frames, queue.count.payload_bytes), (0, 0), "{what}");
    }
}

#[test]
fn checksum_errors_are_told_and_not_merged() {
    let mut queue = Queue::new(64, 2048, 128, true);
    let good = Recipe::tcp(1000);
    let mut bad = Recipe { sequence: 2000, id: 2, ..Recipe::tcp(1000) }.frame();
    bad[60] ^= 1;
    let mut worse = bad.clone();
    worse[22] ^= 1;
    for frame in [good.frame(), bad, worse] {
        queue.deliver(&frame, Mark::default(), &mut Vec::new());
    }
    queue.flush();
    let errors: Vec<_> = queue.driver.poll().iter().map(|r| (r.processed, r.errors, r.segment)).collect();
    assert_eq!(errors, [(true, (false, false), 0), (true, (false, true), 0), (true, (true, true), 0)]);
}

#[test]
fn segments_are_merged_into_what_was_sent() {
    let mut random = Random(2);
    for (buffer, header) in [(2048, 128), (4096, 128), (2048, 0), (4096, 0)] {
        let mut queue = Queue::new(256, buffer, header, true);
        // As much as the driver has fragments for.
        let most = usize::from(buffer) * 17 - if header == 0 { 60 } else { 0 };
        for n in 0..60 {
            let length = [257, 1449, 9000, 30_000, 65_400][n % 5].min(most);
            let mut recipe = Recipe::random(&mut random, length);
            (recipe.udp, recipe.ip_options) = (false, Vec::new());
            (recipe.extension, recipe.flags) = (rings::Extension::None, 0x18);
            if recipe.header() > 122 {
                continue;
            }
            let mss = [256, 536, 1448, 8948][random.below(4)];
            let mut packet = recipe.packet();
            let cut = Cut::new(&packet, &parse_whole(&packet), recipe.header(), mss).unwrap();
            let mut got = Vec::new();
            for i in 0..cut.segments() {
                let frame = cut.segment(i, &mut packet).unwrap().to_vec();
                queue.deliver(&frame, Mark { hash: 9, ..Mark::default() }, &mut got);
            }
            queue.flush();
            got.extend(queue.driver.poll());
            queue.driver.post(u32::MAX);
            let whole = recipe.frame();
            if got.len() > 1 {
                // A ring that ran out of buffers in the middle.
                let payload: Vec<u8> = got.iter().flat_map(|r| r.frame()[recipe.header()..].to_vec()).collect();
                assert!(payload == recipe.payload);
                continue;
            }
            assert!(got[0].frame() == whole, "{n}: {recipe:?}");
            assert_eq!(got[0].segment, if cut.segments() > 1 { mss as u16 } else { 0 });
            assert_eq!((got[0].hash, got[0].errors, got[0].buffers.len() <= 17), (9, (false, false), true));
            assert_eq!(got[0].split, header > 0);
        }
        queue.accounted();
        assert!(queue.count.merged_segments > 0);
    }
}

#[test]
fn other_frames_end_a_train_and_come_behind_it() {
    let mut queue = Queue::new(64, 2048, 128, true);
    let part = |n: u32| Recipe { sequence: 1000 + n * 1000, id: 1 + n as u16, ..Recipe::tcp(1000) }.frame();
    let other = Recipe { ports: (1, 2), ..Recipe::tcp(0) }.frame();
    for frame in [part(0), part(1), other.clone(), part(2), part(3)] {
        queue.deliver(&frame, Mark::default(), &mut Vec::new());
    }
    let alone = Mark { alone: true, ..Mark::default() };
    queue.deliver(&part(4), alone, &mut Vec::new());
    let lengths: Vec<_> = queue.driver.poll().iter().map(|r| (r.data.len(), r.segment)).collect();
    assert_eq!(lengths, [(2000, 1000), (0, 0), (2000, 1000), (1000, 0)]);
    assert!(!queue.ring.merging());
}

#[test]
fn too_few_buffers_change_nothing() {
    for merge in [false, true] {
        let ram = Arc::new(Ram::new(8 << 20));
        let mut driver = RxDriver::new(&ram, 0, 128, 2048, 128, merge);
        driver.post(32);
        let ring = RxRing::new(driver.setup);
        let mut queue = Queue { driver, ring, count: RxCount::default() };
        let frame = Recipe::tcp(8000).frame();
        // Four buffers each: eight fit.
        for n in 0..8 {
            let recipe = Recipe { ports: (n, 1), ..Recipe::tcp(8000) };
            assert_ne!(queue.offer(&recipe.frame(), Mark::default()).unwrap(), Delivery::Full);
        }
        for _ in 0..3 {
            assert_eq!(queue.offer(&frame, Mark::default()).unwrap(), Delivery::Full);
        }
        queue.flush();
        assert_eq!((queue.driver.poll().len(), queue.driver.outstanding()), (8, 0));
        assert_eq!((queue.count.frames, queue.ring.taken()), (8, 32));
        queue.driver.post(16);
        assert_eq!(queue.offer(&frame, Mark::default()).unwrap(), Delivery::Full, "the doorbell rings at 32");
        queue.driver.post(16);
        assert_ne!(queue.offer(&frame, Mark::default()).unwrap(), Delivery::Full);
    }
}

/// What the device does to memory, in order.
struct Log<'a>(&'a Ram, Mutex<Vec<(&'static str, u64, usize)>>);

impl Memory for Log<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
        self.0.read(address, into)
    }
    fn write(&self, address: u64, from: &[u8]) -> Result<(), BadAddress> {
        self.1.lock().unwrap().push(("write", address, from.len()));
        self.0.write(address, from)
    }
    fn publish(&self, address: u64, from: &[u8], generation_at: usize) -> Result<(), BadAddress> {
        self.1.lock().unwrap().push(("publish", address, generation_at));
        self.0.publish(address, from, generation_at)
    }
}

#[test]
fn payload_comes_before_its_completion() {
    let mut queue = Queue::new(64, 2048, 128, false);
    let frame = Recipe::tcp(5000).frame();
    let headers = parse(&frame);
    let ram = Arc::clone(&queue.driver.ram);
    let log = Log(&ram, Mutex::default());
    let tail = queue.driver.doorbell;
    queue.ring.deliver(&log, tail, &frame, &headers, &Mark::default(), &mut queue.count).unwrap();
    let log: Vec<_> = log.1.into_inner().unwrap().iter().map(|(what, _, n)| (*what, *n)).collect();
    let expected = [("write", 54), ("write", 2048), ("write", 2048), ("write", 904)];
    assert_eq!(log, [&expected[..], &[("publish", 5); 3]].concat());
}

#[test]
fn buffers_and_rings_outside_memory_are_refused() {
    let ram = Arc::new(Ram::new(1 << 20));
    let good = RxDriver::new(&ram, 0, 64, 2048, 128, false).setup;
    let end = BASE + (1 << 20);
    let buffer = ram.alloc(4096);
    let deliver = |setup: RxSetup, address: u64, header: u64| {
        let mut bytes = [0; 32];
        bytes[8..16].copy_from_slice(&address.to_le_bytes());
        bytes[16..24].copy_from_slice(&header.to_le_bytes());
        (0..64).for_each(|n| ram.poke(good.buffer_ring + n * 32, &bytes));
        let frame = Recipe::tcp(3000).frame();
        let mark = Mark { integrity: Integrity::default(), ..Mark::default() };
        let mut ring = RxRing::new(setup);
        let wrong = ring.deliver(&*ram, 32, &frame, &parse(&frame), &mark, &mut RxCount::default());
        assert_eq!(ring.returned(), 0);
        wrong.map_err(|wrong| wrong.to_string())
    };
    for bad in [0, BASE - 1, end - 53, u64::MAX - 2] {
        let wrong = deliver(good, bad, buffer).unwrap_err();
        assert!(wrong.starts_with("RX buffer 0: the guest gave 2048 bytes"), "{wrong}");
        let wrong = deliver(good, buffer, bad).unwrap_err();
        assert!(wrong.starts_with("the header buffer of RX buffer 0: the guest gave 54 bytes"), "{wrong}");
        let wrong = deliver(RxSetup { buffer_ring: bad, ..good }, buffer, buffer).unwrap_err();
        assert!(wrong.starts_with("RX buffer descriptor 0: the guest gave"), "{wrong}");
    }
    for bad in [0, end - 31, u64::MAX - 2] {
        let wrong = deliver(RxSetup { completion_ring: bad, ..good }, buffer, buffer).unwrap_err();
        assert!(wrong.starts_with("RX completion 0: the guest gave"), "{wrong}");
    }
}

#[test]
fn a_frame_no_ring_could_hold_is_dropped() {
    let mut queue = Queue::new(64, 2048, 0, false);
    assert_eq!(queue.offer(&vec![0; 63 * 2048 + 1], Mark::default()).unwrap(), Delivery::Done);
    assert_eq!((queue.count.drop_oversize, queue.ring.taken()), (1, 0));
}
