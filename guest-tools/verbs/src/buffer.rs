//! Memory to move data between: ordinary memory, udmabufs and buffers of the system's dma-heap.
//!
//! All are mapped, so that what arrived can be compared with what was sent. Access to a dma-buf is bracketed with its SYNC
//! ioctl, as exporters ask for.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

/// A kind of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anonymous memory.
    Host,
    /// Pages of a memfd as a dma-buf.
    Udmabuf,
    /// The system heap's.
    Heap,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Host => "host",
            Kind::Udmabuf => "udmabuf",
            Kind::Heap => "heap",
        })
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "host" => Kind::Host,
            "udmabuf" => Kind::Udmabuf,
            "heap" => Kind::Heap,
            other => bail!("`{other}` is no kind of memory; there are host, udmabuf, heap"),
        })
    }
}

// linux/udmabuf.h, linux/dma-heap.h, linux/dma-buf.h: the numbers are _IOW('u', 0x42, 24), _IOWR('H', 0, 24), _IOW('b', 0, 8).
const UDMABUF_CREATE: u64 = 0x4018_7542;
const DMA_HEAP_IOCTL_ALLOC: u64 = 0xc018_4800;
const DMA_BUF_IOCTL_SYNC: u64 = 0x4008_6200;
const UDMABUF_FLAGS_CLOEXEC: u32 = 1;
const SYNC_RW: u64 = 3;
const SYNC_END: u64 = 4;

#[repr(C)]
struct UdmabufCreate {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

#[repr(C)]
struct HeapAllocation {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

/// Mapped memory.
#[derive(Debug)]
pub struct Buffer {
    fd: Option<OwnedFd>,
    map: NonNull<u8>,
    length: usize,
}

impl Buffer {
    /// Makes one; `length` is a multiple of the page size.
    pub fn new(kind: Kind, length: usize) -> Result<Buffer> {
        let fd = match kind {
            Kind::Host => None,
            Kind::Udmabuf => Some(udmabuf(length)?),
            Kind::Heap => Some(heap(length, libc::O_RDWR)?),
        };
        let flags = if fd.is_some() { libc::MAP_SHARED } else { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS };
        let raw = fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: a new mapping wherever the kernel likes it.
        let map = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, raw, 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).with_context(|| format!("cannot map {length} bytes of {kind}"));
        }
        let map = NonNull::new(map.cast()).context("mapped at 0")?;
        Ok(Buffer { fd, map, length })
    }

    /// The dma-buf's file, if it is one.
    pub fn fd(&self) -> Option<RawFd> {
        self.fd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Where it is mapped.
    pub fn address(&self) -> *mut u8 {
        self.map.as_ptr()
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Looks at or changes the bytes, announced to the exporter.
    pub fn access<T>(&mut self, work: impl FnOnce(&mut [u8]) -> T) -> Result<T> {
        self.sync(SYNC_RW)?;
        // SAFETY: the mapping is ours and this long. The peer writes to it only on our request, which is not under way
        // while we are here.
        let done = work(unsafe { slice::from_raw_parts_mut(self.map.as_ptr(), self.length) });
        self.sync(SYNC_RW | SYNC_END)?;
        Ok(done)
    }

    fn sync(&self, flags: u64) -> Result<()> {
        let Some(fd) = self.fd() else { return Ok(()) };
        // SAFETY: the argument is the u64 this ioctl reads.
        match unsafe { libc::ioctl(fd, DMA_BUF_IOCTL_SYNC, &flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()).context("DMA_BUF_IOCTL_SYNC"),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.length) };
    }
}

/// A memfd that cannot shrink, as udmabuf demands.
pub fn memfd(length: usize) -> Result<OwnedFd> {
    // SAFETY: a plain name; the descriptor that comes back is ours.
    let fd = unsafe {
        let raw = libc::memfd_create(c"verbs".as_ptr(), libc::MFD_ALLOW_SEALING | libc::MFD_CLOEXEC);
        if raw < 0 {
            return Err(io::Error::last_os_error()).context("memfd_create");
        }
        OwnedFd::from_raw_fd(raw)
    };
    // SAFETY: numbers only.
    let failed = unsafe {
        libc::ftruncate(fd.as_raw_fd(), i64::try_from(length)?) != 0
            || libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) != 0
    };
    if failed {
        return Err(io::Error::last_os_error()).context("cannot prepare a memfd");
    }
    Ok(fd)
}

fn udmabuf(length: usize) -> Result<OwnedFd> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/udmabuf").context("/dev/udmabuf")?;
    let memfd = memfd(length)?;
    let create = UdmabufCreate {
        memfd: u32::try_from(memfd.as_raw_fd())?,
        flags: UDMABUF_FLAGS_CLOEXEC,
        offset: 0,
        size: length as u64,
    };
    // SAFETY: the argument is the structure this ioctl reads; it returns a descriptor that is ours.
    unsafe {
        let raw = libc::ioctl(device.as_raw_fd(), UDMABUF_CREATE, &create);
        if raw < 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("UDMABUF_CREATE of {length} bytes"));
        }
        Ok(OwnedFd::from_raw_fd(raw))
    }
}

/// A buffer of the system heap; `flags` says how its file is opened.
pub fn heap(length: usize, flags: i32) -> Result<OwnedFd> {
    const PATH: &str = "/dev/dma_heap/system";
    let device = OpenOptions::new().read(true).write(true).open(PATH).context(PATH)?;
    let mut allocation =
        HeapAllocation { len: length as u64, fd: 0, fd_flags: (flags | libc::O_CLOEXEC) as u32, heap_flags: 0 };
    // SAFETY: the argument is the structure this ioctl reads and writes; the descriptor in it is ours.
    unsafe {
        if libc::ioctl(device.as_raw_fd(), DMA_HEAP_IOCTL_ALLOC, &mut allocation) != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("DMA_HEAP_IOCTL_ALLOC of {length} bytes"));
        }
        Ok(OwnedFd::from_raw_fd(i32::try_from(allocation.fd)?))
    }
}
