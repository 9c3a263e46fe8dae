//! What a hostile guest may do to rings, from bytes: shared by the tests and by the fuzz targets.
//!
//! Memory is small, and most addresses are made to be near it, so that arbitrary numbers often mean something.

use std::sync::Arc;

use gvnic::abi::dqo::rx::Integrity;
use gvnic::frame::{checksum, parse};
use gvnic::queues::{RxSetup, TxSetup};
use gvnic::rx::{Delivery, Mark, RxRing};
use gvnic::stats::{RxCount, TxCount};
use gvnic::tx::{Limits, Outlet, Rest, Scratch, TxRing, Verdict};
use gvnic::wire::{Frame, Sent};

use super::Recipe;
use crate::common::{BASE, Ram};

/// Bytes of memory.
const MEMORY: usize = 64 << 10;
const RING: u16 = 64;
const FRAME_MAX: usize = 9022;

/// Takes `N` bytes, zeros behind the end.
fn next<const N: usize>(input: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let (front, rest) = input.split_at(N.min(input.len()));
    bytes[..front.len()].copy_from_slice(front);
    *input = rest;
    bytes
}

/// An address that is mostly in memory.
fn address(bytes: [u8; 3]) -> u64 {
    let [high, middle, low] = bytes.map(u64::from);
    let offset = middle << 8 | low;
    match high {
        0 => offset,
        1 => u64::MAX - offset,
        2 => BASE + MEMORY as u64 - (offset & 0xff),
        3 => BASE - (offset & 0xff),
        _ => BASE + offset,
    }
}

/// A packet with something odd about it.
fn recipe(bytes: [u8; 6]) -> Recipe {
    let [what, flags, sequence, id, high, low] = bytes;
    let payload = vec![0x5a; usize::from(u16::from_be_bytes([high, low]) % 9100)];
    let mut recipe = Recipe { payload, ..Recipe::default() };
    recipe.v6 = what & 1 != 0;
    recipe.udp = what & 2 != 0;
    recipe.tags = usize::from(what >> 2 & 1);
    recipe.tcp_options = if what & 8 != 0 && !recipe.udp { vec![1; 12] } else { Vec::new() };
    (recipe.flags, recipe.sequence, recipe.id) = (flags, u32::from(sequence) * 500, u16::from(id));
    recipe
}

/// A wire with room for a few frames, which looks at each.
struct Judge {
    room: usize,
    verdict: u8,
}

impl Outlet for Judge {
    fn send(&mut self, frame: Frame<'_>) -> Sent {
        assert!(!frame.bytes.is_empty() && frame.bytes.len() <= FRAME_MAX);
        if let Some(known) = frame.known.filter(|known| known.sums) {
            let headers = parse(frame.bytes);
            assert_eq!(known.headers, headers);
            let sound = Integrity { processed: true, ..Integrity::default() };
            assert!(headers.extended || checksum::verify(frame.bytes, &headers) == sound);
        }
        if self.room == 0 {
            return Sent::Full;
        }
        self.room -= 1;
        Sent::Taken
    }

    fn verdict(&mut self) -> Verdict {
        self.verdict = self.verdict.wrapping_mul(5).wrapping_add(1);
        [Verdict::Complete, Verdict::Complete, Verdict::Withhold, Verdict::Miss][usize::from(self.verdict >> 6)]
    }
}

/// What came of it, so that a test knows that something did: for TX frames, packets that were cut and wrong rings; for RX
/// frames, merged segments and wrong rings.
pub type Tally = [u64; 3];

/// A guest that writes what it likes to a TX ring and to the packets.
pub fn tx_chain(mut input: &[u8]) -> Tally {
    let mut tally = [0; 3];
    let ram = Arc::new(Ram::new(MEMORY));
    let setup = TxSetup {
        id: 1,
        ring: ram.alloc(usize::from(RING) * 16),
        ring_size: RING,
        completion_ring: ram.alloc(usize::from(RING) * 8),
        completion_size: RING,
        notify_block: 0,
        doorbell: 0,
    };
    let (mut ring, mut tail, mut scratch) = (TxRing::new(setup), 0_u32, Scratch::default());
    let push = |tail: &mut u32, bytes: [u8; 16]| {
        ram.poke(setup.ring + u64::from(*tail) * 16, &bytes);
        *tail = (*tail + 1) % u32::from(RING);
    };
    while !input.is_empty() {
        let [what, a] = next(&mut input);
        match what % 8 {
            0 => push(&mut tail, next(&mut input)),
            1 | 2 => {
                let at = address(next(&mut input));
                let [high, low] = next(&mut input);
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&at.to_le_bytes());
                bytes[8] = 0xc | a & 0xe0;
                bytes[12] = what >> 3 & 3;
                bytes[14..].copy_from_slice(&u16::from_be_bytes([high & 0x1f, low]).to_le_bytes());
                push(&mut tail, bytes);
            }
            3 => push(&mut tail, [0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]),
            4 => {
                // A packet that is right, to be segmented or not, but for one byte.
                let recipe = recipe(next(&mut input));
                let mut packet = recipe.packet();
                let [at, value, mss, delta] = next(&mut input);
                if let Some(byte) = packet.get_mut(usize::from(at)) {
                    *byte ^= value;
                }
                let place = BASE + 8192;
                ram.poke(place, &packet);
                let header = recipe.header() as u8;
                if a & 1 != 0 {
                    let total = (packet.len() as u32).wrapping_sub(u32::from(header)) & 0xff_ffff;
                    let mut tso = [0; 16];
                    tso[..4].copy_from_slice(&total.to_le_bytes());
                    tso[4..6].copy_from_slice(&(88 + u16::from(mss) * 40).to_le_bytes());
                    (tso[6], tso[8]) = (if delta == 1 { header ^ 4 } else { header }, 0x25);
                    push(&mut tail, tso);
                }
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&place.to_le_bytes());
                bytes[8] = 0x6c | a & 0x80;
                bytes[12] = a >> 1 & 0x3f;
                bytes[14..].copy_from_slice(&(packet.len() as u16).to_le_bytes());
                push(&mut tail, bytes);
            }
            5 => {
                let [high, low] = next(&mut input);
                let offset = u64::from(u16::from_be_bytes([high, low])) % (MEMORY as u64 - 16);
                ram.poke(BASE + offset, &next::<16>(&mut input));
            }
            6 => tail = u32::from(a) % u32::from(RING),
            _ => {
                let (before, written) = (ring.completed(), ram.written());
                let limits = Limits { packets: usize::from(a >> 4), frame: FRAME_MAX };
                let mut judge = Judge { room: usize::from(a & 15) * 8, verdict: a };
                let (mut count, mut descriptors) = (TxCount::default(), 0);
                let live = || true;
                let rest = ring.run(&*ram, tail, limits, &live, &mut scratch, &mut judge, &mut count, &mut descriptors);
                assert_eq!((ring.completed() - before) * 8, ram.written() - written, "only completions are written");
                assert!(count.packets <= u64::from(a >> 4) && descriptors <= 2 * u64::from(RING));
                let happened = [count.frames, count.segmented_packets, u64::from(rest.is_err())];
                tally.iter_mut().zip(happened).for_each(|(sum, n)| *sum += n);
                match rest {
                    Ok(Rest::Full) => assert!(ring.has_work(tail)),
                    Ok(_) => {}
                    // The device is reset.
                    Err(_) => (ring, tail) = (TxRing::new(setup), 0),
                }
            }
        }
    }
    tally
}

/// A guest that writes what it likes to an RX ring, and frames from anybody.
pub fn rx_ring(mut input: &[u8]) -> Tally {
    let mut tally = [0; 3];
    let ram = Arc::new(Ram::new(MEMORY));
    let [how] = next(&mut input);
    let setup = RxSetup {
        id: 1,
        buffer_ring: ram.alloc(usize::from(RING) * 32),
        buffer_size: RING,
        completion_ring: ram.alloc(usize::from(RING) * 32),
        completion_size: RING,
        packet_buffer: if how & 1 != 0 { 2048 } else { 4096 },
        header_buffer: if how & 2 != 0 { 128 } else { 0 },
        merge: how & 4 != 0,
        notify_block: 0,
        doorbell: 0,
    };
    let (mut ring, mut tail, mut posted) = (RxRing::new(setup), 0_u32, 0_u32);
    let mut sequence = 0_u32;
    while !input.is_empty() {
        let [what, a] = next(&mut input);
        let (taken, returned, written) = (ring.taken(), ring.returned(), ram.written());
        let mut count = RxCount::default();
        let frame = match what % 8 {
            0 => {
                ram.poke(setup.buffer_ring + u64::from(posted) * 32, &next::<32>(&mut input));
                posted = (posted + 1) % u32::from(RING);
                continue;
            }
            1 => {
                // As many buffers as are asked for, at one place.
                let (data, header) = (address(next(&mut input)), address(next(&mut input)));
                for _ in 0..a % 64 {
                    let mut bytes = [0; 32];
                    bytes[0] = posted as u8;
                    bytes[8..16].copy_from_slice(&data.to_le_bytes());
                    bytes[16..24].copy_from_slice(&header.to_le_bytes());
                    ram.poke(setup.buffer_ring + u64::from(posted) * 32, &bytes);
                    posted = (posted + 1) % u32::from(RING);
                }
                tail = posted;
                continue;
            }
            2 => {
                tail = u32::from(a) % u32::from(RING);
                continue;
            }
            3 => {
                let mut frame = next::<96>(&mut input).to_vec();
                frame.truncate(usize::from(a));
                frame
            }
            4 | 5 => {
                // A stream that mostly goes on.
                let mut recipe = recipe(next(&mut input));
                if what % 8 == 5 {
                    (recipe.v6, recipe.udp, recipe.tags, recipe.tcp_options) = (false, false, 0, Vec::new());
                    (recipe.flags, recipe.sequence, recipe.id) = (0x10 | a & 8, sequence, 1);
                    recipe.payload.truncate(1448);
                    sequence = sequence.wrapping_add(recipe.payload.len() as u32);
                }
                recipe.frame()
            }
            6 => {
                let mut frame = recipe(next(&mut input)).frame();
                let at = usize::from(a) % frame.len();
                frame[at] ^= what;
                frame
            }
            _ => {
                if ring.flush(&*ram, &mut count).is_err() {
                    (ring, tail, posted) = (RxRing::new(setup), 0, 0);
                    tally[2] += 1;
                } else {
                    assert_eq!(ring.taken(), ring.returned(), "every buffer comes back");
                    tally[1] += count.merged_segments;
                }
                continue;
            }
        };
        let headers = parse(&frame);
        let integrity = checksum::verify(&frame, &headers);
        let mark = Mark { integrity, unsplit: a == 7, alone: a == 9, ..Mark::default() };
        let delivery = ring.deliver(&*ram, tail, &frame, &headers, &mark, &mut count);
        let happened = [count.frames, count.merged_segments, u64::from(delivery.is_err())];
        tally.iter_mut().zip(happened).for_each(|(sum, n)| *sum += n);
        match delivery {
            Err(_) => {
                (ring, tail, posted) = (RxRing::new(setup), 0, 0);
                continue;
            }
            Ok(Delivery::Full) => {
                assert_eq!((ring.taken(), ring.merging()), (taken, false));
                let closed = ring.returned() - returned;
                assert!(ram.written() - written <= closed * 32 + 256, "at most a train is closed");
            }
            Ok(Delivery::Done) => assert_eq!(ring.taken(), ring.returned()),
            Ok(Delivery::Merging) => assert!(ring.merging() && setup.merge && ring.taken() > ring.returned()),
        }
        assert!(ring.taken() - taken <= 17 && ring.taken() - ring.returned() <= 17);
        assert!(count.bytes <= frame.len() as u64 && ram.written() - written <= frame.len() as u64 + 18 * 32 + 256);
    }
    tally
}
