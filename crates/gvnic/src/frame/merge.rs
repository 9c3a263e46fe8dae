//! Merging segments of a TCP stream into one large packet: what the driver calls RSC, and the kernel HW-GRO.
//!
//! The kernel forwards a merged packet by cutting it again, so that segments are only merged when cutting gives them
//! back: same headers but for lengths, checksums, consecutive sequence numbers and IPv4 identifications; all of one size,
//! the last perhaps smaller; PSH and FIN end it. These are the rules of its own `tcp_gro_receive` (net/ipv4/tcp_offload.c),
//! and the same window besides, since the driver gives one header for all.
//!
//! A [`Train`] knows headers and sums; where the payloads go is the caller's business, so nothing is copied here.

use super::Headers;
use super::checksum::{Sum, fill_ipv4, pseudo, store};
use crate::abi::ptype::{L3, L4};

/// Headers a train can have: Ethernet, two tags, IPv6, TCP with all options.
const HEADER_MAX: usize = 14 + 8 + 40 + 60;
/// Bytes of an IP packet.
const PACKET_MAX: usize = 0xffff;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// Segments of one stream that follow one another.
#[derive(Debug, Clone)]
pub struct Train {
    header: [u8; HEADER_MAX],
    headers: Headers,
    header_bytes: usize,
    /// Payload of the first segment, and of all.
    segment: usize,
    payload: usize,
    segments: usize,
    sum: Sum,
    /// FIN and PSH of the last.
    last: u8,
    ended: bool,
    /// Whether IPv4 identifications stay the same; known from the second on.
    same_id: Option<bool>,
}

fn flags(frame: &[u8], headers: &Headers) -> u8 {
    frame.get(usize::from(headers.l4_at) + 13).copied().unwrap_or(0)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}

fn id(bytes: &[u8], headers: &Headers) -> u16 {
    (be32(bytes, usize::from(headers.l3_at) + 4) >> 16) as u16
}

/// The sum of a payload, without a look at it: what is missing for the checksum to hold, which somebody has verified.
fn payload_sum(frame: &[u8], headers: &Headers) -> Sum {
    let l4 = usize::from(headers.l4_at);
    let header = frame.get(l4..usize::from(headers.payload_at)).map(Sum::of).unwrap_or_default();
    header.and(pseudo(frame, headers, headers.end as usize - l4)).negative()
}

/// Payload bytes, if it is a segment that may be in a train.
fn candidate(frame: &[u8], headers: &Headers) -> Option<usize> {
    let (l3, l4, payload) = (headers.l3_at, headers.l4_at, usize::from(headers.payload_at));
    let plain = match headers.l3 {
        L3::Ipv4 => l4 - l3 == 20,
        L3::Ipv6 => l4 - l3 == 40,
        _ => false,
    };
    let data = (headers.end as usize).checked_sub(payload).filter(|data| *data > 0)?;
    let known = flags(frame, headers) & !(FIN | PSH | ECE | CWR) == ACK;
    let whole = headers.end as usize == frame.len() && payload <= HEADER_MAX;
    (headers.l4 == L4::Tcp && plain && known && whole).then_some(data)
}

impl Train {
    /// Begins with a frame whose checksums hold. `None` when nothing can be merged to it: it is no TCP data, or ends a train
    /// itself.
    pub fn start(frame: &[u8], headers: &Headers) -> Option<Train> {
        let segment = candidate(frame, headers).filter(|_| flags(frame, headers) & (FIN | PSH) == 0)?;
        let header_bytes = usize::from(headers.payload_at);
        let mut header = [0; HEADER_MAX];
        for (to, from) in header.iter_mut().zip(frame.get(..header_bytes)?) {
            *to = *from;
        }
        Some(Train {
            header,
            headers: *headers,
            header_bytes,
            segment,
            payload: segment,
            segments: 1,
            sum: payload_sum(frame, headers),
            last: 0,
            ended: false,
            same_id: None,
        })
    }

    /// Adds a frame whose checksums hold, if it follows; its payload then belongs behind the others'. `room` is how much
    /// payload there is room for.
    pub fn append(&mut self, frame: &[u8], headers: &Headers, room: usize) -> bool {
        let Some(data) = candidate(frame, headers).filter(|data| self.follows(frame, headers, *data)) else {
            return false;
        };
        if data > room {
            return false;
        }
        if self.headers.l3 == L3::Ipv4 && self.same_id.is_none() {
            self.same_id = Some(id(frame, headers) == id(&self.header, &self.headers));
        }
        let sum = payload_sum(frame, headers);
        self.sum = self.sum.and(if self.payload % 2 == 1 { sum.odd() } else { sum });
        self.payload += data;
        self.segments += 1;
        self.last = flags(frame, headers) & (FIN | PSH);
        self.ended = self.last != 0 || data < self.segment;
        true
    }

    fn follows(&self, frame: &[u8], headers: &Headers, data: usize) -> bool {
        let (l3, l4) = (usize::from(self.headers.l3_at), usize::from(self.headers.l4_at));
        let same = |from: usize, to: usize| frame.get(from..to) == self.header.get(from..to);
        if self.ended
            || data > self.segment
            || (headers.l3_at, headers.l4_at, headers.payload_at)
                != (self.headers.l3_at, self.headers.l4_at, self.headers.payload_at)
            || self.header_bytes - l3 + self.payload + data > PACKET_MAX
        {
            return false;
        }
        let sequence = be32(&self.header, l4 + 4).wrapping_add(self.payload as u32);
        let ip = match self.headers.l3 {
            L3::Ipv4 => {
                same(l3, l3 + 2) && same(l3 + 6, l3 + 10) && same(l3 + 12, l4) && self.id_follows(frame, headers)
            }
            _ => same(l3, l3 + 4) && same(l3 + 6, l4),
        };
        let (ours, theirs) = (flags(&self.header, &self.headers), flags(frame, headers));
        same(0, l3)
            && ip
            && same(l4, l4 + 4)
            && be32(frame, l4 + 4) == sequence
            && same(l4 + 8, l4 + 13)
            && (ours ^ theirs) & !(FIN | PSH | CWR) == 0
            && theirs & CWR == 0
            && same(l4 + 14, l4 + 16)
            && same(l4 + 18, self.header_bytes)
    }

    fn id_follows(&self, frame: &[u8], headers: &Headers) -> bool {
        let (first, this) = (id(&self.header, &self.headers), id(frame, headers));
        let dont_fragment = self.header.get(usize::from(self.headers.l3_at) + 6).is_some_and(|b| b & 0x40 != 0);
        let counts = this == first.wrapping_add(self.segments as u16);
        let stays = this == first && dont_fragment;
        self.same_id.map_or(counts || stays, |same| if same { stays } else { counts })
    }

    /// Whether nothing more can follow.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// How many there are.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Payload bytes of each, the last perhaps fewer.
    pub fn segment(&self) -> usize {
        self.segment
    }

    /// Payload bytes of all.
    pub fn payload(&self) -> usize {
        self.payload
    }

    /// The headers of the whole: lengths, flags and checksums are those of one packet.
    pub fn header(&mut self) -> &[u8] {
        let (l3, l4) = (usize::from(self.headers.l3_at), usize::from(self.headers.l4_at));
        let l4_length = self.header_bytes - l4 + self.payload;
        let (at, length) = if self.headers.l3 == L3::Ipv4 { (l3 + 2, 20 + l4_length) } else { (l3 + 4, l4_length) };
        store(&mut self.header, at, (length as u16).to_be_bytes());
        fill_ipv4(&mut self.header, &self.headers);
        if let Some(flags) = self.header.get_mut(l4 + 13) {
            *flags |= self.last;
        }
        store(&mut self.header, l4 + 16, [0; 2]);
        let bytes = self.header.get(l4..self.header_bytes).map(Sum::of).unwrap_or_default();
        let sum = bytes.and(self.sum).and(pseudo(&self.header, &self.headers, l4_length));
        store(&mut self.header, l4 + 16, sum.checksum());
        self.header.get(..self.header_bytes).unwrap_or(&[])
    }
}
