//! The Internet checksum (RFC 1071) of headers and payloads.
//!
//! Sums are kept in the byte order of the machine, which the arithmetic allows, and are folded once at the end: the loop over
//! a payload is nothing but additions that the compiler turns into vectors.

use super::Headers;
use crate::abi::dqo::rx::Integrity;
use crate::abi::ptype::{L3, L4};

/// A one's-complement sum that is not folded yet. Never near overflow: it grows by less than 2^32 for every four bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Of bytes; an odd last one counts as if a zero followed.
    pub fn of(bytes: &[u8]) -> Sum {
        // 64 bits and a carry each; four sums, so that none waits for another.
        let (wide, rest) = bytes.as_chunks::<32>();
        let (mut a, mut b, mut c, mut d) = (0u128, 0u128, 0u128, 0u128);
        for chunk in wide {
            let ([first, second, third, fourth], _) = chunk.as_chunks::<8>() else { break };
            a += u128::from(u64::from_ne_bytes(*first));
            b += u128::from(u64::from_ne_bytes(*second));
            c += u128::from(u64::from_ne_bytes(*third));
            d += u128::from(u64::from_ne_bytes(*fourth));
        }
        let all = a + b + c + d;
        let [low, high] = [all as u64, (all >> 64) as u64];
        let (words, rest) = rest.as_chunks::<4>();
        let mut sum = (low & 0xffff_ffff) + (low >> 32) + high;
        sum += words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        Sum(sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// Of a 16-bit number as it is on the wire.
    pub fn number(n: u16) -> Sum {
        Sum(u64::from(n.to_be()))
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Sum) -> Sum {
        Sum(self.0 + other.0)
    }

    /// What bytes add when they begin at an odd offset.
    #[must_use]
    pub fn odd(self) -> Sum {
        Sum(u64::from(self.folded().swap_bytes()))
    }

    /// Its negative: together they sum up to nothing.
    #[must_use]
    pub fn negative(self) -> Sum {
        Sum(u64::from(!self.folded()))
    }

    fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // Fits by now.
        sum as u16
    }

    /// Whether bytes that include their checksum are sound.
    pub fn holds(self) -> bool {
        self.folded() == 0xffff
    }

    /// The checksum, as on the wire.
    pub fn checksum(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }
}

/// What addresses, protocol and length add to the checksum of TCP and UDP. `length` counts from the TCP or UDP header.
pub fn pseudo(frame: &[u8], headers: &Headers, length: usize) -> Sum {
    let l3 = usize::from(headers.l3_at);
    let addresses = match headers.l3 {
        L3::Ipv4 => frame.get(l3 + 12..l3 + 20),
        L3::Ipv6 => frame.get(l3 + 8..l3 + 40),
        _ => None,
    };
    let length = length as u64;
    let [high, low] = [(length >> 16) as u16, length as u16];
    Sum::of(addresses.unwrap_or(&[]))
        .and(Sum::number(u16::from(headers.protocol)))
        .and(Sum::number(high))
        .and(Sum::number(low))
}

/// Where TCP or UDP ends: UDP tells itself. `None` when it tells nonsense.
fn l4_end(frame: &[u8], headers: &Headers) -> Option<usize> {
    let (at, end) = (usize::from(headers.l4_at), headers.end as usize);
    if headers.l4 == L4::Tcp {
        return Some(end);
    }
    let length = usize::from(u16::from_be_bytes(*frame.get(at + 4..)?.first_chunk()?));
    (length >= 8 && at + length <= end).then_some(at + length)
}

/// Whether a frame's checksums are right.
///
/// What the device cannot tell is not *processed*, and the guest looks for itself: other protocols, fragments, and IPv6
/// with a routing header, whose checksum is about another destination than the header's.
pub fn verify(frame: &[u8], headers: &Headers) -> Integrity {
    if !matches!(headers.l4, L4::Tcp | L4::Udp) || headers.extended {
        return Integrity::default();
    }
    let l3 = usize::from(headers.l3_at);
    let l3_error = headers.l3 == L3::Ipv4
        && !frame.get(l3..usize::from(headers.l4_at)).is_some_and(|header| Sum::of(header).holds());
    Integrity { processed: true, l3_error, l4_error: !l4_holds(frame, headers) }
}

fn l4_holds(frame: &[u8], headers: &Headers) -> bool {
    let at = usize::from(headers.l4_at);
    let Some(bytes) = l4_end(frame, headers).and_then(|end| frame.get(at..end)) else { return false };
    if headers.l4 == L4::Udp && bytes.get(6..8) == Some(&[0, 0]) {
        // No checksum: allowed for IPv4 (RFC 768), for IPv6 it is the receiver's to know (RFC 6936).
        return headers.l3 == L3::Ipv4;
    }
    Sum::of(bytes).and(pseudo(frame, headers, bytes.len())).holds()
}

/// Fills in the TCP or UDP checksum, and that of an IPv4 header, which the driver's has already, but costs nothing.
/// `false`, and nothing changed, for a frame that has none.
///
/// What is in the place of the checksum does not count: neither rubbish nor the sum of addresses that Linux leaves there. Only
/// a packet with a routing header needs that sum, for there alone is the address it will have in the end.
pub fn fill(frame: &mut [u8], headers: &Headers) -> bool {
    let at = usize::from(headers.l4_at);
    let place = match headers.l4 {
        L4::Tcp => at + 16,
        L4::Udp => at + 6,
        _ => return false,
    };
    let Some(end) = l4_end(frame, headers) else { return false };
    let Some(field) = frame.get_mut(place..place + 2) else { return false };
    if !headers.routed {
        field.fill(0);
    }
    let Some(bytes) = frame.get(at..end) else { return false };
    let addresses = if headers.routed { Sum::default() } else { pseudo(frame, headers, bytes.len()) };
    let sum = Sum::of(bytes).and(addresses);
    store(frame, place, l4_checksum(headers.l4, sum));
    fill_ipv4(frame, headers);
    true
}

/// Fills in the checksum of an IPv4 header.
pub(super) fn fill_ipv4(frame: &mut [u8], headers: &Headers) {
    let l3 = usize::from(headers.l3_at);
    if headers.l3 != L3::Ipv4 {
        return;
    }
    store(frame, l3 + 10, [0; 2]);
    let sum = frame.get(l3..usize::from(headers.l4_at)).map(Sum::of);
    store(frame, l3 + 10, sum.unwrap_or_default().checksum());
}

/// A UDP checksum of 0 would mean that there is none.
pub(super) fn l4_checksum(l4: L4, sum: Sum) -> [u8; 2] {
    match sum.checksum() {
        [0, 0] if l4 == L4::Udp => [0xff, 0xff],
        checksum => checksum,
    }
}

pub(super) fn store<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::parse;
    use crate::frame::segment::{Cut, Uncuttable};

    /// RFC 1071, literally.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn every_length_sums_as_the_rfc_says() {
        let bytes: Vec<u8> = (0..9000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
        for length in (0..300).chain(8990..=9000) {
            assert_eq!(Sum::of(&bytes[..length]).checksum(), slow(&bytes[..length]).to_be_bytes(), "{length}");
        }
        assert_eq!(Sum::of(&[0xff; 8192]).checksum(), [0, 0]);
    }

    #[test]
    fn sums_are_put_together() {
        let bytes: Vec<u8> = (0..=255).collect();
        for cut in 0..=256 {
            let (a, b) = bytes.split_at(cut);
            let second = if cut % 2 == 1 { Sum::of(b).odd() } else { Sum::of(b) };
            assert_eq!(Sum::of(a).and(second).checksum(), Sum::of(&bytes).checksum(), "{cut}");
        }
        assert!(Sum::of(&bytes).and(Sum::of(&bytes).negative()).holds());
    }

    #[test]
    fn a_routed_packet_is_summed_with_the_sum_that_the_guest_left() {
        // UDP to where the routing header says in the end.
        let last = [7_u8; 16];
        let udp = [0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4];
        let routing = [&[17, 2, 2, 1, 0, 0, 0, 0][..], &last].concat();
        let header = [0x60, 0, 0, 0, 0, (routing.len() + udp.len()) as u8, 43, 64];
        let mut frame = [&[2; 12][..], &[0x86, 0xdd], &header, &[3; 16], &[4; 16], &routing, &udp].concat();
        let headers = parse(&frame);
        assert!(headers.routed && headers.l4 == L4::Udp);
        let addresses = [&[3; 16][..], &last, &[0, 0, 0, 12, 0, 0, 0, 17]].concat();
        let right = slow(&[&addresses[..], &udp].concat());
        let at = usize::from(headers.l4_at) + 6;
        store(&mut frame, at, (!slow(&addresses)).to_be_bytes());
        assert!(fill(&mut frame, &headers));
        assert_eq!(frame[at..at + 2], right.to_be_bytes());
        assert_eq!(verify(&frame, &headers), Integrity::default(), "not with the address of the header");
        let cut = Cut::new(&frame, &headers, usize::from(headers.payload_at), 2);
        assert_eq!(cut.err(), Some(Uncuttable::Routed));
    }

    #[test]
    fn udp_lengths_that_cannot_be_are_errors() {
        let udp = [0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4];
        let header = [0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let mut frame = [&[2; 12][..], &[8, 0], &header, &udp].concat();
        let headers = parse(&frame);
        let at = usize::from(headers.l4_at);
        assert!(fill(&mut frame, &headers));
        assert_eq!(verify(&frame, &headers), Integrity { processed: true, ..Integrity::default() });
        for length in [0_u16, 7, 13, 65_535] {
            let mut bad = frame.clone();
            store(&mut bad, at + 4, length.to_be_bytes());
            assert!(verify(&bad, &headers).l4_error, "{length}");
        }
        // A shorter one is the packet's own business: what is behind it is not summed.
        store(&mut frame, at + 4, 10_u16.to_be_bytes());
        assert!(fill(&mut frame, &headers));
        frame[at + 10..].fill(0xee);
        assert!(!verify(&frame, &headers).l4_error);
    }
}
