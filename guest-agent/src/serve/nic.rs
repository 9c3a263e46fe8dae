//! What the guest's network cards can do, for capability names that begin with `nic.`.

use std::collections::BTreeMap;

use crate::kernel::genl::Family;
use crate::kernel::{links, netdev, rings};

/// A card whose driver can split headers from payload (`ethtool -g`: "TCP data split").
pub fn header_split() -> Result<String, String> {
    let names: BTreeMap<u32, String> = links::all()
        .map_err(|error| format!("listing network links: {error}"))?
        .into_iter()
        .map(|link| (link.index, link.name))
        .collect();
    let splits =
        rings::splits().map_err(|error| format!("asking for the ring parameters of network cards: {error}"))?;
    let able: Vec<String> = splits.iter().filter_map(|(index, _)| names.get(index).cloned()).collect();
    if able.is_empty() { Err("no network card here can split headers".into()) } else { Ok(able.join(", ")) }
}

/// A kernel whose `netdev` netlink family can make queues, which is how netkit leases one of a card's.
pub fn queue_lease() -> Result<String, String> {
    let family = Family::find("netdev").map_err(|error| format!("asking for netdev netlink: {error}"))?;
    if !family.has(u32::from(netdev::QUEUE_CREATE)) {
        return Err("the kernel's netdev netlink family has no queue-create".into());
    }
    let split = header_split().map_err(|why| format!("the kernel can lease queues, but {why}"))?;
    Ok(format!("the kernel can lease queues of {split}"))
}
