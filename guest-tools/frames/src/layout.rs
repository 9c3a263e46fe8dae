//! Where the headers and fields of a RoCEv2 frame are.

use std::fmt;

/// Bytes of the ICRC.
pub const ICRC: usize = 4;
/// UDP's port of RoCEv2.
pub const PORT: u16 = 4791;

/// A field: a name and its bits in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// `header.field`.
    pub name: &'static str,
    /// Its first bit, counted from the start of the frame.
    pub at: usize,
    /// How many bits it has.
    pub width: usize,
}

/// The headers of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Whether it is IPv6.
    pub v6: bool,
    /// Where the IP header begins; EtherType is in front of it.
    pub ip: usize,
    /// Where the UDP header begins.
    pub udp: usize,
    /// Where the BTH begins.
    pub bth: usize,
    /// Where the payload begins.
    pub payload: usize,
    /// Where the packet ends, without Ethernet's padding.
    pub end: usize,
    /// Every field, in the order of the wire.
    pub fields: Vec<Field>,
}

/// What a frame lacks to be a whole, plain RoCEv2 frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfit(pub &'static str);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no RoCEv2 frame: {}", self.0)
    }
}

impl std::error::Error for Unfit {}

type Fields = &'static [(&'static str, usize)];

const ETHERNET: Fields = &[("eth.dst", 48), ("eth.src", 48)];
const VLAN: Fields = &[("vlan.tpid", 16), ("vlan.pcp", 3), ("vlan.dei", 1), ("vlan.vid", 12)];
const TYPE: Fields = &[("eth.type", 16)];
const IPV4: Fields = &[
    ("ipv4.version", 4),
    ("ipv4.ihl", 4),
    ("ipv4.dscp", 6),
    ("ipv4.ecn", 2),
    ("ipv4.length", 16),
    ("ipv4.id", 16),
    ("ipv4.reserved", 1),
    ("ipv4.df", 1),
    ("ipv4.mf", 1),
    ("ipv4.offset", 13),
    ("ipv4.ttl", 8),
    ("ipv4.protocol", 8),
    ("ipv4.checksum", 16),
    ("ipv4.src", 32),
    ("ipv4.dst", 32),
];
const IPV6: Fields = &[
    ("ipv6.version", 4),
    ("ipv6.class", 8),
    ("ipv6.flow", 20),
    ("ipv6.length", 16),
    ("ipv6.next", 8),
    ("ipv6.hops", 8),
    ("ipv6.src", 128),
    ("ipv6.dst", 128),
];
const UDP: Fields = &[("udp.src", 16), ("udp.dst", 16), ("udp.length", 16), ("udp.checksum", 16)];
const BTH: Fields = &[
    ("bth.opcode", 8),
    ("bth.event", 1),
    ("bth.migration", 1),
    ("bth.pad", 2),
    ("bth.version", 4),
    ("bth.pkey", 16),
    ("bth.fecn", 1),
    ("bth.becn", 1),
    ("bth.reserved6", 6),
    ("bth.qpn", 24),
    ("bth.ack", 1),
    ("bth.reserved7", 7),
    ("bth.psn", 24),
];
const RETH: Fields = &[("reth.va", 64), ("reth.rkey", 32), ("reth.length", 32)];
const AETH: Fields = &[("aeth.syndrome", 8), ("aeth.msn", 24)];
const ATOMIC: Fields = &[("atomic.va", 64), ("atomic.rkey", 32), ("atomic.swap", 64), ("atomic.compare", 64)];
const ATOMIC_ACK: Fields = &[("atomicack.original", 64)];
const DETH: Fields = &[("deth.qkey", 32), ("deth.reserved", 8), ("deth.qpn", 24)];
const IMMEDIATE: Fields = &[("imm.data", 32)];
const IETH: Fields = &[("ieth.rkey", 32)];

/// The extended headers behind a BTH with this opcode (IBTA volume 1, table 38).
pub fn extended(opcode: u8) -> &'static [Fields] {
    // The service: RC, UC, RD, UD; RXE knows no RD.
    let (service, operation) = (opcode >> 5, opcode & 0x1f);
    match (service, operation) {
        (3, 0x04) => &[DETH],
        (3, 0x05) => &[DETH, IMMEDIATE],
        (0 | 1, 0x03 | 0x05 | 0x09) => &[IMMEDIATE],
        (0 | 1, 0x06 | 0x0a) | (0, 0x0c) => &[RETH],
        (0 | 1, 0x0b) => &[RETH, IMMEDIATE],
        (0, 0x0d | 0x0f | 0x10 | 0x11) => &[AETH],
        (0, 0x12) => &[AETH, ATOMIC_ACK],
        (0, 0x13 | 0x14) => &[ATOMIC],
        (0, 0x16 | 0x17) => &[IETH],
        _ => &[],
    }
}

impl Layout {
    /// Looks at a frame; one with IP options, extension headers or fragments is no starting point.
    pub fn of(frame: &[u8]) -> Result<Layout, Unfit> {
        let word = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        let mut fields = Vec::new();
        let mut at = add(&mut fields, 0, ETHERNET);
        while matches!(word(at), Some(0x8100 | 0x88a8)) {
            at = add(&mut fields, at, VLAN);
        }
        let kind = word(at).ok_or(Unfit("it ends in the Ethernet header"))?;
        let ip = add(&mut fields, at, TYPE);
        let first = *frame.get(ip).ok_or(Unfit("it ends before IP"))?;
        let (v6, udp, length) = match (kind, first) {
            (0x0800, 0x45) => {
                if frame.get(ip + 9) != Some(&17) || word(ip + 6).is_none_or(|w| w & 0x3fff != 0) {
                    return Err(Unfit("it is no whole UDP packet"));
                }
                (false, add(&mut fields, ip, IPV4), word(ip + 2).unwrap_or_default().into())
            }
            (0x86dd, 0x60..=0x6f) => {
                if frame.get(ip + 6) != Some(&17) {
                    return Err(Unfit("it is no plain UDP packet"));
                }
                (true, add(&mut fields, ip, IPV6), 40 + usize::from(word(ip + 4).unwrap_or_default()))
            }
            _ => return Err(Unfit("it is neither plain IPv4 nor IPv6")),
        };
        let bth = add(&mut fields, udp, UDP);
        if word(udp + 2) != Some(PORT) {
            return Err(Unfit("it is for another port"));
        }
        let end = ip + length;
        let opcode = *frame.get(bth).ok_or(Unfit("it ends before the BTH"))?;
        let mut payload = add(&mut fields, bth, BTH);
        for header in extended(opcode) {
            payload = add(&mut fields, payload, header);
        }
        if end > frame.len() || payload + ICRC > end {
            return Err(Unfit("it is shorter than its headers say"));
        }
        fields.push(Field { name: "icrc", at: (end - ICRC) * 8, width: 32 });
        Ok(Layout { v6, ip, udp, bth, payload, end, fields })
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<Field> {
        self.fields.iter().find(|field| field.name == name).copied()
    }
}

/// Adds fields that begin at byte `at`; returns the byte behind them.
fn add(fields: &mut Vec<Field>, at: usize, names: Fields) -> usize {
    let mut bit = at * 8;
    for (name, width) in names {
        fields.push(Field { name, at: bit, width: *width });
        bit += width;
    }
    bit / 8
}
