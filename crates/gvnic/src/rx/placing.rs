//! The buffers a frame lies in until its completions are written.

use crate::abi::dqo::rx::{BUFFER, Buffer, Completion, Encoded};

/// A buffer and what is in it.
#[derive(Debug, Clone, Copy)]
struct Piece {
    buffer: u16,
    length: u16,
}

/// A frame, or a train, in its buffers.
#[derive(Debug, Default)]
pub(super) struct Placing {
    /// What every completion of it says, and the first about the header.
    common: Encoded,
    split: bool,
    overflow: bool,
    pieces: Vec<Piece>,
    first: Buffer,
    /// Where the next byte goes, and how many go there.
    next: u64,
    room: usize,
}

impl Placing {
    /// A new frame, of which the completions say this.
    pub fn begin(&mut self, common: Completion) {
        self.common = common.encode();
        (self.split, self.overflow) = (common.split, common.overflow);
        self.pieces.clear();
        self.room = 0;
    }

    /// Goes on in a buffer of `size` bytes.
    pub fn add(&mut self, descriptor: &[u8; BUFFER], size: u16) {
        let buffer = Buffer::decode(descriptor);
        if self.pieces.is_empty() {
            self.first = buffer;
        }
        self.pieces.push(Piece { buffer: buffer.id, length: 0 });
        (self.next, self.room) = (buffer.address, usize::from(size));
    }

    /// Bytes were written to [`Placing::address`].
    pub fn wrote(&mut self, bytes: usize) {
        if let Some(piece) = self.pieces.last_mut() {
            piece.length = piece.length.saturating_add(bytes as u16);
        }
        self.next = self.next.wrapping_add(bytes as u64);
        self.room = self.room.saturating_sub(bytes);
    }

    /// Where the next byte goes.
    pub fn address(&self) -> u64 {
        self.next
    }

    /// How many go there before there must be another buffer.
    pub fn room(&self) -> usize {
        self.room
    }

    /// How many buffers it lies in.
    pub fn buffers(&self) -> usize {
        self.pieces.len()
    }

    /// Whether the headers are in a header buffer.
    pub fn split(&self) -> bool {
        self.split && !self.overflow
    }

    /// Whether the headers were too long for their buffer.
    pub fn overflows(&self) -> bool {
        self.overflow
    }

    /// Where the headers are.
    pub fn header_address(&self) -> u64 {
        if self.split() { self.first.header } else { self.first.address }
    }

    /// The completions: what is about the header in the first, the end in the last.
    pub fn completions(&self, segment: u16) -> impl Iterator<Item = Encoded> {
        let last = self.pieces.len().saturating_sub(1);
        let (first, behind) = (self.common.merged(segment), self.common.behind().merged(segment));
        let pieces = self.pieces.iter().enumerate();
        pieces.map(move |(n, piece)| (if n == 0 { first } else { behind }).of(piece.buffer, piece.length, n == last))
    }
}
