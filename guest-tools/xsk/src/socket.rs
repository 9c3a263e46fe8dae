//! An AF_XDP socket on one queue: packets are looked at where they are, and sent on from there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING,
    XDP_UMEM_PGOFF_FILL_RING, XdpDesc, XdpOptionsFlags, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, netdevice, send, socket_with, sockopt};

use crate::rings::{Ring, Umem};

/// Bytes of a frame, the smallest there is (`XDP_UMEM_MIN_CHUNK_SIZE`), and how many.
const FRAME: u32 = 2048;
const FRAMES: u32 = 512;

/// What becomes of a packet that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing more.
    Done,
    /// It leaves by the queue it came by.
    Send,
}

/// A socket that is bound.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    umem: Umem,
    fill: Ring<u64>,
    completion: Ring<u64>,
    rx: Ring<XdpDesc>,
    tx: Ring<XdpDesc>,
    /// Packets under way, and those that are sent.
    sending: u64,
    sent: u64,
}

/// The number of a netdev of the namespace we are in.
pub fn index(netdev: &str) -> Result<u32> {
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    netdevice::name_to_index(&any, netdev).with_context(|| format!("there is no netdev {netdev}"))
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// A socket on that queue, with all its memory there for packets to come.
    ///
    /// # Errors
    /// The kernel's: EOPNOTSUPP for a queue that can have none (a netkit that is not in mode single, a queue that is not leased,
    /// a driver without zero copy), EBUSY for one that another socket or device memory has.
    pub fn bind(netdev: &str, queue: u32, zero_copy: bool) -> Result<Socket> {
        let fd = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .context("cannot make an AF_XDP socket; does the kernel have CONFIG_XDP_SOCKETS?")?;
        let umem = Umem::new(FRAME as usize * FRAMES as usize).context("no memory for packets")?;
        let region = XdpUmemReg {
            addr: umem.address(),
            len: u64::from(FRAME) * u64::from(FRAMES),
            chunk_size: FRAME,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        sockopt::set_xdp_umem_reg(&fd, region).context("the kernel does not take memory for packets")?;
        sockopt::set_xdp_umem_fill_ring_size(&fd, FRAMES)?;
        sockopt::set_xdp_umem_completion_ring_size(&fd, FRAMES)?;
        sockopt::set_xdp_rx_ring_size(&fd, FRAMES)?;
        sockopt::set_xdp_tx_ring_size(&fd, FRAMES)?;
        let places = sockopt::xdp_mmap_offsets(&fd)?;
        let mut fill = Ring::new(fd.as_fd(), XDP_UMEM_PGOFF_FILL_RING, &places.fr, FRAMES)?;
        let completion = Ring::new(fd.as_fd(), XDP_UMEM_PGOFF_COMPLETION_RING, &places.cr, FRAMES)?;
        let rx = Ring::new(fd.as_fd(), XDP_PGOFF_RX_RING, &places.rx, FRAMES)?;
        let tx = Ring::new(fd.as_fd(), XDP_PGOFF_TX_RING, &places.tx, FRAMES)?;
        for frame in 0..FRAMES {
            fill.put(u64::from(frame * FRAME));
        }
        let mode = if zero_copy { SocketAddrXdpFlags::XDP_ZEROCOPY } else { SocketAddrXdpFlags::XDP_COPY };
        let address = SocketAddrXdp::new(mode, index(netdev)?, queue);
        bind(&fd, &address).map_err(io::Error::from).with_context(|| {
            let how = if zero_copy { "with zero copy" } else { "with copies" };
            format!("cannot bind to queue {queue} of {netdev} {how}")
        })?;
        Ok(Socket { fd, umem, fill, completion, rx, tx, sending: 0, sent: 0 })
    }

    /// Whether the NIC itself writes to our memory.
    pub fn is_zero_copy(&self) -> Result<bool> {
        Ok(sockopt::xdp_options(&self.fd)?.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
    }

    /// Waits so long for packets, and looks at all there are.
    pub fn receive(&mut self, patience: Duration, mut look: impl FnMut(&mut [u8]) -> Fate) -> Result<()> {
        let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for packets"),
        }
        while let Some(packet) = self.rx.take() {
            let Some(bytes) = self.umem.packet(packet.addr, packet.len) else {
                bail!("the kernel tells of a packet that is not in our memory: {packet:?}");
            };
            match look(bytes) {
                Fate::Send if self.tx.put(packet) => self.sending += 1,
                _ => self.give(packet.addr),
            }
        }
        self.push()
    }

    /// The frame is there for a packet to come.
    fn give(&mut self, address: u64) {
        // It never is full: it has room for every frame there is.
        self.fill.put(address - address % u64::from(FRAME));
    }

    /// Has the kernel send what is to be sent, and takes back what is.
    fn push(&mut self) -> Result<()> {
        if self.sending > 0 {
            match send(&self.fd, &[], SendFlags::DONTWAIT) {
                Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS) => {}
                Err(error) => return Err(error).context("the kernel does not send"),
            }
        }
        while let Some(address) = self.completion.take() {
            self.sending -= 1;
            self.sent += 1;
            self.give(address);
        }
        Ok(())
    }

    /// Waits until everything is sent; how many that were.
    pub fn finish(&mut self, patience: Duration) -> Result<u64> {
        let begun = Instant::now();
        while self.sending > 0 && begun.elapsed() < patience {
            self.push()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(self.sent)
    }
}
