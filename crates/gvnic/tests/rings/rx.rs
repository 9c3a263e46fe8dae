//! The driver's side of an RX queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use gvnic::queues::RxSetup;

use crate::common::Ram;

/// A frame as the driver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What was in the header buffer.
    pub header: Vec<u8>,
    /// What was in the packet buffers.
    pub data: Vec<u8>,
    /// How much of it in each.
    pub buffers: Vec<usize>,
    pub split: bool,
    pub overflow: bool,
    /// Size of merged segments; 0 for none.
    pub segment: u16,
    pub packet_type: u16,
    pub processed: bool,
    pub errors: (bool, bool),
    pub extended: bool,
    pub hash: u32,
    pub timestamp: Option<u32>,
}

impl Received {
    /// Everything.
    pub fn frame(&self) -> Vec<u8> {
        [&self.header[..], &self.data].concat()
    }
}

/// An RX queue as `struct gve_rx_ring` has it.
pub struct RxDriver {
    pub ram: Arc<Ram>,
    pub setup: RxSetup,
    mask: u32,
    /// `bufq.tail`, `bufq.head`, `complq.head`, `cur_gen_bit`, `num_free_slots`.
    tail: u32,
    head: u32,
    completions: u32,
    generation: bool,
    slots: u32,
    /// What was told to the device.
    pub doorbell: u32,
    buffers: u64,
    headers: u64,
    /// Free buffer ids, and those the device has, with their address.
    free: Vec<u16>,
    posted: BTreeMap<u16, u64>,
    /// Buffers handed out and back.
    pub given: u64,
    pub back: u64,
    partial: Option<Received>,
}

impl RxDriver {
    /// `gve_rx_alloc_ring_dqo`.
    pub fn new(ram: &Arc<Ram>, id: u16, size: u16, buffer: u16, header: u16, merge: bool) -> RxDriver {
        let setup = RxSetup {
            id,
            buffer_ring: ram.alloc(usize::from(size) * 32),
            buffer_size: size,
            completion_ring: ram.alloc(usize::from(size) * 32),
            completion_size: size,
            packet_buffer: buffer,
            header_buffer: header,
            merge,
            notify_block: id,
            doorbell: 0,
        };
        RxDriver::over(ram, setup)
    }

    /// The same of rings that are there.
    pub fn over(ram: &Arc<Ram>, setup: RxSetup) -> RxDriver {
        let size = u32::from(setup.buffer_size);
        RxDriver {
            ram: Arc::clone(ram),
            setup,
            mask: size - 1,
            tail: 0,
            head: 0,
            completions: 0,
            generation: false,
            slots: size,
            doorbell: 0,
            buffers: ram.alloc(size as usize * usize::from(setup.packet_buffer)),
            headers: ram.alloc(size as usize * usize::from(setup.header_buffer)),
            free: (0..setup.buffer_size).rev().collect(),
            posted: BTreeMap::new(),
            given: 0,
            back: 0,
            partial: None,
        }
    }

    /// `gve_rx_post_buffers_dqo`: up to `most` buffers; the doorbell rings at every 32nd.
    pub fn post(&mut self, most: u32) {
        let full = self.tail.wrapping_sub(self.head) & self.mask;
        let room = (self.mask - full).min(self.slots).min(most);
        for _ in 0..room {
            let id = self.free.pop().expect("as many buffers as slots");
            let address = self.buffers + u64::from(id) * u64::from(self.setup.packet_buffer);
            let header = self.headers + u64::from(id) * u64::from(self.setup.header_buffer);
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&id.to_le_bytes());
            bytes[8..16].copy_from_slice(&address.to_le_bytes());
            bytes[16..24].copy_from_slice(&header.to_le_bytes());
            self.ram.poke(self.setup.buffer_ring + u64::from(self.tail) * 32, &bytes);
            assert_eq!(self.posted.insert(id, address), None);
            self.tail = (self.tail + 1) & self.mask;
            self.slots -= 1;
            if self.tail & 31 == 0 {
                let told = self.tail.wrapping_sub(self.doorbell) & self.mask;
                self.given += u64::from(told);
                self.doorbell = self.tail;
            }
        }
    }

    /// `gve_rx_poll_dqo`: whole frames.
    pub fn poll(&mut self) -> Vec<Received> {
        let mut frames = Vec::new();
        loop {
            let at = self.setup.completion_ring + u64::from(self.completions) * 32;
            let c = self.ram.peek(at, 32);
            if (c[5] & 0x40 != 0) == self.generation {
                return frames;
            }
            assert_eq!((c[0], c[8] & 1, c[5] >> 7), (1, 1, 0), "rxdid, descriptor_done and buffer_queue_id");
            self.completions = (self.completions + 1) & self.mask;
            self.generation ^= self.completions == 0;
            self.head = (self.head + 1) & self.mask;
            self.slots += 1;
            self.back += 1;
            let id = u16::from_le_bytes([c[12], c[13]]);
            let address = self.posted.remove(&id).unwrap_or_else(|| panic!("buffer {id} was never posted"));
            self.free.push(id);
            let length = usize::from(u16::from_le_bytes([c[4], c[5]]) & 0x3fff);
            assert!(length <= usize::from(self.setup.packet_buffer));
            let word = u16::from_le_bytes([c[6], c[7]]);
            let (header, rsc, split) = (usize::from(word & 0x3ff), word >> 10 & 1 != 0, word >> 11 & 1 != 0);
            let overflow = c[8] & 4 != 0;
            let first = self.partial.is_none();
            assert!(first || !split && !overflow && header == 0, "only the first completion is about the header");
            assert!(header <= usize::from(self.setup.header_buffer));
            let segment = u16::from_le_bytes([c[14], c[15]]);
            assert_eq!(rsc, segment != 0);
            let stamp = u32::from_le_bytes(c[28..32].try_into().unwrap());
            let about = Received {
                header: self.ram.peek(self.headers + u64::from(id) * u64::from(self.setup.header_buffer), header),
                data: Vec::new(),
                buffers: Vec::new(),
                split,
                overflow,
                segment,
                packet_type: u16::from_le_bytes([c[2], c[3]]) & 0x3ff,
                processed: c[8] & 8 != 0,
                errors: (c[8] & 16 != 0, c[8] & 32 != 0),
                extended: c[1] & 2 != 0,
                hash: u32::from_le_bytes(c[16..20].try_into().unwrap()),
                timestamp: (c[11] & 1 != 0).then_some(stamp),
            };
            let frame = self.partial.get_or_insert(about);
            frame.data.extend_from_slice(&self.ram.peek(address, length));
            frame.buffers.push(length);
            if c[8] & 2 != 0 {
                frames.extend(self.partial.take());
            }
        }
    }

    /// The queue is created anew over the same rings and buffers: nothing is posted.
    pub fn restart(&mut self) {
        let setup = self.setup;
        self.mask = u32::from(setup.buffer_size) - 1;
        (self.tail, self.head, self.completions, self.generation) = (0, 0, 0, false);
        (self.slots, self.doorbell, self.partial) = (u32::from(setup.buffer_size), 0, None);
        self.free = (0..setup.buffer_size).rev().collect();
        self.posted.clear();
    }

    /// Buffers the device has.
    pub fn outstanding(&self) -> u64 {
        self.given - self.back
    }
}
