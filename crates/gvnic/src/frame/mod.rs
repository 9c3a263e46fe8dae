//! STAND-IN, to be replaced by the real frame module at merge: parses TCP and UDP over IPv4 and IPv6 (no extension headers),
//! fills and verifies their checksums, and segments TCP and UDP.

pub mod parse {
    //! What a frame is.
    use crate::abi::ptype::{L3, L4};
    use crate::steer::{Addresses, FlowKey, protocol};

    /// A frame that was looked at.
    #[derive(Debug, Clone, Copy)]
    pub struct Parsed<'a> {
        /// Network layer.
        pub l3: L3,
        /// Transport layer.
        pub l4: L4,
        /// Whether there are IPv6 extension headers the driver wants to know of.
        pub ipv6_extended: bool,
        /// Where the network header is.
        pub l3_at: usize,
        /// Where the transport header is; 0 if there is none.
        pub l4_at: usize,
        header: usize,
        key: Option<FlowKey<'a>>,
    }

    impl<'a> Parsed<'a> {
        /// Looks at a frame.
        pub fn of(frame: &'a [u8]) -> Parsed<'a> {
            Parsed::ip(frame).unwrap_or(Parsed {
                l3: L3::Other,
                l4: L4::Unknown,
                ipv6_extended: false,
                l3_at: 14,
                l4_at: 0,
                header: 0,
                key: None,
            })
        }

        fn ip(frame: &'a [u8]) -> Option<Parsed<'a>> {
            let (l3, l4_at, number, class, addresses, fragment) = match frame.get(12..15)? {
                [0x08, 0x00, first] if first >> 4 == 4 => {
                    let source = frame.get(26..)?.first_chunk()?;
                    let destination = frame.get(30..)?.first_chunk()?;
                    let fragment = frame.get(20)? & 0x3f != 0 || *frame.get(21)? != 0;
                    let l4_at = 14 + usize::from(first & 0xf) * 4;
                    let addresses = Addresses::V4 { source, destination };
                    (L3::Ipv4, l4_at, *frame.get(23)?, *frame.get(15)?, addresses, fragment)
                }
                [0x86, 0xdd, first] if first >> 4 == 6 => {
                    let source = frame.get(22..)?.first_chunk()?;
                    let destination = frame.get(38..)?.first_chunk()?;
                    let class = first << 4 | frame.get(15)? >> 4;
                    (L3::Ipv6, 54, *frame.get(20)?, class, Addresses::V6 { source, destination }, false)
                }
                _ => return None,
            };
            let l4_header = match number {
                protocol::TCP if !fragment => usize::from(*frame.get(l4_at + 12)? >> 4) * 4,
                protocol::UDP if !fragment => 8,
                _ => 0,
            };
            let header = if l4_header == 0 { 0 } else { l4_at + l4_header };
            if header > frame.len() {
                return None;
            }
            let l4 = match (number, l4_header) {
                (_, 0) => L4::Unknown,
                (protocol::TCP, _) => L4::Tcp,
                _ => L4::Udp,
            };
            let ports = (header > 0).then(|| frame.get(l4_at..)?.first_chunk().copied()).flatten();
            let key = Some(FlowKey { addresses, protocol: number, traffic_class: class, ports });
            Some(Parsed { l3, l4, ipv6_extended: false, l3_at: 14, l4_at, header, key })
        }

        /// What steering looks at; none for what is no IP packet.
        pub fn flow_key(&self) -> Option<FlowKey<'a>> {
            self.key
        }

        /// Bytes through the TCP or UDP header; 0 where nothing can be split off.
        pub fn header_len(&self) -> usize {
            self.header
        }
    }
}

pub mod checksum {
    //! Checksums of the transport layer.
    use super::parse::Parsed;
    use crate::abi::ptype::{L3, L4};

    /// What came of looking at a frame's checksums.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Verdict {
        /// The IPv4 header's is right, or there is none.
        pub ip: bool,
        /// The transport header's is right, or there is none.
        pub l4: bool,
    }

    fn sum(bytes: &[u8], start: u64) -> u64 {
        let mut total = start;
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            total += u64::from(u32::from_be_bytes(*word));
        }
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        total + u64::from(u32::from_be_bytes(last))
    }

    fn fold(mut sum: u64) -> u16 {
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn l4_sum(frame: &[u8], parsed: &Parsed<'_>) -> Option<u16> {
        let (number, addresses) = match (parsed.l4, parsed.l3) {
            (L4::Tcp, L3::Ipv4) => (6, frame.get(26..34)?),
            (L4::Udp, L3::Ipv4) => (17, frame.get(26..34)?),
            (L4::Tcp, L3::Ipv6) => (6, frame.get(22..54)?),
            (L4::Udp, L3::Ipv6) => (17, frame.get(22..54)?),
            _ => return None,
        };
        let end = match parsed.l3 {
            L3::Ipv4 => 14 + usize::from(u16::from_be_bytes(*frame.get(16..)?.first_chunk()?)),
            _ => 54 + usize::from(u16::from_be_bytes(*frame.get(18..)?.first_chunk()?)),
        };
        let segment = frame.get(parsed.l4_at..end.min(frame.len()))?;
        Some(fold(sum(segment, sum(addresses, number + segment.len() as u64))))
    }

    /// Writes the TCP or UDP checksum; false where there is none to write.
    pub fn fill(frame: &mut [u8]) -> bool {
        let parsed = Parsed::of(frame);
        let at = parsed.l4_at + if parsed.l4 == L4::Tcp { 16 } else { 6 };
        if !matches!(parsed.l4, L4::Tcp | L4::Udp) {
            return false;
        }
        let udp = parsed.l4 == L4::Udp;
        let Some(place) = frame.get_mut(at..at + 2) else { return false };
        place.fill(0);
        let sum = l4_sum(frame, &Parsed::of(frame)).map(|sum| if sum == 0xffff && udp { 0xffff } else { !sum });
        match (sum, frame.get_mut(at..at + 2)) {
            (Some(sum), Some(place)) => {
                place.copy_from_slice(&sum.to_be_bytes());
                true
            }
            _ => false,
        }
    }

    /// Looks whether they are right.
    pub fn verify(frame: &[u8], parsed: &Parsed<'_>) -> Verdict {
        let ip = parsed.l3 != L3::Ipv4
            || frame.get(14..14 + usize::from(frame.get(14).copied().unwrap_or(0) & 0xf) * 4).map(|h| fold(sum(h, 0)))
                == Some(0xffff);
        Verdict { ip, l4: l4_sum(frame, parsed).is_none_or(|sum| sum == 0xffff) }
    }
}

pub mod segment {
    //! Cuts a packet into segments.
    use super::checksum;
    use super::parse::Parsed;
    use crate::abi::ptype::{L3, L4};

    /// A packet that is being cut.
    #[derive(Debug)]
    pub struct Segments<'a> {
        frame: &'a [u8],
        header: usize,
        l3: L3,
        l4: L4,
        l4_at: usize,
        mss: usize,
        at: usize,
        index: u32,
    }

    impl<'a> Segments<'a> {
        /// Cuts `frame` at every `mss` bytes behind its headers.
        pub fn new(frame: &'a [u8], parsed: &Parsed<'_>, mss: u16) -> Segments<'a> {
            let header = parsed.header_len();
            let (l3, l4, l4_at) = (parsed.l3, parsed.l4, parsed.l4_at);
            Segments { frame, header, l3, l4, l4_at, mss: usize::from(mss.max(1)), at: header, index: 0 }
        }

        /// Replaces `into` by the next segment; false when there is none.
        pub fn next_into(&mut self, into: &mut Vec<u8>) -> bool {
            let end = (self.at + self.mss).min(self.frame.len());
            let (Some(header), Some(payload)) = (self.frame.get(..self.header), self.frame.get(self.at..end)) else {
                return false;
            };
            if payload.is_empty() || header.is_empty() {
                return false;
            }
            into.clear();
            into.extend_from_slice(header);
            into.extend_from_slice(payload);
            let length = into.len();
            let mut put = |at: usize, value: &[u8]| {
                if let Some(to) = into.get_mut(at..at + value.len()) {
                    to.copy_from_slice(value);
                }
            };
            match self.l3 {
                L3::Ipv4 => put(16, &((length - 14) as u16).to_be_bytes()),
                _ => put(18, &((length - 54) as u16).to_be_bytes()),
            }
            if self.l4 == L4::Udp {
                put(self.l4_at + 4, &((length - self.l4_at) as u16).to_be_bytes());
            } else if let Some(sequence) = header.get(self.l4_at + 4..).and_then(|s| s.first_chunk()) {
                let sequence = u32::from_be_bytes(*sequence).wrapping_add((self.at - self.header) as u32);
                put(self.l4_at + 4, &sequence.to_be_bytes());
            }
            if self.l3 == L3::Ipv4 {
                put(24, &[0, 0]);
                let sum = into.get(14..self.l4_at).map(|h| {
                    let words = h.as_chunks::<2>().0.iter().map(|w| u32::from(u16::from_be_bytes(*w)));
                    let sum = words.sum::<u32>();
                    !((sum & 0xffff) + (sum >> 16)) as u16
                });
                if let (Some(sum), Some(to)) = (sum, into.get_mut(24..26)) {
                    to.copy_from_slice(&sum.to_be_bytes());
                }
            }
            checksum::fill(into);
            self.at = end;
            self.index += 1;
            true
        }
    }
}
