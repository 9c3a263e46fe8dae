//! The guest's memory: one anonymous mapping, as large as it takes to be in no cache.

use std::sync::atomic::{AtomicU64, Ordering};

use gvnic::bus::{BadAddress, Memory};
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Where the guest's memory begins.
pub const BASE: u64 = 1 << 32;

/// A mapping that lives as long as the process.
pub struct Mapping {
    start: *mut u8,
    length: usize,
}

// SAFETY: the mapping is plain memory that is never unmapped; nobody holds a reference into it, all accesses are copies.
unsafe impl Send for Mapping {}
// SAFETY: as above; the benchmark has one thread, so that no two accesses race.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub fn new(length: usize) -> Mapping {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a fresh anonymous mapping replaces nothing.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, protection, flags) };
        let start = start.expect("memory for the benchmark").cast::<u8>();
        // SAFETY: the range was just mapped. Huge pages are a guest's usual backing; without them it works as well.
        let _ = unsafe { rustix::mm::madvise(start.cast(), length, Advice::LinuxHugepage) };
        // SAFETY: the range was just mapped; writing it makes every page real.
        unsafe { start.write_bytes(1, length) };
        Mapping { start, length }
    }

    fn at(&self, address: u64, length: usize) -> Result<*mut u8, BadAddress> {
        let offset = address.checked_sub(BASE).and_then(|offset| usize::try_from(offset).ok());
        match offset.filter(|offset| offset.checked_add(length).is_some_and(|end| end <= self.length)) {
            // SAFETY: the offset is within the mapping.
            Some(offset) => Ok(unsafe { self.start.add(offset) }),
            None => Err(BadAddress { address, length }),
        }
    }

    /// The peer: copies within the mapping.
    pub fn copy(&self, from: u64, to: u64, length: usize) {
        let (from, to) = (self.at(from, length).expect("a source"), self.at(to, length).expect("a destination"));
        // SAFETY: both ranges are within the mapping, and the benchmark's areas do not overlap.
        unsafe { to.copy_from_nonoverlapping(from, length) };
    }
}

impl Memory for Mapping {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
        let from = self.at(address, into.len())?;
        // SAFETY: the range is within the mapping, and `into` is not.
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), BadAddress> {
        let to = self.at(address, from.len())?;
        // SAFETY: the range is within the mapping, and `from` is not.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    fn publish(&self, address: u64, from: &[u8], generation_at: usize) -> Result<(), BadAddress> {
        let to = self.at(address, from.len())?.cast::<AtomicU64>();
        assert!(to.is_aligned() && from.len().is_multiple_of(8), "rings are aligned");
        let (words, _) = from.as_chunks::<8>();
        let put = |n: usize, order: Ordering| {
            let Some(word) = words.get(n) else { return };
            // SAFETY: the word is within the range and aligned, and reached as an atomic at that width.
            unsafe { (*to.add(n)).store(u64::from_ne_bytes(*word), order) };
        };
        // The word with the generation bit in it comes last.
        let last = generation_at / 8;
        (0..words.len()).filter(|n| *n != last).for_each(|n| put(n, Ordering::Relaxed));
        put(last, Ordering::Release);
        Ok(())
    }
}
