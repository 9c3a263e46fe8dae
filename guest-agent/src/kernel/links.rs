//! Network interfaces by rtnetlink (rtnetlink(7); include/uapi/linux/if_link.h), in the calling thread's namespace.

use std::io;

use super::netlink::{CREATE, DUMP, Netlink, attributes, put, text, u32_at};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// struct ifinfomsg.
const IFINFOMSG: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// Set on attributes that hold attributes.
const NLA_F_NESTED: u16 = 0x8000;
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
    put(&mut body, IFLA_LINKINFO | NLA_F_NESTED, &info);
    Netlink::open(None)?.request(RTM_NEWLINK, CREATE, &body, |_, _| {})
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
