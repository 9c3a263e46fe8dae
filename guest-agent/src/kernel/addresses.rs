//! Addresses, routes and the numbers of namespaces by rtnetlink (rtnetlink(7)), in the calling thread's namespace.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use super::netlink::{CREATE, Netlink, attributes, put, u32_at};

const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
/// include/uapi/linux/net_namespace.h
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// Any number will do; and: there is none.
const NSID_NONE: i32 = -1;

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Gives an interface an address; no duplicate of it is looked for.
pub fn add(interface: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    // struct ifaddrmsg
    let mut body = vec![family(address), prefix, 0, 0];
    body.extend(interface.to_ne_bytes());
    put(&mut body, IFA_LOCAL, &bytes(address));
    put(&mut body, IFA_ADDRESS, &bytes(address));
    put(&mut body, IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
    Netlink::open(None)?.request(RTM_NEWADDR, CREATE, &body, |_, _| {})
}

/// Sends what goes to the address, or with none to anywhere in its family, through an interface that needs no next hop.
pub fn route(interface: u32, to: IpAddr, everything: bool) -> io::Result<()> {
    let length = if everything { 0 } else { 8 * bytes(to).len() as u8 };
    // struct rtmsg
    let mut body = vec![family(to), length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST];
    body.extend([0; 4]);
    if !everything {
        put(&mut body, RTA_DST, &bytes(to));
    }
    put(&mut body, RTA_OIF, &interface.to_ne_bytes());
    Netlink::open(None)?.request(RTM_NEWROUTE, CREATE, &body, |_, _| {})
}

/// The number by which this namespace knows the other; it gets one if it has none.
pub fn netns_id(other: &File) -> io::Result<i32> {
    // struct rtgenmsg, padded.
    let mut body = vec![0; 4];
    put(&mut body, NETNSA_FD, &other.as_raw_fd().to_ne_bytes());
    let mut netlink = Netlink::open(None)?;
    let mut number = NSID_NONE;
    let mut ask = |netlink: &mut Netlink| {
        netlink.request(RTM_GETNSID, 0, &body, |_, payload| {
            let found = attributes(payload.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == NETNSA_NSID);
            number = found.map_or(NSID_NONE, |(_, value)| u32_at(value, 0) as i32);
        })?;
        Ok::<_, io::Error>(number)
    };
    if ask(&mut netlink)? == NSID_NONE {
        let mut wish = body.clone();
        put(&mut wish, NETNSA_NSID, &NSID_NONE.to_ne_bytes());
        netlink.request(RTM_NEWNSID, 0, &wish, |_, _| {})?;
        ask(&mut netlink)?;
    }
    Ok(number)
}
