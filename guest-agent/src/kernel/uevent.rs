//! Waits for devices: the kernel says on a netlink socket whenever something in sysfs came or changed, which is how
//! udev learns it too (lib/kobject_uevent.c). No udev, no polling, no sleeps.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// The kernel's own multicast group.
const KERNEL_GROUP: u32 = 1;

/// A listener. Open it before looking for a device, and nothing is missed.
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Begins to listen.
    pub fn open() -> io::Result<Uevents> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Uevents { socket })
    }

    /// Looks, and looks again after each change, until there is something or the time is up.
    pub fn until<T>(&self, deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = look() {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout));
            // What changed does not matter, and a full queue only means that much did.
            let mut buffer = [0; 4096];
            while let Ok((1.., _)) | Err(rustix::io::Errno::NOBUFS) =
                rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())
            {}
        }
    }
}
