//! A TX queue: walks the driver's descriptors, makes frames of them, hands these on, and tells the driver.
//!
//! In: descriptors between the place and the tail. Out: frames into a sink, and completions. A sink that has no room stops the
//! queue: what is left of the packet is kept, and its completion waits, so that the driver stops as well and nothing is lost.
//!
//! # What the driver may rely on
//! Every packet gets its completion, also one that is dropped: without it the driver keeps the buffers and, after
//! `ndo_tx_timeout`, resets. A descriptor with `report_event` gets a descriptor completion, or the ring stands still: the
//! driver learns of free slots from nothing else (`gve_has_tx_slots_available`, gve_tx_dqo.c), and asks once in 32
//! descriptors (`gve_tx_update_tail`).
//!
//! # What the guest cannot do
//! A packet has at most [`PIECES_MAX`] descriptors and [`SEGMENTED_MAX`] bytes behind its headers; what exceeds that, or makes
//! no sense, is dropped up to its end. Every descriptor is read once. A packet without an end waits for the tail to move.

use crate::abi::dqo::{
    PACKET_MIN, SEGMENT_MAX, SEGMENT_MIN, SEGMENTED_HEADER_MAX, SEGMENTED_MAX, Segmentation, TX_COMPLETION_BYTES,
    TX_DESCRIPTOR_BYTES, TX_GENERATION_AT, TxCompletion, TxDescriptor, TxPiece,
};
use crate::bus::Memory;
use crate::frame::{Parsed, fill, segments};
use crate::queues::{TxQueue, TxSetup, Visit};

/// Descriptors of a packet at most: the largest packet in pieces of pages (`MAX_SKB_FRAGS` is at most 45), each over 16 KiB
/// taking another descriptor (`gve_num_descs_per_buf`, gve_tx_dqo.c), and room.
pub const PIECES_MAX: usize = 128;
/// Descriptors that are read at once.
const BATCH: usize = 32;
/// Bytes between the largest IP packet and the largest frame: Ethernet and one VLAN tag.
const LINK_HEADER: usize = 18;

/// Takes a frame; false when there is no room, and then it has not taken it.
pub type Sink<'a> = dyn FnMut(&[u8]) -> bool + 'a;

/// What a call came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Packets that were completed: there is an event to raise when it is not 0.
    pub completed: usize,
    /// The sink has no room; frames are kept.
    pub blocked: bool,
}

/// What applies to every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Whether frames go anywhere.
    pub link: bool,
    /// Packets in this call at most.
    pub packets: usize,
}

/// Buffers that all queues of a port use in turn. They grow to what packets need, which is bounded.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The packet as it is gathered; only as many bytes as it has are meant.
    packet: Vec<u8>,
    segment: Vec<u8>,
}

/// Frames of a packet that the sink had no room for, one after another.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    lengths: std::collections::VecDeque<usize>,
    at: usize,
    done: Done,
}

impl Held {
    fn keep(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.lengths.push_back(frame.len());
    }

    /// Gives what the sink takes; true when nothing is left.
    fn flush(&mut self, sink: &mut Sink<'_>, sent: &mut Sent) -> bool {
        while let Some(length) = self.lengths.front().copied() {
            let Some(frame) = self.bytes.get(self.at..self.at + length) else { break };
            if !sink(frame) {
                return false;
            }
            sent.count(length);
            self.at += length;
            self.lengths.pop_front();
        }
        (self.at, self.bytes) = (0, Vec::new());
        self.lengths.clear();
        true
    }
}

/// What is to be completed.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    tag: u16,
    report: bool,
    /// Index behind the packet.
    head: u32,
    /// Its descriptors.
    count: usize,
}

/// Frames and bytes that went on, counted up before they are added to what others read.
#[derive(Debug, Default)]
struct Sent {
    frames: u64,
    bytes: u64,
    packets: u64,
    segmented: u64,
}

impl Sent {
    fn count(&mut self, length: usize) {
        self.frames += 1;
        self.bytes += length as u64;
    }
}

/// Why a packet is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Malformed,
    BadAddress,
    Oversize,
    LinkDown,
}

/// The packet that is being read.
#[derive(Debug)]
struct Packet {
    pieces: [TxPiece; PIECES_MAX],
    count: usize,
    /// Descriptors of any kind.
    descriptors: usize,
    cut: Option<Segmentation>,
    report: bool,
    bad: bool,
}

impl Packet {
    fn new() -> Packet {
        let pieces = [TxPiece::default(); PIECES_MAX];
        Packet { pieces, count: 0, descriptors: 0, cut: None, report: false, bad: false }
    }

    fn clear(&mut self) {
        (self.count, self.descriptors, self.cut, self.report, self.bad) = (0, 0, None, false, false);
    }

    /// Takes a descriptor; answers the last piece once the packet is whole.
    fn take(&mut self, descriptor: TxDescriptor) -> Option<TxPiece> {
        self.descriptors += 1;
        match descriptor {
            TxDescriptor::Packet(piece) => {
                match self.pieces.get_mut(self.count) {
                    Some(slot) => {
                        *slot = piece;
                        self.count += 1;
                    }
                    None => self.bad = true,
                }
                self.bad |= piece.length == 0;
                self.report |= piece.report;
                return piece.end.then_some(piece);
            }
            // Contexts come first (`gve_tx_add_skb_dqo`), and one is enough.
            TxDescriptor::Segmentation(cut) => {
                self.bad |= self.count > 0 || self.cut.is_some() || !cut.enabled;
                self.cut = Some(cut);
            }
            TxDescriptor::Context => self.bad |= self.count > 0,
            TxDescriptor::Unknown(_) => self.bad = true,
        }
        None
    }

    fn pieces(&self) -> &[TxPiece] {
        self.pieces.get(..self.count).unwrap_or_default()
    }

    /// Looks at everything that can be known before a byte of it is read. Answers its length.
    fn check(&self, limits: &Limits) -> Result<usize, Refused> {
        if self.bad {
            return Err(Refused::Malformed);
        }
        let length: usize = self.pieces().iter().map(|piece| usize::from(piece.length)).sum();
        let frame_max = usize::from(limits.mtu) + LINK_HEADER;
        match self.cut {
            None if length < PACKET_MIN => Err(Refused::Malformed),
            None if length > frame_max => Err(Refused::Oversize),
            None => Ok(length),
            Some(cut) => {
                let header = usize::from(cut.header);
                let whole = header + cut.payload as usize == length && cut.payload > 0;
                let segment = (SEGMENT_MIN..=SEGMENT_MAX).contains(&cut.segment);
                let small = header <= usize::from(SEGMENTED_HEADER_MAX) && length <= SEGMENTED_MAX;
                if !(whole && segment && small) {
                    Err(Refused::Malformed)
                } else if header + usize::from(cut.segment).min(cut.payload as usize) > frame_max {
                    Err(Refused::Oversize)
                } else {
                    Ok(length)
                }
            }
        }
    }
}

/// Where the device is in a TX queue.
#[derive(Debug)]
pub struct TxPlace {
    generation: u64,
    /// Next descriptor to be taken.
    head: u32,
    /// Next completion to be written, and its generation bit.
    completion: u32,
    bit: bool,
    cache: [u8; BATCH * TX_DESCRIPTOR_BYTES],
    /// Descriptors in the cache that were taken, and how many there are.
    cached: (usize, usize),
    packet: Box<Packet>,
    held: Option<Held>,
}

impl Default for TxPlace {
    fn default() -> Self {
        TxPlace {
            generation: 0,
            head: 0,
            completion: 0,
            bit: true,
            cache: [0; BATCH * TX_DESCRIPTOR_BYTES],
            cached: (0, 0),
            packet: Box::new(Packet::new()),
            held: None,
        }
    }
}

impl TxPlace {
    /// Starts anew if the queue is another one than the last time.
    fn follow(&mut self, generation: u64) {
        if self.generation != generation {
            *self = TxPlace { generation, ..TxPlace::default() };
        }
    }

    /// Whether there is nothing to do for a queue, without entering it.
    pub fn is_idle(&self, queue: &TxQueue) -> bool {
        self.generation == queue.generation() && self.held.is_none() && self.head == queue.tail()
    }

    /// Sends what there is, within `limits`.
    pub fn run(
        &mut self,
        queue: &TxQueue,
        visit: &Visit<'_>,
        memory: &dyn Memory,
        limits: &Limits,
        scratch: &mut Scratch,
        sink: &mut Sink<'_>,
    ) -> Progress {
        self.follow(queue.generation());
        let setup = queue.setup();
        let (mut progress, mut sent) = (Progress::default(), Sent::default());
        let (mut consumed, mut returned) = (0u64, 0u64);
        if let Some(mut held) = self.held.take() {
            if held.flush(sink, &mut sent) {
                self.complete(queue, memory, held.done);
                returned += held.done.count as u64;
                progress.completed += 1;
            } else {
                self.held = Some(held);
                progress.blocked = true;
            }
        }
        let mask = u32::from(setup.ring_size) - 1;
        let tail = queue.tail();
        while !progress.blocked && progress.completed < limits.packets && self.head != tail && visit.is_live() {
            let descriptor = match self.next(setup, memory, tail) {
                Some(descriptor) => descriptor,
                // The ring is not the driver's memory: there is nothing to believe, and nothing to complete.
                None => {
                    queue.counters().drop_bad_address.add(1);
                    self.head = tail;
                    self.packet.clear();
                    break;
                }
            };
            self.head = (self.head + 1) & mask;
            consumed += 1;
            let Some(last) = self.packet.take(descriptor) else { continue };
            let done =
                Done { tag: last.tag, report: self.packet.report, head: self.head, count: self.packet.descriptors };
            let held = match self.send(memory, limits, scratch, last.checksum, sink, &mut sent) {
                Ok(held) => held,
                Err(why) => {
                    let counters = queue.counters();
                    match why {
                        Refused::Malformed => &counters.drop_malformed,
                        Refused::BadAddress => &counters.drop_bad_address,
                        Refused::Oversize => &counters.drop_oversize,
                        Refused::LinkDown => &counters.drop_link_down,
                    }
                    .add(1);
                    None
                }
            };
            sent.packets += 1;
            sent.segmented += u64::from(self.packet.cut.is_some());
            self.packet.clear();
            if let Some(held) = held {
                self.held = Some(Held { done, ..held });
                progress.blocked = true;
            } else {
                self.complete(queue, memory, done);
                returned += done.count as u64;
                progress.completed += 1;
            }
        }
        queue.ledger().consumed.add(consumed);
        queue.ledger().returned.add(returned);
        queue.counters().frames.add(sent.frames);
        queue.counters().bytes.add(sent.bytes);
        queue.counters().packets.add(sent.packets);
        queue.counters().segmented_packets.add(sent.segmented);
        progress
    }

    /// The descriptor at the head; `None` when the ring cannot be read.
    fn next(&mut self, setup: &TxSetup, memory: &dyn Memory, tail: u32) -> Option<TxDescriptor> {
        if self.cached.0 == self.cached.1 {
            let size = u32::from(setup.ring_size);
            let until = if tail > self.head { tail } else { size };
            let count = (until.saturating_sub(self.head) as usize).min(BATCH);
            let address = setup.ring.checked_add(u64::from(self.head) * TX_DESCRIPTOR_BYTES as u64)?;
            let into = self.cache.get_mut(..count * TX_DESCRIPTOR_BYTES)?;
            memory.read(address, into).ok()?;
            self.cached = (0, count);
        }
        let from = self.cache.get(self.cached.0 * TX_DESCRIPTOR_BYTES..)?.first_chunk()?;
        self.cached.0 += 1;
        Some(TxDescriptor::decode(from))
    }

    /// Sends the packet that was read. Answers frames there was no room for.
    fn send(
        &self,
        memory: &dyn Memory,
        limits: &Limits,
        scratch: &mut Scratch,
        sum: bool,
        sink: &mut Sink<'_>,
        sent: &mut Sent,
    ) -> Result<Option<Held>, Refused> {
        let length = self.packet.check(limits)?;
        if !limits.link {
            return Err(Refused::LinkDown);
        }
        // Never cleared: every byte that is used is read into first.
        if scratch.packet.len() < length {
            scratch.packet.resize(length, 0);
        }
        let packet = scratch.packet.get_mut(..length).ok_or(Refused::Malformed)?;
        let mut rest = &mut *packet;
        for piece in self.packet.pieces() {
            let (into, behind) = rest.split_at_mut_checked(usize::from(piece.length)).ok_or(Refused::Malformed)?;
            memory.read(piece.address, into).map_err(|_| Refused::BadAddress)?;
            rest = behind;
        }
        let Some(cut) = self.packet.cut else {
            if sum {
                let parsed = Parsed::of(packet);
                fill(packet, &parsed);
            }
            if sink(packet) {
                sent.count(length);
                return Ok(None);
            }
            let mut held = Held::default();
            held.keep(packet);
            return Ok(Some(held));
        };
        let parsed = Parsed::of(packet);
        // The driver says where the payload begins, and the headers do: a packet where they differ is not one it sent.
        if parsed.payload_at != usize::from(cut.header) {
            return Err(Refused::Malformed);
        }
        let mut held: Option<Held> = None;
        let mut segments = segments(packet, &parsed, cut.segment).map_err(|_| Refused::Malformed)?;
        while segments.next_into(&mut scratch.segment) {
            match &mut held {
                Some(held) => held.keep(&scratch.segment),
                None if sink(&scratch.segment) => sent.count(scratch.segment.len()),
                None => held.get_or_insert_default().keep(&scratch.segment),
            }
        }
        Ok(held)
    }

    /// Tells the driver that a packet is done with.
    fn complete(&mut self, queue: &TxQueue, memory: &dyn Memory, done: Done) {
        self.publish(queue, memory, TxCompletion::Packet(done.tag));
        if done.report {
            self.publish(queue, memory, TxCompletion::Descriptors(done.head as u16));
        }
    }

    fn publish(&mut self, queue: &TxQueue, memory: &dyn Memory, completion: TxCompletion) {
        let setup = queue.setup();
        let bytes = completion.encode(setup.id, self.bit);
        let offset = u64::from(self.completion) * TX_COMPLETION_BYTES as u64;
        let address = setup.completion_ring.checked_add(offset);
        if address.is_none_or(|address| memory.publish(address, &bytes, TX_GENERATION_AT).is_err()) {
            queue.counters().drop_bad_address.add(1);
        }
        self.completion = (self.completion + 1) & (u32::from(setup.completion_size) - 1);
        self.bit ^= self.completion == 0;
    }
}
