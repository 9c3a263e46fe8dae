//! A packet socket: frames as they are on the wire, out through a netdev and back from its taps.
//!
//! One socket does both, as the kernel does not show a packet socket what it sent itself: what is read are the frames of
//! others, never the campaign's own.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::mem;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// A packet socket bound to one netdev.
#[derive(Debug)]
pub struct PacketSocket(File);

impl PacketSocket {
    /// Opens one on the netdev of that name in this network namespace.
    pub fn open(device: &str) -> io::Result<Self> {
        let name = std::ffi::CString::new(device)?;
        // SAFETY: `name` is a NUL-terminated string that lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: plain values; the result is checked before it is used.
        let fd = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol.into())
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol,
            sll_ifindex: index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `address` is a whole sockaddr_ll and `length` its size.
        if unsafe { libc::bind(fd, (&raw const address).cast(), length) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(PacketSocket(File::from(socket)))
    }

    /// The next frame that passed, if one is waiting.
    pub fn read<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match self.0.read(buffer) {
            Ok(len) => Ok(Some(&buffer[..len])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.write(frame).map(drop)
    }
}
