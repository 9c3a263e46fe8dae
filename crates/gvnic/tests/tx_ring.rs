//! One TX queue against a driver that does what gve does: every packet arrives, every tag comes back, and nothing else.

mod common;
mod rings;

use std::sync::Arc;

use common::{BASE, Ram};
use gvnic::queues::TxSetup;
use gvnic::stats::TxCount;
use gvnic::tx::{Limits, Outlet, Rest, Scratch, TxRing, Verdict};
use gvnic::wire::{Frame, Sent};
use gvnic::wrong::Wrong;
use rings::{Random, Recipe, Tso, TxDriver, judge};

/// A wire that keeps what it gets, as far as it has room.
#[derive(Default)]
struct Kept {
    frames: Vec<Vec<u8>>,
    room: usize,
    verdicts: Vec<Verdict>,
}

impl Outlet for Kept {
    fn send(&mut self, frame: Frame<'_>) -> Sent {
        if self.frames.len() >= self.room {
            return Sent::Full;
        }
        if let Some(known) = frame.known.filter(|known| known.sums) {
            assert_eq!(known.headers, gvnic::frame::parse(frame.bytes), "what is known is true");
        }
        self.frames.push(frame.bytes.to_vec());
        Sent::Taken
    }

    fn verdict(&mut self) -> Verdict {
        if self.verdicts.is_empty() { Verdict::Complete } else { self.verdicts.remove(0) }
    }
}

struct Queue {
    driver: TxDriver,
    ring: TxRing,
    scratch: Scratch,
    count: TxCount,
    descriptors: u64,
    kept: Kept,
}

const LIMITS: Limits = Limits { packets: 1000, frame: 9022 };

impl Queue {
    fn new(size: u16) -> Queue {
        let ram = Arc::new(Ram::new(2 << 20));
        let driver = TxDriver::new(&ram, 3, size, 1 << 20);
        let (ring, kept) = (TxRing::new(driver.setup), Kept { room: usize::MAX, ..Kept::default() });
        Queue { driver, ring, scratch: Scratch::default(), count: TxCount::default(), descriptors: 0, kept }
    }

    fn run(&mut self, limits: Limits) -> Result<Rest, Wrong> {
        let (ram, tail) = (Arc::clone(&self.driver.ram), self.driver.tail);
        let Queue { ring, scratch, count, descriptors, kept, .. } = self;
        ring.run(&*ram, tail, limits, &|| true, scratch, kept, count, descriptors)
    }
}

#[test]
fn packets_go_round_the_ring_many_times() {
    let mut random = Random(1);
    for size in [64, 256, 1024] {
        let mut queue = Queue::new(size);
        let (mut sent, mut checked) = (Vec::new(), 0);
        let (mut refused, mut steps) = (0, 0);
        // Completions of 64 packets a turn, so that both rings turn over several times.
        while queue.driver.completed < 6 * u64::from(size) {
            steps += 1;
            assert!(steps < 100 * usize::from(size), "completions stay away");
            let length = random.below(3000);
            let recipe = Recipe::random(&mut random, length);
            let mut frame = recipe.frame();
            let mut wrong = frame.clone();
            let sum = gvnic::frame::parse(&frame).l4_at as usize + if recipe.udp { 6 } else { 16 };
            wrong[sum] ^= 0xff;
            let checksum = random.once_in(2);
            if !checksum {
                frame = wrong.clone();
            }
            let pieces: Vec<_> = (0..random.below(9)).map(|_| random.between(1, 400)).collect();
            match queue.driver.send(&wrong, &pieces, None, checksum) {
                Some(_) => sent.push(frame),
                None => refused += 1,
            }
            if random.once_in(4) {
                assert_eq!(queue.run(LIMITS).unwrap(), Rest::Idle);
                queue.driver.poll();
                for (frame, expected) in queue.kept.frames.drain(..).zip(&sent[checked..]) {
                    assert_eq!(&frame, expected);
                    checked += 1;
                }
            }
        }
        queue.run(LIMITS).unwrap();
        queue.driver.poll();
        checked += queue.kept.frames.len();
        assert_eq!((checked, queue.driver.flying.len()), (sent.len(), 0), "every tag came back");
        assert_eq!((queue.count.packets, queue.count.drops()), (sent.len() as u64, 0));
        assert!(queue.ring.completed() > 6 * u64::from(size));
        assert!(size > 64 || refused > 0, "the smallest ring runs full now and then");
    }
}

#[test]
fn large_packets_are_segmented_and_make_the_whole() {
    let mut random = Random(2);
    let mut queue = Queue::new(512);
    for n in 0..120 {
        let length = [100, 1449, 20_000, 65_000, 262_000][n % 5];
        let recipe = Recipe::random(&mut random, length);
        let (mss, header) = ([88, 1448, 8900][random.below(3)], recipe.header());
        let pieces: Vec<_> = [header].into_iter().chain((0..17).map(|_| random.between(1, 20_000))).collect();
        let tso = Tso { mss, header: header as u8 };
        queue.driver.send(&recipe.packet(), &pieces, Some(tso), true).expect("room for one");
        // A wire with room for a few frames at a time.
        queue.kept.room = random.between(1, 10);
        let mut frames = Vec::new();
        while queue.run(LIMITS).unwrap() == Rest::Full {
            assert!(queue.driver.poll().is_empty(), "no completion before the last segment");
            frames.append(&mut queue.kept.frames);
        }
        frames.append(&mut queue.kept.frames);
        assert_eq!(queue.driver.poll().len(), 1);
        assert_eq!(frames.len(), length.div_ceil(usize::from(mss)));
        let mut payload = Vec::new();
        for frame in &frames {
            let judged = judge(frame);
            assert!(judged.l3_holds && judged.l4_holds && judged.payload.len() <= usize::from(mss));
            payload.extend_from_slice(&judged.payload);
        }
        assert!(payload == recipe.payload);
    }
    assert_eq!((queue.count.segmented_packets, queue.count.drops()), (120, 0));
    let tags = queue.driver.tags();
    assert_eq!((tags, queue.driver.flying.len()), (248, 0));
}

#[test]
fn a_packet_whose_end_is_not_there_yet_waits() {
    let mut queue = Queue::new(64);
    let frame = Recipe::udp(100).frame();
    let address = queue.driver.stage(&frame);
    queue.driver.push(TxDriver::general_descriptor());
    queue.driver.push(TxDriver::packet_descriptor(address, 42, 0, false, false));
    assert_eq!((queue.run(LIMITS).unwrap(), queue.kept.frames.len()), (Rest::Idle, 0));
    queue.driver.push(TxDriver::packet_descriptor(address + 42, 100, 0, true, false));
    assert_eq!(queue.run(LIMITS).unwrap(), Rest::Idle);
    assert_eq!((queue.kept.frames.as_slice(), queue.descriptors), (&[frame][..], 3));
}

#[test]
fn a_run_is_bounded_and_ends_with_the_queue() {
    let mut queue = Queue::new(256);
    let frame = Recipe::udp(100).frame();
    for _ in 0..50 {
        queue.driver.send(&frame, &[], None, false).unwrap();
    }
    let ten = Limits { packets: 10, ..LIMITS };
    for left in (0..5).rev() {
        let rest = if left == 0 { Rest::Idle } else { Rest::More };
        assert_eq!((queue.run(ten).unwrap(), queue.driver.poll().len()), (rest, 10));
    }
    queue.driver.send(&frame, &[], None, false).unwrap();
    let (ram, tail) = (Arc::clone(&queue.driver.ram), queue.driver.tail);
    let Queue { ring, scratch, count, descriptors, kept, .. } = &mut queue;
    let ended = ring.run(&*ram, tail, LIMITS, &|| false, scratch, kept, count, descriptors);
    assert_eq!((ended, queue.kept.frames.len()), (Ok(Rest::Idle), 50));
}

#[test]
fn withheld_and_missed_completions_are_what_they_say() {
    let mut queue = Queue::new(64);
    let frame = Recipe::udp(100).frame();
    queue.kept.verdicts = vec![Verdict::Withhold, Verdict::Miss];
    for _ in 0..3 {
        queue.driver.send(&frame, &[], None, false).unwrap();
    }
    queue.run(LIMITS).unwrap();
    assert_eq!((queue.driver.poll().len(), queue.driver.flying.len()), (2, 1));
    // The others go on, round the ring.
    for _ in 0..500 {
        queue.driver.send(&frame, &[], None, false).unwrap();
        queue.run(LIMITS).unwrap();
        assert_eq!(queue.driver.poll().len(), 1);
    }
    assert_eq!(queue.driver.flying.len(), 1);
}

#[test]
fn nonsense_inside_a_packet_costs_that_packet() {
    let mut queue = Queue::new(256);
    let good = Recipe::tcp(100).frame();
    let mut icmp = Recipe::tcp(4000).packet();
    icmp[23] = 1;
    let large = Recipe::udp(9000).frame();
    let largest = Recipe::udp(9700).frame();
    let tso = |mss, header| Some(Tso { mss, header });
    let packets: [(&[u8], Option<Tso>); 7] = [
        (&good[..16], None),
        (&large, None),
        (&largest, None),
        (&icmp, tso(1448, 54)),
        (&Recipe::tcp(4000).packet(), tso(1448, 66)),
        (&Recipe::tcp(20_000).packet(), tso(9728, 54)),
        (&good, None),
    ];
    for (packet, tso) in packets {
        queue.driver.send(packet, &[], tso, true).unwrap();
    }
    assert_eq!(queue.run(LIMITS).unwrap(), Rest::Idle);
    assert_eq!((queue.driver.poll().len(), queue.kept.frames.as_slice()), (7, &[good][..]));
    assert_eq!((queue.count.drop_malformed, queue.count.drop_oversize), (3, 3));
}

#[test]
fn a_wrong_ring_is_refused_with_its_reason() {
    let end = BASE + (2 << 20);
    let general = TxDriver::general_descriptor;
    let packet = |address, length, tag, end| TxDriver::packet_descriptor(address, length, tag, end, true);
    let tso = |total, mss, header| TxDriver::tso_descriptor(total, Tso { mss, header });
    let reported = |mut descriptor: [u8; 16]| {
        descriptor[8] |= 0x80;
        descriptor
    };
    let mut unflagged = tso(1000, 100, 54);
    unflagged[8] = 5;
    let hole = "a buffer of the packet at TX descriptor 0: the guest gave";
    let cases: Vec<(Vec<[u8; 16]>, String)> = vec![
        (vec![[0; 16]], "descriptor 0 is of type 0x0, which does not exist".into()),
        (vec![general(), [0xff; 16]], "descriptor 1 is of type 0x1f, which does not exist".into()),
        (vec![general(), general()], "descriptor 1: a second general context".into()),
        (vec![tso(1000, 100, 54), tso(1000, 100, 54)], "descriptor 1: a second TSO context".into()),
        (vec![unflagged], "descriptor 0: a TSO context without its flag".into()),
        (vec![packet(BASE, 50, 0, false), general()], "descriptor 1: a context within a packet".into()),
        (vec![packet(BASE, 50, 0, false), tso(1000, 100, 54)], "descriptor 1: a context within a packet".into()),
        (vec![tso(1000, 87, 54)], "descriptor 0 has mss = 87: 88 to 9728 bytes".into()),
        (vec![tso(1000, 9729, 54)], "descriptor 0 has mss = 9729: 88 to 9728 bytes".into()),
        (vec![tso(0, 1448, 54)], "descriptor 0 has tso_total_len = 0: 1 to 262143 bytes".into()),
        (vec![tso(262_144, 1448, 54)], "descriptor 0 has tso_total_len = 262144: 1 to 262143 bytes".into()),
        (
            vec![tso(1000, 100, 54), packet(BASE, 1053, 0, true)],
            "descriptor 1 has buf_size of all = 1053: tso_total_len and header_len together".into(),
        ),
        (vec![packet(BASE, 0, 0, true)], "descriptor 0 has buf_size = 0: 1 to 16383 bytes".into()),
        (vec![packet(BASE, 60, 64, true)], "descriptor 0 has compl_tag = 64: less than the completion ring has".into()),
        (
            vec![packet(BASE, 60, 0xffff, true)],
            "descriptor 0 has compl_tag = 65535: less than the completion ring has".into(),
        ),
        (
            vec![packet(BASE, 60, 1, false), packet(BASE, 60, 2, true)],
            "descriptor 1: another compl_tag than the packet began with".into(),
        ),
        (
            vec![reported(packet(BASE, 60, 1, false)), packet(BASE, 60, 1, true)],
            "descriptor 0: report_event before the packet's end".into(),
        ),
        (vec![packet(BASE, 60, 1, false); 11], "the packet at descriptor 0 has more than 10 buffers".into()),
        (vec![packet(BASE - 1, 60, 0, true)], format!("{hole} 60 bytes at {:#x}", BASE - 1)),
        (vec![packet(end - 59, 60, 0, true)], format!("{hole} 60 bytes at {:#x}", end - 59)),
        (vec![packet(u64::MAX - 10, 60, 0, true)], format!("{hole} 60 bytes at {:#x}", u64::MAX - 10)),
    ];
    for (descriptors, message) in cases {
        let mut queue = Queue::new(64);
        descriptors.iter().for_each(|descriptor| queue.driver.push(*descriptor));
        let wrong = queue.run(LIMITS).expect_err(&message).to_string();
        assert!(wrong.starts_with(&message), "{wrong}, not {message}");
        assert_eq!((queue.kept.frames.len(), queue.ring.completed()), (0, 0), "{message}");
    }
    let mut many = Queue::new(128);
    many.driver.push(tso(65 * 100 - 54, 100, 54));
    (0..65).for_each(|_| many.driver.push(packet(BASE, 100, 0, false)));
    assert_eq!(many.run(LIMITS).unwrap_err().to_string(), "the packet at descriptor 0 has more than 64 buffers");
}

#[test]
fn rings_outside_memory_are_refused() {
    let ram = Arc::new(Ram::new(1 << 20));
    let good = TxDriver::new(&ram, 0, 64, 1 << 16);
    let nowhere = |setup: TxSetup| {
        let mut driver = TxDriver::over(&ram, good.setup, 1 << 10);
        let frame = Recipe::udp(100).frame();
        driver.send(&frame, &[], None, false).unwrap();
        let (mut count, mut descriptors) = (TxCount::default(), 0);
        let mut kept = Kept { room: 9, ..Kept::default() };
        let mut ring = TxRing::new(setup);
        let (mut scratch, live) = (Scratch::default(), || true);
        ring.run(&*ram, 2, LIMITS, &live, &mut scratch, &mut kept, &mut count, &mut descriptors)
            .unwrap_err()
            .to_string()
    };
    for address in [0, u64::MAX - 3, BASE + (1 << 20) - 8] {
        let wrong = nowhere(TxSetup { ring: address, ..good.setup });
        assert!(wrong.starts_with("TX descriptor 0: the guest gave"), "{wrong}");
        let wrong = nowhere(TxSetup { completion_ring: address.wrapping_add(4), ..good.setup });
        assert!(wrong.starts_with("TX completion 0: the guest gave"), "{wrong}");
    }
}

/// A driver that never reads completions, and yet uses other tags, is stopped before one is overwritten.
#[test]
fn completions_are_never_overrun() {
    let mut queue = Queue::new(64);
    let frame = Recipe::udp(100).frame();
    let address = queue.driver.stage(&frame);
    let mut wrong = None;
    for tag in 0..64 {
        queue.driver.push(TxDriver::packet_descriptor(address, frame.len() as u16, tag, true, false));
        queue.run(LIMITS).unwrap();
    }
    for _ in 0..2 {
        let mut reported = TxDriver::packet_descriptor(address, frame.len() as u16, 0, true, false);
        reported[8] |= 0x80;
        queue.driver.push(reported);
        wrong = wrong.or(queue.run(LIMITS).err());
    }
    assert_eq!(wrong, Some(Wrong::Overrun { size: 64 }));
    assert_eq!(queue.ring.completed(), 65, "the first of tag 0 was read: it is used again");
}
