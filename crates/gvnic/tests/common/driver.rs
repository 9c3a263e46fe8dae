//! The driver: what gve 7.3.4 writes to registers and to its admin queue (gve_main.c, gve_adminq.c).

use std::sync::Arc;

use gvnic::control::Control;

use super::{Bench, Ram};

const COMMAND: usize = 64;

/// Where a ring and its like are, of both kinds of queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    pub resources: u64,
    /// Descriptors of TX, buffers of RX.
    pub ring: u64,
    pub completions: u64,
    pub size: u16,
}

/// A driver of a device.
pub struct Driver<'a> {
    pub control: &'a Control,
    pub ram: &'a Arc<Ram>,
    /// The admin queue.
    pub ring: u64,
    /// `adminq_prod_cnt`.
    pub issued: u32,
    /// `num_ntfy_blks`.
    pub blocks: u32,
    /// `irq_db_indices`.
    pub irq_indices: u64,
    pub stats: (u64, u64),
}

/// A command of an opcode and pieces of its body at their offsets.
pub fn command(opcode: u32, body: &[(usize, &[u8])]) -> [u8; COMMAND] {
    let mut bytes = [0; COMMAND];
    bytes[..4].copy_from_slice(&opcode.to_be_bytes());
    for (at, piece) in body {
        bytes[8 + at..8 + at + piece.len()].copy_from_slice(piece);
    }
    bytes
}

impl<'a> Driver<'a> {
    pub fn read32(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.control.read_register(offset, &mut bytes);
        u32::from_be_bytes(bytes)
    }

    pub fn write32(&self, offset: u64, value: u32) {
        self.control.write_register(offset, &value.to_be_bytes());
    }

    /// `gve_adminq_alloc`.
    pub fn attach(bench: &'a Bench) -> Driver<'a> {
        let ring = bench.ram.alloc(4096);
        let mut driver = Driver {
            control: &bench.control,
            ram: &bench.ram,
            ring,
            issued: 0,
            blocks: 0,
            irq_indices: 0,
            stats: (0, 0),
        };
        driver.run();
        driver
    }

    pub fn run(&mut self) {
        self.issued = 0;
        self.control.write_register(40, &4096u16.to_be_bytes());
        self.write32(32, (self.ring >> 32) as u32);
        self.write32(36, self.ring as u32);
        self.write32(4, 1);
        assert_eq!(self.read32(0) & 0x10, 0, "the device runs");
        assert_eq!(self.read32(24), 0, "and has answered nothing yet");
    }

    /// `gve_adminq_release`: polls until the device is reset; here it is at once.
    pub fn release(&self) {
        self.write32(4, 2);
        assert_ne!(self.read32(0) & 0x10, 0, "the device is reset");
        assert_eq!(self.read32(0) & 0x2, 0, "and asks for none");
    }

    /// `gve_adminq_issue_cmd`.
    pub fn issue(&mut self, command: [u8; COMMAND]) {
        self.ram.poke(self.ring + u64::from(self.issued & 63) * COMMAND as u64, &command);
        self.issued = self.issued.wrapping_add(1);
    }

    /// `gve_adminq_kick_and_wait`: the statuses of what was issued, or none if an answer is missing.
    pub fn kick(&mut self) -> Option<Vec<u32>> {
        let tail = self.read32(24);
        self.write32(20, self.issued);
        let status = |n: u32| self.ram.peek32(self.ring + u64::from(n & 63) * COMMAND as u64 + 4);
        let count = self.issued.wrapping_sub(tail);
        (self.read32(24) == self.issued).then(|| (0..count).map(|n| status(tail.wrapping_add(n))).collect())
    }

    /// `gve_adminq_execute_cmd`: the status.
    pub fn execute(&mut self, command: [u8; COMMAND]) -> u32 {
        assert_eq!(self.read32(24), self.issued, "`tail != head` is an error of the driver");
        self.issue(command);
        self.kick().expect("an answer")[0]
    }

    /// The same, of a command that works.
    pub fn must(&mut self, opcode: u32, body: &[(usize, &[u8])]) {
        assert_eq!(self.execute(command(opcode, body)), 1, "command {opcode:#x}");
    }

    /// `gve_verify_driver_compatibility`.
    pub fn verify(&mut self) {
        let info = self.ram.alloc(304);
        self.ram.poke(info, &[1, 1, 4, 0]);
        self.ram.poke(info + 4, &7u32.to_be_bytes());
        self.ram.poke(info + 16, &0x7bu64.to_be_bytes());
        self.ram.poke(info + 48, b"7.3.4-amd64\0");
        self.must(0xf, &[(0, &304u64.to_be_bytes()), (8, &info.to_be_bytes())]);
    }

    /// `gve_adminq_describe_device`: the 4,096 bytes it allocates.
    pub fn describe(&mut self) -> u64 {
        let buffer = self.ram.alloc(4096);
        self.must(1, &[(0, &buffer.to_be_bytes()), (8, &1u32.to_be_bytes()), (12, &4096u32.to_be_bytes())]);
        buffer
    }

    /// `gve_adminq_configure_device_resources`, with one notify block a queue.
    pub fn configure(&mut self, pairs: u32) {
        self.blocks = pairs * 2;
        let counters = self.ram.alloc(self.blocks as usize * 4);
        self.irq_indices = self.ram.alloc(self.blocks as usize * 64);
        self.must(
            2,
            &[
                (0, &counters.to_be_bytes()),
                (8, &self.irq_indices.to_be_bytes()),
                (16, &self.blocks.to_be_bytes()),
                (20, &self.blocks.to_be_bytes()),
                (24, &64u32.to_be_bytes()),
                (32, &[3]),
            ],
        );
    }

    /// `gve_setup_device_resources` behind the first command: packet types, clock, spreading, statistics.
    pub fn finish_setup(&mut self, pairs: u32) {
        let map = self.ram.alloc(2048);
        self.must(0xe, &[(0, &2048u64.to_be_bytes()), (8, &map.to_be_bytes())]);
        let clock = self.ram.alloc(40);
        self.must(0x11, &[(0, &40u64.to_be_bytes()), (8, &clock.to_be_bytes())]);
        assert_ne!(self.ram.peek64(clock), 0);
        let length = 8 + 16 * 12 * u64::from(pairs);
        self.stats = (self.ram.alloc(length as usize), length);
        self.report_stats(self.stats);
    }

    pub fn report_stats(&mut self, (address, length): (u64, u64)) {
        self.must(0xc, &[(0, &length.to_be_bytes()), (8, &address.to_be_bytes()), (16, &20_000u64.to_be_bytes())]);
    }

    /// `gve_probe`: everything until the interface can be opened.
    pub fn probe(bench: &'a Bench, pairs: u32) -> Driver<'a> {
        for byte in b"GVE-1.0.0\n" {
            bench.control.write_register(31, &[*byte]);
        }
        let mut driver = Driver::attach(bench);
        driver.verify();
        driver.describe();
        driver.configure(pairs);
        driver.finish_setup(pairs);
        driver
    }

    /// Rings for a queue (`gve_tx_alloc_ring_dqo`, `gve_rx_alloc_ring_dqo`).
    pub fn rings(&self, size: u16) -> Ring {
        let bytes = usize::from(size) * 32;
        Ring { resources: self.ram.alloc(64), ring: self.ram.alloc(bytes), completions: self.ram.alloc(bytes), size }
    }

    /// `gve_adminq_create_tx_queue`.
    pub fn create_tx(&self, id: u32, ring: &Ring) -> [u8; COMMAND] {
        command(
            5,
            &[
                (0, &id.to_be_bytes()),
                (8, &ring.resources.to_be_bytes()),
                (16, &ring.ring.to_be_bytes()),
                (24, &u32::MAX.to_be_bytes()),
                (28, &id.to_be_bytes()),
                (32, &ring.completions.to_be_bytes()),
                (40, &ring.size.to_be_bytes()),
                (42, &ring.size.to_be_bytes()),
            ],
        )
    }

    /// `gve_adminq_get_create_rx_queue_cmd`.
    pub fn create_rx(&self, id: u32, ring: &Ring, header_buffer: u16) -> [u8; COMMAND] {
        command(
            6,
            &[
                (0, &id.to_be_bytes()),
                (12, &(self.blocks / 2 + id).to_be_bytes()),
                (16, &ring.resources.to_be_bytes()),
                (24, &ring.completions.to_be_bytes()),
                (32, &ring.ring.to_be_bytes()),
                (40, &u32::MAX.to_be_bytes()),
                (44, &ring.size.to_be_bytes()),
                (46, &4096u16.to_be_bytes()),
                (48, &ring.size.to_be_bytes()),
                (50, &[1]),
                (52, &header_buffer.to_be_bytes()),
            ],
        )
    }

    /// `gve_create_rings`: every TX queue with one doorbell, then every RX queue; and their tails' doorbells.
    pub fn open(&mut self, pairs: u32, size: u16) -> Vec<(Ring, Ring)> {
        let rings: Vec<_> = (0..pairs).map(|_| (self.rings(size), self.rings(size))).collect();
        for (id, (tx, _)) in (0..).zip(&rings) {
            self.issue(self.create_tx(id, tx));
        }
        assert!(self.kick().unwrap().iter().all(|status| *status == 1));
        for (id, (_, rx)) in (0..).zip(&rings) {
            self.issue(self.create_rx(id, rx, 128));
        }
        assert!(self.kick().unwrap().iter().all(|status| *status == 1));
        rings
    }

    pub fn destroy_tx(&mut self, id: u32) -> u32 {
        self.execute(command(7, &[(0, &id.to_be_bytes())]))
    }

    pub fn destroy_rx(&mut self, id: u32) -> u32 {
        self.execute(command(8, &[(0, &id.to_be_bytes())]))
    }

    /// `gve_close` and `gve_teardown_device_resources`.
    pub fn close(&mut self, pairs: u32) {
        for id in 0..pairs {
            assert_eq!((self.destroy_tx(id), self.destroy_rx(id)), (1, 1));
        }
        self.flow_rule(2, 0, &[0; 84]);
        self.report_stats((0, 0));
        self.must(9, &[]);
    }

    /// Rings the doorbell a queue was told.
    pub fn ring(&self, ring: &Ring, tail: u32) {
        self.doorbell(self.ram.peek32(ring.resources), tail);
    }

    /// Writes a doorbell by its index: `iowrite32`.
    pub fn doorbell(&self, index: u32, value: u32) {
        self.control.write_doorbell(u64::from(index) * 4, &value.to_le_bytes());
    }

    /// `gve_write_irq_doorbell_dqo`.
    pub fn enable(&self, block: u32) {
        self.doorbell(self.ram.peek32(self.irq_indices + u64::from(block) * 64), 3 << 3 | 1);
    }

    /// `gve_adminq_execute_extended_cmd` of CONFIGURE_FLOW_RULE: the status.
    pub fn flow_rule(&mut self, opcode: u16, location: u32, rule: &[u8; 84]) -> u32 {
        let inner = self.ram.alloc(92);
        self.ram.poke(inner, &opcode.to_be_bytes());
        self.ram.poke(inner + 4, rule);
        self.ram.poke(inner + 88, &location.to_be_bytes());
        self.extended(0x101, 92, inner)
    }

    pub fn extended(&mut self, opcode: u32, length: u32, address: u64) -> u32 {
        self.execute(command(
            0xff,
            &[(0, &opcode.to_be_bytes()), (4, &length.to_be_bytes()), (8, &address.to_be_bytes())],
        ))
    }
}
