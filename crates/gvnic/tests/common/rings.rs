//! The driver's side of rings: fills descriptors and reads completions as gve_tx_dqo.c and gve_rx_dqo.c do.

use std::sync::Arc;

use super::{Driver, Ram, Ring};

/// `struct gve_tx_ring`, in part.
pub struct TxRing {
    pub ring: Ring,
    pub tail: u32,
    head: u32,
    generation: bool,
    ram: Arc<Ram>,
    /// `last_re_idx`.
    last_report: u32,
    /// `hw_tx_head`.
    pub hardware_head: u32,
}

impl TxRing {
    pub fn new(driver: &Driver<'_>, ring: Ring) -> TxRing {
        TxRing {
            ring,
            tail: 0,
            head: 0,
            generation: false,
            ram: Arc::clone(driver.ram),
            last_report: 0,
            hardware_head: 0,
        }
    }

    /// Writes raw descriptor bytes at the tail.
    pub fn put(&mut self, descriptor: &[u8; 16]) {
        self.ram.poke(self.ring.ring + u64::from(self.tail) * 16, descriptor);
        self.tail = (self.tail + 1) & u32::from(self.ring.size - 1);
    }

    /// `gve_tx_fill_pkt_desc_dqo`.
    pub fn piece(address: u64, length: usize, tag: u16, flags: u8) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8] = 0xc | flags;
        bytes[12..14].copy_from_slice(&tag.to_le_bytes());
        bytes[14..].copy_from_slice(&(length as u16).to_le_bytes());
        bytes
    }

    /// `gve_tx_fill_tso_ctx_desc`.
    pub fn segmentation(payload: usize, mss: u16, header: u8) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&(payload as u32).to_le_bytes());
        bytes[4..6].copy_from_slice(&mss.to_le_bytes());
        bytes[6] = header;
        bytes[8] = 0x5 | 1 << 5;
        bytes
    }

    /// `gve_tx_fill_general_ctx_desc`.
    pub fn context() -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[8] = 0x4;
        bytes
    }

    /// `gve_tx_add_skb_dqo` of a frame at an address, in pieces of at most `piece` bytes.
    pub fn add(&mut self, address: u64, length: usize, tag: u16, piece: usize, cut: Option<(u16, u8)>) {
        if let Some((mss, header)) = cut {
            self.put(&TxRing::segmentation(length - usize::from(header), mss, header));
        }
        self.put(&TxRing::context());
        let mut at = 0;
        while at < length {
            let size = piece.min(length - at);
            let end = at + size == length;
            // `gve_tx_update_tail`.
            let last = self.tail;
            let interval = last.wrapping_sub(self.last_report) & u32::from(self.ring.size - 1);
            let report = end && interval >= 32;
            if report {
                self.last_report = last;
            }
            let flags = u8::from(end) << 5 | 1 << 6 | u8::from(report) << 7;
            self.put(&TxRing::piece(address + at as u64, size, tag, flags));
            at += size;
        }
    }

    /// `num_avail_tx_slots`.
    pub fn free(&self) -> u32 {
        let mask = u32::from(self.ring.size - 1);
        mask - (self.tail.wrapping_sub(self.hardware_head) & mask)
    }

    /// `gve_clean_tx_done_dqo`: kind and value of every completion.
    pub fn poll(&mut self) -> Vec<(u8, u16)> {
        let mut all = Vec::new();
        loop {
            let bytes = self.ram.peek(self.ring.completions + u64::from(self.head) * 8, 8);
            if (bytes[1] & 0x80 != 0) == self.generation {
                return all;
            }
            let (kind, value) = (bytes[1] >> 3 & 7, u16::from_le_bytes([bytes[2], bytes[3]]));
            if kind == 4 {
                self.hardware_head = u32::from(value);
            }
            all.push((kind, value));
            self.head = (self.head + 1) & u32::from(self.ring.size - 1);
            self.generation ^= self.head == 0;
        }
    }
}

/// A frame as the driver puts it together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub header: Vec<u8>,
    pub payload: Vec<u8>,
    pub buffers: usize,
    /// The last completion.
    pub last: Vec<u8>,
    /// The first one's.
    pub split: bool,
    pub overflow: bool,
}

impl Received {
    pub fn bytes(&self) -> Vec<u8> {
        [&self.header[..], &self.payload].concat()
    }
}

/// `struct gve_rx_ring`, in part.
pub struct RxRing {
    pub ring: Ring,
    pub tail: u32,
    head: u32,
    generation: bool,
    ram: Arc<Ram>,
    headers: u64,
    buffers: u64,
    free: Vec<u16>,
    /// Completions with `rx_error`.
    pub errors: usize,
}

const BUFFER: u64 = 4096;

impl RxRing {
    pub fn new(driver: &Driver<'_>, ring: Ring) -> RxRing {
        let size = usize::from(ring.size);
        RxRing {
            ring,
            tail: 0,
            head: 0,
            generation: false,
            ram: Arc::clone(driver.ram),
            headers: driver.ram.alloc(size * 128),
            buffers: driver.ram.alloc(size * BUFFER as usize),
            // All but one, as `num_avail_slots` has it.
            free: (0..ring.size - 1).rev().collect(),
            errors: 0,
        }
    }

    /// Fills the ring; the tail that is to be rung.
    pub fn post(&mut self) -> u32 {
        self.post_some(usize::MAX)
    }

    /// The same with so many at most.
    pub fn post_some(&mut self, count: usize) -> u32 {
        for _ in 0..count {
            let Some(id) = self.free.pop() else { break };
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&id.to_le_bytes());
            bytes[8..16].copy_from_slice(&(self.buffers + u64::from(id) * BUFFER).to_le_bytes());
            bytes[16..24].copy_from_slice(&(self.headers + u64::from(id) * 128).to_le_bytes());
            self.ram.poke(self.ring.ring + u64::from(self.tail) * 32, &bytes);
            self.tail = (self.tail + 1) & u32::from(self.ring.size - 1);
        }
        self.tail
    }

    /// `gve_rx_poll_dqo`: every whole frame.
    pub fn poll(&mut self) -> Vec<Received> {
        let mut all = Vec::new();
        let mut current: Option<Received> = None;
        loop {
            let bytes = self.ram.peek(self.ring.completions + u64::from(self.head) * 32, 32);
            if (bytes[5] & 0x40 != 0) == self.generation {
                assert!(current.is_none(), "frames are whole at the end of a burst");
                return all;
            }
            self.head = (self.head + 1) & u32::from(self.ring.size - 1);
            self.generation ^= self.head == 0;
            let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let (id, length, header) = (word(12), usize::from(word(4) & 0x3fff), usize::from(word(6) & 0x3ff));
            assert!(id < self.ring.size && !self.free.contains(&id), "buffer {id} was not posted");
            assert_eq!(bytes[0], 1);
            self.free.push(id);
            if bytes[1] & 4 != 0 {
                self.errors += 1;
                current = None;
                continue;
            }
            let split = word(6) & 1 << 11 != 0;
            let (first, overflow) = (current.is_none(), bytes[8] & 4 != 0);
            let frame = current.get_or_insert_with(|| Received {
                header: if split { self.ram.peek(self.headers + u64::from(id) * 128, header) } else { Vec::new() },
                payload: Vec::new(),
                buffers: 0,
                last: Vec::new(),
                split,
                overflow,
            });
            assert!(first || !split, "headers come first");
            frame.payload.extend(self.ram.peek(self.buffers + u64::from(id) * BUFFER, length));
            frame.buffers += 1;
            if bytes[8] & 2 != 0 {
                frame.last = bytes;
                all.extend(current.take());
            }
        }
    }
}
