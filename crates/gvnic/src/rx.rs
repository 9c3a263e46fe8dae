//! An RX queue: puts frames into the driver's buffers, and tells it.
//!
//! In: a frame and what is known of it. Out: header and payload in guest memory, then completions; or [`Delivery::Full`] when
//! the driver has not posted enough buffers, and the caller keeps the frame.
//!
//! # How a frame lies
//! With header split, headers go to the first buffer's header buffer and the payload to packet buffers, which may be device
//! memory that nobody here can read. A packet without payload still takes a buffer, of which no byte is used. Where headers
//! cannot be told apart, or are longer than a header buffer, the whole frame goes to packet buffers, and `split_header` stays
//! clear: the driver then drops what it finds in device memory (`gve_rx_dqo`, gve_rx_dqo.c), where with the bit set and
//! `header_buffer_overflow` it would hand on a frame whose headers it cannot read.
//!
//! # What goes wrong
//! A frame whose buffers are not the guest's memory is dropped, and its buffers go back with `rx_error`, so that none leaks.

use crate::abi::dqo::{
    About, RX_BUFFER_BYTES, RX_COMPLETION_BYTES, RX_GENERATION_AT, RX_HEADER_MAX, RX_LENGTH_MAX, RxBuffer, RxCompletion,
};
use crate::bus::{BadAddress, Memory};
use crate::queues::{RxQueue, RxSetup, Visit};

/// Buffer descriptors that are read at once.
const BATCH: usize = 32;
/// The driver rings only at multiples of this (`GVE_RX_BUF_THRESH_DQO`, gve_desc_dqo.h), so that so many buffers of a ring
/// may never be seen.
const DOORBELL_STEP: usize = 32;
/// Buffers of a frame at most: 64 KiB in the smallest ones, and headers.
const BUFFERS_MAX: usize = 64;

/// A frame, and what the driver is told of it.
#[derive(Debug, Clone, Copy)]
pub struct RxFrame<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// How many of its bytes are headers that can be split off; 0 for none.
    pub header: usize,
    /// The rest.
    pub about: About,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The driver has it, or it was dropped and counted; and there is an event to raise.
    Done,
    /// There are not enough buffers; nothing happened.
    Full,
    /// It was dropped and counted, and nothing was written.
    Dropped,
}

/// Where the device is in an RX queue.
#[derive(Debug)]
pub struct RxPlace {
    generation: u64,
    /// Next buffer to be taken.
    head: u32,
    done: Done,
    cache: [u8; BATCH * RX_BUFFER_BYTES],
    /// Buffers in the cache that were taken, and how many there are.
    cached: (usize, usize),
    /// Those of the frame under way.
    taken: [RxBuffer; BUFFERS_MAX],
}

impl Default for RxPlace {
    fn default() -> Self {
        RxPlace {
            generation: 0,
            head: 0,
            done: Done { index: 0, bit: true },
            cache: [0; BATCH * RX_BUFFER_BYTES],
            cached: (0, 0),
            taken: [RxBuffer::default(); BUFFERS_MAX],
        }
    }
}

impl RxPlace {
    /// Starts anew if the queue is another one than the last time.
    fn follow(&mut self, generation: u64) {
        if self.generation != generation {
            *self = RxPlace { generation, ..RxPlace::default() };
        }
    }

    /// Gives a frame to the driver. [`Visit`] is the right to do so.
    pub fn deliver(
        &mut self,
        queue: &RxQueue,
        _visit: &Visit<'_>,
        memory: &dyn Memory,
        frame: &RxFrame<'_>,
    ) -> Delivery {
        self.follow(queue.generation());
        let (setup, counters) = (queue.setup(), queue.counters());
        let limit = usize::from(setup.header_buffer.min(RX_HEADER_MAX));
        let fits = frame.header <= limit;
        let (header, payload) = match frame.bytes.split_at_checked(frame.header) {
            Some(parts) if frame.header > 0 && fits => parts,
            _ => (&[][..], frame.bytes),
        };
        let buffer = usize::from(setup.packet_buffer.clamp(1, RX_LENGTH_MAX));
        let needed = payload.len().div_ceil(buffer).max(1);
        let size = usize::from(setup.buffer_size);
        if needed > BUFFERS_MAX.min(size.saturating_sub(DOORBELL_STEP)) {
            counters.drop_oversize.add(1);
            return Delivery::Dropped;
        }
        let tail = queue.tail();
        let available = tail.wrapping_sub(self.head) & (u32::from(setup.buffer_size) - 1);
        if needed > available as usize {
            return Delivery::Full;
        }
        for n in 0..needed {
            let Some(found) = self.next(setup, memory, tail) else {
                // The ring is not the driver's memory: there is nothing to give back.
                counters.drop_bad_address.add(1);
                (self.head, self.cached) = (tail, (0, 0));
                return Delivery::Dropped;
            };
            if let Some(slot) = self.taken.get_mut(n) {
                *slot = found;
            }
        }
        queue.ledger().consumed.add(needed as u64);
        let buffers = self.taken.get(..needed).unwrap_or_default();
        let written = write(memory, buffers, header, payload, buffer);
        if written.is_err() {
            counters.drop_bad_address.add(1);
        } else {
            counters.frames.add(1);
            counters.bytes.add(frame.bytes.len() as u64);
            if !header.is_empty() {
                counters.split_frames.add(1);
                counters.header_bytes.add(header.len() as u64);
            }
            counters.payload_bytes.add(payload.len() as u64);
            if let Some(segment) = frame.about.segment.filter(|s| *s > 0) {
                counters.merged_segments.add(payload.len().div_ceil(usize::from(segment)) as u64);
            }
        }
        let overflow = setup.splits() && !fits;
        let mut left = payload.len();
        for (n, taken) in buffers.iter().enumerate() {
            let length = left.min(buffer);
            left -= length;
            let completion = match written {
                Ok(()) => RxCompletion {
                    id: taken.id,
                    length: length as u16,
                    header: if n == 0 { header.len() as u16 } else { 0 },
                    split: n == 0 && !header.is_empty(),
                    end: n + 1 == needed,
                    error: false,
                    header_overflow: n == 0 && overflow,
                    about: frame.about,
                },
                Err(_) => RxCompletion { id: taken.id, end: true, error: true, ..RxCompletion::default() },
            };
            self.done.publish(queue, memory, &completion);
        }
        queue.ledger().returned.add(needed as u64);
        Delivery::Done
    }

    /// The buffer at the head, which the tail is behind; `None` when the ring cannot be read.
    fn next(&mut self, setup: &RxSetup, memory: &dyn Memory, tail: u32) -> Option<RxBuffer> {
        if self.cached.0 == self.cached.1 {
            let size = u32::from(setup.buffer_size);
            let until = if tail > self.head { tail } else { size };
            let count = (until.saturating_sub(self.head) as usize).min(BATCH);
            let address = setup.buffer_ring.checked_add(u64::from(self.head) * RX_BUFFER_BYTES as u64)?;
            let into = self.cache.get_mut(..count * RX_BUFFER_BYTES)?;
            memory.read(address, into).ok()?;
            self.cached = (0, count);
        }
        let from = self.cache.get(self.cached.0 * RX_BUFFER_BYTES..)?.first_chunk()?;
        self.cached.0 += 1;
        self.head = (self.head + 1) & (u32::from(setup.buffer_size) - 1);
        Some(RxBuffer::decode(from))
    }
}

/// Where the next completion goes, and its generation bit.
#[derive(Debug)]
struct Done {
    index: u32,
    bit: bool,
}

impl Done {
    fn publish(&mut self, queue: &RxQueue, memory: &dyn Memory, completion: &RxCompletion) {
        let setup = queue.setup();
        let bytes = completion.encode(self.bit);
        let offset = u64::from(self.index) * RX_COMPLETION_BYTES as u64;
        let address = setup.completion_ring.checked_add(offset);
        if address.is_none_or(|address| memory.publish(address, &bytes, RX_GENERATION_AT).is_err()) {
            queue.counters().drop_bad_address.add(1);
        }
        self.index = (self.index + 1) & (u32::from(setup.completion_size) - 1);
        self.bit ^= self.index == 0;
    }
}

/// Puts a frame where it belongs. All of it is there before the first completion is.
fn write(
    memory: &dyn Memory,
    buffers: &[RxBuffer],
    header: &[u8],
    payload: &[u8],
    buffer: usize,
) -> Result<(), BadAddress> {
    if let Some(first) = buffers.first().filter(|_| !header.is_empty()) {
        memory.write(first.header, header)?;
    }
    for (to, piece) in buffers.iter().zip(payload.chunks(buffer)) {
        memory.write(to.address, piece)?;
    }
    Ok(())
}
