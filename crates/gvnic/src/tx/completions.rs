//! A ring of TX completions.
//!
//! The driver never says how far it has read, but it shows: a tag is used again only when its last completion, and so every
//! one before it, is read. A driver keeps its tags to less than half the ring (`gve_tx_alloc_ring_dqo`, gve_tx_dqo.c), so
//! that one which lets the ring run full by that account is broken.

use super::at;
use crate::abi::dqo::tx::{COMPLETION, CompletionType, GENERATION_AT, completion};
use crate::bus::Memory;
use crate::queues::TxSetup;
use crate::wrong::Wrong;

#[derive(Debug)]
pub(super) struct Completions {
    queue: u16,
    ring: u64,
    size: u16,
    /// How many are written, and how many of them are read for certain.
    written: u64,
    read: u64,
    /// For each tag the number of completions when its last was written.
    tags: Box<[u64]>,
}

impl Completions {
    pub fn new(setup: &TxSetup) -> Completions {
        let size = setup.completion_size;
        let tags = vec![0; usize::from(size)].into_boxed_slice();
        Completions { queue: setup.id, ring: setup.completion_ring, size, written: 0, read: 0, tags }
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    /// The driver uses a tag.
    pub fn reused(&mut self, tag: u16) {
        let last = self.tags.get(usize::from(tag)).copied().unwrap_or(0);
        self.read = self.read.max(last);
    }

    /// Writes one, the generation bit last.
    pub fn write(&mut self, memory: &dyn Memory, kind: CompletionType, value: u16) -> Result<(), Wrong> {
        let size = u64::from(self.size);
        if self.written - self.read >= size {
            return Err(Wrong::Overrun { size: self.size });
        }
        // The first turn writes ones: the driver's ring begins zeroed, and `cur_gen_bit` with it.
        let (index, turn) = (self.written & (size - 1), self.written / size);
        let bytes = completion(self.queue, kind, value, turn % 2 == 0);
        let address = self.ring.wrapping_add(index * COMPLETION as u64);
        memory.publish(address, &bytes, GENERATION_AT).map_err(at("TX completion", index as u32))?;
        self.written += 1;
        if kind != CompletionType::Descriptors
            && let Some(last) = self.tags.get_mut(usize::from(value))
        {
            *last = self.written;
        }
        Ok(())
    }
}
