//! What the device does with the bytes of a frame: finding headers, checksums, cutting a frame in segments and joining
//! segments in a frame.
//!
//! In: a frame in one piece, already copied out of the guest's memory, so that nobody changes it between a look and the
//! next. Out: offsets, answers, other frames. Nothing here knows of rings, and nothing trusts a length in a header: the
//! senders are guests. Buffers are the caller's, so a datapath in its stride allocates nothing.

pub mod checksum;
pub mod merge;
pub mod parse;
pub mod segment;
#[cfg(test)]
mod testing;

pub use checksum::{Integrity, fill, verify};
pub use merge::{Merged, Merger, Verdict};
pub use parse::Parsed;
pub use segment::{SegmentError, Segments, Template, segments};

/// Bytes of an IPv4 header with no options.
const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
const IPV6_HEADER: usize = 40;
/// Bytes of a TCP header with no options.
const TCP_HEADER: usize = 20;
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;
/// The most that IPv4's total length can say, in bytes.
const IP_MAX: usize = 65_535;

/// Flags of TCP, in the byte 13 of its header (RFC 9293, 3.1).
mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
    pub const CWR: u8 = 0x80;
}

/// Some bytes from an offset on.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(|b| u16::from_be_bytes(*b))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(|b| u32::from_be_bytes(*b))
}

/// Writes at an offset; what does not fit is not written.
fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value;
    }
}

/// A length as a field of 16 bits: callers have checked it against [`IP_MAX`], and what is longer saturates.
fn field16(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}
