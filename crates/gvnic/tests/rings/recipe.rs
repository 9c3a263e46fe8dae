//! Frames, made by etherparse.

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions, Ipv6FlowLabel,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, TcpHeader, VlanId,
};

use super::Random;

/// An IPv6 extension header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    None,
    HopByHop,
    Destination,
    /// A fragment header of a packet that is whole.
    Atomic,
}

/// What a frame is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    pub tags: usize,
    pub v6: bool,
    pub udp: bool,
    pub ip_options: Vec<u8>,
    pub extension: Extension,
    pub tcp_options: Vec<u8>,
    pub ports: (u16, u16),
    pub hosts: (u8, u8),
    /// TCP flags as on the wire.
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub window: u16,
    pub id: u16,
    pub dont_fragment: bool,
    pub ttl: u8,
    pub tos: u8,
    pub payload: Vec<u8>,
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            tags: 0,
            v6: false,
            udp: false,
            ip_options: Vec::new(),
            extension: Extension::None,
            tcp_options: Vec::new(),
            ports: (40_000, 5_201),
            hosts: (1, 2),
            flags: 0x10,
            sequence: 1_000,
            acknowledgment: 77,
            window: 501,
            id: 1,
            dont_fragment: true,
            ttl: 64,
            tos: 0,
            payload: Vec::new(),
        }
    }
}

impl Recipe {
    pub fn tcp(payload: usize) -> Recipe {
        let payload = (0..payload).map(|n| (n * 7 + (n >> 8)) as u8).collect();
        Recipe { payload, ..Recipe::default() }
    }

    pub fn udp(payload: usize) -> Recipe {
        Recipe { udp: true, ..Recipe::tcp(payload) }
    }

    /// Anything with TCP or UDP in it, and so many bytes of payload.
    pub fn random(random: &mut Random, payload: usize) -> Recipe {
        let (v6, udp) = (random.once_in(2), random.once_in(2));
        // NOP options: etherparse and the device agree that they are bytes.
        let options = |random: &mut Random| if random.once_in(2) { vec![1; random.below(11) * 4] } else { Vec::new() };
        let extension =
            [Extension::None, Extension::HopByHop, Extension::Destination, Extension::Atomic][random.below(4)];
        Recipe {
            tags: random.below(3),
            v6,
            udp,
            ip_options: if v6 { Vec::new() } else { options(random) },
            extension: if v6 { extension } else { Extension::None },
            tcp_options: if udp { Vec::new() } else { options(random) },
            ports: (random.next() as u16, random.next() as u16),
            hosts: (random.next() as u8, random.next() as u8),
            flags: random.next() as u8 & 0xdf,
            sequence: random.next() as u32,
            acknowledgment: random.next() as u32,
            window: random.next() as u16,
            id: random.next() as u16,
            dont_fragment: random.once_in(2),
            ttl: random.next() as u8,
            tos: random.next() as u8,
            payload: random.bytes(payload),
        }
    }

    /// Bytes before the payload.
    pub fn header(&self) -> usize {
        let extension = if self.extension == Extension::None { 0 } else { 8 };
        let l4 = if self.udp { 8 } else { 20 + self.tcp_options.len() };
        14 + 4 * self.tags + if self.v6 { 40 } else { 20 } + self.ip_options.len() + extension + l4
    }

    /// The frame, with right lengths and checksums.
    pub fn frame(&self) -> Vec<u8> {
        self.build(&self.payload)
    }

    /// A packet to be segmented: the lengths and checksums in it are of no payload.
    pub fn packet(&self) -> Vec<u8> {
        let mut packet = self.build(&[]);
        packet.extend_from_slice(&self.payload);
        packet
    }

    fn build(&self, payload: &[u8]) -> Vec<u8> {
        let (source, destination) = self.hosts;
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, source], [2, 0, 0, 0, 0, destination]);
        let id = |n| VlanId::try_new(n).unwrap();
        let ip = self.ip(source, destination);
        let step = match self.tags {
            0 => ethernet.ip(ip),
            1 => ethernet.single_vlan(id(7)).ip(ip),
            _ => ethernet.double_vlan(id(7), id(8)).ip(ip),
        };
        let mut bytes = Vec::new();
        if self.udp {
            step.udp(self.ports.0, self.ports.1).write_to_vec(&mut bytes, payload).unwrap();
        } else {
            step.tcp_header(self.tcp_header()).write_to_vec(&mut bytes, payload).unwrap();
        }
        bytes
    }

    fn tcp_header(&self) -> TcpHeader {
        let mut tcp = TcpHeader::new(self.ports.0, self.ports.1, self.sequence, self.window);
        let flag = |bit: u8| self.flags & 1 << bit != 0;
        (tcp.fin, tcp.syn, tcp.rst, tcp.psh) = (flag(0), flag(1), flag(2), flag(3));
        (tcp.ack, tcp.urg, tcp.ece, tcp.cwr) = (flag(4), flag(5), flag(6), flag(7));
        tcp.acknowledgment_number = self.acknowledgment;
        tcp.set_options_raw(&self.tcp_options).unwrap();
        tcp
    }

    fn ip(&self, source: u8, destination: u8) -> IpHeaders {
        if self.v6 {
            let address = |n| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, n];
            let header = Ipv6Header {
                traffic_class: self.tos,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: IpNumber::TCP,
                hop_limit: self.ttl,
                source: address(source),
                destination: address(destination),
            };
            let raw = || Some(Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[1, 4, 0, 0, 0, 0]).unwrap());
            let mut extensions = Ipv6Extensions::default();
            match self.extension {
                Extension::None => {}
                Extension::HopByHop => extensions.hop_by_hop_options = raw(),
                Extension::Destination => extensions.destination_options = raw(),
                Extension::Atomic => {
                    let whole = Ipv6FragmentHeader::new(IpNumber::TCP, IpFragOffset::ZERO, false, 99);
                    extensions.fragment = Some(whole);
                }
            }
            return IpHeaders::Ipv6(header, extensions);
        }
        let protocol = IpNumber::TCP;
        let mut header = Ipv4Header::new(0, self.ttl, protocol, [10, 0, 0, source], [10, 0, 0, destination]).unwrap();
        header.options = Ipv4Options::try_from(self.ip_options.as_slice()).unwrap();
        header.identification = self.id;
        header.dont_fragment = self.dont_fragment;
        (header.dscp, header.ecn) = ((self.tos >> 2).try_into().unwrap(), (self.tos & 3).try_into().unwrap());
        IpHeaders::Ipv4(header, Ipv4Extensions::default())
    }
}
