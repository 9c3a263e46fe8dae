//! One RX queue: from frames to buffers to completions.
//!
//! In: a frame, where its headers are, and a [`Mark`]. Out: bytes in the driver's buffers, and behind them the completions.
//! A frame that does not fit into the buffers there are changes nothing, and may be offered again.
//!
//! Segments of one stream that follow one another are merged as they come: each payload goes straight behind the last one,
//! and the headers and the completions are written when the train ends ([`RxRing::flush`]). So merging copies nothing
//! twice either.

mod placing;

use crate::abi::dqo::rx::{BUFFER, COMPLETION, Completion, FRAGMENTS_MAX, GENERATION_AT, HEADER_MAX, Integrity};
use crate::bus::Memory;
use crate::frame::merge::Train;
use crate::frame::{Headers, split};
use crate::queues::RxSetup;
use crate::stats::RxCount;
use crate::window::Window;
use crate::wrong::{Wrong, at};

use placing::Placing;

/// Smallest payload that begins a train. Unsplit frames of up to 256 bytes are copied by the driver (`rx_copybreak`,
/// gve_rx_dqo.c), which then finds no payload to count segments of (`gve_rx_complete_rsc`).
const MERGE_MIN: usize = 256;

/// What is said about a frame in its completion, and may be done to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Hash of its flow.
    pub hash: u32,
    /// What is known of its checksums.
    pub integrity: Integrity,
    /// When it came.
    pub timestamp: Option<u32>,
    /// Whether its headers are not split off although the queue splits: a fault.
    pub unsplit: bool,
    /// Whether it must stay as it is although the queue merges.
    pub alone: bool,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The driver has it, or can never have it, which is counted.
    Done,
    /// It is in a train that waits for more; [`RxRing::flush`] ends that.
    Merging,
    /// There are too few buffers; nothing happened.
    Full,
}

/// An RX queue, and how far it is.
#[derive(Debug)]
pub struct RxRing {
    setup: RxSetup,
    window: Window<BUFFER>,
    /// Buffers taken, and completions written, since the queue's creation. A completion a buffer, so that the driver, who
    /// posts no more buffers than it has room for completions (`gve_rx_post_buffers_dqo`), is never overrun.
    taken: u64,
    returned: u64,
    /// The frame that is being placed, or the train.
    placing: Placing,
    train: Option<Train>,
}

impl RxRing {
    /// A queue that was just created.
    pub fn new(setup: RxSetup) -> RxRing {
        RxRing {
            setup,
            window: Window::new("RX buffer descriptor", setup.buffer_ring, setup.buffer_size),
            taken: 0,
            returned: 0,
            placing: Placing::default(),
            train: None,
        }
    }

    /// Buffers taken since the queue's creation.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Buffers returned by completions since the queue's creation.
    pub fn returned(&self) -> u64 {
        self.returned
    }

    /// Whether a train waits.
    pub fn merging(&self) -> bool {
        self.train.is_some()
    }

    /// Gives a frame to the driver.
    ///
    /// # Errors
    /// [`Wrong`]: the queue is of no use any more.
    pub fn deliver(
        &mut self,
        memory: &dyn Memory,
        tail: u32,
        frame: &[u8],
        headers: &Headers,
        mark: &Mark,
        count: &mut RxCount,
    ) -> Result<Delivery, Wrong> {
        let mergeable = self.setup.merge && !mark.alone && mark.integrity == SOUND;
        if let Some(mut train) = self.train.take() {
            let free = FRAGMENTS_MAX.saturating_sub(self.placing.buffers()).min(self.free(tail));
            let room = self.placing.room() + free * self.size();
            if mergeable && !mark.unsplit && train.append(frame, headers, room) {
                let payload = frame.get(usize::from(headers.payload_at)..).unwrap_or(&[]);
                self.place(memory, tail, payload)?;
                count.frames += 1;
                count.bytes += frame.len() as u64;
                count.split_frames += u64::from(self.placing.split());
                count.payload_bytes += if self.placing.split() { payload.len() as u64 } else { 0 };
                let ended = train.ended();
                self.train = Some(train);
                if ended {
                    self.flush(memory, count)?;
                }
                return Ok(if ended { Delivery::Done } else { Delivery::Merging });
            }
            self.train = Some(train);
            self.flush(memory, count)?;
        }
        self.fresh(memory, tail, frame, headers, mark, mergeable, count)
    }

    #[expect(clippy::too_many_arguments, reason = "those of `deliver`")]
    fn fresh(
        &mut self,
        memory: &dyn Memory,
        tail: u32,
        frame: &[u8],
        headers: &Headers,
        mark: &Mark,
        mergeable: bool,
        count: &mut RxCount,
    ) -> Result<Delivery, Wrong> {
        let splittable = if mark.unsplit { None } else { split::header_bytes(headers) };
        let header_bytes = splittable.filter(|_| self.setup.splits());
        let fits = |bytes: &usize| *bytes <= usize::from(self.setup.header_buffer).min(HEADER_MAX);
        // Padding is the wire's, not the packet's: without it a packet that is only headers has no payload at all.
        let (header, data) = match header_bytes.filter(fits) {
            Some(bytes) => frame.get(..headers.end as usize).and_then(|packet| packet.split_at_checked(bytes)),
            None => None,
        }
        .unwrap_or((&[], frame));
        let needed = data.len().div_ceil(self.size()).max(1);
        if needed > usize::from(self.setup.buffer_size.saturating_sub(1)) {
            count.drop_oversize += 1;
            return Ok(Delivery::Done);
        }
        if needed > self.free(tail) {
            return Ok(Delivery::Full);
        }
        let split = header_bytes.is_some();
        self.placing.begin(Completion {
            split,
            header: header.len() as u16,
            overflow: split && header.is_empty(),
            packet_type: headers.packet_type(),
            integrity: mark.integrity,
            extended: headers.extended,
            hash: mark.hash,
            timestamp: mark.timestamp,
            ..Completion::default()
        });
        self.take(memory, tail)?;
        if !header.is_empty() {
            let index = self.window.index(self.taken - 1);
            memory.write(self.placing.header_address(), header).map_err(at("the header buffer of RX buffer", index))?;
            count.split_frames += 1;
            count.header_bytes += header.len() as u64;
            count.payload_bytes += data.len() as u64;
        }
        self.place(memory, tail, data)?;
        count.frames += 1;
        count.bytes += frame.len() as u64;
        let large = data.len() >= MERGE_MIN + if header.is_empty() { usize::from(headers.payload_at) } else { 0 };
        if mergeable && large && !mark.unsplit && !self.placing.overflows() {
            self.train = Train::start(frame, headers);
        }
        if self.train.is_some() {
            return Ok(Delivery::Merging);
        }
        self.publish(memory, 0)?;
        Ok(Delivery::Done)
    }

    /// Ends a train, if there is one: the driver gets it.
    ///
    /// # Errors
    /// [`Wrong`]: the queue is of no use any more.
    pub fn flush(&mut self, memory: &dyn Memory, count: &mut RxCount) -> Result<(), Wrong> {
        let Some(mut train) = self.train.take() else { return Ok(()) };
        if train.segments() == 1 {
            return self.publish(memory, 0);
        }
        count.merged_segments += train.segments() as u64;
        let address = self.placing.header_address();
        memory
            .write(address, train.header())
            .map_err(at("the headers in RX buffer", self.window.index(self.taken - 1)))?;
        self.publish(memory, train.segment() as u16)
    }

    /// Bytes of a buffer.
    fn size(&self) -> usize {
        usize::from(self.setup.packet_buffer).max(1)
    }

    /// Buffers there are.
    fn free(&self, tail: u32) -> usize {
        self.window.filled(self.taken, tail) as usize
    }

    /// Takes the next buffer.
    fn take(&mut self, memory: &dyn Memory, tail: u32) -> Result<(), Wrong> {
        let end = self.taken + self.window.filled(self.taken, tail);
        let buffer = self.window.get(memory, self.taken, end)?;
        self.taken += 1;
        self.placing.add(buffer, self.setup.packet_buffer.max(1));
        Ok(())
    }

    /// Writes bytes behind those that are there, into as many buffers as it takes; there are enough.
    fn place(&mut self, memory: &dyn Memory, tail: u32, mut data: &[u8]) -> Result<(), Wrong> {
        while !data.is_empty() {
            if self.placing.room() == 0 {
                self.take(memory, tail)?;
            }
            let (piece, rest) = data.split_at(data.len().min(self.placing.room()));
            let index = self.window.index(self.taken - 1);
            memory.write(self.placing.address(), piece).map_err(at("RX buffer", index))?;
            self.placing.wrote(piece.len());
            data = rest;
        }
        Ok(())
    }

    /// Writes the completions of what is placed, each with its generation bit last.
    fn publish(&mut self, memory: &dyn Memory, segment: u16) -> Result<(), Wrong> {
        let size = u64::from(self.setup.completion_size.max(1));
        for completion in self.placing.completions(segment) {
            // The first turn writes ones: the driver's ring begins zeroed, and `cur_gen_bit` with it.
            let (index, turn) = (self.returned & (size - 1), self.returned / size);
            let address = self.setup.completion_ring.wrapping_add(index * COMPLETION as u64);
            let bytes = completion.bytes(turn % 2 == 0);
            memory.publish(address, &bytes, GENERATION_AT).map_err(at("RX completion", index as u32))?;
            self.returned += 1;
        }
        Ok(())
    }
}

/// Both checksums were verified, and hold.
const SOUND: Integrity = Integrity { processed: true, l3_error: false, l4_error: false };
