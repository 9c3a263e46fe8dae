//! Where the headers of a frame are.
//!
//! It never fails: what it does not understand is a frame with fewer layers. What a header claims and the frame does not
//! hold is cut to what is there, and [`Parsed::complete`] says that it was.

use super::{IPV4_HEADER, IPV6_HEADER, TCP_HEADER, UDP_HEADER, array, be16};
use crate::abi::ptype::{self, L3, L4};
use crate::steer::{Addresses, FlowKey, protocol};

/// VLAN tags that are looked through: one of the provider's and one of the customer's.
const TAGS_MAX: u8 = 2;
/// IPv6 extension headers that are looked through. Linux stops at 8 options of each kind by default
/// (`IP6_DEFAULT_MAX_HBH_OPTS_CNT`, include/net/ipv6.h); a chain of more headers than this is nobody's traffic.
const EXTENSIONS_MAX: usize = 8;

/// EtherTypes (IEEE 802).
mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
    pub const VLAN: u16 = 0x8100;
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// IP protocol numbers that only parsing knows (IANA).
mod next {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION: u8 = 60;
}

/// A frame's layout: offsets in bytes from its first byte. `l3_at <= l4_at <= payload_at <= end <=` the frame's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// What the frame carries. [`L3::Other`] where it is not IP, or says it is and is not.
    pub l3: L3,
    /// What the packet carries; [`L4::Unknown`] in a fragment, [`L4::Other`] where the header is broken or cut off.
    pub l4: L4,
    /// IP's number for what is at `l4_at`, behind all extension headers. 0 where there is no IP.
    pub protocol: u8,
    /// VLAN tags.
    pub tags: u8,
    /// Where the network layer's header is.
    pub l3_at: usize,
    /// Where the transport layer's header is; what follows IP's headers where there is none that is known.
    pub l4_at: usize,
    /// Where the payload is: behind the header of TCP and UDP, else `l4_at`.
    pub payload_at: usize,
    /// Where the packet ends: at the length IP gives, so Ethernet's padding is not in it, but never behind the frame.
    pub end: usize,
    /// It is one fragment of a packet.
    pub fragment: bool,
    /// It is a fragment that does not begin with the transport layer's header.
    pub later_fragment: bool,
    /// IP's length is a possible one and as much is there. `false` also where that field is 0, as a TSO frame of over
    /// 64 KiB has it; `end` is then the frame's.
    pub complete: bool,
    /// There is an IPv6 routing or destination options header (`ipv6_ex_add`, `struct gve_rx_compl_desc_dqo` in
    /// gve_desc_dqo.h): the addresses that the checksum is made of may be others than those of the IPv6 header.
    pub ipv6_extra: bool,
    /// There is an IPv6 routing header with segments left: the checksum is made of the last address, not of this one.
    pub rerouted: bool,
}

impl Parsed {
    /// Looks at a frame.
    pub fn of(frame: &[u8]) -> Parsed {
        let mut at = 12;
        let mut tags = 0;
        let mut kind = be16(frame, at);
        while tags < TAGS_MAX && matches!(kind, Some(ethertype::VLAN | ethertype::SERVICE_VLAN)) {
            at += 4;
            tags += 1;
            kind = be16(frame, at);
        }
        let l3_at = (at + 2).min(frame.len());
        let plain = Parsed {
            l3: L3::Other,
            l4: L4::Unknown,
            protocol: 0,
            tags,
            l3_at,
            l4_at: l3_at,
            payload_at: l3_at,
            end: frame.len(),
            fragment: false,
            later_fragment: false,
            complete: false,
            ipv6_extra: false,
            rerouted: false,
        };
        match kind {
            Some(ethertype::IPV4) => plain.ipv4(frame).unwrap_or(plain),
            Some(ethertype::IPV6) => plain.ipv6(frame).unwrap_or(plain),
            _ => plain,
        }
    }

    fn ipv4(self, frame: &[u8]) -> Option<Parsed> {
        let header: &[u8; IPV4_HEADER] = array(frame, self.l3_at)?;
        let length = usize::from(header[0] & 15) * 4;
        let l4_at = self.l3_at + length;
        if header[0] >> 4 != 4 || length < IPV4_HEADER || l4_at > frame.len() {
            return None;
        }
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        let parsed = Parsed {
            l3: L3::Ipv4,
            protocol: header[9],
            l4_at,
            payload_at: l4_at,
            // More fragments, or an offset.
            fragment: fragment & 0x3fff != 0,
            later_fragment: fragment & 0x1fff != 0,
            ..self
        };
        Some(parsed.ending(frame, total, self.l3_at + total).transport(frame))
    }

    fn ipv6(self, frame: &[u8]) -> Option<Parsed> {
        let header: &[u8; IPV6_HEADER] = array(frame, self.l3_at)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let l4_at = self.l3_at + IPV6_HEADER;
        let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let parsed = Parsed { l3: L3::Ipv6, protocol: header[6], l4_at, payload_at: l4_at, ..self };
        Some(parsed.ending(frame, payload, l4_at + payload).extensions(frame).transport(frame))
    }

    /// Takes IP's length in: the field itself, and where the packet ends by it.
    fn ending(self, frame: &[u8], field: usize, end: usize) -> Parsed {
        if field == 0 {
            return self;
        }
        let complete = self.l4_at <= end && end <= frame.len();
        Parsed { end: end.clamp(self.l4_at, frame.len()), complete, ..self }
    }

    /// Steps over extension headers. It stops before what is not there in whole, whose number stays in `protocol`.
    fn extensions(mut self, frame: &[u8]) -> Parsed {
        let packet = frame.get(..self.end).unwrap_or(frame);
        for _ in 0..EXTENSIONS_MAX {
            let Some(&[following, length, high, low]) = array::<4>(packet, self.l4_at) else { break };
            let bytes = match self.protocol {
                next::HOP_BY_HOP | next::ROUTING | next::DESTINATION => 8 + usize::from(length) * 8,
                next::FRAGMENT => 8,
                _ => break,
            };
            if self.l4_at + bytes > packet.len() {
                break;
            }
            match self.protocol {
                next::ROUTING => {
                    self.ipv6_extra = true;
                    self.rerouted |= low != 0;
                }
                next::DESTINATION => self.ipv6_extra = true,
                next::FRAGMENT => {
                    let offset = u16::from_be_bytes([high, low]);
                    // RFC 6946: a fragment that is the whole packet is none.
                    self.fragment |= offset & 0xfff9 != 0;
                    self.later_fragment |= offset & 0xfff8 != 0;
                }
                _ => {}
            }
            self.protocol = following;
            self.l4_at += bytes;
            self.payload_at = self.l4_at;
            // What follows in a later fragment is no header.
            if self.later_fragment {
                break;
            }
        }
        self
    }

    fn transport(self, frame: &[u8]) -> Parsed {
        let packet = frame.get(..self.end).unwrap_or(frame);
        let found = |l4, header: usize| Parsed { l4, payload_at: self.l4_at + header, ..self };
        if self.fragment {
            return self;
        }
        let room = packet.len().saturating_sub(self.l4_at);
        match (self.protocol, self.l3) {
            (protocol::TCP, _) => {
                let header = array::<TCP_HEADER>(packet, self.l4_at).map(|tcp| usize::from(tcp[12] >> 4) * 4);
                match header {
                    Some(header) if (TCP_HEADER..=room).contains(&header) => found(L4::Tcp, header),
                    _ => found(L4::Other, 0),
                }
            }
            (protocol::UDP, _) if room >= UDP_HEADER => found(L4::Udp, UDP_HEADER),
            (next::ICMP, L3::Ipv4) | (next::ICMPV6, L3::Ipv6) => found(L4::Icmp, 0),
            (protocol::SCTP, _) => found(L4::Sctp, 0),
            _ => found(L4::Other, 0),
        }
    }

    /// What steering looks at; `None` where the frame is not IP. `frame` is the one that was looked at.
    pub fn flow_key<'a>(&self, frame: &'a [u8]) -> Option<FlowKey<'a>> {
        let at = self.l3_at;
        let (addresses, traffic_class) = match self.l3 {
            L3::Ipv4 => {
                let (source, destination) = (array(frame, at + 12)?, array(frame, at + 16)?);
                (Addresses::V4 { source, destination }, *frame.get(at + 1)?)
            }
            L3::Ipv6 => {
                let (source, destination) = (array(frame, at + 8)?, array(frame, at + 24)?);
                (Addresses::V6 { source, destination }, (be16(frame, at)? >> 4) as u8)
            }
            L3::Unknown | L3::Other => return None,
        };
        // Where the ports are, or the SPI: RFC 4302 has it at 4, RFC 4303 at 0.
        let ports_at = match self.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ESP => Some(self.l4_at),
            protocol::AH => Some(self.l4_at + 4),
            _ => None,
        };
        let packet = frame.get(..self.end)?;
        let ports = ports_at.filter(|_| !self.later_fragment).and_then(|at| array(packet, at)).copied();
        Some(FlowKey { addresses, protocol: self.protocol, traffic_class, ports })
    }

    /// Bytes of headers that header split puts apart; `None` where it leaves the frame in one piece: all that is not TCP
    /// or UDP, and fragments.
    pub fn split_at(&self) -> Option<usize> {
        matches!(self.l4, L4::Tcp | L4::Udp).then_some(self.payload_at)
    }

    /// The packet's type for the completion.
    pub fn packet_type(&self) -> u16 {
        ptype::packet_type(self.l3, self.l4)
    }

    /// Bytes behind the transport layer's header, padding left out.
    pub fn payload_len(&self) -> usize {
        self.end.saturating_sub(self.payload_at)
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
