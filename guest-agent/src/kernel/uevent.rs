//! Waits for devices: the kernel says on a netlink socket whenever something in sysfs came or changed, which is how
//! udev learns it too (lib/kobject_uevent.c). No udev, no polling, no sleeps.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// The kernel's own multicast group.
const KERNEL_GROUP: u32 = 1;

/// Looks, and looks again after each change, until there is something or the time is up. What is there at once costs no
/// socket. A look after the socket is open comes before any waiting, so nothing is missed.
pub fn until<T>(deadline: Instant, mut look: impl FnMut() -> Option<T>) -> io::Result<Option<T>> {
    if let Some(found) = look() {
        return Ok(Some(found));
    }
    let socket = listen()?;
    loop {
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&timeout));
        // What changed does not matter, and a full queue only means that much did.
        let mut buffer = [0; 4096];
        while let Ok((1.., _)) | Err(Errno::NOBUFS) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()) {}
    }
}

fn listen() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_waited_for() {
        let soon = || Instant::now() + Duration::from_millis(30);
        assert_eq!(until(soon(), || Some(1)).expect("a look"), Some(1));
        let begun = Instant::now();
        assert_eq!(until::<()>(soon(), || None).expect("a look"), None);
        assert!(begun.elapsed() >= Duration::from_millis(30));
    }
}
