//! What is around a device: memory that checks its bounds and counts what is written, and recorders.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use gvnic::bus::{BadAddress, Interrupts, Memory};
use gvnic::control::{Datapath, Wake};

/// Where the guest's memory begins: what is below is not mapped.
pub const BASE: u64 = 0x1000_0000;

/// Guest memory in one piece, and a bump allocator.
pub struct Ram {
    bytes: Mutex<Vec<u8>>,
    next: AtomicU64,
    /// Bytes the device has written.
    written: AtomicU64,
}

impl Ram {
    pub fn new(size: usize) -> Ram {
        Ram { bytes: Mutex::new(vec![0; size]), next: AtomicU64::new(BASE), written: AtomicU64::new(0) }
    }

    /// Bus address of fresh memory, 64-byte aligned. Never given back.
    pub fn alloc(&self, bytes: usize) -> u64 {
        let address = self.next.fetch_add((bytes as u64).next_multiple_of(64), Ordering::SeqCst);
        assert!(address + bytes as u64 <= self.end(), "the test needs more memory");
        address
    }

    /// Forgets every allocation, and what was in them.
    pub fn free_all(&self) {
        self.next.store(BASE, Ordering::SeqCst);
        self.bytes.lock().unwrap().fill(0);
    }

    /// The first address behind it.
    pub fn end(&self) -> u64 {
        BASE + self.bytes.lock().unwrap().len() as u64
    }

    /// Bytes the device has written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    fn range(&self, address: u64, length: usize, size: usize) -> Result<std::ops::Range<usize>, BadAddress> {
        let start = address.checked_sub(BASE).and_then(|at| usize::try_from(at).ok());
        let range = start.and_then(|start| Some(start..start.checked_add(length)?));
        range.filter(|range| range.end <= size).ok_or(BadAddress { address, length })
    }

    fn store(&self, address: u64, from: &[u8]) -> Result<(), BadAddress> {
        let mut bytes = self.bytes.lock().unwrap();
        let range = self.range(address, from.len(), bytes.len())?;
        bytes[range].copy_from_slice(from);
        Ok(())
    }

    /// The guest writes.
    pub fn poke(&self, address: u64, from: &[u8]) {
        self.store(address, from).unwrap();
    }

    /// The guest reads.
    pub fn peek(&self, address: u64, length: usize) -> Vec<u8> {
        let mut into = vec![0; length];
        self.read(address, &mut into).unwrap();
        into
    }

    pub fn peek16(&self, address: u64) -> u16 {
        u16::from_be_bytes(self.peek(address, 2).try_into().unwrap())
    }

    pub fn peek32(&self, address: u64) -> u32 {
        u32::from_be_bytes(self.peek(address, 4).try_into().unwrap())
    }

    pub fn peek64(&self, address: u64) -> u64 {
        u64::from_be_bytes(self.peek(address, 8).try_into().unwrap())
    }
}

impl Memory for Ram {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
        let bytes = self.bytes.lock().unwrap();
        let range = self.range(address, into.len(), bytes.len())?;
        into.copy_from_slice(&bytes[range]);
        Ok(())
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), BadAddress> {
        self.store(address, from)?;
        self.written.fetch_add(from.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn publish(&self, address: u64, from: &[u8], _generation_at: usize) -> Result<(), BadAddress> {
        self.write(address, from)
    }
}

/// Vectors that were raised.
#[derive(Default)]
pub struct Raised(Mutex<Vec<u16>>);

impl Raised {
    /// Those since the last time.
    pub fn take(&self) -> Vec<u16> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Interrupts for Raised {
    fn raise(&self, vector: u16) {
        self.0.lock().unwrap().push(vector);
    }
}

/// Why the datapath was woken.
#[derive(Default)]
pub struct Wakes(Mutex<Vec<Wake>>);

impl Wakes {
    /// Those since the last time.
    pub fn take(&self) -> Vec<Wake> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Datapath for Wakes {
    fn wake(&self, why: Wake) {
        self.0.lock().unwrap().push(why);
    }
}
