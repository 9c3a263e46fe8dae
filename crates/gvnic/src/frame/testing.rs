//! Frames for tests, made and judged by an independent library, from a seed.

use etherparse::{
    Ethernet2Header, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header,
    Ipv6RawExtHeader, NetSlice, PacketBuilder, SingleVlanHeader, SlicedPacket, TcpHeader, TransportSlice, UdpHeader,
    VlanId,
};

/// A splitmix64 sequence.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// What a frame is made of.
#[derive(Debug, Clone)]
pub struct Shape {
    pub tags: u8,
    pub ip: IpHeaders,
    pub tcp: Option<TcpHeader>,
    pub ports: (u16, u16),
    pub payload: Vec<u8>,
}

impl Shape {
    /// TCP with timestamps over IPv4 or IPv6: what bulk traffic is made of.
    pub fn stream(v6: bool, payload: Vec<u8>) -> Shape {
        let mut tcp = TcpHeader::new(4001, 5201, 0xffff_f000, 502);
        (tcp.ack, tcp.acknowledgment_number) = (true, 77);
        tcp.set_options_raw(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        let ip = match v6 {
            true => IpHeaders::Ipv6(ipv6([1; 16], [2; 16]), Ipv6Extensions::default()),
            false => {
                let mut ip = Ipv4Header::new(0, 64, IpNumber::TCP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
                (ip.identification, ip.dont_fragment) = (0xfffe, true);
                IpHeaders::Ipv4(ip, Ipv4Extensions::default())
            }
        };
        Shape { tags: 0, ip, tcp: Some(tcp), ports: (4001, 5201), payload }
    }

    pub fn random(random: &mut Random, payload: usize) -> Shape {
        let ip = if random.chance(2) {
            let mut ip = Ipv4Header::new(0, 64, IpNumber::TCP, random.array(), random.array()).unwrap();
            ip.identification = random.next() as u16;
            ip.dont_fragment = random.chance(2);
            ip.dscp = ((random.next() & 63) as u8).try_into().unwrap();
            if random.chance(3) {
                let options = 4 * (1 + random.below(10));
                ip.options = random.bytes(options).as_slice().try_into().unwrap();
            }
            IpHeaders::Ipv4(ip, Ipv4Extensions::default())
        } else {
            let mut header = ipv6(random.array(), random.array());
            header.traffic_class = random.next() as u8;
            let mut extensions = Ipv6Extensions::default();
            let mut extension = |one_in| {
                let bytes = 6 + 8 * random.below(4);
                let bytes = random.bytes(bytes);
                random.chance(one_in).then(|| Ipv6RawExtHeader::new_raw(IpNumber::TCP, &bytes).unwrap())
            };
            extensions.hop_by_hop_options = extension(4);
            extensions.destination_options = extension(4);
            IpHeaders::Ipv6(header, extensions)
        };
        let ports = (random.next() as u16, random.next() as u16);
        let tcp = random.chance(2).then(|| {
            let mut tcp = TcpHeader::new(ports.0, ports.1, random.next() as u32, random.next() as u16);
            tcp.acknowledgment_number = random.next() as u32;
            let flags: [bool; 9] = std::array::from_fn(|_| random.chance(3));
            [tcp.ns, tcp.fin, tcp.syn, tcp.rst, tcp.psh, tcp.ack, tcp.urg, tcp.ece, tcp.cwr] = flags;
            let options = 4 * random.below(11);
            tcp.set_options_raw(&random.bytes(options)).unwrap();
            tcp
        });
        Shape { tags: random.below(3) as u8, ip, tcp, ports, payload: random.bytes(payload) }
    }

    /// The frame, with its checksums.
    pub fn frame(&self) -> Vec<u8> {
        let step = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let id = |id| VlanId::try_new(id).unwrap();
        let mut frame = Vec::new();
        let step = match self.tags {
            0 => step.ip(self.ip.clone()),
            1 => step.single_vlan(id(100)).ip(self.ip.clone()),
            _ => step.double_vlan(id(7), id(100)).ip(self.ip.clone()),
        };
        match &self.tcp {
            Some(tcp) => step.tcp_header(tcp.clone()).write(&mut frame, &self.payload).unwrap(),
            None => step.udp(self.ports.0, self.ports.1).write(&mut frame, &self.payload).unwrap(),
        }
        frame
    }

    pub fn l3_at(&self) -> usize {
        Ethernet2Header::LEN + usize::from(self.tags) * SingleVlanHeader::LEN
    }

    pub fn l4_at(&self) -> usize {
        self.l3_at() + self.ip.header_len()
    }

    pub fn payload_at(&self) -> usize {
        self.l4_at() + self.tcp.as_ref().map_or(UdpHeader::LEN, TcpHeader::header_len)
    }

    /// The frame is a fragment, by what IPv4's header says.
    pub fn fragment(mut self, offset: u16, more: bool) -> Shape {
        if let IpHeaders::Ipv4(ip, _) = &mut self.ip {
            (ip.fragment_offset, ip.more_fragments) = (IpFragOffset::try_new(offset).unwrap(), more);
        }
        self
    }
}

fn ipv6(source: [u8; 16], destination: [u8; 16]) -> Ipv6Header {
    Ipv6Header { hop_limit: 64, source, destination, ..Default::default() }
}

/// The library takes the frame in all strictness, lengths are those of the frame, and all checksums hold.
#[track_caller]
pub fn judge(frame: &[u8]) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let net = sliced.net.as_ref().unwrap();
    match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4's checksum");
        }
        NetSlice::Ipv6(_) => {}
        NetSlice::Arp(_) => panic!("it is ARP"),
    }
    let end = net.ip_payload_ref().unwrap().payload.as_ptr_range().end;
    assert_eq!(end, frame.as_ptr_range().end, "IP's length is that of the frame");
    let (is, ought) = match (sliced.transport.as_ref().unwrap(), net) {
        (TransportSlice::Tcp(tcp), NetSlice::Ipv4(ip)) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            (tcp.checksum(), tcp.calc_checksum_ipv4(from, to).unwrap())
        }
        (TransportSlice::Tcp(tcp), NetSlice::Ipv6(ip)) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            (tcp.checksum(), tcp.calc_checksum_ipv6(from, to).unwrap())
        }
        (TransportSlice::Udp(udp), net) => {
            let (header, payload) = (udp.to_header(), udp.payload());
            assert_eq!(usize::from(header.length), UdpHeader::LEN + payload.len());
            let sum = match net {
                NetSlice::Ipv4(ip) => {
                    header.calc_checksum_ipv4_raw(ip.header().source(), ip.header().destination(), payload)
                }
                NetSlice::Ipv6(ip) => {
                    header.calc_checksum_ipv6_raw(ip.header().source(), ip.header().destination(), payload)
                }
                NetSlice::Arp(_) => unreachable!(),
            };
            (udp.checksum(), sum.unwrap())
        }
        _ => panic!("neither TCP nor UDP"),
    };
    assert_eq!(is, ought, "the transport checksum");
}
