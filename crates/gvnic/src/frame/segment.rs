//! Cutting a large TCP or UDP packet in segments that fit the wire: TSO and UDP_L4.
//!
//! In: a frame of one header and up to 256 KiB of payload, and the size wanted. Out: frames, one at a time in a buffer of
//! the caller's. [`Template`] is the half that needs no payload: a datapath that gathers payload from a guest's memory puts
//! header and payload where they are wanted and has only the header finished.

use thiserror::Error;

use super::{IP_MAX, IPV6_HEADER, Parsed, checksum, field16, flag, put};
use crate::abi::ptype::{L3, L4};
use crate::frame::{be16, be32};

/// Least payload of a segment, in bytes: `GVE_TX_MIN_TSO_MSS_DQO`, gve_desc_dqo.h. The driver segments itself below it
/// (`gve_can_send_tso`, gve_tx_dqo.c); here it bounds what a few bytes of descriptors can ask for to 2979 frames.
pub const MSS_MIN: u16 = 88;
/// Most payload of a segment, in bytes: `GVE_TX_MAX_TSO_MSS_DQO`, gve_desc_dqo.h.
pub const MSS_MAX: u16 = 9728;
/// Most payload of the frame that is cut, in bytes: `GVE_DQO_TX_MAX`, gve.h.
pub const PAYLOAD_MAX: usize = 0x3_ffff;

/// Why a frame is not cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SegmentError {
    /// The size is none that the device has.
    #[error("segments of {0} bytes: the device makes {MSS_MIN} to {MSS_MAX}")]
    Mss(u16),
    /// There is nothing here that knows how to be cut.
    #[error("{l4:?} over {l3:?} is not cut in segments")]
    NotSegmentable {
        /// What the frame carries.
        l3: L3,
        /// What the packet carries.
        l4: L4,
    },
    /// The headers end behind the frame.
    #[error("the headers end at byte {headers} of a frame of {frame}")]
    Headers {
        /// Bytes of headers, by their own account.
        headers: usize,
        /// Bytes of the frame, or of the header that was handed in.
        frame: usize,
    },
    /// The frame is larger than the device takes.
    #[error("{0} bytes of payload in one frame: the device takes {PAYLOAD_MAX}")]
    Payload(usize),
    /// A segment would be larger than IP allows.
    #[error("{headers} bytes of headers leave no room in a packet for a segment of {mss}")]
    TooLong {
        /// Bytes of headers.
        headers: usize,
        /// Bytes of payload wanted.
        mss: u16,
    },
}

/// What all segments of a frame have in common, and what tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    parsed: Parsed,
    mss: usize,
    payload: usize,
    /// IPv4's identification of the first segment.
    id: u16,
    /// TCP's sequence number and flags in the frame.
    sequence: u32,
    flags: u8,
}

impl Template {
    /// From a frame's headers, which may have payload behind them or not; `payload` is what the whole frame has.
    pub fn of(headers: &[u8], parsed: &Parsed, payload: usize, mss: u16) -> Result<Template, SegmentError> {
        let (l3, l4) = (parsed.l3, parsed.l4);
        if !(MSS_MIN..=MSS_MAX).contains(&mss) {
            return Err(SegmentError::Mss(mss));
        }
        if !matches!(l3, L3::Ipv4 | L3::Ipv6) || !matches!(l4, L4::Tcp | L4::Udp) {
            return Err(SegmentError::NotSegmentable { l3, l4 });
        }
        if payload > PAYLOAD_MAX {
            return Err(SegmentError::Payload(payload));
        }
        let length = parsed.payload_at;
        let short = SegmentError::Headers { headers: length, frame: headers.len() };
        if length > headers.len() {
            return Err(short);
        }
        if length.saturating_sub(parsed.l3_at) + usize::from(mss) > IP_MAX {
            return Err(SegmentError::TooLong { headers: length, mss });
        }
        let id = if l3 == L3::Ipv4 { be16(headers, parsed.l3_at + 4).ok_or(short)? } else { 0 };
        let (sequence, flags) = if l4 == L4::Tcp {
            let flags = headers.get(parsed.l4_at + 13).copied().ok_or(short)?;
            (be32(headers, parsed.l4_at + 4).ok_or(short)?, flags)
        } else {
            (0, 0)
        };
        Ok(Template { parsed: *parsed, mss: usize::from(mss), payload, id, sequence, flags })
    }

    /// Segments there are: at least one, for a frame with no payload is its own.
    pub fn count(&self) -> usize {
        self.payload.div_ceil(self.mss).max(1)
    }

    /// Which of the frame's payload the n-th segment has: bytes from the payload's start. Empty behind the last.
    pub fn range(&self, n: usize) -> std::ops::Range<usize> {
        let start = n.saturating_mul(self.mss).min(self.payload);
        start..start.saturating_add(self.mss).min(self.payload)
    }

    /// Bytes of headers, the same in each.
    pub fn header_len(&self) -> usize {
        self.parsed.payload_at
    }

    /// Makes the n-th segment of the frame's headers and its own payload: lengths, identification, sequence number, flags
    /// and checksums. The segment is as long as `segment`.
    pub fn finish(&self, n: usize, segment: &mut [u8]) {
        let parsed = Parsed { end: segment.len(), complete: true, ..self.parsed };
        match parsed.l3 {
            L3::Ipv4 => {
                put(segment, parsed.l3_at + 2, field16(segment.len().saturating_sub(parsed.l3_at)).to_be_bytes());
                // As Linux does it in software, with or without DF (`inet_gso_segment`, net/ipv4/af_inet.c).
                put(segment, parsed.l3_at + 4, self.id.wrapping_add(n as u16).to_be_bytes());
            }
            _ => {
                let headers = parsed.l3_at + IPV6_HEADER;
                put(segment, parsed.l3_at + 4, field16(segment.len().saturating_sub(headers)).to_be_bytes());
            }
        }
        if parsed.l4 == L4::Tcp {
            put(segment, parsed.l4_at + 4, self.sequence.wrapping_add((n * self.mss) as u32).to_be_bytes());
            put(segment, parsed.l4_at + 13, [self.flags_of(n)]);
        } else {
            put(segment, parsed.l4_at + 4, field16(segment.len().saturating_sub(parsed.l4_at)).to_be_bytes());
        }
        checksum::fill(segment, &parsed);
    }

    /// CWR answers the peer once (RFC 3168, 6.1.2), and the stream ends or wants delivery behind the last byte.
    fn flags_of(&self, n: usize) -> u8 {
        let not_first = if n == 0 { 0 } else { flag::CWR };
        let not_last = if n + 1 == self.count() { 0 } else { flag::FIN | flag::PSH };
        self.flags & !(not_first | not_last)
    }
}

/// The segments of a frame, one after another.
#[derive(Debug, Clone)]
pub struct Segments<'a> {
    template: Template,
    headers: &'a [u8],
    payload: &'a [u8],
    next: usize,
}

/// Cuts a frame in segments of `mss` bytes of payload, the last of what remains. All of the frame behind the headers is
/// payload: IP's length has no room for a large one, and is not looked at.
pub fn segments<'a>(frame: &'a [u8], parsed: &Parsed, mss: u16) -> Result<Segments<'a>, SegmentError> {
    let short = SegmentError::Headers { headers: parsed.payload_at, frame: frame.len() };
    let (headers, payload) = frame.split_at_checked(parsed.payload_at).ok_or(short)?;
    Ok(Segments { template: Template::of(headers, parsed, payload.len(), mss)?, headers, payload, next: 0 })
}

impl Segments<'_> {
    /// Replaces what is in the buffer by the next segment. `false`, and nothing done, when there is none.
    pub fn next_into(&mut self, out: &mut Vec<u8>) -> bool {
        if self.next >= self.template.count() {
            return false;
        }
        let payload = self.payload.get(self.template.range(self.next)).unwrap_or_default();
        out.clear();
        out.extend_from_slice(self.headers);
        out.extend_from_slice(payload);
        self.template.finish(self.next, out);
        self.next += 1;
        true
    }

    /// Segments still to come.
    pub fn remaining(&self) -> usize {
        self.template.count() - self.next
    }
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
