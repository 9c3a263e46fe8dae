//! What the device sees of the guest: its memory, and its interrupt vectors.

use thiserror::Error;

/// An access outside the guest's memory as the device was told of it. The guest chose the address: it is the guest's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the guest gave {length} bytes at {address:#x}, which are not its own (or not for this access)")]
pub struct BadAddress {
    /// The guest's bus address (IOVA), in bytes.
    pub address: u64,
    /// How many bytes from there.
    pub length: usize,
}

/// The guest's memory. The guest may change any byte at any time, so nothing read here is ever read a second time and
/// believed to be the same. A failed access has touched nothing.
pub trait Memory: Send + Sync {
    /// Copies `into.len()` bytes from the guest.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), BadAddress>;
    /// Copies `from` to the guest.
    fn write(&self, address: u64, from: &[u8]) -> Result<(), BadAddress>;
    /// Writes `from` (at most 64 bytes), the byte at `generation_at` after all of the others, so that a driver which waits for a
    /// generation bit there (`dma_rmb` in gve_rx_dqo.c) sees a whole descriptor.
    fn publish(&self, address: u64, from: &[u8], generation_at: usize) -> Result<(), BadAddress>;
}

/// The device's MSI-X vectors.
pub trait Interrupts: Send + Sync {
    /// Raises a vector. Latched while the guest has it masked; a vector that does not exist is ignored.
    fn raise(&self, vector: u16);
}
