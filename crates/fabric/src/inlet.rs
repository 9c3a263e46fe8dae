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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn leftovers_move_to_the_front_when_room_runs_out() {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let byte = |n: usize| (n % 251) as u8;
        let mut inlet = Inlet::default();
        let (mut sent, mut taken) = (0, 0);
        // Several times the buffer, with the start of a frame left over each time.
        while taken < 4 * CAPACITY {
            theirs.write_all(&(sent..sent + 50_000).map(byte).collect::<Vec<_>>()).unwrap();
            sent += 50_000;
            while taken + inlet.pending().len() < sent {
                assert!(inlet.fill(&ours).unwrap() > 0);
            }
            assert!(inlet.pending().iter().enumerate().all(|(n, b)| *b == byte(taken + n)), "after {taken} bytes");
            let some = inlet.pending().len() - 777;
            inlet.consume(some);
            taken += some;
        }
        drop(theirs);
        assert_eq!(inlet.fill(&ours), Ok(0));
        inlet.clear();
        assert_eq!(inlet.pending(), b"");
    }
}
