//! The internet checksum (RFC 1071) of IPv4, TCP, UDP and ICMP.
//!
//! Sums are made in the machine's own byte order, 32 bytes at a time in lanes of 64 bits that cannot overflow, and turned
//! round once at the end: a one's complement sum does not mind (RFC 1071, 2(B)), and the compiler makes vectors of it.

use super::{IPV4_HEADER, UDP_HEADER, array, be16, field16, put};
use crate::abi::ptype::{L3, L4};
use crate::frame::Parsed;
use crate::steer::protocol;

/// What the checksums of a frame said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integrity {
    /// That of the IPv4 header. `None` where there is none.
    pub l3: Option<bool>,
    /// That of TCP, UDP or ICMP. `None` where there is none or nobody can tell: a fragment, a packet cut short, a routing
    /// header that may have changed the address, UDP over IPv4 without a checksum.
    pub l4: Option<bool>,
}

impl Integrity {
    /// The completion must say `csum_ip_err`.
    pub fn l3_error(&self) -> bool {
        self.l3 == Some(false)
    }

    /// The completion must say `csum_l4_err`: without it the driver vouches for every TCP, UDP, ICMP and SCTP packet
    /// (`gve_rx_skb_csum`, gve_rx_dqo.c), so what nobody checked counts as wrong, and the guest's stack looks itself.
    pub fn l4_error(&self) -> bool {
        self.l4 != Some(true)
    }
}

/// A one's complement sum in the making, in the machine's byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes that stand at an even offset. There is room for 2^32 bytes and more.
    pub fn bytes(self, bytes: &[u8]) -> Sum {
        let (blocks, rest) = bytes.as_chunks::<32>();
        let mut lanes = [0u64; 8];
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let (pairs, odd) = rest.as_chunks::<2>();
        let tail: u64 = pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair))).sum();
        let last = odd.first().map_or(0, |byte| u64::from(u16::from_ne_bytes([*byte, 0])));
        Sum(self.0 + lanes.into_iter().sum::<u64>() + tail + last)
    }

    /// Adds a field of 16 bits.
    pub fn field(self, value: u16) -> Sum {
        Sum(self.0 + u64::from(value.to_be()))
    }

    /// Adds another sum, of bytes at an even offset.
    pub fn sum(self, other: Sum) -> Sum {
        Sum(self.0 + u64::from(other.folded()))
    }

    /// Adds another sum, of bytes at an odd offset: RFC 1071, 2(B).
    pub fn sum_at_odd(self, other: Sum) -> Sum {
        Sum(self.0 + u64::from(other.folded().swap_bytes()))
    }

    /// What must be added to this one to make all ones.
    pub fn complement(self) -> Sum {
        Sum(u64::from(!self.folded()))
    }

    fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    /// The checksum, as its bytes go in the header.
    pub fn checksum(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// The sum of something with its checksum in it is all ones.
    pub fn holds(self) -> bool {
        self.folded() == 0xffff
    }
}

/// The pseudo header of TCP, UDP and ICMPv6. `None` where the frame is not IP.
pub(super) fn pseudo_header(frame: &[u8], parsed: &Parsed, protocol: u8, length: usize) -> Option<Sum> {
    let at = parsed.l3_at;
    let addresses = match parsed.l3 {
        L3::Ipv4 => frame.get(at + 12..at + 20)?,
        L3::Ipv6 => frame.get(at + 8..at + 40)?,
        L3::Unknown | L3::Other => return None,
    };
    // The length has 32 bits over IPv6 (RFC 8200, 8.1).
    let sum = Sum::default().bytes(addresses).field((length >> 16) as u16).field(length as u16);
    Some(sum.field(u16::from(protocol)))
}

/// The bytes that a transport checksum covers. UDP says itself how many; `None` where that cannot be.
fn covered<'a>(frame: &'a [u8], parsed: &Parsed) -> Option<&'a [u8]> {
    let packet = frame.get(parsed.l4_at..parsed.end)?;
    if parsed.l4 != L4::Udp {
        return Some(packet);
    }
    match usize::from(be16(packet, 4)?) {
        // RFC 2675, and Linux without it (`__udp6_lib_rcv`, net/ipv6/udp.c): as long as the packet.
        0 if parsed.l3 == L3::Ipv6 => Some(packet),
        length if length >= UDP_HEADER => packet.get(..length),
        _ => None,
    }
}

/// Where a packet has its transport checksum, from the start of that header.
fn place(parsed: &Parsed) -> Option<usize> {
    match parsed.l4 {
        L4::Tcp => Some(16),
        L4::Udp => Some(6),
        _ => None,
    }
}

/// Computes and stores the checksums of IPv4, TCP and UDP. What is there before does not count: neither rubbish nor the
/// sum of the pseudo header that Linux leaves. Only a packet with a routing header needs that, for it alone knows the
/// address. Of a fragment or a packet cut short only the IPv4 header gets one.
pub fn fill(frame: &mut [u8], parsed: &Parsed) {
    fill_l3(frame, parsed);
    let Some(at) = place(parsed).map(|offset| parsed.l4_at + offset).filter(|_| parsed.complete) else { return };
    if !parsed.rerouted {
        put(frame, at, [0, 0]);
    }
    let Some(bytes) = covered(frame, parsed) else { return };
    let pseudo = match parsed.rerouted {
        true => Some(Sum::default()),
        false => pseudo_header(frame, parsed, parsed.protocol, bytes.len()),
    };
    let Some(pseudo) = pseudo else { return };
    let mut sum = pseudo.bytes(bytes).checksum();
    // RFC 768: no sum is written as all zeros, because that means that there is none.
    if parsed.l4 == L4::Udp && sum == [0, 0] {
        sum = [0xff, 0xff];
    }
    put(frame, at, sum);
}

/// Computes and stores the checksum of an IPv4 header, if there is one.
pub(super) fn fill_l3(frame: &mut [u8], parsed: &Parsed) {
    if parsed.l3 != L3::Ipv4 {
        return;
    }
    put(frame, parsed.l3_at + 10, [0, 0]);
    if let Some(header) = ipv4_header(frame, parsed) {
        let sum = Sum::default().bytes(header).checksum();
        put(frame, parsed.l3_at + 10, sum);
    }
}

fn ipv4_header<'a>(frame: &'a [u8], parsed: &Parsed) -> Option<&'a [u8]> {
    frame.get(parsed.l3_at..parsed.l4_at).filter(|header| header.len() >= IPV4_HEADER)
}

/// Checks the checksums of IPv4, TCP, UDP and ICMP.
pub fn verify(frame: &[u8], parsed: &Parsed) -> Integrity {
    let l3 = match parsed.l3 {
        L3::Ipv4 => ipv4_header(frame, parsed).map(|header| Sum::default().bytes(header).holds()),
        _ => None,
    };
    Integrity { l3, l4: verify_l4(frame, parsed) }
}

fn verify_l4(frame: &[u8], parsed: &Parsed) -> Option<bool> {
    if !parsed.complete || parsed.fragment || parsed.ipv6_extra {
        return None;
    }
    let pseudo = |protocol, length| pseudo_header(frame, parsed, protocol, length);
    match (parsed.l4, parsed.l3) {
        (L4::Tcp | L4::Udp, _) => {
            let Some(bytes) = covered(frame, parsed) else { return Some(false) };
            if parsed.l4 == L4::Udp && array(bytes, 6) == Some(&[0, 0]) {
                // RFC 8200, 8.1: over IPv6 there must be one.
                return (parsed.l3 == L3::Ipv6).then_some(false);
            }
            let protocol = if parsed.l4 == L4::Tcp { protocol::TCP } else { protocol::UDP };
            Some(pseudo(protocol, bytes.len())?.bytes(bytes).holds())
        }
        (L4::Icmp, L3::Ipv4) => Some(Sum::default().bytes(covered(frame, parsed)?).holds()),
        (L4::Icmp, L3::Ipv6) => {
            let bytes = covered(frame, parsed)?;
            Some(pseudo(parsed.protocol, bytes.len())?.bytes(bytes).holds())
        }
        _ => None,
    }
}

/// The sum of a TCP packet's payload, from its checksum and header alone. Only of a packet whose checksum holds.
pub(super) fn payload_sum(frame: &[u8], parsed: &Parsed) -> Option<Sum> {
    let length = parsed.end.checked_sub(parsed.l4_at)?;
    let header = frame.get(parsed.l4_at..parsed.payload_at)?;
    Some(pseudo_header(frame, parsed, protocol::TCP, length)?.bytes(header).complement())
}

/// Stores a TCP checksum for a payload whose sum is known.
pub(super) fn fill_tcp(frame: &mut [u8], parsed: &Parsed, payload: Sum) {
    put(frame, parsed.l4_at + 16, [0, 0]);
    let length = field16(frame.len().saturating_sub(parsed.l4_at));
    let Some(header) = frame.get(parsed.l4_at..parsed.payload_at) else { return };
    let Some(pseudo) = pseudo_header(frame, parsed, protocol::TCP, usize::from(length)) else { return };
    let sum = pseudo.bytes(header).sum(payload).checksum();
    put(frame, parsed.l4_at + 16, sum);
}

#[cfg(test)]
#[path = "checksum_tests.rs"]
mod tests;
