//! The calls that neither the standard library nor rustix has: ioctls of dma-bufs and NICs, messages with device memory.
//!
//! Everything unsafe of this program is here, behind functions that are not. Numbers are those of Linux' uapi headers.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::slice;

use crate::tokens::Token;

// linux/udmabuf.h, linux/dma-heap.h, linux/dma-buf.h: _IOW('u', 0x42, 24), _IOWR('H', 0, 24), _IOW('b', 0, 8).
const UDMABUF_CREATE: u64 = 0x4018_7542;
const DMA_HEAP_IOCTL_ALLOC: u64 = 0xc018_4800;
const DMA_BUF_IOCTL_SYNC: u64 = 0x4008_6200;
const UDMABUF_FLAGS_CLOEXEC: u32 = 1;
/// linux/sockios.h.
const SIOCETHTOOL: u64 = 0x8946;
/// include/linux/socket.h; not in libc yet.
const MSG_SOCK_DEVMEM: i32 = 0x0200_0000;
/// asm-generic/socket.h.
const SO_DEVMEM_DONTNEED: i32 = 80;
const SCM_DEVMEM_DMABUF: i32 = 79;
/// More than any ethtool request of ours fills: its numbers of entries are checked against it.
pub const ETHTOOL_ROOM: usize = 16 << 10;

// linux/vfio.h: _IO(';', 100 + n).
const VFIO_SET_IOMMU: u64 = 0x3b66;
const VFIO_GROUP_SET_CONTAINER: u64 = 0x3b68;
const VFIO_GROUP_GET_DEVICE_FD: u64 = 0x3b6a;
const VFIO_DEVICE_FEATURE: u64 = 0x3b75;
const VFIO_TYPE1V2_IOMMU: i32 = 3;
const VFIO_DEVICE_FEATURE_GET: u32 = 1 << 16;
const VFIO_DEVICE_FEATURE_DMA_BUF: u32 = 11;

/// Ends of an access to a dma-buf by the CPU, and their direction (`struct dma_buf_sync`).
#[derive(Debug, Clone, Copy)]
pub enum Access {
    /// Reading.
    Read = 1,
    /// Writing.
    Write = 2,
}

fn done(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A dma-buf of all pages of a sealed memfd.
///
/// # Errors
/// The kernel's: EINVAL for an unsealed memfd or one beyond the limits of the module udmabuf, ENOMEM.
pub fn udmabuf(device: BorrowedFd<'_>, memfd: BorrowedFd<'_>, size: usize) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        memfd: u32,
        flags: u32,
        offset: u64,
        size: u64,
    }
    let create = Create { memfd: memfd.as_raw_fd() as u32, flags: UDMABUF_FLAGS_CLOEXEC, offset: 0, size: size as u64 };
    // SAFETY: the argument is the structure this ioctl reads; it returns a descriptor that is ours.
    unsafe {
        let fd = done(libc::ioctl(device.as_raw_fd(), UDMABUF_CREATE, &raw const create))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The function at a PCI address, of a VFIO group that goes into a new container of type 1.
///
/// # Errors
/// The kernel's: EINVAL for a group that is not all with VFIO's drivers, ENODEV for a function that is not in it.
pub fn vfio_device(container: BorrowedFd<'_>, group: BorrowedFd<'_>, address: &CStr) -> io::Result<OwnedFd> {
    let fd = container.as_raw_fd();
    // SAFETY: the first reads a descriptor, the second takes a number, the third reads a string; what that returns is ours.
    unsafe {
        done(libc::ioctl(group.as_raw_fd(), VFIO_GROUP_SET_CONTAINER, &raw const fd))?;
        done(libc::ioctl(fd, VFIO_SET_IOMMU, VFIO_TYPE1V2_IOMMU))?;
        let device = done(libc::ioctl(group.as_raw_fd(), VFIO_GROUP_GET_DEVICE_FD, address.as_ptr()))?;
        Ok(OwnedFd::from_raw_fd(device))
    }
}

/// A dma-buf of the first `length` bytes of a BAR.
///
/// # Errors
/// The kernel's: ENOTTY where vfio-pci exports none, EINVAL for a BAR that is not memory or too small.
pub fn vfio_buffer(device: BorrowedFd<'_>, bar: u32, length: u64) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Feature {
        argsz: u32,
        flags: u32,
        region: u32,
        open_flags: u32,
        buffer_flags: u32,
        ranges: u32,
        offset: u64,
        length: u64,
    }
    let mut feature = Feature {
        argsz: size_of::<Feature>() as u32,
        flags: VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF,
        region: bar,
        open_flags: (libc::O_RDWR | libc::O_CLOEXEC) as u32,
        buffer_flags: 0,
        ranges: 1,
        offset: 0,
        length,
    };
    // SAFETY: the argument is the structure this ioctl reads, as long as it says; it returns a descriptor that is ours.
    unsafe {
        let fd = done(libc::ioctl(device.as_raw_fd(), VFIO_DEVICE_FEATURE, &raw mut feature))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A dma-buf from a heap's device.
///
/// # Errors
/// The kernel's, ENOMEM above all.
pub fn heap_buffer(device: BorrowedFd<'_>, size: usize) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Allocation {
        len: u64,
        fd: u32,
        fd_flags: u32,
        heap_flags: u64,
    }
    let mut allocation =
        Allocation { len: size as u64, fd: 0, fd_flags: (libc::O_RDWR | libc::O_CLOEXEC) as u32, heap_flags: 0 };
    // SAFETY: the argument is the structure this ioctl reads and writes; the descriptor in it is ours.
    unsafe {
        done(libc::ioctl(device.as_raw_fd(), DMA_HEAP_IOCTL_ALLOC, &raw mut allocation))?;
        Ok(OwnedFd::from_raw_fd(allocation.fd as RawFd))
    }
}

/// A file mapped shared for reading and writing.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    /// Maps the first `length` bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(fd: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let flags = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping wherever the kernel likes it.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, flags, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Mapping { start, length })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is ours and this long. A NIC may write to other fragments meanwhile; those that are looked at
        // belong to us until their tokens are returned.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; what is changed is nothing that the NIC still sends.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Announces to a dma-buf's exporter that the CPU begins or ends to look at it.
///
/// # Errors
/// The kernel's.
pub fn sync(dmabuf: BorrowedFd<'_>, access: Access, end: bool) -> io::Result<()> {
    let flags = access as u64 | if end { 4 } else { 0 };
    // SAFETY: the argument is the u64 this ioctl reads.
    done(unsafe { libc::ioctl(dmabuf.as_raw_fd(), DMA_BUF_IOCTL_SYNC, &raw const flags) }).map(drop)
}

/// One ethtool request to a netdev; the answer takes its place.
///
/// # Errors
/// The kernel's, or `InvalidInput` when name or request are too long.
pub fn ethtool(socket: BorrowedFd<'_>, netdev: &str, request: &mut Vec<u8>) -> io::Result<()> {
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        data: *mut u8,
        rest: [u64; 2],
    }
    let mut ask = Request { name: [0; libc::IFNAMSIZ], data: ptr::null_mut(), rest: [0; 2] };
    if netdev.len() >= libc::IFNAMSIZ || request.len() > ETHTOOL_ROOM {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    ask.name[..netdev.len()].copy_from_slice(netdev.as_bytes());
    let length = request.len();
    request.resize(ETHTOOL_ROOM, 0);
    ask.data = request.as_mut_ptr();
    // SAFETY: a struct ifreq whose data has room for any answer to the requests of ethtool.rs, which limits what it asks for.
    let result = done(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut ask) });
    request.truncate(length);
    result.map(drop)
}

/// What one call of recvmsg brought.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Bytes of the stream; none at its end.
    pub bytes: usize,
    /// Bytes of control messages.
    pub control: usize,
    /// Whether control messages did not fit.
    pub truncated: bool,
}

fn receive(socket: BorrowedFd<'_>, data: &mut [u8], control: &mut [u8], flags: i32) -> io::Result<Received> {
    let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: all zeros is a msghdr without anything.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len() as _;
    // SAFETY: the message points to memory that is ours, as long as it says, and lives through the call.
    let bytes = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    if bytes < 0 {
        return Err(io::Error::last_os_error());
    }
    let truncated = message.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Received { bytes: bytes as usize, control: message.msg_controllen as usize, truncated })
}

/// Receives with device memory: bytes that are not in it go to `data`, and `control` tells where all are.
///
/// # Errors
/// The kernel's; `WouldBlock` when there is nothing.
pub fn receive_device(socket: impl AsFd, data: &mut [u8], control: &mut [u8]) -> io::Result<Received> {
    receive(socket.as_fd(), data, control, MSG_SOCK_DEVMEM | libc::MSG_DONTWAIT)
}

/// A message of the socket's error queue.
///
/// # Errors
/// The kernel's; `WouldBlock` when there is none.
pub fn receive_error(socket: impl AsFd, control: &mut [u8]) -> io::Result<Received> {
    receive(socket.as_fd(), &mut [], control, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
}

/// Sends `length` bytes at `offset` of the bound dma-buf `binding`; returns how many the socket took.
///
/// # Errors
/// The kernel's: `WouldBlock` when the socket is full, ENOBUFS when too many completions wait, EFAULT beyond the buffer's end,
/// EINVAL for an id that is no binding for sending, ENODEV when the route leads through another netdev.
pub fn send_device(socket: impl AsFd, binding: u32, offset: usize, length: usize) -> io::Result<usize> {
    // A cmsghdr and a u32, padded as CMSG_SPACE pads.
    let mut control = [0u8; 24];
    control[..8].copy_from_slice(&20u64.to_ne_bytes());
    control[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    control[12..16].copy_from_slice(&SCM_DEVMEM_DMABUF.to_ne_bytes());
    control[16..20].copy_from_slice(&binding.to_ne_bytes());
    let mut part = libc::iovec { iov_base: ptr::without_provenance_mut(offset), iov_len: length };
    // SAFETY: all zeros is a msghdr without anything.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len() as _;
    let flags = libc::MSG_ZEROCOPY | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the message lives through the call. What stands for an address is an offset into the dma-buf: the kernel does not
    // follow it, and refuses the message if it does not take it for one.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Gives fragments back to the NIC; returns how many it took.
///
/// # Errors
/// The kernel's.
pub fn give_back(socket: impl AsFd, tokens: &[Token]) -> io::Result<usize> {
    let (fd, length) = (socket.as_fd().as_raw_fd(), mem::size_of_val(tokens) as libc::socklen_t);
    // SAFETY: `tokens` is an array of struct dmabuf_token of that many bytes.
    let freed = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, SO_DEVMEM_DONTNEED, tokens.as_ptr().cast(), length) };
    done(freed).map(|freed| freed as usize)
}

/// Sets an option whose value is a number.
///
/// # Errors
/// The kernel's.
pub fn set_option(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let (fd, length) = (socket.as_fd().as_raw_fd(), mem::size_of::<i32>() as libc::socklen_t);
    // SAFETY: the value is the int this option reads.
    done(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) }).map(drop)
}

/// Sends a socket's bytes through one netdev only.
///
/// # Errors
/// The kernel's.
pub fn bind_to_device(socket: impl AsFd, netdev: &str) -> io::Result<()> {
    let (fd, length) = (socket.as_fd().as_raw_fd(), netdev.len() as libc::socklen_t);
    // SAFETY: the value is as long as the call says; it needs no terminating zero.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, netdev.as_ptr().cast(), length) };
    done(result).map(drop)
}

fn ends() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set before it is used, and all signals are valid.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Holds back the signals that end programs, in this thread and those it starts from now on.
pub fn hold_signals() {
    let ends = ends();
    // SAFETY: the set is initialised.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const ends, ptr::null_mut()) };
}

/// Waits for one of the signals held back.
pub fn wait_for_signal() -> i32 {
    let (ends, mut signal) = (ends(), 0);
    // SAFETY: the set is initialised, and the number is written to a place that is ours.
    unsafe { libc::sigwait(&raw const ends, &raw mut signal) };
    signal
}

/// The id of a netdev in this network namespace.
///
/// # Errors
/// When there is none of that name.
pub fn ifindex(netdev: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(netdev)?;
    // SAFETY: `name` is a NUL-terminated string that lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index) }
}
