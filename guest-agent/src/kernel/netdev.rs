//! Queues of network devices, and their leases (Documentation/netlink/specs/netdev.yaml; include/uapi/linux/netdev.h).

use std::io;

use super::genl::Family;
use super::netlink::{NESTED, attributes, put, u32_at};

const QUEUE_GET: u8 = 10;
/// Makes a queue of a virtual device, as netkit's leased ones.
pub const QUEUE_CREATE: u8 = 16;

const QUEUE_ID: u16 = 1;
const QUEUE_IFINDEX: u16 = 2;
const QUEUE_TYPE: u16 = 3;
const QUEUE_DMABUF: u16 = 5;
const QUEUE_LEASE: u16 = 8;
const LEASE_IFINDEX: u16 = 1;
const LEASE_QUEUE: u16 = 2;
const LEASE_NETNS_ID: u16 = 3;
/// NETDEV_QUEUE_TYPE_RX
const RX: u32 = 0;

/// A receive queue that is in use by its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RxQueue {
    /// Its number.
    pub id: u32,
    /// Device memory is bound to it.
    pub devmem: bool,
    /// The device it is leased to.
    pub lease: Option<Leasee>,
}

/// Who has a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leasee {
    /// Number of the device, in its own namespace.
    pub interface: u32,
    /// The queue's number there.
    pub queue: u32,
}

/// The receive queues of an interface. A leased queue reports the memory that is bound to it through its lease.
pub fn rx_queues(interface: u32) -> io::Result<Vec<RxQueue>> {
    let mut body = Vec::new();
    put(&mut body, QUEUE_IFINDEX, &interface.to_ne_bytes());
    let mut queues = Vec::new();
    Family::find("netdev")?.dump(QUEUE_GET, &body, |reply| {
        let get = |wanted| attributes(reply).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let (Some(id), Some(kind)) = (get(QUEUE_ID), get(QUEUE_TYPE)) else { return };
        if u32_at(kind, 0) == RX {
            let lease = get(QUEUE_LEASE).map(leasee);
            queues.push(RxQueue { id: u32_at(id, 0), devmem: get(QUEUE_DMABUF).is_some(), lease });
        }
    })?;
    queues.sort_by_key(|queue| queue.id);
    Ok(queues)
}

fn leasee(lease: &[u8]) -> Leasee {
    let mut leasee = Leasee { interface: 0, queue: 0 };
    for (kind, value) in attributes(lease) {
        match kind {
            LEASE_IFINDEX => leasee.interface = u32_at(value, 0),
            LEASE_QUEUE => {
                let id = attributes(value).find(|(kind, _)| *kind == QUEUE_ID);
                leasee.queue = id.map_or(0, |(_, id)| u32_at(id, 0));
            }
            _ => {}
        }
    }
    leasee
}

/// Gives the netkit device of this namespace one more receive queue, which is the NIC's in the namespace of that number
/// (as this one numbers its peers); returns the number of the new queue. Refusals are `ERANGE` (the NIC has no such
/// queue), `EBUSY` (it is leased already, or has memory of its own), `EINVAL` (a device that cannot), `EOPNOTSUPP` (the
/// netkit's other end, or queues of two NICs).
pub fn lease(netkit: u32, nic: u32, queue: u32, netns: i32) -> io::Result<u32> {
    let (mut asked, mut lease, mut body) = (Vec::new(), Vec::new(), Vec::new());
    put(&mut asked, QUEUE_ID, &queue.to_ne_bytes());
    put(&mut asked, QUEUE_TYPE, &RX.to_ne_bytes());
    put(&mut lease, LEASE_IFINDEX, &nic.to_ne_bytes());
    put(&mut lease, LEASE_QUEUE | NESTED, &asked);
    put(&mut lease, LEASE_NETNS_ID, &netns.to_ne_bytes());
    put(&mut body, QUEUE_IFINDEX, &netkit.to_ne_bytes());
    put(&mut body, QUEUE_TYPE, &RX.to_ne_bytes());
    put(&mut body, QUEUE_LEASE | NESTED, &lease);
    let mut made = 0;
    Family::find("netdev")?.request(QUEUE_CREATE, &body, |reply| {
        let id = attributes(reply).find(|(kind, _)| *kind == QUEUE_ID);
        made = id.map_or(0, |(_, id)| u32_at(id, 0));
    })?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_names_the_device_and_its_queue() {
        let (mut queue, mut lease) = (Vec::new(), Vec::new());
        put(&mut queue, QUEUE_ID, &3_u32.to_ne_bytes());
        put(&mut queue, QUEUE_TYPE, &RX.to_ne_bytes());
        put(&mut lease, LEASE_QUEUE | NESTED, &queue);
        put(&mut lease, LEASE_IFINDEX, &9_u32.to_ne_bytes());
        assert_eq!(leasee(&lease), Leasee { interface: 9, queue: 3 });
    }
}
