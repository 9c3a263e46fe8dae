//! What a hostile guest may do to the control side, from bytes: shared by the tests and by the fuzz targets.
//!
//! Memory begins at 0 and is small, so that arbitrary numbers are often addresses in it.
#![allow(dead_code, reason = "each user calls one of the entries")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use gvnic::bus::{BadAddress, Interrupts, Memory};
use gvnic::config::{Mac, PortConfig};
use gvnic::control::{Control, Datapath, Wake};
use gvnic::steer::{Addresses, FlowKey};

/// Bytes of memory.
pub const MEMORY: usize = 64 << 10;
/// Where the admin queue is.
pub const RING: u64 = 0x1000;

#[derive(Default)]
struct Low(Mutex<Vec<u8>>);

impl Low {
    fn range(address: u64, length: usize) -> Result<std::ops::Range<usize>, BadAddress> {
        let start = usize::try_from(address).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(length)?));
        range.filter(|range| range.end <= MEMORY).ok_or(BadAddress { address, length })
    }
}

impl Memory for Low {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
        let range = Low::range(address, into.len())?;
        into.copy_from_slice(&self.0.lock().unwrap()[range]);
        Ok(())
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), BadAddress> {
        let range = Low::range(address, from.len())?;
        self.0.lock().unwrap()[range].copy_from_slice(from);
        Ok(())
    }

    fn publish(&self, address: u64, from: &[u8], _generation_at: usize) -> Result<(), BadAddress> {
        self.write(address, from)
    }
}

struct Nobody;

impl Interrupts for Nobody {
    fn raise(&self, vector: u16) {
        assert!(vector < 9, "there are nine vectors");
    }
}

impl Datapath for Nobody {
    fn wake(&self, why: Wake) {
        if let Wake::Tx(id) | Wake::Rx(id) = why {
            assert!(id < 4);
        }
    }
}

/// A device with four queues of each direction and 32 rules, running.
pub struct Victim {
    control: Control,
    memory: Arc<Low>,
    issued: u32,
}

impl Default for Victim {
    fn default() -> Self {
        let memory = Arc::new(Low(Mutex::new(vec![0; MEMORY])));
        let config = PortConfig { flow_rules: 32, ..PortConfig::new(Mac([2, 0, 0, 0, 0, 1])) };
        let shared = Arc::clone(&memory) as Arc<dyn Memory>;
        let control = Control::new(config, shared, Arc::new(Nobody), Arc::new(Nobody)).unwrap();
        let mut victim = Victim { control, memory, issued: 0 };
        victim.run();
        victim
    }
}

impl Victim {
    fn run(&mut self) {
        self.issued = 0;
        self.control.write_register(40, &4096u16.to_be_bytes());
        self.control.write_register(36, &(RING as u32).to_be_bytes());
        self.control.write_register(32, &[0; 4]);
        self.control.write_register(4, &1u32.to_be_bytes());
    }

    /// The guest writes memory.
    pub fn poke(&self, address: u64, bytes: &[u8]) {
        let _ = self.memory.write(address, bytes);
    }

    /// Issues a command and answers its status, if there is one.
    pub fn command(&mut self, bytes: &[u8; 64]) -> Option<u32> {
        let slot = RING + u64::from(self.issued % 64) * 64;
        self.poke(slot, bytes);
        self.issued = self.issued.wrapping_add(1);
        self.control.write_register(20, &self.issued.to_be_bytes());
        let mut answered = [0; 4];
        self.control.read_register(24, &mut answered);
        let mut status = [0; 4];
        self.memory.read(slot + 4, &mut status).unwrap();
        (u32::from_be_bytes(answered) == self.issued).then(|| u32::from_be_bytes(status))
    }

    /// What holds whatever the guest did.
    pub fn check(&self) {
        let status = self.control.status();
        assert!(status.flow_rules <= 32 && status.mtu >= 68 && status.mtu <= 9000);
        let view = self.control.shared().view();
        for (id, queue) in (0..).zip(&status.rx) {
            assert_eq!(view.queues.rx(id).map(|q| *q.setup()), queue.setup, "the view is what the control side has");
            assert_eq!(queue.buffers.excess(), 0);
            let setup = queue.setup.into_iter();
            setup.for_each(|s| assert!(s.buffer_size <= 1024 && s.completion_size <= 1024 && s.packet_buffer <= 4096));
        }
        for (id, queue) in (0..).zip(&status.tx) {
            assert_eq!(view.queues.tx(id).map(|q| *q.setup()), queue.setup, "the view is what the control side has");
            assert_eq!(queue.descriptors.excess(), 0);
        }
        assert!(view.steer_other().queue < 4);
    }

    /// A reset puts everything right.
    pub fn end(self) {
        self.control.function_reset();
        self.check();
        let status = self.control.status();
        assert!(!status.running && status.rx.iter().all(|q| q.setup.is_none() && q.buffers.outstanding() == 0));
        assert_eq!(status.control.rx_created, status.control.rx_destroyed);
        assert_eq!(status.control.tx_created, status.control.tx_destroyed);
    }
}

/// Takes `N` bytes, zeros behind the end.
fn next<const N: usize>(input: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let take = N.min(input.len());
    let (front, rest) = input.split_at(take);
    bytes[..take].copy_from_slice(front);
    *input = rest;
    bytes
}

/// A guest that writes what it likes to commands, registers, doorbells and its memory.
pub fn admin_queue(mut input: &[u8]) {
    let mut victim = Victim::default();
    while !input.is_empty() {
        let [what, a, b] = next(&mut input);
        let offset = u64::from(u16::from_be_bytes([a, b]));
        match what % 8 {
            0..4 => {
                // An opcode there is, mostly: the rest of the command decides.
                let mut bytes: [u8; 64] = next(&mut input);
                if a != 0 {
                    bytes[..4].copy_from_slice(&u32::from(a % 20).to_be_bytes());
                }
                victim.command(&bytes);
            }
            4 => victim.poke(offset, &next::<32>(&mut input)),
            5 => victim.control.write_register(offset % 64, &next::<4>(&mut input)[..usize::from(what / 8 % 5)]),
            6 => victim.control.write_doorbell(offset % 4096, &next::<4>(&mut input)),
            _ => match a % 4 {
                0 => victim.control.tick(),
                1 => victim.control.read_register(offset, &mut [0; 16]),
                2 => victim.control.set_link(b % 2 == 0),
                _ => victim.run(),
            },
        }
        victim.check();
    }
    victim.end();
}

/// A guest that adds and removes rules, and packets beside them: a packet goes where the rules say when they are read one
/// after another.
pub fn flow_rules(mut input: &[u8]) {
    let mut victim = Victim::default();
    let mut model: BTreeMap<u32, [u8; 84]> = BTreeMap::new();
    while !input.is_empty() {
        let [what, type_and_location, queue] = next(&mut input);
        let mut rule = [0; 84];
        rule[1] = type_and_location % 12;
        rule[3] = queue % 6;
        // Few bytes of key and mask, repeated, so that rules meet.
        let (key, mask): ([u8; 10], [u8; 10]) = (next(&mut input), next(&mut input));
        for (half, bytes) in [(4, key), (44, mask)] {
            let wide = rule[1] >= 5;
            for (at, byte) in [(0, 0), (3, 1), (16, 2), (19, 3), (32, 4), (33, 5), (34, 6), (35, 7), (36, 8)] {
                rule[half + at] = bytes[byte] & 3;
            }
            rule[half + 15] = if wide { bytes[9] & 1 } else { 0 };
        }
        let location = u32::from(type_and_location) % 40;
        let opcode = u16::from(what % 8).saturating_sub(5);
        let mut inner = [0; 92];
        inner[..2].copy_from_slice(&opcode.to_be_bytes());
        inner[4..88].copy_from_slice(&rule);
        inner[88..].copy_from_slice(&location.to_be_bytes());
        victim.poke(0x4000, &inner);
        let mut command = [0; 64];
        command[3] = 0xff;
        command[10..12].copy_from_slice(&[1, 1]);
        command[15] = 92;
        command[22..24].copy_from_slice(&[0x40, 0]);
        let passed = victim.command(&command) == Some(1);
        match opcode {
            0 => {
                assert_eq!(passed, rule[1] < 10 && rule[3] < 4 && location < 32);
                passed.then(|| model.insert(location, rule));
            }
            1 => assert_eq!(passed, model.remove(&location).is_some()),
            _ => {
                assert!(passed);
                model.clear();
            }
        }
        let packet: [u8; 40] = rule[4..44].try_into().unwrap();
        packet_goes(&victim, &model, u16::from(rule[1]) % 10, &packet, what >= 32);
    }
    victim.check();
    victim.end();
}

fn packet_goes(victim: &Victim, model: &BTreeMap<u32, [u8; 84]>, flow_type: u16, packet: &[u8; 40], with_ports: bool) {
    let (source, destination) = (packet[..16].try_into().unwrap(), packet[16..32].try_into().unwrap());
    let v6 = flow_type >= 5;
    let addresses = if v6 {
        Addresses::V6 { source: &source, destination: &destination }
    } else {
        let (source, destination) = (source.first_chunk().unwrap(), destination.first_chunk().unwrap());
        Addresses::V4 { source, destination }
    };
    let protocol = [6, 17, 132, 51, 50][usize::from(flow_type % 5)];
    let ports = with_ports.then(|| packet[32..36].try_into().unwrap());
    let key = FlowKey { addresses, protocol, traffic_class: packet[36], ports };
    let expected = model.iter().find(|(_, rule)| {
        let counts = |at: &usize| v6 || !(4..16).contains(at) && !(20..32).contains(at);
        let same = (0..37).filter(counts).all(|at| (packet[at] ^ rule[4 + at]) & rule[44 + at] == 0);
        u16::from(rule[1]) == flow_type && same && (with_ports || rule[44 + 32..44 + 36] == [0; 4])
    });
    let steered = victim.control.shared().view().steer(&key);
    assert_eq!(steered.rule, expected.map(|(location, _)| *location));
    if let Some((_, rule)) = expected {
        assert_eq!(steered.queue, u16::from(rule[3]));
    }
}
