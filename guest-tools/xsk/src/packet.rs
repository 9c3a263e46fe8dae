//! Packets that say which they are, so that a wrong byte of any is seen: a number, and bytes that follow from it.

/// Offset of what is in an Ethernet frame.
const NETWORK: usize = 14;
const UDP: u8 = 17;

/// The payload of that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered(pub u64);

impl Numbered {
    /// 8 bytes of number, and up to 1,400 more.
    pub fn bytes(self) -> Vec<u8> {
        let length = 8 + (self.0 * 97 % 1401) as usize;
        let rest = (8..length).map(|n| (self.0.wrapping_mul(131) + n as u64 * 7) as u8);
        self.0.to_be_bytes().into_iter().chain(rest).collect()
    }

    /// Which it is, if every byte is right.
    pub fn read(payload: &[u8]) -> Option<Numbered> {
        let number = u64::from_be_bytes(*payload.first_chunk()?);
        // Only small numbers are ever sent: what is damaged must not ask for much work.
        let found = Numbered(number);
        (number < 1 << 48 && found.bytes() == payload).then_some(found)
    }
}

/// Where UDP begins and how long it is, header and payload: IPv4 or IPv6 without extension headers.
fn udp(frame: &[u8]) -> Option<(usize, usize)> {
    let network = frame.get(NETWORK..)?;
    let at = match (frame.get(12..14)?, *network.first()?) {
        ([0x08, 0x00], first) if first >> 4 == 4 && *network.get(9)? == UDP => NETWORK + usize::from(first & 15) * 4,
        ([0x86, 0xdd], _) if *network.get(6)? == UDP => NETWORK + 40,
        _ => return None,
    };
    let length = usize::from(u16::from_be_bytes([*frame.get(at + 4)?, *frame.get(at + 5)?]));
    (length >= 8 && frame.len() >= at + length).then_some((at, length))
}

/// The payload of a UDP frame.
pub fn payload(frame: &[u8]) -> Option<&[u8]> {
    let (at, length) = udp(frame)?;
    frame.get(at + 8..at + length)
}

/// Turns a UDP frame round: whoever sent it gets it. Sums stay right, for the same words are added up.
pub fn turn(frame: &mut [u8]) -> bool {
    let Some((at, _)) = udp(frame) else { return false };
    let mut swap = |a: usize, b: usize, length: usize| {
        for n in 0..length {
            frame.swap(a + n, b + n);
        }
    };
    swap(0, 6, 6);
    swap(at, at + 2, 2);
    if at == NETWORK + 40 {
        swap(NETWORK + 8, NETWORK + 24, 16)
    } else {
        swap(NETWORK + 12, NETWORK + 16, 4)
    }
    true
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;

    fn frame(v6: bool, payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ip =
            if v6 { ethernet.ipv6([1; 16], [2; 16], 64) } else { ethernet.ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64) };
        let mut frame = Vec::new();
        ip.udp(4000, 5000).write(&mut frame, payload).expect("a frame");
        frame
    }

    #[test]
    fn a_packet_tells_which_it_is() {
        for number in [0, 1, 77, 1 << 40] {
            let bytes = Numbered(number).bytes();
            assert!(bytes.len() >= 8 && bytes.len() <= 1408);
            assert_eq!(Numbered::read(&bytes), Some(Numbered(number)));
            for at in [0, 7, bytes.len() - 1] {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1;
                // A number of its own has a length and bytes of its own, too.
                assert_eq!(Numbered::read(&wrong), None, "{number}, byte {at}");
            }
        }
        assert_eq!(Numbered::read(&[0; 7]), None);
    }

    #[test]
    fn a_frame_is_turned_round_and_stays_sound() {
        for v6 in [false, true] {
            let payload = Numbered(5).bytes();
            let there = frame(v6, &payload);
            assert_eq!(super::payload(&there), Some(&payload[..]));
            let mut back = there.clone();
            assert!(turn(&mut back));
            assert_eq!((&back[..6], &back[6..12]), (&there[6..12], &there[..6]));
            let sliced = SlicedPacket::from_ethernet(&back).expect("a frame");
            let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
            assert_eq!((udp.source_port(), udp.destination_port(), udp.payload()), (5000, 4000, &payload[..]));
            let header = udp.to_header();
            let sum = match sliced.net.expect("IP") {
                etherparse::NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload()),
                etherparse::NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload()),
                other => panic!("{other:?}"),
            };
            assert_eq!(sum.expect("a sum"), udp.checksum());
            let mut again = back.clone();
            assert!(turn(&mut again) && again == there);
        }
    }

    #[test]
    fn what_is_no_udp_is_left_alone() {
        let whole = frame(false, &[1, 2, 3]);
        for cut in 0..whole.len() {
            assert_eq!(payload(&whole[..cut]), None, "{cut}");
        }
        let mut arp = vec![0; 60];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        assert!(payload(&arp).is_none() && !turn(&mut arp));
    }
}
