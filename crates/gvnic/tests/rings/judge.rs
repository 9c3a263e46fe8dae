//! etherparse's opinion of a frame.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// 4 or 6.
    pub version: u8,
    /// 6 or 17.
    pub protocol: u8,
    pub ports: (u16, u16),
    /// Bytes before the payload.
    pub header: usize,
    pub payload: Vec<u8>,
    /// Whether the checksum of the IPv4 header, and of TCP or UDP, is right.
    pub l3_holds: bool,
    pub l4_holds: bool,
    /// IPv4 only.
    pub id: u16,
    /// TCP only.
    pub sequence: u32,
    pub flags: u8,
}

/// Judges a TCP or UDP frame.
pub fn judge(frame: &[u8]) -> Judged {
    let packet = SlicedPacket::from_ethernet(frame).unwrap_or_else(|e| panic!("etherparse refuses {frame:02x?}: {e}"));
    let (version, l3_holds, id) = match packet.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(v4) => {
            let header = v4.header().to_header();
            (4, header.calc_header_checksum() == header.header_checksum, header.identification)
        }
        NetSlice::Ipv6(_) => (6, true, 0),
        other => panic!("{other:?} is no IP"),
    };
    let transport = packet.transport.as_ref().expect("a transport header");
    let net = packet.net.as_ref().expect("an IP header");
    let same = |calculated: u16, there: u16| calculated == there;
    let (protocol, ports, payload, l4_holds, sequence, flags) = match transport {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            let holds = match net {
                NetSlice::Ipv4(v4) => header.calc_checksum_ipv4(&v4.header().to_header(), tcp.payload()).unwrap(),
                NetSlice::Ipv6(v6) => header.calc_checksum_ipv6(&v6.header().to_header(), tcp.payload()).unwrap(),
                _ => unreachable!(),
            };
            let bits = [header.fin, header.syn, header.rst, header.psh, header.ack, header.urg, header.ece, header.cwr];
            let flags = bits.iter().rev().fold(0, |all, bit| all << 1 | u8::from(*bit));
            let ports = (header.source_port, header.destination_port);
            (6, ports, tcp.payload(), same(holds, header.checksum), header.sequence_number, flags)
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let holds = match net {
                NetSlice::Ipv4(v4) => header.calc_checksum_ipv4(&v4.header().to_header(), udp.payload()).unwrap(),
                NetSlice::Ipv6(v6) => header.calc_checksum_ipv6(&v6.header().to_header(), udp.payload()).unwrap(),
                _ => unreachable!(),
            };
            let ports = (header.source_port, header.destination_port);
            (17, ports, udp.payload(), same(holds, header.checksum), 0, 0)
        }
        other => panic!("{other:?} is neither TCP nor UDP"),
    };
    let header = payload.as_ptr() as usize - frame.as_ptr() as usize;
    Judged { version, protocol, ports, header, payload: payload.to_vec(), l3_holds, l4_holds, id, sequence, flags }
}
