//! What the netlink families `netdev` and `ethtool` know of a NIC: its queues, its header split, and binding dma-bufs to it.
//!
//! Numbers are those of linux/netdev.h and linux/ethtool_netlink_generated.h.

use std::os::fd::RawFd;

use anyhow::{Context as _, Result};

use crate::netlink::{Attributes, Family};
use crate::refusal::Refusal;
use crate::sys;

const QUEUE_GET: u8 = 10;
const BIND_RX: u8 = 13;
const BIND_TX: u8 = 15;
const QUEUE_ID: u16 = 1;
const QUEUE_IFINDEX: u16 = 2;
const QUEUE_TYPE: u16 = 3;
const QUEUE_DMABUF: u16 = 5;
const QUEUE_IO_URING: u16 = 6;
const QUEUE_XSK: u16 = 7;
const QUEUE_LEASE: u16 = 8;
const QUEUE_TYPE_RX: u32 = 0;
const DMABUF_IFINDEX: u16 = 1;
const DMABUF_QUEUES: u16 = 2;
const DMABUF_FD: u16 = 3;
const DMABUF_ID: u16 = 4;
const DMABUF_RX_PAGE_SIZE: u16 = 5;

const RINGS_GET: u8 = 15;
const RINGS_SET: u8 = 16;
const RINGS_HEADER: u16 = 1;
const RINGS_TCP_DATA_SPLIT: u16 = 11;
const RINGS_HDS_THRESH: u16 = 17;
const HEADER_DEV_INDEX: u16 = 1;

/// A netdev by its name, and its number in this network namespace.
#[derive(Debug, Clone)]
pub struct Netdev {
    /// The name.
    pub name: String,
    /// The number.
    pub index: u32,
}

impl Netdev {
    /// Finds it.
    ///
    /// # Errors
    /// When there is none of that name in this network namespace.
    pub fn find(name: &str) -> Result<Netdev> {
        let index = sys::ifindex(name).with_context(|| {
            format!("there is no netdev `{name}` in this network namespace; `ip link` shows those there are")
        })?;
        Ok(Netdev { name: name.to_owned(), index })
    }
}

/// A queue for receiving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its number.
    pub id: u32,
    /// The dma-buf binding it has.
    pub binding: Option<u32>,
    /// Whether io_uring or AF_XDP has it.
    pub taken: bool,
    /// Whether it is one end of a lease.
    pub leased: bool,
}

/// Header split, as `ethtool -g` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The driver does not say.
    Unknown = 0,
    /// `off`.
    Off = 1,
    /// `on`.
    On = 2,
}

/// What `ethtool -g` shows of header split.
#[derive(Debug, Clone, Copy)]
pub struct Rings {
    /// Whether it is on.
    pub split: Split,
    /// Bytes up to which frames are not split, where the driver can do that.
    pub threshold: Option<u32>,
}

/// What is asked for by binding queues.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// The netdev's number.
    pub index: u32,
    /// The dma-buf.
    pub dmabuf: RawFd,
    /// Queues for receiving; none at all leaves the attribute out.
    pub queues: &'a [u32],
    /// Bytes of a buffer, other than a page.
    pub page_size: Option<u32>,
}

fn ask_rx(ask: &Ask<'_>) -> Attributes {
    let mut attributes = Attributes::default().u32(DMABUF_IFINDEX, ask.index).u32(DMABUF_FD, ask.dmabuf as u32);
    for queue in ask.queues {
        let queue = Attributes::default().u32(QUEUE_ID, *queue).u32(QUEUE_TYPE, QUEUE_TYPE_RX);
        attributes = attributes.nest(DMABUF_QUEUES, &queue);
    }
    match ask.page_size {
        Some(size) => attributes.u32(DMABUF_RX_PAGE_SIZE, size),
        None => attributes,
    }
}

/// A dma-buf bound to a netdev. Dropping it unbinds.
#[derive(Debug)]
pub struct Binding {
    /// What messages call it.
    pub id: u32,
    _socket: Family,
}

/// Binds a dma-buf to queues for receiving.
///
/// # Errors
/// The outer one when netlink itself fails, the inner one is the kernel's refusal.
pub fn bind_rx(ask: &Ask<'_>) -> Result<Result<Binding, Refusal>> {
    bind(BIND_RX, &ask_rx(ask))
}

/// Binds a dma-buf for sending through a netdev.
///
/// # Errors
/// As with [`bind_rx`].
pub fn bind_tx(index: u32, dmabuf: RawFd) -> Result<Result<Binding, Refusal>> {
    bind(BIND_TX, &Attributes::default().u32(DMABUF_IFINDEX, index).u32(DMABUF_FD, dmabuf as u32))
}

fn bind(command: u8, ask: &Attributes) -> Result<Result<Binding, Refusal>> {
    let family = Family::open("netdev")?;
    let id = match family.ask(command, ask, |answer| answer.u32(DMABUF_ID))? {
        Ok(id) => id.context("netlink: a binding without an id")?,
        Err(refusal) => return Ok(Err(refusal)),
    };
    Ok(Ok(Binding { id, _socket: family }))
}

/// The queues for receiving.
///
/// # Errors
/// As with [`bind_rx`].
pub fn rx_queues(netdev: &Netdev) -> Result<Result<Vec<Queue>, Refusal>> {
    let ask = Attributes::default().u32(QUEUE_IFINDEX, netdev.index);
    let queues = Family::open("netdev")?.dump(QUEUE_GET, &ask, |queue| {
        (queue.u32(QUEUE_TYPE) == Some(QUEUE_TYPE_RX)).then(|| {
            Some(Queue {
                id: queue.u32(QUEUE_ID)?,
                binding: queue.u32(QUEUE_DMABUF),
                taken: queue.get(QUEUE_IO_URING).is_some() || queue.get(QUEUE_XSK).is_some(),
                leased: queue.get(QUEUE_LEASE).is_some(),
            })
        })
    })?;
    Ok(queues.map(|queues| queues.into_iter().flatten().flatten().collect()))
}

fn rings_header(netdev: &Netdev) -> Attributes {
    Attributes::default().nest(RINGS_HEADER, &Attributes::default().u32(HEADER_DEV_INDEX, netdev.index))
}

/// Whether headers are split off.
///
/// # Errors
/// As with [`bind_rx`]; EOPNOTSUPP from what has no rings.
pub fn rings(netdev: &Netdev) -> Result<Result<Rings, Refusal>> {
    Family::open("ethtool")?.ask(RINGS_GET, &rings_header(netdev), |answer| Rings {
        split: match answer.u8(RINGS_TCP_DATA_SPLIT) {
            Some(2) => Split::On,
            Some(1) => Split::Off,
            _ => Split::Unknown,
        },
        threshold: answer.u32(RINGS_HDS_THRESH),
    })
}

/// Turns header split on or off.
///
/// # Errors
/// As with [`bind_rx`].
pub fn set_split(netdev: &Netdev, split: Split) -> Result<Result<(), Refusal>> {
    let ask = rings_header(netdev).u8(RINGS_TCP_DATA_SPLIT, split as u8);
    Family::open("ethtool")?.ask(RINGS_SET, &ask, |_| ())
}
