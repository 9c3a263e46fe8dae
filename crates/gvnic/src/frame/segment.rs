//! Cutting a large packet into frames: TCP segmentation (TSO), and datagrams of one size (USO, `UDP_SEGMENT`).
//!
//! In: a gathered packet, its headers and the size of a segment. Out: one frame after another, *in the packet's own bytes*:
//! a segment's headers are written over the end of the payload before it, which has been sent by then. So a payload is not
//! copied once more, and a segment that could not be sent is simply asked for again.

use thiserror::Error;

use super::Headers;
use super::checksum::{Sum, fill_ipv4, l4_checksum, pseudo, store};
use crate::abi::dqo::tx::HEADER_MAX;
use crate::abi::ptype::{L3, L4};

/// FIN and PSH belong to a packet's last segment; CWR to its first (RFC 3168, 6.1.2: it answers once).
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Why a packet cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Uncuttable {
    /// It is neither TCP nor UDP, or a fragment.
    #[error("it is neither TCP nor UDP over IP")]
    Protocol,
    /// The headers are not where the driver says.
    #[error("its headers are {found} bytes, the driver says {told}")]
    Header {
        /// By the bytes.
        found: usize,
        /// By the descriptor.
        told: usize,
    },
    /// It has a routing header: its checksum is about an address that the IP header does not have.
    #[error("it has a routing header, and its segments' checksums are about another address than its own")]
    Routed,
    /// There is nothing to send, or segments of nothing.
    #[error("it has no payload, or segments of 0 bytes")]
    Empty,
}

/// A packet that is being cut.
#[derive(Debug, Clone)]
pub struct Cut {
    header: [u8; HEADER_MAX],
    headers: Headers,
    header_bytes: usize,
    payload: usize,
    mss: usize,
    sequence: u32,
    id: u16,
}

impl Cut {
    /// Prepares to cut `packet` into segments of `mss` payload bytes, the last with the rest. `told` is how many bytes of
    /// headers the driver says there are.
    ///
    /// # Errors
    /// [`Uncuttable`], for a packet that cannot be cut at all.
    pub fn new(packet: &[u8], headers: &Headers, told: usize, mss: usize) -> Result<Cut, Uncuttable> {
        if !matches!(headers.l4, L4::Tcp | L4::Udp) {
            return Err(Uncuttable::Protocol);
        }
        if headers.routed {
            return Err(Uncuttable::Routed);
        }
        let found = usize::from(headers.payload_at);
        let Some(bytes) = packet.get(..found).filter(|_| found == told && found <= HEADER_MAX) else {
            return Err(Uncuttable::Header { found, told });
        };
        let payload = packet.len() - found;
        if payload == 0 || mss == 0 {
            return Err(Uncuttable::Empty);
        }
        let mut header = [0; HEADER_MAX];
        for (to, from) in header.iter_mut().zip(bytes) {
            *to = *from;
        }
        let number = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
        let sequence = u32::from_be_bytes(number(usize::from(headers.l4_at) + 4));
        let [id_high, id_low, ..] = number(usize::from(headers.l3_at) + 4);
        let id = u16::from_be_bytes([id_high, id_low]);
        Ok(Cut { header, headers: *headers, header_bytes: found, payload, mss, sequence, id })
    }

    /// How many segments there are; at least one.
    pub fn segments(&self) -> usize {
        self.payload.div_ceil(self.mss)
    }

    /// The headers of every segment but for their [`end`](Headers::end).
    pub fn headers(&self, segment: &[u8]) -> Headers {
        Headers { end: segment.len() as u32, ..self.headers }
    }

    /// The `n`-th segment, a whole frame, made in `packet`, whose bytes up to the segment's payload are lost. `None` behind
    /// the last.
    pub fn segment<'p>(&self, n: usize, packet: &'p mut [u8]) -> Option<&'p mut [u8]> {
        let start = n.checked_mul(self.mss).filter(|start| *start < self.payload)?;
        let length = (self.payload - start).min(self.mss);
        let frame = packet.get_mut(start..start + self.header_bytes + length)?;
        let (front, _) = frame.split_at_mut_checked(self.header_bytes)?;
        front.copy_from_slice(self.header.get(..self.header_bytes)?);
        let (l3, l4) = (usize::from(self.headers.l3_at), usize::from(self.headers.l4_at));
        let l4_length = self.header_bytes - l4 + length;
        if self.headers.l3 == L3::Ipv4 {
            store(frame, l3 + 2, ((l4 - l3 + l4_length) as u16).to_be_bytes());
            store(frame, l3 + 4, self.id.wrapping_add(n as u16).to_be_bytes());
            fill_ipv4(frame, &self.headers);
        } else {
            store(frame, l3 + 4, ((l4 - l3 - 40 + l4_length) as u16).to_be_bytes());
        }
        let place = if self.headers.l4 == L4::Tcp {
            store(frame, l4 + 4, self.sequence.wrapping_add(start as u32).to_be_bytes());
            let flags = frame.get_mut(l4 + 13)?;
            if n > 0 {
                *flags &= !CWR;
            }
            if start + length < self.payload {
                *flags &= !(FIN | PSH);
            }
            l4 + 16
        } else {
            store(frame, l4 + 4, (l4_length as u16).to_be_bytes());
            l4 + 6
        };
        store(frame, place, [0; 2]);
        let sum = Sum::of(frame.get(l4..)?).and(pseudo(frame, &self.headers, l4_length));
        store(frame, place, l4_checksum(self.headers.l4, sum));
        Some(frame)
    }
}
