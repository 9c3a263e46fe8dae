//! The device alone, without a VM: frames out of TX rings into RX rings, on one core, beside memcpy of the same bytes between
//! the same places.
//!
//! `cargo bench -p gvnic --bench device [-- ROUNDS]`. The memory is larger than the last-level cache and is gone through from
//! end to end, so that every frame comes from memory and goes to memory. What a driver does (filling rings, reading
//! completions) is not measured, and neither is a switch. It is processor time that is measured, and the device and memcpy
//! take turns at every batch, so that a busy moment of the machine hits both.

mod guest;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use gvnic::bus::Memory;
use gvnic::frame::parse;
use gvnic::receiver::Burst;
use gvnic::transmitter::Transmitter;
use gvnic::wire::{Frame, Known, Sent, Wire};
use rustix::time::{ClockId, clock_gettime};

use guest::{Area, BUFFER, Guest, RING};
use memory::{BASE, Mapping};

/// Bytes of packets of a port, and of buffers.
const AREA: u64 = 640 << 20;
/// Bytes for rings of a port.
const RINGS: u64 = 1 << 20;
const HEADER: usize = 54;
const ROUNDS: usize = 5;

/// One line of the result.
#[derive(Clone, Copy)]
struct Case {
    /// Bytes of a frame on the wire.
    frame: usize,
    /// Segments of a packet; more than one is cut by the device, and merged again.
    segments: usize,
    split: bool,
    ports: usize,
    checksums: bool,
}

/// What lies between two ports: nothing at all. Where checksums count, the receiver is not told that they were just filled
/// in, as no switch would.
struct Between<'a> {
    to: &'a mut dyn Wire,
    checksums: bool,
}

impl Wire for Between<'_> {
    fn send(&mut self, frame: Frame<'_>) -> Sent {
        let known = (!self.checksums).then(|| Known { headers: parse(frame.bytes), sums: true });
        self.to.send(Frame { known, ..frame })
    }
}

/// A TCP packet as a driver leaves it to the device.
fn packet(length: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; length];
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    bytes[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6]);
    bytes[16..18].copy_from_slice(&((length - 14) as u16).to_be_bytes());
    bytes[24..34].copy_from_slice(&[0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[34..HEADER].copy_from_slice(&[156, 64, 20, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    bytes
}

/// Processor time of this thread: what a busy machine takes away is in neither result.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

struct Round {
    device: Duration,
    copy: Duration,
    frames: u64,
    bytes: u64,
}

struct Bench {
    memory: Arc<Mapping>,
    guests: Vec<Guest>,
    sources: Vec<Area>,
    sinks: Vec<Area>,
    /// Buffers each device has.
    posted: Vec<u64>,
}

impl Bench {
    fn new(memory: &Arc<Mapping>, case: Case) -> Bench {
        let header = if case.split { 128 } else { 0 };
        let rings = |port: u64| Area::new(BASE + port * RINGS, RINGS);
        let guests =
            (0..case.ports as u64).map(|port| Guest::new(memory, rings(port), header, case.segments > 1)).collect();
        // Two ports share what one has, so that the footprint is the same.
        let part = AREA / case.ports as u64;
        let areas =
            |offset: u64| (0..case.ports as u64).map(move |n| Area::new(BASE + RINGS * 2 + offset + n * part, part));
        let (sources, sinks, posted) = (areas(0).collect(), areas(AREA).collect(), vec![0; case.ports]);
        Bench { memory: Arc::clone(memory), guests, sources, sinks, posted }
    }

    /// Goes once through the memory.
    fn round(&mut self, case: Case) -> Round {
        let length = HEADER + (case.frame - HEADER) * case.segments;
        let stride = (length as u64).next_multiple_of(256);
        let payload = if case.split { length - HEADER } else { length };
        let buffers = (payload as u64).div_ceil(BUFFER).max(1) as usize;
        let descriptors = Guest::descriptors(length, case.segments > 1);
        let batch = (RING as usize - 64) / descriptors.max(buffers);
        let total = AREA / (stride.max(buffers as u64 * BUFFER)) / case.ports as u64;
        let tso = (case.segments > 1).then_some(((case.frame - HEADER) as u16, HEADER as u8));
        let mut round = Round { device: Duration::ZERO, copy: Duration::ZERO, frames: 0, bytes: 0 };
        let packet = packet(length);
        // Half-way round, so that neither finds what the other has just touched.
        let away = |areas: &[Area]| areas.iter().map(Area::opposite).collect::<Vec<_>>();
        let (mut copy_from, mut copy_to) = (away(&self.sources), away(&self.sinks));
        let mut done = 0;
        while done < total {
            for (from, copied) in copy_from.iter_mut().enumerate() {
                let to = (from + 1) % case.ports;
                let needed = (batch * buffers) as u64;
                // The doorbell counts in 32.
                let more = needed.saturating_sub(self.posted[to]).next_multiple_of(32);
                self.guests[to].post(more as u32, &mut self.sinks[to]);
                self.posted[to] += more;
                for tag in 0..batch {
                    let address = self.sources[from].take(stride);
                    // The headers are fresh, the rest is what was there.
                    self.memory.write(address, &packet[..HEADER]).expect("within the area");
                    self.guests[from].queue(address, length, tag as u16, case.checksums, tso);
                }
                self.guests[from].kick();
                let start = processor_time();
                self.pass(from, to, batch, case.checksums);
                round.device += processor_time() - start;
                let (frames, bytes) = self.guests[to].reap(needed, case.split);
                assert_eq!((frames, bytes), (batch as u32, (batch * length) as u64), "every packet arrives whole");
                self.posted[to] -= needed;
                let start = processor_time();
                for _ in 0..batch {
                    let (mut at, mut left) = (copied.take(stride), length as u64);
                    for _ in 0..buffers {
                        let piece = left.min(BUFFER);
                        self.memory.copy(at, copy_to[to].take(BUFFER), piece as usize);
                        (at, left) = (at + piece, left - piece);
                    }
                }
                round.copy += processor_time() - start;
            }
            done += batch as u64;
        }
        let packets = done * case.ports as u64;
        round.frames = packets * case.segments as u64;
        round.bytes = packets * length as u64;
        round
    }

    fn pass(&mut self, from: usize, to: usize, budget: usize, checksums: bool) {
        let now = self.guests[from].shared.clock().nanoseconds();
        if from == to {
            let guest = &mut self.guests[from];
            pass(&mut guest.transmitter, guest.receiver.burst(now), budget, now, checksums);
            return;
        }
        let [first, second] = &mut self.guests[..] else { panic!("two ports") };
        let (sender, receiver) = if from == 0 { (first, second) } else { (second, first) };
        pass(&mut sender.transmitter, receiver.receiver.burst(now), budget, now, checksums);
    }
}

fn pass(transmitter: &mut Transmitter, mut burst: Burst<'_>, budget: usize, now: u64, checksums: bool) {
    let mut sent = 0;
    while sent < budget as u64 {
        let sending = transmitter.run(budget, now, &mut Between { to: &mut burst, checksums });
        assert!(!sending.full, "there are buffers enough");
        sent += sending.packets;
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn measure(memory: &Arc<Mapping>, case: Case, rounds: usize) {
    let mut bench = Bench::new(memory, case);
    bench.round(case);
    let rounds: Vec<Round> = (0..rounds).map(|_| bench.round(case)).collect();
    let rate = |bytes: u64, time: Duration| bytes as f64 * 8.0 / time.as_secs_f64() / 1e9;
    let mut device: Vec<_> = rounds.iter().map(|r| rate(r.bytes, r.device)).collect();
    let mut copy: Vec<_> = rounds.iter().map(|r| rate(r.bytes, r.copy)).collect();
    let mut packets: Vec<_> = rounds.iter().map(|r| r.frames as f64 / r.device.as_secs_f64() / 1e6).collect();
    let mut ratios: Vec<_> = device.iter().zip(&copy).map(|(d, c)| d / c).collect();
    let (middle, packets, copy, ratio) =
        (median(&mut device), median(&mut packets), median(&mut copy), median(&mut ratios));
    let what = if case.segments > 1 { format!("{} x{}", case.frame, case.segments) } else { case.frame.to_string() };
    println!(
        "{what:>9}  {:>5}  {:>5}  {:>9}  {:>7.2} / {middle:>6.2}  {packets:>7.3}  {copy:>7.2}  {ratio:>5.2} ({:.2}-{:.2})",
        if case.split { "yes" } else { "no" },
        case.ports,
        if case.checksums { "filled+ok" } else { "no" },
        device.first().copied().unwrap_or_default(),
        ratios.first().copied().unwrap_or_default(),
        ratios.last().copied().unwrap_or_default(),
    );
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(ROUNDS);
    let memory = Arc::new(Mapping::new((2 * RINGS + 2 * AREA) as usize));
    println!("{} MiB gone through each way a round, {rounds} rounds; one core; medians", AREA >> 20);
    println!("    frame  split  ports  checksums  Gbit/s min/med   Mframe/s   memcpy  ratio (range)");
    let mut cases = Vec::new();
    for ports in [1, 2] {
        for checksums in [true, false] {
            for split in [true, false] {
                for frame in [64, 1448, 8896] {
                    cases.push(Case { frame, segments: 1, split, ports, checksums });
                }
            }
        }
    }
    // A packet as large as there are: cut, and merged again.
    cases.push(Case { frame: 1502, segments: 45, split: true, ports: 1, checksums: true });
    cases.push(Case { frame: 8896, segments: 7, split: true, ports: 1, checksums: true });
    for case in cases {
        measure(&memory, case, rounds);
    }
}
