//! Flow steering rules of network interfaces (ethtool -n), by ethtool's ioctl.

use std::io;

use rustix::net::{AddressFamily, SocketType, socket};

use crate::sys;

/// include/uapi/linux/ethtool.h
const ETHTOOL_GRXCLSRLCNT: u32 = 0x2e;
const ETHTOOL_GRXCLSRLALL: u32 = 0x30;
/// Offset of `rule_cnt` in struct ethtool_rxnfc; `rule_locs` follows it.
const RULE_COUNT: usize = 184;
/// Size of struct ethtool_rxnfc without `rule_locs`, rounded to its alignment.
const RXNFC: usize = 192;

/// Where the rules of an interface sit. An interface that cannot have any has none.
pub fn rules(interface: &str) -> io::Result<Vec<u32>> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut buffer = vec![0_u64; RXNFC / 8];
    set(&mut buffer, 0, ETHTOOL_GRXCLSRLCNT);
    match sys::ethtool(&socket, interface, &mut buffer) {
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
    sys::ethtool(&socket, interface, &mut buffer)?;
    let found = get(&buffer, RULE_COUNT).min(count) as usize;
    Ok((0..found).map(|at| get(&buffer, RULE_COUNT + 4 + 4 * at)).collect())
}

fn get(buffer: &[u64], at: usize) -> u32 {
    let bytes = buffer[at / 8].to_ne_bytes();
    u32::from_ne_bytes(if at.is_multiple_of(8) {
        [bytes[0], bytes[1], bytes[2], bytes[3]]
    } else {
        [bytes[4], bytes[5], bytes[6], bytes[7]]
    })
}

fn set(buffer: &mut [u64], at: usize, value: u32) {
    let mut bytes = buffer[at / 8].to_ne_bytes();
    let offset = at % 8;
    bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    buffer[at / 8] = u64::from_ne_bytes(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_where_they_were_put() {
        let mut buffer = vec![0; RXNFC / 8];
        set(&mut buffer, 0, 7);
        set(&mut buffer, RULE_COUNT, 9);
        set(&mut buffer, RULE_COUNT + 4, 11);
        assert_eq!((get(&buffer, 0), get(&buffer, RULE_COUNT), get(&buffer, RULE_COUNT + 4)), (7, 9, 11));
    }

    #[test]
    fn the_loopback_interface_has_no_rules() {
        assert_eq!(rules("lo").expect("an answer"), []);
    }
}
