//! What comes in: bytes and descriptors of a stream, cut into messages.
//!
//! As much is read at once as there is, for posted writes come in trains. The kernel never reads on after bytes that came with
//! descriptors (`unix_stream_read_generic`, `net/unix/af_unix.c`), so the descriptors of a read belong to the last message
//! that begins in it, and at most the descriptors of one message wait for the rest of it.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use crate::error::Ended;
use crate::wire::{HEADER, Header, MAX_FDS, MAX_MESSAGE, flags};

/// Bytes that one read may take in beyond the message it is for.
const AHEAD: usize = 16 << 10;

/// A message as it came.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// Its header; the size is not less than a header's.
    pub header: Header,
    /// What follows; `None` if it was too large to be kept.
    pub body: Option<&'a [u8]>,
    /// The descriptors that came along; `None` if they were too many.
    pub fds: Option<Vec<OwnedFd>>,
}

/// The reading end of a connection.
#[derive(Debug, Default)]
pub(crate) struct Inlet {
    /// What was read; the part from `start` to `end` was not looked at yet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Descriptors of the message at `start`, from earlier reads.
    fds: Descriptors,
    /// Descriptors of the last read. They belong to the message that has its last byte, which is before `latest_until`.
    latest: Descriptors,
    latest_until: usize,
}

/// Descriptors that came along.
#[derive(Debug, Default)]
struct Descriptors {
    fds: Vec<OwnedFd>,
    /// Whether there were more than [`MAX_FDS`]; those are closed.
    overflow: bool,
}

impl Descriptors {
    fn push(&mut self, fd: OwnedFd) {
        if self.fds.len() < MAX_FDS {
            self.fds.push(fd);
        } else {
            self.overflow = true;
        }
    }

    /// Takes those of another one. A message that dribbles in may bring some with each byte.
    fn absorb(&mut self, other: &mut Self) {
        self.overflow |= std::mem::take(&mut other.overflow);
        other.fds.drain(..).for_each(|fd| self.push(fd));
    }
}

impl Inlet {
    /// Waits for the next message of `socket`, or for `wake` to become readable.
    ///
    /// # Errors
    /// Why there is no next message.
    pub fn next(&mut self, socket: BorrowedFd<'_>, wake: BorrowedFd<'_>) -> Result<Message<'_>, Ended> {
        let header = loop {
            if let Some((header, _)) = self.unread().and_then(Header::split) {
                break header;
            }
            self.fill(HEADER, socket, wake)?;
        };
        // Of what this server never asks it cannot get an answer either; and after a size that leaves out its own header
        // nobody knows where the next message begins.
        if (header.size as usize) < HEADER || header.flags & flags::TYPE != flags::COMMAND {
            return Err(Ended::Nonsense { size: header.size, flags: header.flags });
        }
        if header.size as usize > MAX_MESSAGE {
            self.skip(header.size as usize, socket, wake)?;
            return Ok(Message { header, body: None, fds: self.take_fds() });
        }
        let size = header.size as usize;
        while self.end - self.start < size {
            self.fill(size, socket, wake)?;
        }
        self.start += size;
        let fds = self.take_fds();
        Ok(Message { header, body: self.buffer.get(self.start - size + HEADER..self.start), fds })
    }

    fn unread(&self) -> Option<&[u8]> {
        self.buffer.get(self.start..self.end)
    }

    /// Drops a message of which perhaps nothing but the header has been read.
    fn skip(&mut self, size: usize, socket: BorrowedFd<'_>, wake: BorrowedFd<'_>) -> Result<(), Ended> {
        let mut left = size;
        loop {
            let here = left.min(self.end - self.start);
            self.start += here;
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.fill(1, socket, wake)?;
        }
    }

    /// The descriptors of the message that ends at `start`.
    fn take_fds(&mut self) -> Option<Vec<OwnedFd>> {
        let mut taken = std::mem::take(&mut self.fds);
        if self.latest_until <= self.start {
            taken.absorb(&mut self.latest);
        }
        (!taken.overflow).then_some(taken.fds)
    }

    /// Reads once, when there is something, with room for a message of `size` bytes from `start` on.
    fn fill(&mut self, size: usize, socket: BorrowedFd<'_>, wake: BorrowedFd<'_>) -> Result<(), Ended> {
        wait(socket, PollFlags::IN, wake)?;
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        // All messages that were whole have been taken, so what is left is of the one that is not.
        self.fds.absorb(&mut self.latest);
        if self.buffer.len() < size + AHEAD {
            self.buffer.resize(size + AHEAD, 0);
        }
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut self.buffer[self.end..])];
        let got = match recvmsg(socket, into, &mut control, RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => got,
            // Somebody else was quicker, or nothing was there after all.
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(Errno::CONNRESET) => return Err(Ended::Closed),
            Err(e) => return Err(io::Error::from(e).into()),
        };
        // The kernel has closed those for which there was no room.
        self.latest.overflow = got.flags.contains(ReturnFlags::CTRUNC);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fds.for_each(|fd| self.latest.push(fd));
            }
        }
        if got.bytes == 0 {
            return Err(Ended::Closed);
        }
        self.end += got.bytes;
        self.latest_until = self.end;
        Ok(())
    }
}

/// Waits until `socket` is ready, or is broken; the next call will say which.
///
/// # Errors
/// `wake` is readable.
pub(crate) fn wait(socket: BorrowedFd<'_>, ready: PollFlags, wake: BorrowedFd<'_>) -> Result<(), Ended> {
    let mut fds = [PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN), PollFd::from_borrowed_fd(socket, ready)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => return Err(Ended::Stopped),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(io::Error::from(e).into()),
        }
    }
}
