//! The least of a driver: one TX and one RX queue, filled and emptied outside of what is measured.

use std::sync::Arc;

use gvnic::bus::{Interrupts, Memory};
use gvnic::config::{Mac, PortConfig};
use gvnic::control::{Control, Datapath, Wake};
use gvnic::receiver::Receiver;
use gvnic::shared::Shared;
use gvnic::transmitter::Transmitter;

use crate::memory::Mapping;

/// Descriptors of each ring.
pub const RING: u32 = 1024;
/// Bytes of an RX buffer.
pub const BUFFER: u64 = 4096;

struct Nobody;

impl Interrupts for Nobody {
    fn raise(&self, _vector: u16) {}
}

impl Datapath for Nobody {
    fn wake(&self, _why: Wake) {}
}

/// A range of bus addresses that is gone round in.
#[derive(Clone, Copy)]
pub struct Area {
    start: u64,
    length: u64,
    next: u64,
}

impl Area {
    pub fn new(start: u64, length: u64) -> Area {
        Area { start, length, next: 0 }
    }

    /// The same, half-way round, on a whole buffer.
    pub fn opposite(&self) -> Area {
        let next = (self.next + self.length / 2) % self.length / BUFFER * BUFFER;
        Area { next, ..*self }
    }

    /// The next `stride` bytes.
    pub fn take(&mut self, stride: u64) -> u64 {
        if self.next + stride > self.length {
            self.next = 0;
        }
        let at = self.start + self.next;
        self.next += stride;
        at
    }
}

/// A device and its driver.
pub struct Guest {
    pub control: Control,
    pub shared: Arc<Shared>,
    pub transmitter: Transmitter,
    pub receiver: Receiver,
    memory: Arc<Mapping>,
    control_area: Area,
    issued: u32,
    tx: [u64; 3],
    tx_tail: u32,
    rx: [u64; 3],
    rx_tail: u32,
    rx_done: u32,
    headers: u64,
}

impl Guest {
    /// A device whose rings are at the front of `area`. `header` bytes of headers are split off; 0 splits nothing.
    pub fn new(memory: &Arc<Mapping>, area: Area, header: u16, merge: bool) -> Guest {
        let config = PortConfig { queue_pairs: 1, ..PortConfig::new(Mac([2, 0, 0, 0, 0, 1])) };
        let mapped = Arc::clone(memory) as Arc<dyn Memory>;
        let control = Control::new(config, mapped, Arc::new(Nobody), Arc::new(Nobody)).expect("a device");
        let shared = Arc::clone(control.shared());
        let (transmitter, receiver) = (Transmitter::new(Arc::clone(&shared)), Receiver::new(Arc::clone(&shared)));
        let mut guest = Guest {
            control,
            shared,
            transmitter,
            receiver,
            memory: Arc::clone(memory),
            control_area: area,
            issued: 0,
            tx: [0; 3],
            tx_tail: 0,
            rx: [0; 3],
            rx_tail: 0,
            rx_done: 0,
            headers: 0,
        };
        guest.start(header, merge);
        guest
    }

    fn alloc(&mut self, bytes: u64) -> u64 {
        let at = self.control_area.take(bytes.next_multiple_of(4096));
        self.memory.write(at, &vec![0; bytes as usize]).expect("within the area");
        at
    }

    fn command(&mut self, queue: u64, opcode: u32, body: &[(usize, &[u8])]) {
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&opcode.to_be_bytes());
        for (at, piece) in body {
            bytes[8 + at..8 + at + piece.len()].copy_from_slice(piece);
        }
        let slot = queue + u64::from(self.issued % 64) * 64;
        self.memory.write(slot, &bytes).expect("within the area");
        self.issued += 1;
        self.control.write_register(20, &self.issued.to_be_bytes());
        let mut status = [0; 4];
        self.memory.read(slot + 4, &mut status).expect("within the area");
        assert_eq!(u32::from_be_bytes(status), 1, "command {opcode:#x}");
    }

    fn start(&mut self, header: u16, merge: bool) {
        let queue = self.alloc(4096);
        self.control.write_register(40, &4096u16.to_be_bytes());
        self.control.write_register(32, &((queue >> 32) as u32).to_be_bytes());
        self.control.write_register(36, &(queue as u32).to_be_bytes());
        self.control.write_register(4, &1u32.to_be_bytes());
        let (counters, indices) = (self.alloc(64), self.alloc(128));
        let two = 2u32.to_be_bytes();
        let body: [(usize, &[u8]); 6] = [
            (0, &counters.to_be_bytes()),
            (8, &indices.to_be_bytes()),
            (16, &two),
            (20, &two),
            (24, &64u32.to_be_bytes()),
            (32, &[3]),
        ];
        self.command(queue, 2, &body);
        let size = (RING as u16).to_be_bytes();
        self.tx = [self.alloc(64), self.alloc(u64::from(RING) * 16), self.alloc(u64::from(RING) * 8)];
        let [resources, ring, completions] = self.tx.map(u64::to_be_bytes);
        let body: [(usize, &[u8]); 6] =
            [(8, &resources), (16, &ring), (24, &[0xff; 4]), (32, &completions), (40, &size), (42, &size)];
        self.command(queue, 5, &body);
        self.rx = [self.alloc(64), self.alloc(u64::from(RING) * 32), self.alloc(u64::from(RING) * 32)];
        self.headers = self.alloc(u64::from(RING) * 128);
        let [resources, ring, completions] = self.rx.map(u64::to_be_bytes);
        let body: [(usize, &[u8]); 10] = [
            (12, &1u32.to_be_bytes()),
            (16, &resources),
            (24, &completions),
            (32, &ring),
            (40, &[0xff; 4]),
            (44, &size),
            (46, &(BUFFER as u16).to_be_bytes()),
            (48, &size),
            (50, &[u8::from(merge)]),
            (52, &header.to_be_bytes()),
        ];
        self.command(queue, 6, &body);
    }

    fn ring(&self, resources: u64, tail: u32) {
        let mut index = [0; 4];
        self.memory.read(resources, &mut index).expect("within the area");
        self.control.write_doorbell(u64::from(u32::from_be_bytes(index)) * 4, &tail.to_le_bytes());
    }

    fn put_tx(&mut self, descriptor: &[u8; 16]) {
        let [_, ring, _] = self.tx;
        self.memory.write(ring + u64::from(self.tx_tail) * 16, descriptor).expect("within the area");
        self.tx_tail = (self.tx_tail + 1) % RING;
    }

    /// Queues a packet in pieces of up to 4,096 bytes; `mss` and `header` are given for one to be segmented.
    pub fn queue(&mut self, address: u64, length: usize, tag: u16, checksum: bool, tso: Option<(u16, u8)>) {
        if let Some((mss, header)) = tso {
            let mut descriptor = [0; 16];
            descriptor[..4].copy_from_slice(&(length as u32 - u32::from(header)).to_le_bytes());
            descriptor[4..6].copy_from_slice(&mss.to_le_bytes());
            (descriptor[6], descriptor[8]) = (header, 0x25);
            self.put_tx(&descriptor);
        }
        self.put_tx(&[0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(4096);
            let mut descriptor = [0; 16];
            descriptor[..8].copy_from_slice(&(address + done as u64).to_le_bytes());
            done += piece;
            descriptor[8] = 0xc | u8::from(done == length) << 5 | u8::from(checksum) << 6;
            descriptor[12..14].copy_from_slice(&tag.to_le_bytes());
            descriptor[14..].copy_from_slice(&(piece as u16).to_le_bytes());
            self.put_tx(&descriptor);
        }
    }

    /// Descriptors of such a packet.
    pub fn descriptors(length: usize, tso: bool) -> usize {
        1 + usize::from(tso) + length.div_ceil(4096)
    }

    /// Tells the device of what is queued.
    pub fn kick(&self) {
        self.ring(self.tx[0], self.tx_tail);
    }

    /// Posts `count` buffers, a multiple of 32, out of an area.
    pub fn post(&mut self, count: u32, area: &mut Area) {
        let [resources, ring, _] = self.rx;
        for _ in 0..count {
            let mut descriptor = [0; 32];
            descriptor[..2].copy_from_slice(&(self.rx_tail as u16).to_le_bytes());
            descriptor[8..16].copy_from_slice(&area.take(BUFFER).to_le_bytes());
            descriptor[16..24].copy_from_slice(&(self.headers + u64::from(self.rx_tail) * 128).to_le_bytes());
            self.memory.write(ring + u64::from(self.rx_tail) * 32, &descriptor).expect("within the area");
            self.rx_tail = (self.rx_tail + 1) % RING;
        }
        self.ring(resources, self.rx_tail);
    }

    /// Reads `buffers` completions: how many frames ended, and whether all of them are sound and split or not.
    pub fn reap(&mut self, buffers: u64, split: bool) -> (u32, u64) {
        let [_, _, completions] = self.rx;
        let (mut frames, mut bytes, mut first) = (0, 0, true);
        for _ in 0..buffers {
            let mut c = [0; 32];
            self.memory.read(completions + u64::from(self.rx_done % RING) * 32, &mut c).expect("within the area");
            assert_eq!(c[5] & 0x40 != 0, (self.rx_done / RING).is_multiple_of(2), "a completion");
            assert_eq!(c[8] & 0x38, 8, "checksums are looked at, and right");
            assert!(!first || split == (c[7] & 8 != 0), "split, or not");
            let header = u16::from_le_bytes([c[6], c[7]]) & 0x3ff;
            bytes += u64::from(u16::from_le_bytes([c[4], c[5]]) & 0x3fff) + u64::from(header);
            first = c[8] & 2 != 0;
            frames += u32::from(first);
            self.rx_done = self.rx_done.wrapping_add(1);
        }
        (frames, bytes)
    }
}
