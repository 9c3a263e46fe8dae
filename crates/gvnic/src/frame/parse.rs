//! Where the headers of a frame are.
//!
//! Every frame has an answer: as many layers as make sense. A tunnel is what its outer headers say. Nothing is allocated, and
//! the work is bounded by [`TAGS`] and [`EXTENSIONS`].

use super::ETHERNET;
use crate::abi::ptype::{L3, L4, packet_type};
use crate::steer::{Addresses, FlowKey, protocol};

/// VLAN tags that are passed over.
const TAGS: usize = 2;
/// IPv6 extension headers that are passed over; a packet with more has an unknown protocol.
const EXTENSIONS: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q and 802.1ad.
const ETHERTYPE_TAGS: [u16; 2] = [0x8100, 0x88a8];
/// IANA numbers: hop-by-hop options, routing, fragment and destination options; ICMP for both families.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The headers of a frame. Offsets are within it: whoever has another frame checks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// [`L3::Other`] also when an IP header makes no sense; [`L3::Unknown`] for what is shorter than Ethernet.
    pub l3: L3,
    /// [`L4::Unknown`] of fragments and of what is no IP; [`L4::Other`] also when a TCP or UDP header makes no sense.
    pub l4: L4,
    /// The IP header, or what is behind Ethernet and its tags.
    pub l3_at: u16,
    /// What is behind the IP header and its extensions.
    pub l4_at: u16,
    /// What is behind the TCP or UDP header, or the same as `l4_at`.
    pub payload_at: u16,
    /// End of the IP packet; what is behind is padding.
    pub end: u32,
    /// IP protocol behind all extension headers.
    pub protocol: u8,
    /// Type of service, or traffic class.
    pub traffic_class: u8,
    /// Whether it is a piece of a packet.
    pub fragment: bool,
    /// Whether there is a routing header or destination options (`ipv6_ex_add`, gve_desc_dqo.h).
    pub extended: bool,
    /// Whether there is a routing header: the checksum is about another destination than the IP header's.
    pub routed: bool,
}

impl Headers {
    const NONE: Headers = Headers {
        l3: L3::Unknown,
        l4: L4::Unknown,
        l3_at: 0,
        l4_at: 0,
        payload_at: 0,
        end: 0,
        protocol: 0,
        traffic_class: 0,
        fragment: false,
        extended: false,
        routed: false,
    };

    /// The number of what it is.
    pub fn packet_type(&self) -> u16 {
        packet_type(self.l3, self.l4)
    }

    /// What steering looks at; `None` of what is no IP packet. Fragments have no ports, the first as little as the others, so
    /// that one datagram goes one way.
    pub fn flow<'a>(&self, frame: &'a [u8]) -> Option<FlowKey<'a>> {
        let header = frame.get(usize::from(self.l3_at)..)?;
        let addresses = match self.l3 {
            L3::Ipv4 => Addresses::V4 {
                source: header.get(12..)?.first_chunk()?,
                destination: header.get(16..)?.first_chunk()?,
            },
            L3::Ipv6 => {
                Addresses::V6 { source: header.get(8..)?.first_chunk()?, destination: header.get(24..)?.first_chunk()? }
            }
            _ => return None,
        };
        let offset = match self.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ESP => Some(0),
            protocol::AH => Some(4),
            _ => None,
        };
        let l4 = frame.get(usize::from(self.l4_at)..self.end as usize);
        let ports = offset.filter(|_| !self.fragment).and_then(|at| l4?.get(at..)?.first_chunk().copied());
        Some(FlowKey { addresses, protocol: self.protocol, traffic_class: self.traffic_class, ports })
    }
}

/// Finds the headers of a frame.
pub fn parse(frame: &[u8]) -> Headers {
    find(frame, false)
}

/// Finds the headers of a packet that is still to be segmented: it ends where the bytes end, whatever its length field says,
/// which is too small for some.
pub fn parse_whole(packet: &[u8]) -> Headers {
    find(packet, true)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

fn find(frame: &[u8], whole: bool) -> Headers {
    // Offsets are 16 bits wide; no header is that long.
    let Some(mut ethertype) = be16(frame, 12) else { return Headers::NONE };
    let mut at = ETHERNET;
    for _ in 0..TAGS {
        match be16(frame, at + 2) {
            Some(inner) if ETHERTYPE_TAGS.contains(&ethertype) => {
                ethertype = inner;
                at += 4;
            }
            _ => break,
        }
    }
    let other = Headers {
        l3: L3::Other,
        l3_at: at as u16,
        l4_at: at as u16,
        payload_at: at as u16,
        end: frame.len() as u32,
        ..Headers::NONE
    };
    let found = match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, at, whole, other),
        ETHERTYPE_IPV6 => ipv6(frame, at, whole, other),
        _ => None,
    };
    found.map_or(other, |headers| l4(frame, headers))
}

/// The end of a packet of `length` bytes from `at`, if they are there.
fn end(frame: &[u8], at: usize, length: usize, whole: bool) -> Option<u32> {
    let end = if whole { frame.len() } else { at + length };
    (end <= frame.len()).then_some(u32::try_from(end).ok()?)
}

fn ipv4(frame: &[u8], at: usize, whole: bool, found: Headers) -> Option<Headers> {
    let header: &[u8; 20] = frame.get(at..)?.first_chunk()?;
    let [version, traffic_class, length_high, length_low, _, _, flags, offset, _, protocol, ..] = *header;
    let header_bytes = usize::from(version & 0xf) * 4;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let end = end(frame, at, length, whole)?;
    if version >> 4 != 4 || header_bytes < 20 || at + header_bytes > end as usize {
        return None;
    }
    let fragment = u16::from_be_bytes([flags, offset]) & 0x3fff != 0;
    let l4_at = (at + header_bytes) as u16;
    Some(Headers { l3: L3::Ipv4, l4_at, payload_at: l4_at, end, protocol, traffic_class, fragment, ..found })
}

fn ipv6(frame: &[u8], at: usize, whole: bool, found: Headers) -> Option<Headers> {
    let header: &[u8; 40] = frame.get(at..)?.first_chunk()?;
    let [first, second, _, _, length_high, length_low, mut next, ..] = *header;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let end = end(frame, at, 40 + length, whole)?;
    if first >> 4 != 6 {
        return None;
    }
    let mut headers = Headers { l3: L3::Ipv6, end, traffic_class: first << 4 | second >> 4, ..found };
    let mut l4_at = at + 40;
    for _ in 0..EXTENSIONS {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT => {
                let rest = frame.get(l4_at..end as usize)?;
                let [following, units, high, low, ..] = *rest.first_chunk::<8>()?;
                headers.extended |= matches!(next, ROUTING | DESTINATION);
                headers.routed |= next == ROUTING;
                let fragment = next == FRAGMENT;
                headers.fragment |= fragment && u16::from_be_bytes([high, low]) & 0xfff9 != 0;
                let length = if fragment { 8 } else { (usize::from(units) + 1) * 8 };
                if length > rest.len() {
                    return None;
                }
                next = following;
                length
            }
            _ => break,
        };
        l4_at += length;
        if headers.fragment {
            break;
        }
    }
    (headers.l4_at, headers.payload_at) = (l4_at as u16, l4_at as u16);
    headers.protocol = next;
    Some(headers)
}

fn l4(frame: &[u8], mut headers: Headers) -> Headers {
    if headers.fragment {
        return headers;
    }
    let at = usize::from(headers.l4_at);
    let bytes = frame.get(at..headers.end as usize).unwrap_or(&[]);
    headers.l4 = L4::Other;
    match headers.protocol {
        protocol::TCP => {
            let length = bytes.get(12).map_or(0, |b| usize::from(b >> 4) * 4);
            if length >= 20 && length <= bytes.len() {
                headers.l4 = L4::Tcp;
                headers.payload_at = (at + length) as u16;
            }
        }
        protocol::UDP if bytes.len() >= 8 => {
            headers.l4 = L4::Udp;
            headers.payload_at = (at + 8) as u16;
        }
        protocol::SCTP => headers.l4 = L4::Sctp,
        ICMP | ICMPV6 => headers.l4 = L4::Icmp,
        _ => {}
    }
    headers
}
