//! Receive-side scaling: a hash of the flow selects an entry of a table of queues.
//!
//! The driver configures key and table, and where it has not, the table deals the queues it runs out in turn.

use super::toeplitz::Toeplitz;
use super::{Addresses, FlowKey, protocol};
use crate::abi::rss::{
    HASH_ALL, HASH_IPV4, HASH_IPV6, HASH_IPV6_EX, HASH_TCP4, HASH_TCP6, HASH_TCP6_EX, HASH_UDP4, HASH_UDP6,
    HASH_UDP6_EX, KEY_BYTES, LUT_ENTRIES,
};

/// The key until the driver has one: that of the published test vectors (Microsoft, "Verifying the RSS Hash Calculation").
pub const DEFAULT_KEY: [u8; KEY_BYTES] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];

/// What a hash was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashKind {
    /// Nothing: the driver wants no hash of such frames.
    None,
    /// Addresses.
    L3,
    /// Addresses and ports.
    L4,
}

/// A frame's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash {
    /// Its value; 0 for none.
    pub value: u32,
    /// What it was made of.
    pub kind: HashKind,
}

impl Hash {
    /// Of a frame that has none, such as ARP.
    pub const NONE: Hash = Hash { value: 0, kind: HashKind::None };
}

/// How frames are spread, ready for use.
#[derive(Debug, Clone)]
pub struct Rss {
    toeplitz: Toeplitz,
    types: u16,
    lut: [u16; LUT_ENTRIES],
}

impl Rss {
    /// The hash of a packet.
    pub fn hash(&self, key: &FlowKey<'_>) -> Hash {
        let (l3, tcp, udp) = match key.addresses {
            Addresses::V4 { .. } => (HASH_IPV4, HASH_TCP4, HASH_UDP4),
            // Which headers lie between is not asked: the device hashes the addresses of the packet in any case.
            Addresses::V6 { .. } => (HASH_IPV6 | HASH_IPV6_EX, HASH_TCP6 | HASH_TCP6_EX, HASH_UDP6 | HASH_UDP6_EX),
        };
        let l4 = match key.protocol {
            protocol::TCP => tcp,
            protocol::UDP => udp,
            _ => 0,
        };
        let ports = key.ports.as_ref().filter(|_| self.types & l4 != 0);
        if ports.is_none() && self.types & l3 == 0 {
            return Hash::NONE;
        }
        let kind = if ports.is_some() { HashKind::L4 } else { HashKind::L3 };
        let ports: &[u8] = ports.map_or(&[], |p| p);
        let value = match key.addresses {
            Addresses::V4 { source, destination } => self.toeplitz.hash(&[source, destination, ports]),
            Addresses::V6 { source, destination } => self.toeplitz.hash(&[source, destination, ports]),
        };
        Hash { value, kind }
    }

    /// The queue for a hash. A frame without one goes where hash 0 does, so that it, too, stays within the table: a queue
    /// that the driver took out of it gets nothing but what rules send there.
    pub fn queue(&self, hash: Hash) -> u16 {
        self.lut[hash.value as usize % LUT_ENTRIES]
    }
}

/// How frames are spread, as the driver configures it.
#[derive(Debug, Clone)]
pub(crate) struct Spread {
    pub key: [u8; KEY_BYTES],
    pub types: u16,
    /// The driver's table, if it has one.
    pub lut: Option<[u16; LUT_ENTRIES]>,
    /// Queues that are dealt out without one: never 0.
    pub queues: u16,
}

impl Spread {
    pub fn new(queues: u16) -> Spread {
        Spread { key: DEFAULT_KEY, types: HASH_ALL, lut: None, queues: queues.max(1) }
    }

    /// The table in force.
    pub fn table(&self) -> [u16; LUT_ENTRIES] {
        // As `ethtool_rxfh_indir_default` does (include/linux/ethtool.h).
        self.lut.unwrap_or_else(|| std::array::from_fn(|n| (n % usize::from(self.queues.max(1))) as u16))
    }

    pub fn compile(&self) -> Rss {
        Rss { toeplitz: Toeplitz::new(&self.key), types: self.types, lut: self.table() }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Microsoft, "Verifying the RSS Hash Calculation": destination, source, hash of the addresses, hash with TCP's ports.
    const V4: [(&str, u16, &str, u16, u32, u32); 5] = [
        ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d18_09c5, 0x10e8_28a2),
    ];
    const V6: [(&str, u16, &str, u16, u32, u32); 3] = [
        ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc1_8cd5, 0x4020_7d3d),
        ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c_461c, 0xdde5_1bbf),
        ("fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x4b61_e985, 0x02d1_feef),
    ];

    fn ports(source: u16, destination: u16) -> [u8; 4] {
        let (s, d) = (source.to_be_bytes(), destination.to_be_bytes());
        [s[0], s[1], d[0], d[1]]
    }

    fn with_types(types: u16) -> Rss {
        Spread { types, ..Spread::new(4) }.compile()
    }

    #[test]
    fn the_hash_is_the_published_one() {
        for (to, to_port, from, from_port, l3, l4) in V4 {
            let [source, destination] = [from, to].map(|a| a.parse::<Ipv4Addr>().unwrap().octets());
            let addresses = Addresses::V4 { source: &source, destination: &destination };
            check(addresses, ports(from_port, to_port), l3, l4);
        }
        for (to, to_port, from, from_port, l3, l4) in V6 {
            let [source, destination] = [from, to].map(|a| a.parse::<Ipv6Addr>().unwrap().octets());
            let addresses = Addresses::V6 { source: &source, destination: &destination };
            check(addresses, ports(from_port, to_port), l3, l4);
        }
    }

    fn check(addresses: Addresses<'_>, ports: [u8; 4], l3: u32, l4: u32) {
        let rss = with_types(HASH_ALL);
        let hash = |protocol, ports| rss.hash(&FlowKey { addresses, protocol, traffic_class: 0, ports });
        assert_eq!(hash(protocol::TCP, Some(ports)), Hash { value: l4, kind: HashKind::L4 });
        assert_eq!(hash(protocol::UDP, Some(ports)), Hash { value: l4, kind: HashKind::L4 });
        assert_eq!(hash(protocol::ESP, Some(ports)), Hash { value: l3, kind: HashKind::L3 });
        assert_eq!(hash(protocol::TCP, None), Hash { value: l3, kind: HashKind::L3 }, "a later fragment");
    }

    /// The definition, a bit at a time.
    fn bitwise(key: &[u8; 40], input: &[u8]) -> u32 {
        let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1;
        (0..input.len() * 8)
            .filter(|n| bit(input, *n) == 1)
            .fold(0, |hash, n| hash ^ (0..32).fold(0, |word, m| word << 1 | u32::from(bit(key, n + m))))
    }

    #[test]
    fn tables_agree_with_the_definition() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        for length in 0..=36 {
            let key: [u8; 40] = std::array::from_fn(|_| next());
            let input: Vec<u8> = (0..length).map(|_| next()).collect();
            let toeplitz = Toeplitz::new(&key);
            assert_eq!(toeplitz.hash(&[&input]), bitwise(&key, &input), "{length} bytes");
            let (front, back) = input.split_at(length / 3);
            assert_eq!(toeplitz.hash(&[front, back, &[]]), bitwise(&key, &input), "in two fields");
        }
    }

    #[test]
    fn types_that_are_not_wanted_are_not_hashed() {
        let addresses = Addresses::V4 { source: &[1, 2, 3, 4], destination: &[5, 6, 7, 8] };
        let key = |protocol| FlowKey { addresses, protocol, traffic_class: 0, ports: Some([0, 1, 0, 2]) };
        // What the driver configures (`gve_adminq_configure_rss`, gve_adminq.c).
        let rss = with_types(HASH_TCP4 | HASH_UDP4 | HASH_TCP6 | HASH_UDP6);
        assert_eq!(rss.hash(&key(protocol::TCP)).kind, HashKind::L4);
        assert_eq!(rss.hash(&key(1)), Hash::NONE, "ICMP");
        assert_eq!(rss.hash(&FlowKey { ports: None, ..key(protocol::TCP) }), Hash::NONE);
        assert_eq!(with_types(HASH_UDP4 | HASH_IPV4).hash(&key(protocol::TCP)).kind, HashKind::L3);
        assert_eq!(with_types(HASH_TCP6).hash(&key(protocol::TCP)), Hash::NONE);
    }

    #[test]
    fn the_table_selects_the_queue() {
        let spread = Spread::new(3);
        assert_eq!(spread.table()[..7], [0, 1, 2, 0, 1, 2, 0]);
        let mut lut = [5; LUT_ENTRIES];
        lut[127] = 9;
        let rss = Spread { lut: Some(lut), ..spread }.compile();
        assert_eq!(rss.queue(Hash { value: 0xffff_ffff, kind: HashKind::L4 }), 9);
        assert_eq!(rss.queue(Hash { value: 0xffff_ff80, kind: HashKind::L4 }), 5);
        assert_eq!(rss.queue(Hash::NONE), 5);
    }
}
