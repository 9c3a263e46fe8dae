//! What the guest's network cards can do, for capability names that begin with `nic.`.

use std::collections::BTreeMap;

use crate::kernel::genl::{self, Family};
use crate::kernel::links;
use crate::kernel::netlink::{attributes, u32_at};

/// include/uapi/linux/ethtool_netlink_generated.h
const ETHTOOL_MSG_RINGS_GET: u8 = 15;
const ETHTOOL_A_RINGS_HEADER: u16 = 1;
const ETHTOOL_A_RINGS_TCP_DATA_SPLIT: u16 = 11;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
/// ETHTOOL_TCP_DATA_SPLIT_UNKNOWN: the driver says nothing about it.
const SPLIT_UNKNOWN: u8 = 0;

/// A card whose driver can split headers from payload (`ethtool -g`: "TCP data split").
pub fn header_split() -> Result<String, String> {
    let family = Family::find("ethtool").map_err(|error| format!("asking for ethtool netlink: {error}"))?;
    let names: BTreeMap<u32, String> = links::all()
        .map_err(|error| format!("listing network links: {error}"))?
        .into_iter()
        .map(|link| (link.index, link.name))
        .collect();
    let mut able = Vec::new();
    let asked = family.dump(ETHTOOL_MSG_RINGS_GET, &[], |reply| {
        let header =
            attributes(reply).find(|(kind, _)| *kind == ETHTOOL_A_RINGS_HEADER).map_or(&[][..], |found| found.1);
        let index = attributes(header).find(|(kind, _)| *kind == ETHTOOL_A_HEADER_DEV_INDEX);
        let split = attributes(reply).find(|(kind, _)| *kind == ETHTOOL_A_RINGS_TCP_DATA_SPLIT);
        if let (Some((_, index)), Some((_, split))) = (index, split)
            && split.first().is_some_and(|state| *state != SPLIT_UNKNOWN)
        {
            able.extend(names.get(&u32_at(index, 0)).cloned());
        }
    });
    asked.map_err(|error| format!("asking for the ring parameters of network cards: {error}"))?;
    if able.is_empty() { Err("no network card here can split headers".into()) } else { Ok(able.join(", ")) }
}

/// A kernel whose `netdev` netlink family can make queues, which is how netkit leases one of a card's.
pub fn queue_lease() -> Result<String, String> {
    let family = Family::find("netdev").map_err(|error| format!("asking for netdev netlink: {error}"))?;
    if !family.has(genl::NETDEV_CMD_QUEUE_CREATE) {
        return Err("the kernel's netdev netlink family has no queue-create".into());
    }
    let split = header_split().map_err(|why| format!("the kernel can lease queues, but {why}"))?;
    Ok(format!("the kernel can lease queues of {split}"))
}
