//! Flow steering rules of network interfaces (ethtool -n, -N), by ethtool's ioctl.

use std::io;
use std::net::IpAddr;

use super::ethtool::{call, get, set};

/// include/uapi/linux/ethtool.h
const ETHTOOL_GRXCLSRLCNT: u32 = 0x2e;
const ETHTOOL_GRXCLSRLALL: u32 = 0x30;
const ETHTOOL_SRXCLSRLDEL: u32 = 0x31;
const ETHTOOL_SRXCLSRLINS: u32 = 0x32;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETH_FLAG_NTUPLE: u32 = 1 << 27;
const TCP_V4_FLOW: u32 = 1;
const TCP_V6_FLOW: u32 = 5;
/// Offset of `rule_cnt` in struct ethtool_rxnfc; `rule_locs` follows it.
const RULE_COUNT: usize = 184;
/// Size of struct ethtool_rxnfc without `rule_locs`, rounded to its alignment.
const RXNFC: usize = 192;

/// Offsets in struct ethtool_rxnfc: `data`, and within `fs` the flow's type, what is looked for, the mask of what counts (same
/// layout), the queue and the rule's place. Ports are big endian.
const DATA: usize = 8;
const FLOW_TYPE: usize = 16;
const VALUE: usize = 20;
const MASK: usize = 92;
const RING_COOKIE: usize = 168;
const LOCATION: usize = 176;

/// TCP to an address goes to a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpRule {
    /// Destination.
    pub to: IpAddr,
    /// Source ports with these bits: value and mask.
    pub from_port: (u16, u16),
    /// The queue.
    pub queue: u32,
}

/// Whether the interface steers by rules at all (`ethtool -k`: ntuple-filters).
pub fn enabled(interface: &str) -> io::Result<bool> {
    Ok(flags(interface, ETHTOOL_GFLAGS, 0)? & ETH_FLAG_NTUPLE != 0)
}

/// Has it do so, or not. Off takes all rules away.
pub fn enable(interface: &str, on: bool) -> io::Result<()> {
    let flags_now = flags(interface, ETHTOOL_GFLAGS, 0)?;
    let wanted = if on { flags_now | ETH_FLAG_NTUPLE } else { flags_now & !ETH_FLAG_NTUPLE };
    flags(interface, ETHTOOL_SFLAGS, wanted).map(drop)
}

fn flags(interface: &str, command: u32, value: u32) -> io::Result<u32> {
    // struct ethtool_value
    let mut buffer = vec![0_u64; 1];
    set(&mut buffer, 0, command);
    set(&mut buffer, 4, value);
    call(interface, &mut buffer)?;
    Ok(get(&buffer, 4))
}

/// Adds a rule in the highest free place, which it returns.
pub fn add(interface: &str, rule: &TcpRule) -> io::Result<u32> {
    let mut buffer = vec![0_u64; RXNFC / 8];
    set(&mut buffer, 0, ETHTOOL_GRXCLSRLCNT);
    call(interface, &mut buffer)?;
    let (places, used) = (get(&buffer, DATA), rules(interface)?);
    let place = (0..places).rev().find(|place| !used.contains(place));
    let place = place.ok_or_else(|| io::Error::other(format!("all {places} places for rules are taken")))?;
    let mut buffer = encode(rule);
    set(&mut buffer, LOCATION, place);
    call(interface, &mut buffer)?;
    Ok(place)
}

fn encode(rule: &TcpRule) -> Vec<u64> {
    let mut bytes = [0; RXNFC];
    let (flow, address, destination, source_port) = match rule.to {
        IpAddr::V4(address) => (TCP_V4_FLOW, address.octets().to_vec(), 4, 8),
        IpAddr::V6(address) => (TCP_V6_FLOW, address.octets().to_vec(), 16, 32),
    };
    let mut write = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
    write(0, &ETHTOOL_SRXCLSRLINS.to_ne_bytes());
    write(FLOW_TYPE, &flow.to_ne_bytes());
    write(VALUE + destination, &address);
    write(MASK + destination, &vec![0xff; address.len()]);
    write(VALUE + source_port, &rule.from_port.0.to_be_bytes());
    write(MASK + source_port, &rule.from_port.1.to_be_bytes());
    write(RING_COOKIE, &u64::from(rule.queue).to_ne_bytes());
    bytes.chunks_exact(8).map(|eight| u64::from_ne_bytes(eight.try_into().unwrap_or_default())).collect()
}

/// Removes the rule in that place.
pub fn delete(interface: &str, place: u32) -> io::Result<()> {
    let mut buffer = vec![0_u64; RXNFC / 8];
    set(&mut buffer, 0, ETHTOOL_SRXCLSRLDEL);
    set(&mut buffer, LOCATION, place);
    call(interface, &mut buffer)
}

/// Where the rules of an interface sit. An interface that cannot have any has none.
pub fn rules(interface: &str) -> io::Result<Vec<u32>> {
    let mut buffer = vec![0_u64; RXNFC / 8];
    set(&mut buffer, 0, ETHTOOL_GRXCLSRLCNT);
    match call(interface, &mut buffer) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENODEV)) => {
            return Ok(Vec::new());
        }
        other => other?,
    }
    let count = get(&buffer, RULE_COUNT);
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut buffer = vec![0_u64; RXNFC / 8 + count as usize / 2 + 1];
    set(&mut buffer, 0, ETHTOOL_GRXCLSRLALL);
    set(&mut buffer, RULE_COUNT, count);
    call(interface, &mut buffer)?;
    let found = get(&buffer, RULE_COUNT).min(count) as usize;
    Ok((0..found).map(|at| get(&buffer, RULE_COUNT + 4 + 4 * at)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_what_counts() {
        let to = "2001:db8::2".parse().expect("an address");
        let buffer = encode(&TcpRule { to, from_port: (2, 3), queue: 14 });
        assert_eq!(get(&buffer, FLOW_TYPE), TCP_V6_FLOW);
        assert_eq!(get(&buffer, VALUE + 16), u32::from_ne_bytes([0x20, 0x01, 0x0d, 0xb8]));
        assert_eq!((get(&buffer, VALUE), get(&buffer, MASK)), (0, 0));
        assert_eq!((get(&buffer, MASK + 16), get(&buffer, MASK + 28)), (u32::MAX, u32::MAX));
        assert_eq!(get(&buffer, VALUE + 32), u32::from_ne_bytes([0, 2, 0, 0]));
        assert_eq!(get(&buffer, MASK + 32), u32::from_ne_bytes([0, 3, 0, 0]));
        assert_eq!((get(&buffer, RING_COOKIE), get(&buffer, RING_COOKIE + 4)), (14, 0));
    }

    #[test]
    fn the_loopback_interface_has_no_rules() {
        assert_eq!(rules("lo").expect("an answer"), []);
    }
}
