//! RDMA devices and listening connection manager ids by nldev netlink (include/uapi/rdma/rdma_netlink.h), which is what
//! `rdma resource show cm_id` and `rdma link` ask.

use std::io;
use std::path::Path;

use super::netlink::{DUMP, Netlink, attributes, put, text, u32_at};

/// RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, op).
const fn op(number: u16) -> u16 {
    (5 << 10) + number
}
const CMD_GET: u16 = op(1);
const CMD_PORT_GET: u16 = op(5);
const CMD_RES_CM_ID_GET: u16 = op(11);
const ATTR_DEV_INDEX: u16 = 1;
const ATTR_DEV_NAME: u16 = 2;
const ATTR_PORT_INDEX: u16 = 3;
const ATTR_PORT_STATE: u16 = 12;
const ATTR_PORT_PHYS_STATE: u16 = 13;
const ATTR_RES_STATE: u16 = 27;
const ATTR_RES_CM_ID: u16 = 30;
const ATTR_RES_CM_ID_ENTRY: u16 = 31;
const ATTR_RES_SRC_ADDR: u16 = 33;
const ATTR_NDEV_NAME: u16 = 51;
/// RDMA_CM_LISTEN (drivers/infiniband/core/cma_priv.h).
const CM_LISTEN: u8 = 8;
/// IB_PORT_ACTIVE (include/rdma/ib_verbs.h).
const PORT_ACTIVE: u8 = 4;
/// IB_PORT_PHYS_STATE_LINK_UP.
const PHYS_LINK_UP: u8 = 5;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    index: u32,
    /// Its name, for instance `rxe0`.
    pub name: String,
}

/// One port of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Port {
    /// Its number, from 1.
    pub number: u32,
    /// Logical state (IBTA, PortInfo:PortState: 1 down, 2 init, 3 armed, 4 active).
    pub state: u8,
    /// Physical state.
    pub physical: u8,
    /// The network interface it sits on, if that is in our namespace.
    pub netdev: String,
}

impl Port {
    /// Whether traffic can flow.
    pub fn is_active(&self) -> bool {
        self.state == PORT_ACTIVE && self.physical == PHYS_LINK_UP
    }
}

fn open() -> io::Result<Netlink> {
    Netlink::open(Some(rustix::net::netlink::RDMA))
}

/// All devices this network namespace sees. A kernel without RDMA has none.
pub fn devices() -> io::Result<Vec<Device>> {
    // Opening the socket without ib_core would have the kernel run modprobe, every time anew.
    if !Path::new("/sys/class/infiniband").exists() {
        return Ok(Vec::new());
    }
    let mut netlink = open()?;
    let mut devices = Vec::new();
    let listed = netlink.request(CMD_GET, DUMP, &[], |_, payload| {
        let mut device = Device { index: 0, name: String::new() };
        for (kind, value) in attributes(payload) {
            match kind {
                ATTR_DEV_INDEX => device.index = u32_at(value, 0),
                ATTR_DEV_NAME => device.name = text(value),
                _ => {}
            }
        }
        devices.push(device);
    });
    match listed {
        // ib_core is loaded, but its nldev client is not.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        other => other.map(|()| devices),
    }
}

/// The ports of a device.
pub fn ports(device: &Device) -> io::Result<Vec<Port>> {
    let mut ports = Vec::new();
    open()?.request(CMD_PORT_GET, DUMP, &of_device(device), |_, payload| {
        let mut port = Port::default();
        for (kind, value) in attributes(payload) {
            match kind {
                ATTR_PORT_INDEX => port.number = u32_at(value, 0),
                ATTR_PORT_STATE => port.state = value.first().copied().unwrap_or(0),
                ATTR_PORT_PHYS_STATE => port.physical = value.first().copied().unwrap_or(0),
                ATTR_NDEV_NAME => port.netdev = text(value),
                _ => {}
            }
        }
        ports.push(port);
    })?;
    Ok(ports)
}

fn of_device(device: &Device) -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body, ATTR_DEV_INDEX, &device.index.to_ne_bytes());
    body
}

/// Ports on which a connection manager id listens, over all devices.
pub fn listening() -> io::Result<Vec<u16>> {
    let mut found = Vec::new();
    for device in devices()? {
        open()?.request(CMD_RES_CM_ID_GET, DUMP, &of_device(&device), |_, payload| found.extend(listeners(payload)))?;
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn listeners(payload: &[u8]) -> Vec<u16> {
    let tables = attributes(payload).filter(|(kind, _)| *kind == ATTR_RES_CM_ID);
    let entries = tables.flat_map(|(_, table)| attributes(table)).filter(|(kind, _)| *kind == ATTR_RES_CM_ID_ENTRY);
    entries.filter_map(|(_, entry)| listener(entry)).collect()
}

fn listener(entry: &[u8]) -> Option<u16> {
    let find = |wanted| attributes(entry).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    if find(ATTR_RES_STATE)?.first() != Some(&CM_LISTEN) {
        return None;
    }
    // A sockaddr of either family has its port in the third and fourth byte, in network order.
    let address = find(ATTR_RES_SRC_ADDR)?;
    Some(u16::from_be_bytes([*address.get(2)?, *address.get(3)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: u8, port: u16) -> Vec<u8> {
        let mut address = vec![2, 0];
        address.extend_from_slice(&port.to_be_bytes());
        address.resize(128, 0);
        let mut bytes = Vec::new();
        put(&mut bytes, ATTR_RES_STATE, &[state]);
        put(&mut bytes, ATTR_RES_SRC_ADDR, &address);
        bytes
    }

    #[test]
    fn only_listening_ids_count() {
        let mut table = Vec::new();
        put(&mut table, ATTR_RES_CM_ID_ENTRY, &entry(CM_LISTEN, 7174));
        put(&mut table, ATTR_RES_CM_ID_ENTRY, &entry(5, 40000));
        let mut message = of_device(&Device { index: 0, name: "rxe0".into() });
        put(&mut message, ATTR_RES_CM_ID, &table);
        assert_eq!(listeners(&message), [7174]);
    }

    #[test]
    fn a_host_without_rdma_has_no_devices() {
        // Whatever this machine has, asking must not fail.
        devices().expect("a list of devices");
    }
}
