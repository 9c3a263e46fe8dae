//! Frames on the pipe, and a decoder that survives anything.
//!
//! Little endian: magic (4), kind (1), flags (1), zero (2), stream (4), payload length (4), session nonce (4), CRC-32 of
//! those 20 bytes (4); then, if the length is not 0, the payload and its CRC-32 (4). A wrong sum means that the bytes
//! are not ours or were cut short when a host went away: the decoder then goes on one byte later, so a whole frame that
//! follows, even one that lies inside what was taken for a payload, is found.

/// First bytes of every frame. The first is no ASCII and no start of a UTF-8 character.
pub const MAGIC: [u8; 4] = [0x9d, b'D', b'M', b'L'];
/// Bytes of a header.
pub const HEADER_LEN: usize = 24;
/// Bytes of the sum behind a payload.
pub const TRAILER_LEN: usize = 4;
/// Largest payload: with header and sum it fits the 32 KiB that one write to a virtio-serial port takes
/// (drivers/char/virtio_console.c, `port_fops_write`), so a frame is one write, and nothing urgent waits for more.
pub const MAX_PAYLOAD: usize = 32 * 1024 - HEADER_LEN - TRAILER_LEN;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Starts or confirms a session; see [`crate::hello`].
    Hello = 1,
    /// Asks for a sign of life: a number.
    Ping = 2,
    /// The sign of life: the number, then [`Vitals`](crate::mux::Vitals).
    Pong = 3,
    /// The first message of a stream: a request.
    Open = 4,
    /// A further message of a stream.
    Message = 5,
    /// Bytes of a stream, paid for with credits.
    Data = 6,
    /// Allows the other end so many more bytes of data on the stream (u32).
    Credit = 7,
    /// The sender is done with the stream.
    Close = 8,
    /// Nothing: fills up a frame that a former host left unfinished.
    Padding = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::*;
        [Hello, Ping, Pong, Open, Message, Data, Credit, Close, Padding].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The message goes on in the next frame of the stream.
pub const MORE: u8 = 1;
/// No data comes after this.
pub const EOF: u8 = 2;
/// The data was written to standard error.
pub const STDERR: u8 = 4;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is for.
    pub kind: Kind,
    /// [`MORE`], [`EOF`], [`STDERR`].
    pub flags: u8,
    /// Stream number; 0 for the channel itself.
    pub stream: u32,
    /// The session it belongs to.
    pub nonce: u32,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Appends the frame's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.payload.len() <= MAX_PAYLOAD);
        let start = out.len();
        out.reserve(HEADER_LEN + self.payload.len() + TRAILER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.kind as u8, self.flags, 0, 0]);
        out.extend_from_slice(&self.stream.to_le_bytes());
        out.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.nonce.to_le_bytes());
        let sum = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&sum.to_le_bytes());
        if !self.payload.is_empty() {
            out.extend_from_slice(&self.payload);
            out.extend_from_slice(&crc32fast::hash(&self.payload).to_le_bytes());
        }
    }
}

/// Turns bytes, in pieces of any size, into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    at: usize,
    skipped: u64,
}

/// Result of looking at the start of the buffer.
enum Look {
    Frame(Frame, usize),
    NeedMore,
    NotOurs,
}

impl Decoder {
    /// A decoder with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole frame out, past anything that is none.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let rest = &self.buffer[self.at..];
            match look(rest) {
                Look::Frame(frame, length) => {
                    self.at += length;
                    return Some(frame);
                }
                Look::NeedMore => return None,
                Look::NotOurs => {
                    // At least one byte on, and from there to the next byte that could begin a frame.
                    let step = rest[1..].iter().position(|byte| *byte == MAGIC[0]).map_or(rest.len(), |at| at + 1);
                    self.at += step;
                    self.skipped += step as u64;
                }
            }
        }
    }

    /// How many bytes were no part of a frame so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Forgets a frame that has begun: the other end is a new one.
    pub fn reset(&mut self) {
        self.skipped += (self.buffer.len() - self.at) as u64;
        self.buffer.clear();
        self.at = 0;
    }
}

fn look(bytes: &[u8]) -> Look {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Look::NotOurs;
    }
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Look::NeedMore };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let length = word(12) as usize;
    if word(20) != crc32fast::hash(&header[..20]) || length > MAX_PAYLOAD || header[6..8] != [0, 0] {
        return Look::NotOurs;
    }
    let Some(kind) = Kind::from_byte(header[4]) else { return Look::NotOurs };
    let mut frame = Frame { kind, flags: header[5], stream: word(8), nonce: word(16), payload: Vec::new() };
    if length == 0 {
        return Look::Frame(frame, HEADER_LEN);
    }
    if rest.len() < length + TRAILER_LEN {
        return Look::NeedMore;
    }
    let (payload, sum) = rest.split_at(length);
    if sum[..TRAILER_LEN] != crc32fast::hash(payload).to_le_bytes() {
        return Look::NotOurs;
    }
    frame.payload = payload.to_vec();
    Look::Frame(frame, HEADER_LEN + length + TRAILER_LEN)
}
