//! Whether a NIC's receive rings part headers from payload (`ethtool -g`: "TCP data split"), by ethtool netlink.

use std::io;

use super::genl::Family;
use super::netlink::{NESTED, attributes, put, u32_at};

/// include/uapi/linux/ethtool_netlink_generated.h
const ETHTOOL_MSG_RINGS_GET: u8 = 15;
const ETHTOOL_MSG_RINGS_SET: u8 = 16;
const ETHTOOL_A_RINGS_HEADER: u16 = 1;
const ETHTOOL_A_RINGS_TCP_DATA_SPLIT: u16 = 11;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
/// ETHTOOL_TCP_DATA_SPLIT_UNKNOWN: the driver says nothing about it.
const UNKNOWN: u8 = 0;

/// What a ring does with TCP's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// They stay with the payload.
    Off = 1,
    /// They go to memory of their own.
    On = 2,
}

/// The interfaces whose driver can split, by number, and whether it does.
pub fn splits() -> io::Result<Vec<(u32, Split)>> {
    let mut found = Vec::new();
    Family::find("ethtool")?.dump(ETHTOOL_MSG_RINGS_GET, &[], |reply| {
        let header = attributes(reply).find(|(kind, _)| *kind == ETHTOOL_A_RINGS_HEADER).map_or(&[][..], |it| it.1);
        let index = attributes(header).find(|(kind, _)| *kind == ETHTOOL_A_HEADER_DEV_INDEX);
        let split = attributes(reply).find(|(kind, _)| *kind == ETHTOOL_A_RINGS_TCP_DATA_SPLIT);
        let state = split.and_then(|(_, value)| value.first().copied()).unwrap_or(UNKNOWN);
        if let (Some((_, index)), true) = (index, state != UNKNOWN) {
            found.push((u32_at(index, 0), if state == Split::On as u8 { Split::On } else { Split::Off }));
        }
    })?;
    Ok(found)
}

/// Turns the splitting on or off. Drivers restart their queues for it.
pub fn set_split(interface: u32, split: Split) -> io::Result<()> {
    let (mut header, mut body) = (Vec::new(), Vec::new());
    put(&mut header, ETHTOOL_A_HEADER_DEV_INDEX, &interface.to_ne_bytes());
    put(&mut body, ETHTOOL_A_RINGS_HEADER | NESTED, &header);
    put(&mut body, ETHTOOL_A_RINGS_TCP_DATA_SPLIT, &[split as u8]);
    Family::find("ethtool")?.request(ETHTOOL_MSG_RINGS_SET, &body, |_| {})
}
