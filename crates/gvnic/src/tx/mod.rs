//! One TX queue: from descriptors to frames to completions.
//!
//! In: the ring up to the driver's tail. Out: frames to an [`Outlet`], completions in the guest's memory. A packet is looked
//! at when all of its descriptors are there, gathered with others into one buffer ([`Scratch`]), and completed when its
//! last frame is taken; packets that the wire has no room for keep the buffer until it has. So there is no copy but the
//! one out of the guest's memory, and no allocation but under backpressure.
//!
//! Several packets are gathered before the first is sent, because a processor can wait for many reads at once, but for
//! what it has just written to the buffer only behind everything else it has written.
//!
//! A wrong ring is a [`Wrong`]; a packet that is only nonsense inside, which a program of the guest can send with no help
//! of its kernel, is dropped, counted and completed.

mod completions;
mod packet;

use std::collections::VecDeque;

use crate::abi::dqo::tx::{CompletionType, DESCRIPTOR, PACKET_BYTES};
use crate::bus::Memory;
use crate::frame::segment::Cut;
use crate::frame::{checksum, parse, parse_whole};
use crate::queues::TxSetup;
use crate::stats::TxCount;
use crate::window::Window;
use crate::wire::{Frame, Known, Sent};
use crate::wrong::{Wrong, at};

use completions::Completions;
use packet::{PACKET_MAX, Packet, Pieces};

/// What becomes of a packet's completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It is written.
    #[default]
    Complete,
    /// It never comes: a fault.
    Withhold,
    /// The packet took the slow path: a miss, and then a re-injection completion.
    Miss,
}

/// Where frames go, and what the network and the faults say to it.
pub trait Outlet {
    /// Takes a frame, or not.
    fn send(&mut self, frame: Frame<'_>) -> Sent;
    /// What becomes of the completion of the next packet that is done.
    fn verdict(&mut self) -> Verdict {
        Verdict::Complete
    }
}

/// What bounds a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Packets at most.
    pub packets: usize,
    /// Bytes of a frame at most.
    pub frame: usize,
}

/// The buffer a packet is gathered in, shared by all queues of a thread so that it stays in the processor's cache.
#[derive(Debug)]
pub struct Scratch(Option<Box<[u8]>>);

impl Default for Scratch {
    fn default() -> Self {
        Scratch(Some(buffer()))
    }
}

fn buffer() -> Box<[u8]> {
    vec![0; PACKET_MAX].into_boxed_slice()
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Every packet is sent.
    Idle,
    /// The limit of packets is reached.
    More,
    /// The wire has no room.
    Full,
}

/// Packets that are gathered before the first is sent, and bytes after which no more are.
const BATCH: usize = 16;
const BATCH_BYTES: usize = 48 << 10;

/// A gathered packet.
#[derive(Debug)]
struct Ready {
    packet: Packet,
    /// Where in the buffer it is.
    at: usize,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// Nobody has looked at its bytes.
    Raw,
    /// It is one frame, of which this is known.
    Frame(Option<Known>),
    /// It is to be cut; it is the last of its batch.
    Cut,
    /// It is only completed.
    Dropped,
}

/// A TX queue, and how far it is.
#[derive(Debug)]
pub struct TxRing {
    setup: TxSetup,
    window: Window<DESCRIPTOR>,
    /// The next packet's first descriptor, counted from the queue's creation.
    head: u64,
    pieces: Pieces,
    /// What is gathered and not completed, and the buffer it is in.
    ready: VecDeque<Ready>,
    buffer: Option<Box<[u8]>>,
    /// How the packet that is to be cut is cut, and the next frame of the first packet.
    cut: Option<Cut>,
    next: usize,
    completions: Completions,
}

impl TxRing {
    /// A queue that was just created.
    pub fn new(setup: TxSetup) -> TxRing {
        TxRing {
            setup,
            window: Window::new("TX descriptor", setup.ring, setup.ring_size),
            head: 0,
            pieces: Pieces::default(),
            ready: VecDeque::with_capacity(BATCH),
            buffer: None,
            cut: None,
            next: 0,
            completions: Completions::new(&setup),
        }
    }

    /// Completions written so far.
    pub fn completed(&self) -> u64 {
        self.completions.written()
    }

    /// Whether there is anything to do.
    pub fn has_work(&self, tail: u32) -> bool {
        !self.ready.is_empty() || self.window.filled(self.head, tail) > 0
    }

    /// Sends packets until there are none, the limit is reached, or the wire has no room. `count` is added to, and
    /// `descriptors` by the descriptors that were completed; `live` is asked before every batch.
    ///
    /// # Errors
    /// [`Wrong`]: the queue is of no use any more.
    #[expect(clippy::too_many_arguments, reason = "what it works on, what bounds it, and what it counts")]
    pub fn run(
        &mut self,
        memory: &dyn Memory,
        tail: u32,
        limits: Limits,
        live: &dyn Fn() -> bool,
        scratch: &mut Scratch,
        outlet: &mut dyn Outlet,
        count: &mut TxCount,
        descriptors: &mut u64,
    ) -> Result<Rest, Wrong> {
        let mut left = limits.packets;
        loop {
            if self.ready.is_empty() {
                if left == 0 {
                    return Ok(if self.window.filled(self.head, tail) > 0 { Rest::More } else { Rest::Idle });
                }
                if !live() {
                    return Ok(Rest::Idle);
                }
                self.fill(memory, tail, limits.frame, left.min(BATCH), scratch, count)?;
                if self.ready.is_empty() {
                    return Ok(Rest::Idle);
                }
            }
            while let Some(front) = self.ready.front_mut() {
                if left == 0 {
                    return Ok(Rest::More);
                }
                let start = front.at;
                let buffer = self.buffer.as_deref_mut().unwrap_or_default();
                let bytes = buffer.get_mut(start..start + front.packet.length).unwrap_or_default();
                if let What::Raw = front.what {
                    self.next = 0;
                    front.what = prepare(&front.packet, bytes, &mut self.cut, count);
                }
                let sent = match front.what {
                    What::Raw | What::Dropped => true,
                    What::Frame(known) => offer(Frame { bytes, known }, outlet, count),
                    What::Cut => match &self.cut {
                        Some(cut) => send_segments(cut, &mut self.next, bytes, limits.frame, outlet, count),
                        None => true,
                    },
                };
                if !sent {
                    return Ok(Rest::Full);
                }
                if let Some(Ready { packet, what, .. }) = self.ready.pop_front() {
                    count.packets += u64::from(!matches!(what, What::Dropped));
                    count.segmented_packets += u64::from(matches!(what, What::Cut));
                    self.complete(memory, &packet, outlet, descriptors)?;
                }
                left -= 1;
            }
            // One buffer is enough for a thread; those of queues that had to wait are given up.
            if let Some(buffer) = self.buffer.take() {
                scratch.0.get_or_insert(buffer);
            }
        }
    }

    /// Gathers up to `most` packets. What is wrong with a packet is said when those before it are done.
    fn fill(
        &mut self,
        memory: &dyn Memory,
        tail: u32,
        frame_max: usize,
        most: usize,
        scratch: &mut Scratch,
        count: &mut TxCount,
    ) -> Result<(), Wrong> {
        let end = self.head + self.window.filled(self.head, tail);
        let mut buffer = scratch.0.take().unwrap_or_else(buffer);
        let mut used = 0;
        let mut outcome = Ok(());
        while self.ready.len() < most && used < BATCH_BYTES {
            let room = buffer.get_mut(used..).unwrap_or_default();
            match self.gather(memory, end, frame_max, room, count) {
                Ok(Some((packet, what))) => {
                    self.ready.push_back(Ready { packet, at: used, what });
                    if !matches!(what, What::Dropped) {
                        used = (used + packet.length).next_multiple_of(64);
                    }
                    // There is room for one in `cut`.
                    if packet.tso.is_some() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(wrong) => {
                    outcome = if self.ready.is_empty() { Err(wrong) } else { Ok(()) };
                    break;
                }
            }
        }
        if self.ready.is_empty() {
            scratch.0 = Some(buffer);
        } else {
            self.buffer = Some(buffer);
        }
        outcome
    }

    /// Reads a packet's descriptors, and its bytes into the front of `room`. `None` when it is not there as a whole, or does
    /// not fit.
    fn gather(
        &mut self,
        memory: &dyn Memory,
        end: u64,
        frame_max: usize,
        room: &mut [u8],
        count: &mut TxCount,
    ) -> Result<Option<(Packet, What)>, Wrong> {
        let Some(packet) = self.pieces.read(&mut self.window, memory, self.head, end)? else { return Ok(None) };
        if packet.tag >= self.setup.completion_size {
            let allowed = "less than the completion ring has";
            let (index, value) = (self.window.index(packet.end - 1), u64::from(packet.tag));
            return Err(Wrong::Field { index, field: "compl_tag", value, allowed });
        }
        let what = if packet.tso.is_none() && packet.length < *PACKET_BYTES.start() {
            count.drop_malformed += 1;
            What::Dropped
        } else if packet.tso.is_none() && packet.length > frame_max.min(*PACKET_BYTES.end()) {
            count.drop_oversize += 1;
            What::Dropped
        } else {
            let Some(bytes) = room.get_mut(..packet.length) else { return Ok(None) };
            self.pieces.copy(memory, bytes, self.window.index(packet.start))?;
            What::Raw
        };
        self.completions.reused(packet.tag);
        self.head = packet.end;
        Ok(Some((packet, what)))
    }

    fn complete(
        &mut self,
        memory: &dyn Memory,
        packet: &Packet,
        outlet: &mut dyn Outlet,
        descriptors: &mut u64,
    ) -> Result<(), Wrong> {
        // Before the packet's own: its slots are free from the moment its buffers are.
        if packet.report {
            let behind = self.window.index(packet.end) as u16;
            self.completions.write(memory, CompletionType::Descriptors, behind)?;
        }
        *descriptors += packet.end - packet.start;
        match outlet.verdict() {
            Verdict::Withhold => {}
            Verdict::Complete => self.completions.write(memory, CompletionType::Packet, packet.tag)?,
            Verdict::Miss => {
                self.completions.write(memory, CompletionType::Miss, packet.tag)?;
                self.completions.write(memory, CompletionType::Reinjection, packet.tag)?;
            }
        }
        Ok(())
    }
}

/// Decides what becomes of a packet, and fills in its checksums.
fn prepare(packet: &Packet, bytes: &mut [u8], cut: &mut Option<Cut>, count: &mut TxCount) -> What {
    if let Some(tso) = packet.tso {
        let headers = parse_whole(bytes);
        *cut = Cut::new(bytes, &headers, usize::from(tso.header), usize::from(tso.mss)).ok();
        count.drop_malformed += u64::from(cut.is_none());
        return if cut.is_some() { What::Cut } else { What::Dropped };
    }
    What::Frame(packet.checksum.then(|| {
        let headers = parse(bytes);
        Known { headers, sums: checksum::fill(bytes, &headers) }
    }))
}

/// Offers a frame. `false` when there is no room for it.
fn offer(frame: Frame<'_>, outlet: &mut dyn Outlet, count: &mut TxCount) -> bool {
    let length = frame.bytes.len() as u64;
    match outlet.send(frame) {
        Sent::Full => return false,
        Sent::Lost => count.drop_fault += 1,
        Sent::Unplugged => count.drop_link_down += 1,
        Sent::Taken => {
            count.frames += 1;
            count.bytes += length;
        }
    }
    true
}

/// Offers the segments that are left. `false` when there is no room for one.
fn send_segments(
    cut: &Cut,
    next: &mut usize,
    packet: &mut [u8],
    frame_max: usize,
    outlet: &mut dyn Outlet,
    count: &mut TxCount,
) -> bool {
    while let Some(bytes) = cut.segment(*next, packet) {
        if bytes.len() > frame_max {
            // All but the last are of one size, so that none would get through.
            count.drop_oversize += 1;
            break;
        }
        let known = Known { headers: cut.headers(bytes), sums: true };
        if !offer(Frame { bytes, known: Some(known) }, outlet, count) {
            return false;
        }
        *next += 1;
    }
    true
}
