//! Descriptors, read many at a time: one access of the guest's memory for up to [`AHEAD`] of them.

use crate::bus::Memory;
use crate::wrong::{Wrong, at};

/// Descriptors that are read at once.
const AHEAD: usize = 32;

/// A part of a ring of `N`-byte descriptors, copied. Places are counted from the queue's creation and never wrap, so what was
/// copied a turn ago is never taken for what is there now.
#[derive(Debug, Clone)]
pub(crate) struct Window<const N: usize> {
    what: &'static str,
    ring: u64,
    size: u64,
    descriptors: [[u8; N]; AHEAD],
    first: u64,
    count: u64,
}

impl<const N: usize> Window<N> {
    /// Nothing of the ring at `ring` of `size` descriptors, a power of two.
    pub fn new(what: &'static str, ring: u64, size: u16) -> Window<N> {
        let descriptors = [[0; N]; AHEAD];
        Window { what, ring, size: u64::from(size.max(1)), descriptors, first: 0, count: 0 }
    }

    /// The index of a place in the ring.
    pub fn index(&self, place: u64) -> u32 {
        (place & (self.size - 1)) as u32
    }

    /// How many descriptors the driver has filled from `head` on, when `tail` is the index behind the last.
    pub fn filled(&self, head: u64, tail: u32) -> u64 {
        u64::from(tail).wrapping_sub(head) & (self.size - 1)
    }

    /// The descriptor at a place; those from there to `end` are filled.
    pub fn get(&mut self, memory: &dyn Memory, place: u64, end: u64) -> Result<&[u8; N], Wrong> {
        if place.wrapping_sub(self.first) >= self.count {
            self.read(memory, place, end)?;
        }
        let at = place.wrapping_sub(self.first) as usize;
        Ok(self.descriptors.get(at).unwrap_or(&[0; N]))
    }

    fn read(&mut self, memory: &dyn Memory, place: u64, end: u64) -> Result<(), Wrong> {
        let index = u64::from(self.index(place));
        // Not across the ring's end: the next read begins there.
        let count = end.wrapping_sub(place).clamp(1, AHEAD as u64).min(self.size - index);
        self.count = 0;
        let into = self.descriptors.get_mut(..count as usize).unwrap_or_default().as_flattened_mut();
        memory.read(self.ring.wrapping_add(index * N as u64), into).map_err(at(self.what, index as u32))?;
        (self.first, self.count) = (place, count);
        Ok(())
    }
}
