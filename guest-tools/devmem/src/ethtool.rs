//! What of a NIC's set-up is behind ioctls: flow rules, whether there may be any, and the table that spreads other traffic.
//!
//! Requests are laid out as linux/ethtool.h says, by functions that touch no NIC.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType};

use crate::sys;

const GFLAGS: u32 = 0x25;
const SFLAGS: u32 = 0x26;
const GRXCLSRLCNT: u32 = 0x2e;
const GRXCLSRLALL: u32 = 0x30;
const SRXCLSRLDEL: u32 = 0x31;
const SRXCLSRLINS: u32 = 0x32;
const GRXFHINDIR: u32 = 0x38;
const SRXFHINDIR: u32 = 0x39;
const ETH_FLAG_NTUPLE: u32 = 1 << 27;
const TCP_V4_FLOW: u32 = 1;
const TCP_V6_FLOW: u32 = 5;
/// Said by drivers that choose a rule's place themselves.
const RX_CLS_LOC_SPECIAL: u32 = 0x8000_0000;
const RX_CLS_LOC_ANY: u32 = 0xffff_ffff;

// struct ethtool_rxnfc: where its parts are.
const RXNFC: usize = 192;
const DATA: usize = 8;
const FLOW_TYPE: usize = 16;
const HEADER_VALUES: usize = 20;
const HEADER_MASKS: usize = 92;
const RING: usize = 168;
const LOCATION: usize = 176;
const RULE_COUNT: usize = 184;
const RULE_LOCATIONS: usize = 188;
/// More entries than this in a table are not read (tables of NICs have 128 to 2048).
const MOST: u32 = 2048;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |found| u32::from_ne_bytes(*found))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A rule: TCP to this port, and to this address if there is one, goes to a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whether it is for IPv6.
    pub v6: bool,
    /// The address, all of them without one.
    pub to: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The queue.
    pub queue: u32,
}

impl Rule {
    /// What a user would run for it.
    pub fn command(&self, netdev: &str) -> String {
        let family = if self.v6 { "tcp6" } else { "tcp4" };
        let to = self.to.map_or(String::new(), |to| format!(" dst-ip {to}"));
        format!("ethtool -N {netdev} flow-type {family}{to} dst-port {} action {}", self.port, self.queue)
    }

    /// The request that inserts it.
    fn request(&self, location: u32) -> Vec<u8> {
        let mut bytes = vec![0; RXNFC];
        put(&mut bytes, 0, &SRXCLSRLINS.to_ne_bytes());
        let flow = if self.v6 { TCP_V6_FLOW } else { TCP_V4_FLOW };
        put(&mut bytes, FLOW_TYPE, &flow.to_ne_bytes());
        // struct ethtool_tcpip4_spec and ethtool_tcpip6_spec: source, destination, their ports.
        let (address, port) = if self.v6 { (16, 34) } else { (4, 10) };
        match self.to {
            Some(IpAddr::V4(to)) if !self.v6 => put(&mut bytes, HEADER_VALUES + address, &to.octets()),
            Some(IpAddr::V6(to)) if self.v6 => put(&mut bytes, HEADER_VALUES + address, &to.octets()),
            _ => {}
        }
        let width = if self.v6 { 16 } else { 4 };
        if self.to.is_some() {
            bytes[HEADER_MASKS + address..][..width].fill(0xff);
        }
        put(&mut bytes, HEADER_VALUES + port, &self.port.to_be_bytes());
        bytes[HEADER_MASKS + port..][..2].fill(0xff);
        put(&mut bytes, RING, &u64::from(self.queue).to_ne_bytes());
        put(&mut bytes, LOCATION, &location.to_ne_bytes());
        bytes
    }
}

/// Where a rule goes that takes no other's place: from the end, as ethtool does it.
fn free_location(size: u32, taken: &[u32]) -> Option<u32> {
    if size & RX_CLS_LOC_SPECIAL != 0 {
        return Some(RX_CLS_LOC_ANY);
    }
    (0..size).rev().find(|location| !taken.contains(location))
}

/// A table with the entries that lead to `queues` led to the others instead, in turn.
pub fn around(table: &[u32], queues: &[u32], count: u32) -> Option<Vec<u32>> {
    let others: Vec<u32> = (0..count).filter(|queue| !queues.contains(queue)).collect();
    if others.is_empty() {
        return None;
    }
    let mut next = others.iter().cycle();
    Some(table.iter().map(|queue| if queues.contains(queue) { *next.next().unwrap_or(&0) } else { *queue }).collect())
}

/// Whether a table is the one a NIC has that nobody gave another: its queues in turn.
pub fn is_default(table: &[u32], count: u32) -> bool {
    table.iter().zip((0..count.max(1)).cycle()).all(|(queue, due)| *queue == due)
}

/// A NIC to ask.
#[derive(Debug)]
pub struct Nic {
    socket: OwnedFd,
    name: String,
}

impl Nic {
    /// Opens what is needed to ask it.
    ///
    /// # Errors
    /// When there are no sockets.
    pub fn open(name: &str) -> io::Result<Nic> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        Ok(Nic { socket, name: name.to_owned() })
    }

    fn ask(&self, mut request: Vec<u8>) -> io::Result<Vec<u8>> {
        sys::ethtool(self.socket.as_fd(), &self.name, &mut request)?;
        Ok(request)
    }

    fn flags(&self) -> io::Result<u32> {
        let answer = self.ask([GFLAGS, 0].into_iter().flat_map(u32::to_ne_bytes).collect())?;
        Ok(u32_at(&answer, 4))
    }

    /// Whether there may be flow rules.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ntuple(&self) -> io::Result<bool> {
        Ok(self.flags()? & ETH_FLAG_NTUPLE != 0)
    }

    /// Lets there be flow rules, or not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_ntuple(&self, on: bool) -> io::Result<()> {
        let flags = self.flags()?;
        let flags = if on { flags | ETH_FLAG_NTUPLE } else { flags & !ETH_FLAG_NTUPLE };
        self.ask([SFLAGS, flags].into_iter().flat_map(u32::to_ne_bytes).collect()).map(drop)
    }

    /// Inserts a rule where none is; returns where.
    ///
    /// # Errors
    /// The kernel's, and `StorageFull`.
    pub fn insert(&self, rule: &Rule) -> io::Result<u32> {
        let (taken, size) = self.locations()?;
        let location = free_location(size, &taken).ok_or(io::ErrorKind::StorageFull)?;
        let inserted = self.ask(rule.request(location))?;
        Ok(u32_at(&inserted, LOCATION))
    }

    /// Where there are rules, and how many there can be, with `RX_CLS_LOC_SPECIAL`.
    fn locations(&self) -> io::Result<(Vec<u32>, u32)> {
        let mut request = vec![0; RXNFC];
        put(&mut request, 0, &GRXCLSRLCNT.to_ne_bytes());
        let counted = self.ask(request.clone())?;
        let count = u32_at(&counted, RULE_COUNT).min(MOST);
        put(&mut request, 0, &GRXCLSRLALL.to_ne_bytes());
        put(&mut request, RULE_COUNT, &count.to_ne_bytes());
        request.resize(RULE_LOCATIONS + 4 * count as usize + 4, 0);
        let all = self.ask(request)?;
        let taken = (0..count as usize).map(|n| u32_at(&all, RULE_LOCATIONS + 4 * n)).collect();
        Ok((taken, u32_at(&all, DATA) | (u32_at(&counted, DATA) & RX_CLS_LOC_SPECIAL)))
    }

    /// Removes a rule. One that went with a reset of the device needs no removing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn delete(&self, location: u32) -> io::Result<()> {
        let mut request = vec![0; RXNFC];
        put(&mut request, 0, &SRXCLSRLDEL.to_ne_bytes());
        put(&mut request, LOCATION, &location.to_ne_bytes());
        match self.ask(request) {
            Err(_) if self.locations().is_ok_and(|(taken, _)| !taken.contains(&location)) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Which queue each part of the other traffic goes to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn spread(&self) -> io::Result<Vec<u32>> {
        let size = u32_at(&self.ask([GRXFHINDIR, 0].into_iter().flat_map(u32::to_ne_bytes).collect())?, 4).min(MOST);
        let mut request: Vec<u8> = [GRXFHINDIR, size].into_iter().flat_map(u32::to_ne_bytes).collect();
        request.resize(8 + 4 * size as usize, 0);
        let table = self.ask(request)?;
        Ok((0..size as usize).map(|n| u32_at(&table, 8 + 4 * n)).collect())
    }

    /// Sets that; an empty table is the driver's default.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_spread(&self, table: &[u32]) -> io::Result<()> {
        let request = [SRXFHINDIR, table.len() as u32].iter().chain(table).flat_map(|n| n.to_ne_bytes()).collect();
        self.ask(request).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_laid_out_as_the_header_says() {
        let rule = Rule { v6: false, to: Some("192.168.77.2".parse().unwrap()), port: 5401, queue: 3 };
        let bytes = rule.request(255);
        let mut due = vec![0; 192];
        due[0] = 0x32;
        due[16] = 1;
        due[24..28].copy_from_slice(&[192, 168, 77, 2]);
        due[30..32].copy_from_slice(&[0x15, 0x19]);
        due[96..100].fill(255);
        due[102..104].fill(255);
        (due[168], due[176]) = (3, 255);
        assert_eq!(bytes, due);
        assert_eq!(rule.command("eth0"), "ethtool -N eth0 flow-type tcp4 dst-ip 192.168.77.2 dst-port 5401 action 3");
    }

    #[test]
    fn a_rule_for_ipv6_and_one_for_every_address() {
        let to = "fd77::2".parse().unwrap();
        let bytes = Rule { v6: true, to: Some(to), port: 1, queue: 1 }.request(0);
        assert_eq!(
            (bytes[16], &bytes[36..52]),
            (
                5,
                &match to {
                    IpAddr::V6(to) => to.octets(),
                    IpAddr::V4(_) => [0; 16],
                }[..]
            )
        );
        assert_eq!((&bytes[54..56], &bytes[108..124], &bytes[126..128]), (&[0, 1][..], &[255; 16][..], &[255; 2][..]));
        let any = Rule { v6: true, to: None, port: 1, queue: 1 };
        assert_eq!((&any.request(0)[36..52], &any.request(0)[108..124]), (&[0; 16][..], &[0; 16][..]));
        assert_eq!(any.command("eth0"), "ethtool -N eth0 flow-type tcp6 dst-port 1 action 1");
    }

    #[test]
    fn no_rule_takes_anothers_place() {
        assert_eq!(free_location(256, &[]), Some(255));
        assert_eq!(free_location(4, &[3, 1, 2]), Some(0));
        assert_eq!(free_location(2, &[0, 1]), None);
        assert_eq!(free_location(RX_CLS_LOC_SPECIAL | 8, &[]), Some(RX_CLS_LOC_ANY));
    }

    #[test]
    fn other_traffic_is_led_around_the_bound_queues() {
        assert_eq!(around(&[0, 1, 2, 3, 0, 1, 2, 3], &[1, 2], 4).unwrap(), [0, 0, 3, 3, 0, 0, 3, 3]);
        assert_eq!(around(&[0, 0], &[1], 2).unwrap(), [0, 0]);
        assert_eq!(around(&[0], &[0], 1), None);
        assert!(is_default(&[0, 1, 2, 0, 1], 3) && !is_default(&[0, 1, 1], 3) && !is_default(&[0, 1, 2, 0], 4));
    }
}
