//! The driver's side of a TX queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use gvnic::queues::TxSetup;

use crate::common::Ram;

/// How a packet is to be segmented.
#[derive(Debug, Clone, Copy)]
pub struct Tso {
    pub mss: u16,
    pub header: u8,
}

/// A TX queue as `struct gve_tx_ring` has it.
pub struct TxDriver {
    pub ram: Arc<Ram>,
    pub setup: TxSetup,
    mask: u32,
    /// `dqo_tx.tail`, `dqo_compl.hw_tx_head`, `last_re_idx`.
    pub tail: u32,
    pub hw_head: u32,
    last_report: u32,
    /// `dqo_compl.head`, `cur_gen_bit`.
    head: u32,
    generation: bool,
    /// Free tags, last in first out, and those in flight with the buffers they own.
    free: Vec<u16>,
    pub flying: BTreeMap<u16, State>,
    /// Where the next packet's bytes go.
    buffers: u64,
    next: u64,
    room: u64,
    pub completed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `GVE_PACKET_STATE_PENDING_DATA_COMPL`.
    Data,
    /// `GVE_PACKET_STATE_PENDING_REINJECT_COMPL`.
    Reinject,
}

impl TxDriver {
    /// `gve_tx_alloc_ring_dqo`, with `room` bytes for packets.
    pub fn new(ram: &Arc<Ram>, id: u16, size: u16, room: u64) -> TxDriver {
        let setup = TxSetup {
            id,
            ring: ram.alloc(usize::from(size) * 16),
            ring_size: size,
            completion_ring: ram.alloc(usize::from(size) * 8),
            completion_size: size,
            notify_block: id,
            doorbell: 0,
        };
        TxDriver::over(ram, setup, room)
    }

    /// The same of rings that are there.
    pub fn over(ram: &Arc<Ram>, setup: TxSetup, room: u64) -> TxDriver {
        let size = u32::from(setup.ring_size);
        let tags = ((size - size / 32) / 2) as u16;
        TxDriver {
            ram: Arc::clone(ram),
            setup,
            mask: size - 1,
            tail: 0,
            hw_head: 0,
            last_report: 0,
            head: 0,
            generation: false,
            free: (0..tags).rev().collect(),
            flying: BTreeMap::new(),
            buffers: ram.alloc(room as usize),
            next: 0,
            room,
            completed: 0,
        }
    }

    pub fn tags(&self) -> usize {
        self.free.len() + self.flying.len()
    }

    /// Writes a descriptor as it is, and moves the tail.
    pub fn push(&mut self, descriptor: [u8; 16]) {
        self.ram.poke(self.setup.ring + u64::from(self.tail) * 16, &descriptor);
        self.tail = (self.tail + 1) & self.mask;
    }

    pub fn packet_descriptor(address: u64, length: u16, tag: u16, end: bool, checksum: bool) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8] = 0xc | u8::from(end) << 5 | u8::from(checksum) << 6;
        bytes[12..14].copy_from_slice(&tag.to_le_bytes());
        bytes[14..].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    pub fn tso_descriptor(total: u32, tso: Tso) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&(total & 0xff_ffff).to_le_bytes());
        bytes[4..6].copy_from_slice(&tso.mss.to_le_bytes());
        bytes[6] = tso.header;
        bytes[8] = 0x25;
        bytes
    }

    pub fn general_descriptor() -> [u8; 16] {
        [0, 0, 0, 0, 0, 0, 0, 0, 0x4, 0, 0, 0, 0, 0, 0, 0]
    }

    /// Copies bytes to where the device can read them.
    pub fn stage(&mut self, bytes: &[u8]) -> u64 {
        if self.next + bytes.len() as u64 > self.room {
            self.next = 0;
        }
        let address = self.buffers + self.next;
        self.ram.poke(address, bytes);
        self.next += bytes.len() as u64;
        address
    }

    /// `gve_try_tx_skb`: a packet in pieces, of which the last has the rest. The tag, or `None` when the ring has no room.
    pub fn send(&mut self, packet: &[u8], pieces: &[usize], tso: Option<Tso>, checksum: bool) -> Option<u16> {
        let mut at = 0;
        let mut spans = Vec::new();
        for piece in pieces.iter().copied().chain([packet.len()]) {
            let mut rest = piece.min(packet.len() - at);
            while rest > 0 {
                let length = rest.min(16383);
                spans.push(at..at + length);
                at += length;
                rest -= length;
            }
        }
        let needed = 1 + u32::from(tso.is_some()) + spans.len() as u32;
        let used = self.tail.wrapping_sub(self.hw_head) & self.mask;
        if self.mask - used < needed + 4 {
            return None;
        }
        let tag = self.free.pop()?;
        if let Some(tso) = tso {
            self.push(Self::tso_descriptor(packet.len() as u32 - u32::from(tso.header), tso));
        }
        self.push(Self::general_descriptor());
        let last = spans.len() - 1;
        for (n, span) in spans.into_iter().enumerate() {
            let bytes = &packet[span];
            let address = self.stage(bytes);
            self.push(Self::packet_descriptor(address, bytes.len() as u16, tag, n == last, checksum));
        }
        // `gve_tx_update_tail`.
        let end = self.tail.wrapping_sub(1) & self.mask;
        if (end.wrapping_sub(self.last_report) & self.mask) >= 32 {
            let at = self.setup.ring + u64::from(end) * 16 + 8;
            let byte = self.ram.peek(at, 1)[0];
            self.ram.poke(at, &[byte | 0x80]);
            self.last_report = end;
        }
        self.flying.insert(tag, State::Data);
        Some(tag)
    }

    /// `gve_clean_tx_done_dqo`: the tags that came back.
    pub fn poll(&mut self) -> Vec<u16> {
        let mut done = Vec::new();
        loop {
            let bytes = self.ram.peek(self.setup.completion_ring + u64::from(self.head) * 8, 8);
            let word = u16::from_le_bytes([bytes[0], bytes[1]]);
            if (word >> 15 != 0) == self.generation {
                return done;
            }
            assert_eq!(word & 0x7ff, self.setup.id, "the queue's number");
            let value = u16::from_le_bytes([bytes[2], bytes[3]]);
            match (word >> 11) & 7 {
                4 => {
                    assert!(u32::from(value) <= self.mask);
                    let before = self.tail.wrapping_sub(self.hw_head) & self.mask;
                    let after = self.tail.wrapping_sub(u32::from(value)) & self.mask;
                    assert!(after <= before, "the head goes on, and not beyond the tail");
                    self.hw_head = u32::from(value);
                }
                1 => {
                    let before = self.flying.insert(value, State::Reinject);
                    assert_eq!(before, Some(State::Data), "a miss of a packet in flight");
                }
                kind @ (2 | 3) => {
                    let expected = if kind == 2 { State::Data } else { State::Reinject };
                    assert_eq!(
                        self.flying.remove(&value),
                        Some(expected),
                        "tag {value} of a completion of type {kind}"
                    );
                    self.free.push(value);
                    done.push(value);
                    self.completed += 1;
                }
                kind => panic!("a completion of type {kind}"),
            }
            self.head = (self.head + 1) & self.mask;
            self.generation ^= self.head == 0;
        }
    }
}
