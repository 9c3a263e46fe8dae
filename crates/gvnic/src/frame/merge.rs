//! Joining consecutive TCP segments of a flow in one frame: HW-GRO, which the descriptors call RSC.
//!
//! In: frames as they come from the wire, with what [`verify`](super::verify) said of them. Out: a frame as the sender's
//! stack made it before it was cut, so that cutting it again gives the same segments: every rule here follows from that,
//! and the rules are those of Linux's own GRO (`tcp_gro_receive`, net/ipv4/tcp_offload.c; `inet_gro_receive`,
//! net/ipv4/af_inet.c), narrower where a rare case is not worth its code.
//!
//! What the driver makes of it (`gve_rx_complete_rsc`, gve_rx_dqo.c): the segment length of the completion becomes
//! `gso_size`, the number of segments is the payload divided by it, rounded up, and there must be payload. It sets no
//! checksum up itself: it vouches for the packet, and Linux's GRO writes the pseudo header's sum over the field if it
//! needs one (`tcp_gro_complete`). So the checksum here is that of the whole packet, which is right for everybody else who
//! looks. It costs no pass over the payload: each segment's own, checked, gives away the sum of its bytes.

use super::checksum::{self, Integrity, Sum};
use super::{IP_MAX, IPV4_HEADER, IPV6_HEADER, Parsed, be16, be32, field16, flag, put};
use crate::abi::ptype::{L3, L4};

/// What became of a frame that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the held frame, and others may follow.
    Absorbed,
    /// It is in the held frame, and it was the last: take that one now.
    Last,
    /// It must not overtake the held frame and cannot be part of it: take that one and offer this again.
    FlushFirst,
    /// It is none to join, and nothing is held: deliver it as it is.
    Pass,
}

/// A frame made of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged<'a> {
    /// The frame, its lengths and checksums right.
    pub frame: &'a [u8],
    /// Bytes of payload of each segment but the last, which may have fewer: `rsc_seg_len` of the completion.
    pub segment_len: u16,
    /// Segments in it. The completion's `rsc` bit is for two and more: one is an ordinary frame.
    pub segments: u16,
}

/// Holds the segments of one flow. It keeps its buffer from one frame to the next.
#[derive(Debug)]
pub struct Merger {
    limit: usize,
    frame: Vec<u8>,
    held: Option<Held>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    parsed: Parsed,
    segment_len: usize,
    segments: u16,
    next_sequence: u32,
    ids: Ids,
    payload_sum: Sum,
    ended: bool,
}

/// How IPv4's identification goes on. What segmentation makes counts; others leave it alone where DF makes it
/// meaningless (RFC 6864). Linux's GRO takes both (`inet_gro_flush`, include/net/gro.h), never mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// There was one segment so far.
    Open,
    Counting,
    Fixed,
}

impl Merger {
    /// One that makes IP packets of at most `limit` bytes; never more than IPv4's length can say.
    pub fn new(limit: usize) -> Merger {
        Merger { limit: limit.min(IP_MAX), frame: Vec::new(), held: None }
    }

    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_none()
    }

    /// The frame belongs to the flow that is held: same headers up to IP's addresses, same ports. For those who have
    /// several mergers.
    pub fn same_flow(&self, frame: &[u8], parsed: &Parsed) -> bool {
        self.held.is_some_and(|held| {
            let addresses =
                |p: &Parsed| if p.l3 == L3::Ipv4 { p.l3_at + 12..p.l3_at + 20 } else { p.l3_at + 8..p.l3_at + 40 };
            let ports = |p: &Parsed| p.l4_at..p.l4_at + 4;
            let link = |p: &Parsed| 0..p.l3_at;
            parsed.l4 == L4::Tcp
                && parsed.l3 == held.parsed.l3
                && same(&self.frame, link(&held.parsed), frame, link(parsed))
                && same(&self.frame, addresses(&held.parsed), frame, addresses(parsed))
                && same(&self.frame, ports(&held.parsed), frame, ports(parsed))
        })
    }

    /// Takes a frame in, or says why not. Any frame that cannot join what is held flushes it, whatever flow it is of: so
    /// nothing overtakes. Those with a merger for each flow ask [`Merger::same_flow`] first.
    pub fn offer(&mut self, frame: &[u8], parsed: &Parsed, integrity: &Integrity) -> Verdict {
        let Some(segment) = Segment::of(frame, parsed, integrity) else {
            return if self.is_empty() { Verdict::Pass } else { Verdict::FlushFirst };
        };
        match self.held {
            None => self.begin(&segment),
            Some(held) => self.join(held, &segment).unwrap_or(Verdict::FlushFirst),
        }
    }

    /// Hands out what is held. The frame is the merger's until the next call.
    pub fn take(&mut self) -> Option<Merged<'_>> {
        let held = self.held.take()?;
        let segment_len = field16(held.segment_len);
        if held.segments > 1 {
            let parsed = Parsed { end: self.frame.len(), ..held.parsed };
            let (field, from) = match parsed.l3 {
                L3::Ipv4 => (parsed.l3_at + 2, parsed.l3_at),
                _ => (parsed.l3_at + 4, parsed.l3_at + IPV6_HEADER),
            };
            put(&mut self.frame, field, field16(parsed.end.saturating_sub(from)).to_be_bytes());
            checksum::fill_l3(&mut self.frame, &parsed);
            checksum::fill_tcp(&mut self.frame, &parsed, held.payload_sum);
        }
        Some(Merged { frame: &self.frame, segment_len, segments: held.segments })
    }

    fn begin(&mut self, segment: &Segment<'_>) -> Verdict {
        // It would be alone: there is nothing to copy it for.
        if segment.ends() || segment.packet.len().saturating_sub(segment.parsed.l3_at) > self.limit {
            return Verdict::Pass;
        }
        self.frame.clear();
        self.frame.extend_from_slice(segment.packet);
        self.held = Some(Held {
            parsed: *segment.parsed,
            segment_len: segment.payload.len(),
            segments: 1,
            next_sequence: segment.sequence.wrapping_add(segment.payload.len() as u32),
            ids: Ids::Open,
            payload_sum: segment.sum,
            ended: false,
        });
        Verdict::Absorbed
    }

    /// `None` where it cannot join.
    fn join(&mut self, held: Held, segment: &Segment<'_>) -> Option<Verdict> {
        let payload = segment.payload.len();
        let before = self.frame.len().checked_sub(held.parsed.payload_at)?;
        let fits = self.frame.len().saturating_sub(held.parsed.l3_at) + payload <= self.limit;
        if held.ended || !fits || payload > held.segment_len || segment.sequence != held.next_sequence {
            return None;
        }
        if !self.same_headers(segment) {
            return None;
        }
        let ids = self.ids(&held, segment)?;
        self.frame.extend_from_slice(segment.payload);
        let at = held.parsed.l4_at + 13;
        let flags = self.frame.get(at).copied().unwrap_or_default() | segment.flags;
        put(&mut self.frame, at, [flags]);
        let ended = segment.ends() || payload < held.segment_len;
        let sums = held.payload_sum;
        self.held = Some(Held {
            segments: held.segments.saturating_add(1),
            next_sequence: segment.sequence.wrapping_add(payload as u32),
            ids,
            payload_sum: if before % 2 == 0 { sums.sum(segment.sum) } else { sums.sum_at_odd(segment.sum) },
            ended,
            ..held
        });
        Some(if ended { Verdict::Last } else { Verdict::Absorbed })
    }

    /// All that segments of one frame have in common is the same, byte for byte. With it: traffic class, hop limit and DF;
    /// acknowledgement and window, for a later one would be told too early and an earlier one not at all; and the options.
    /// Timestamps count as options: the joined frame has one only, so with another the receiver would measure round trips
    /// and judge old duplicates (RFC 7323, 4 and 5) by a value its segment did not have.
    fn same_headers(&self, segment: &Segment<'_>) -> bool {
        let (held, new) = (&self.frame, segment.packet);
        let p = segment.parsed;
        let (l3, l4) = (p.l3_at, p.l4_at);
        let equal = |range: std::ops::Range<usize>| same(held, range.clone(), new, range);
        let flags = |bytes: &[u8]| bytes.get(l4 + 13).map(|flags| flags & !(flag::FIN | flag::PSH));
        let network = match p.l3 {
            // All but length, identification and checksum.
            L3::Ipv4 => equal(l3..l3 + 2) && equal(l3 + 6..l3 + 10) && equal(l3 + 12..l4),
            // All but the length.
            _ => equal(l3..l3 + 4) && equal(l3 + 6..l4),
        };
        // The link with the EtherType, which says how the rest is read; then TCP but for sequence number and checksum.
        equal(0..l3)
            && network
            && equal(l4..l4 + 4)
            && equal(l4 + 8..l4 + 13)
            && flags(held) == flags(new)
            && equal(l4 + 14..l4 + 16)
            && equal(l4 + 18..p.payload_at)
    }

    fn ids(&self, held: &Held, segment: &Segment<'_>) -> Option<Ids> {
        let at = held.parsed.l3_at;
        if held.parsed.l3 != L3::Ipv4 {
            return Some(Ids::Open);
        }
        let ahead = be16(segment.packet, at + 4)?.wrapping_sub(be16(&self.frame, at + 4)?);
        let unfragmented = be16(&self.frame, at + 6)? & 0x4000 != 0;
        match (held.ids, ahead) {
            (Ids::Open | Ids::Counting, ahead) if ahead == held.segments => Some(Ids::Counting),
            (Ids::Open | Ids::Fixed, 0) if unfragmented => Some(Ids::Fixed),
            _ => None,
        }
    }
}

/// A segment that may be part of something.
struct Segment<'a> {
    parsed: &'a Parsed,
    /// The frame without padding.
    packet: &'a [u8],
    payload: &'a [u8],
    sequence: u32,
    flags: u8,
    sum: Sum,
}

impl<'a> Segment<'a> {
    /// `None` where the frame is none to join: not TCP, in fragments or with IP options or extension headers (as Linux's
    /// GRO has it for IPv4), damaged, without payload, or about the connection rather than its bytes.
    fn of(frame: &'a [u8], parsed: &'a Parsed, integrity: &Integrity) -> Option<Segment<'a>> {
        let network = match parsed.l3 {
            L3::Ipv4 => IPV4_HEADER,
            L3::Ipv6 => IPV6_HEADER,
            L3::Unknown | L3::Other => return None,
        };
        let sound = integrity.l4 == Some(true) && !integrity.l3_error();
        if parsed.l4 != L4::Tcp
            || !parsed.complete
            || parsed.fragment
            || !sound
            || parsed.l4_at != parsed.l3_at + network
        {
            return None;
        }
        let flags = *frame.get(parsed.l4_at + 13)?;
        // Of a frame that CWR is set in, only the first segment would have it again.
        let other = flag::SYN | flag::RST | flag::URG | flag::CWR;
        let packet = frame.get(..parsed.end)?;
        let payload = packet.get(parsed.payload_at..).filter(|payload| !payload.is_empty())?;
        if flags & other != 0 || flags & flag::ACK == 0 {
            return None;
        }
        let sequence = be32(packet, parsed.l4_at + 4)?;
        Some(Segment { parsed, packet, payload, sequence, flags, sum: checksum::payload_sum(packet, parsed)? })
    }

    /// Nothing may follow it in one frame: the sender wants it delivered, or has no more.
    fn ends(&self) -> bool {
        self.flags & (flag::PSH | flag::FIN) != 0
    }
}

/// Both ranges are there and hold the same.
fn same(a: &[u8], in_a: std::ops::Range<usize>, b: &[u8], in_b: std::ops::Range<usize>) -> bool {
    match (a.get(in_a), b.get(in_b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
