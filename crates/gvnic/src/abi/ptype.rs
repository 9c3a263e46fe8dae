//! Packet types in RX completions: 10 bits whose meaning the device tells once (`gve_adminq_get_ptype_map_dqo`,
//! gve_adminq.c). Here the number is made of both layers, so that the map is arithmetic.

/// Packet types there can be: `GVE_NUM_PTYPES`, gve.h.
pub const PACKET_TYPES: usize = 1024;
/// Bytes of the map: `struct gve_ptype_map`, gve_adminq.h.
pub const MAP_BYTES: usize = PACKET_TYPES * 2;

/// What a frame carries: `enum gve_l3_type`, gve_adminq.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum L3 {
    /// Nobody looked.
    Unknown = 0,
    /// Not IP.
    Other = 1,
    /// IPv4.
    Ipv4 = 2,
    /// IPv6.
    Ipv6 = 3,
}

/// What an IP packet carries: `enum gve_l4_type`, gve_adminq.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum L4 {
    /// Nobody looked, or it is a fragment.
    Unknown = 0,
    /// None of these.
    Other = 1,
    /// TCP.
    Tcp = 2,
    /// UDP.
    Udp = 3,
    /// ICMP.
    Icmp = 4,
    /// SCTP.
    Sctp = 5,
}

/// The number that goes into `packet_type` of a completion.
pub const fn packet_type(l3: L3, l4: L4) -> u16 {
    ((l3 as u16) << 3) | l4 as u16
}

/// The map as the driver reads it: a byte for each layer. Numbers that no frame gets mean unknown.
pub fn map() -> Vec<u8> {
    let mut map = vec![0; MAP_BYTES];
    for l3 in [L3::Unknown, L3::Other, L3::Ipv4, L3::Ipv6] {
        for l4 in [L4::Unknown, L4::Other, L4::Tcp, L4::Udp, L4::Icmp, L4::Sctp] {
            let at = usize::from(packet_type(l3, l4)) * 2;
            if let Some(entry) = map.get_mut(at..at + 2) {
                entry.copy_from_slice(&[l3 as u8, l4 as u8]);
            }
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_says_what_the_numbers_mean() {
        let map = map();
        assert_eq!(map.len(), 2048);
        let entry = |l3, l4| {
            let at = usize::from(packet_type(l3, l4)) * 2;
            (map[at], map[at + 1])
        };
        assert_eq!(entry(L3::Ipv4, L4::Tcp), (2, 2));
        assert_eq!(entry(L3::Ipv6, L4::Udp), (3, 3));
        assert_eq!(entry(L3::Ipv6, L4::Sctp), (3, 5));
        assert_eq!(entry(L3::Other, L4::Unknown), (1, 0));
        assert!(map[64..].iter().all(|byte| *byte == 0), "the rest is unknown");
    }
}
