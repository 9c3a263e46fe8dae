//! Bytes that came from a port and were not forwarded yet.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::wire::{FRAME_MAX, LENGTH_BYTES};

/// One read's worth: as much as a unix socket holds by default (net.core.wmem_default, 208 KiB), and room for the start of a
/// frame left over from the read before.
const CAPACITY: usize = 256 << 10;

/// The input buffer of a port.
#[derive(Debug, Default)]
pub(crate) struct Inlet {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inlet {
    /// Reads once from a non-blocking socket. `Ok(0)` is the end of the stream.
    pub fn fill(&mut self, socket: impl AsFd) -> Result<usize, Errno> {
        if self.bytes.is_empty() {
            self.bytes = vec![0; CAPACITY];
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if CAPACITY - self.end < FRAME_MAX + LENGTH_BYTES {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let (_, got) = rustix::io::retry_on_intr(|| recv(&socket, &mut self.bytes[self.end..], RecvFlags::empty()))?;
        self.end += got;
        Ok(got)
    }

    /// What is to be forwarded.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Takes bytes off the front.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }
}
