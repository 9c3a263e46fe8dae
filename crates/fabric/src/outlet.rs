//! Frames on their way to a port.
//!
//! While a port's side reads, frames go from the sender's input buffer to the socket without a copy: [`Outlet::push`] notes
//! where they lie and [`Outlet::flush`] writes them in one system call. What the socket does not take is copied into a
//! bounded queue, and so is everything that comes while that queue holds something.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use crate::wire::LENGTH_BYTES;

/// Pieces written in one call. More of them are small ones, and copying those costs less than naming them one by one.
const PIECES: usize = 64;

/// The output side of a port.
#[derive(Debug, Default)]
pub(crate) struct Outlet {
    /// Runs of frames in the buffer that is being forwarded; used while `queue` is empty.
    direct: Vec<Range<usize>>,
    /// What the socket did not take, lengths included.
    queue: VecDeque<u8>,
    /// Sizes of all unsent frames in order, lengths included.
    sizes: VecDeque<usize>,
    /// Bytes of the first of them that were sent.
    sent: usize,
    /// Bytes of `direct` and `queue`.
    bytes: usize,
    /// Whether the socket refused bytes and has not asked for more since.
    pub waiting: bool,
    /// When the socket last took something, or began to wait.
    pub progress: Option<Instant>,
    /// Whether frames are dropped because the socket takes nothing.
    pub stalled: bool,
    /// Whether the other end is gone.
    pub broken: bool,
    /// Bytes of delayed frames that will come here.
    pub delayed: usize,
}

/// What a write took.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Frames whose last byte was taken.
    pub frames: u64,
    /// Their bytes, without lengths.
    pub bytes: u64,
}

impl Outlet {
    /// Bytes that wait here, without delayed ones.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds frames that lie in `input` at `whole`, one frame with its length.
    pub fn push(&mut self, input: &[u8], whole: Range<usize>) {
        debug_assert!(!self.stalled && (!self.waiting || !self.queue.is_empty()), "nobody would write this out");
        self.sizes.push_back(whole.len());
        self.bytes += whole.len();
        if !self.queue.is_empty() {
            self.queue.extend(&input[whole]);
            return;
        }
        let pieces = self.direct.len();
        match self.direct.last_mut() {
            Some(last) if last.end == whole.start => last.end = whole.end,
            _ if pieces < PIECES => self.direct.push(whole),
            _ => {
                self.settle(input);
                self.queue.extend(&input[whole]);
            }
        }
    }

    /// Adds a frame that lies elsewhere, as a copy. `input` is the buffer of those added before.
    pub fn push_copy(&mut self, input: &[u8], frame: &[u8]) {
        self.settle(input);
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.sizes.push_back(LENGTH_BYTES + frame.len());
        self.bytes += LENGTH_BYTES + frame.len();
        self.queue.extend(&length.to_be_bytes());
        self.queue.extend(frame);
    }

    /// Writes what the socket takes; the rest waits in the queue, independent of `input`.
    pub fn flush(&mut self, socket: impl AsFd, input: &[u8], now: Instant) -> Taken {
        if self.bytes == 0 {
            return Taken::default();
        }
        let was_waiting = self.waiting;
        let written = {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            let (front, back) = self.queue.as_slices();
            for piece in [front, back].into_iter().filter(|p| !p.is_empty()) {
                pieces[count] = IoSlice::new(piece);
                count += 1;
            }
            // Either the queue or the runs: the former is empty while there are any of the latter.
            for run in &self.direct {
                pieces[count] = IoSlice::new(&input[run.clone()]);
                count += 1;
            }
            send(socket, &pieces[..count])
        };
        let written = match written {
            Ok(n) => n,
            Err(Errno::AGAIN) => 0,
            Err(_) => {
                self.broken = true;
                0
            }
        };
        self.waiting = written < self.bytes;
        if written > 0 {
            self.stalled = false;
        }
        if written > 0 || !was_waiting {
            self.progress = Some(now);
        }
        self.take(input, written)
    }

    /// Forgets everything but the rest of a frame that was begun, and says how many frames that were.
    pub fn shed(&mut self) -> u64 {
        debug_assert!(self.direct.is_empty());
        let keep = usize::from(self.sent > 0).min(self.sizes.len());
        let shed = self.sizes.len() - keep;
        self.sizes.truncate(keep);
        self.bytes = self.sizes.front().map_or(0, |size| size - self.sent);
        self.queue.truncate(self.bytes);
        shed as u64
    }

    /// Forgets everything that waits here, since the other end is gone, and says how many frames that were.
    pub fn abandon(&mut self) -> u64 {
        let lost = self.sizes.len() as u64;
        *self = Outlet { broken: true, delayed: self.delayed, ..Outlet::default() };
        lost
    }

    /// The socket wants more.
    pub fn writable(&mut self) {
        (self.waiting, self.stalled) = (false, false);
    }

    /// Accounts for `written` bytes and moves the rest of the runs to the queue.
    fn take(&mut self, input: &[u8], written: usize) -> Taken {
        self.bytes -= written;
        if self.direct.is_empty() {
            self.queue.drain(..written);
        } else {
            let mut skip = written;
            for run in self.direct.drain(..) {
                let gone = skip.min(run.len());
                skip -= gone;
                self.queue.extend(&input[run.start + gone..run.end]);
            }
        }
        let mut taken = Taken::default();
        let mut reached = self.sent + written;
        while let Some(&size) = self.sizes.front().filter(|size| **size <= reached) {
            self.sizes.pop_front();
            reached -= size;
            taken.frames += 1;
            taken.bytes += (size - LENGTH_BYTES) as u64;
        }
        self.sent = reached;
        taken
    }

    /// Moves the runs to the queue.
    fn settle(&mut self, input: &[u8]) {
        for run in self.direct.drain(..) {
            self.queue.extend(&input[run]);
        }
    }
}

fn send(socket: impl AsFd, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let mut control = SendAncillaryBuffer::default();
    rustix::io::retry_on_intr(|| sendmsg(&socket, pieces, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn framed(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    #[test]
    fn frames_leave_in_order_whatever_way_they_came() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let input = [framed(b"one"), framed(b"skipped"), framed(b"two"), framed(b"four")].concat();
        let now = Instant::now();
        let mut outlet = Outlet::default();
        outlet.push(&input, 0..7);
        outlet.push(&input, 18..25);
        outlet.push_copy(&input, b"three");
        outlet.push(&input, 25..33);
        assert_eq!(outlet.bytes(), 7 + 7 + 9 + 8);
        assert_eq!(outlet.flush(&ours, &input, now), Taken { frames: 4, bytes: 15 });
        assert!(outlet.bytes() == 0 && !outlet.waiting);
        drop(ours);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert_eq!(got, [framed(b"one"), framed(b"two"), framed(b"three"), framed(b"four")].concat());
    }

    #[test]
    fn many_small_pieces_are_copied() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let input: Vec<u8> = (0..200u8).flat_map(|n| framed(&[n])).collect();
        let mut outlet = Outlet::default();
        // Every other frame: no two touch.
        for n in (0..200).step_by(2) {
            outlet.push(&input, n * 5..n * 5 + 5);
        }
        assert_eq!(outlet.flush(&ours, &input, Instant::now()).frames, 100);
        drop(ours);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert_eq!(got, (0..200u8).step_by(2).flat_map(|n| framed(&[n])).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_socket_keeps_the_frame_that_was_begun() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let frame = framed(&[9; 300_000]);
        let mut outlet = Outlet::default();
        for _ in 0..3 {
            outlet.push(&frame, 0..frame.len());
            outlet.flush(&ours, &frame, Instant::now());
        }
        assert!(outlet.waiting && outlet.bytes() > 600_000);
        assert_eq!(outlet.shed(), 2, "two whole frames are forgotten, the one begun is not");
        theirs.set_nonblocking(true).unwrap();
        let mut got = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            while let Ok(n) = theirs.read(&mut buffer) {
                got.extend_from_slice(&buffer[..n]);
            }
            if outlet.bytes() == 0 {
                break;
            }
            outlet.flush(&ours, &[], Instant::now());
        }
        assert_eq!(got, frame);
    }

    #[test]
    fn a_closed_end_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let input = framed(b"lost");
        let mut outlet = Outlet::default();
        outlet.push(&input, 0..8);
        assert_eq!(outlet.flush(&ours, &input, Instant::now()), Taken::default());
        assert!(outlet.broken);
        assert_eq!(outlet.abandon(), 1);
        assert!(outlet.broken && outlet.bytes() == 0);
    }
}
