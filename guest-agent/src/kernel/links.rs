//! Network interfaces by rtnetlink (rtnetlink(7); include/uapi/linux/if_link.h), in the calling thread's namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::netlink::{CREATE, DUMP, NESTED, Netlink, attributes, put, text, u32_at};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
/// struct ifinfomsg.
const IFINFOMSG: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_NETKIT_PEER_INFO: u16 = 1;
const IFLA_NETKIT_MODE: u16 = 5;
const NETKIT_L3: u32 = 1;
const IFF_UP: u32 = 1;
/// Carrier is there and, for what has one, the far end is up (RFC 2863 operational state).
const IFF_RUNNING: u32 = 0x40;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Bytes of payload it carries at most.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Can carry traffic.
    pub running: bool,
}

/// All interfaces.
pub fn all() -> io::Result<Vec<Interface>> {
    let mut links = Vec::new();
    Netlink::open(None)?.request(RTM_GETLINK, DUMP, &[0; IFINFOMSG], |kind, payload| {
        if kind == RTM_NEWLINK && payload.len() >= IFINFOMSG {
            links.push(interface(payload));
        }
    })?;
    Ok(links)
}

fn interface(payload: &[u8]) -> Interface {
    let flags = u32_at(payload, 8);
    let mut link = Interface {
        index: u32_at(payload, 4),
        name: String::new(),
        mtu: 0,
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
    };
    for (kind, value) in attributes(&payload[IFINFOMSG..]) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32_at(value, 0),
            _ => {}
        }
    }
    link
}

/// Makes an interface of a kind with the kernel's defaults. An unknown kind is `EOPNOTSUPP`; the kernel loads the module
/// `rtnl-link-KIND` if it can.
pub fn create(name: &str, kind: &str) -> io::Result<()> {
    let mut body = vec![0; IFINFOMSG];
    put(&mut body, IFLA_IFNAME, format!("{name}\0").as_bytes());
    let mut info = Vec::new();
    put(&mut info, IFLA_INFO_KIND, kind.as_bytes());
    put(&mut body, IFLA_LINKINFO | NESTED, &info);
    Netlink::open(None)?.request(RTM_NEWLINK, CREATE, &body, |_, _| {})
}

/// One end of a netkit pair to make.
#[derive(Debug, Clone, Copy)]
pub struct NetkitEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Bytes of payload it carries at most.
    pub mtu: u32,
}

/// Makes a netkit pair without hardware addresses (mode l3, where no end has to look for the other), one end here and the
/// peer, with room for so many receive queues, in the other namespace. Only the peer can lease queues: this end is the pair's
/// primary.
pub fn create_netkit(here: NetkitEnd, peer: NetkitEnd, peer_queues: u32, netns: &File) -> io::Result<()> {
    let end = |end: NetkitEnd| {
        let mut body = vec![0; IFINFOMSG];
        put(&mut body, IFLA_IFNAME, format!("{}\0", end.name).as_bytes());
        put(&mut body, IFLA_MTU, &end.mtu.to_ne_bytes());
        body
    };
    let mut there = end(peer);
    put(&mut there, IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
    put(&mut there, IFLA_NUM_RX_QUEUES, &peer_queues.to_ne_bytes());
    let (mut data, mut info, mut body) = (Vec::new(), Vec::new(), end(here));
    put(&mut data, IFLA_NETKIT_MODE, &NETKIT_L3.to_ne_bytes());
    put(&mut data, IFLA_NETKIT_PEER_INFO | NESTED, &there);
    put(&mut info, IFLA_INFO_KIND, b"netkit");
    put(&mut info, IFLA_INFO_DATA | NESTED, &data);
    put(&mut body, IFLA_LINKINFO | NESTED, &info);
    Netlink::open(None)?.request(RTM_NEWLINK, CREATE, &body, |_, _| {})
}

/// Brings an interface up.
pub fn set_up(index: u32) -> io::Result<()> {
    let mut body = message(index);
    body[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
    body[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    Netlink::open(None)?.request(RTM_NEWLINK, 0, &body, |_, _| {})
}

/// Removes an interface, and with it the other end of its pair.
pub fn delete(index: u32) -> io::Result<()> {
    Netlink::open(None)?.request(RTM_DELLINK, 0, &message(index), |_, _| {})
}

/// `struct ifinfomsg` with nothing but the number.
fn message(index: u32) -> Vec<u8> {
    let mut body = vec![0; IFINFOMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body
}

/// The interface of that name.
pub fn find(name: &str) -> io::Result<Option<Interface>> {
    Ok(all()?.into_iter().find(|link| link.name == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_listed() {
        let links = all().expect("rtnetlink");
        assert!(links.iter().any(|link| link.name == "lo" && link.index == 1 && link.mtu >= 1500), "{links:?}");
    }
}
