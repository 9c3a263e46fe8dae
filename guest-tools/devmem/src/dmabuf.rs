//! Dma-bufs to move data through: pages of a memfd (udmabuf), ordinary or huge, and buffers of the system's dma-heap.
//!
//! They stand in for a device's memory: the NIC writes to them and reads from them, the network stack cannot. They are mapped
//! all the same, so that bytes can be made and compared, and each access is announced to the exporter.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::sys::{self, Access, Mapping};

/// Bytes of a page, and of a huge one.
pub const PAGE: usize = 4 << 10;
const HUGE_PAGE: usize = 2 << 20;
const UDMABUF: &str = "/dev/udmabuf";
const HEAP: &str = "/dev/dma_heap/system";

/// Where a dma-buf's memory is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// A memfd: of huge pages when enough of them are free, else of ordinary ones.
    Udmabuf,
    /// A memfd of huge pages.
    Huge,
    /// The system heap.
    Heap,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Memory::Udmabuf => "udmabuf",
            Memory::Huge => "huge",
            Memory::Heap => "heap",
        })
    }
}

impl FromStr for Memory {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "udmabuf" => Memory::Udmabuf,
            "huge" => Memory::Huge,
            "heap" => Memory::Heap,
            other => bail!("`{other}` is no memory; there are udmabuf, huge, heap"),
        })
    }
}

/// A mapped dma-buf.
#[derive(Debug)]
pub struct Buffer {
    file: OwnedFd,
    map: Mapping,
    /// Where its memory is from: never [`Memory::Udmabuf`] when that became huge pages.
    pub memory: Memory,
}

impl Buffer {
    /// Makes one of `length` bytes, a multiple of [`PAGE`].
    ///
    /// # Errors
    /// When the kernel has no such memory, or not that much.
    pub fn new(memory: Memory, length: usize) -> Result<Buffer> {
        let (file, memory) = match memory {
            Memory::Udmabuf if free_huge_pages() >= length.div_ceil(HUGE_PAGE) && length.is_multiple_of(HUGE_PAGE) => {
                // Free a moment ago is not free now; ordinary pages do as well.
                match udmabuf(length, true) {
                    Ok(file) => (file, Memory::Huge),
                    Err(_) => (udmabuf(length, false)?, Memory::Udmabuf),
                }
            }
            Memory::Udmabuf => (udmabuf(length, false)?, memory),
            Memory::Huge => (udmabuf(length, true)?, memory),
            Memory::Heap => (heap(length)?, memory),
        };
        let map =
            Mapping::new(file.as_fd(), length).with_context(|| format!("cannot map a dma-buf of {length} bytes"))?;
        Ok(Buffer { file, map, memory })
    }

    /// Its descriptor.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.map.bytes().len()
    }

    /// Looks at the bytes.
    ///
    /// # Errors
    /// When the exporter does not let us, and those of `look`.
    pub fn read<T>(&self, look: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        self.sync(Access::Read, false)?;
        let seen = look(self.map.bytes());
        self.sync(Access::Read, true)?;
        seen
    }

    /// Changes the bytes.
    ///
    /// # Errors
    /// As with [`Buffer::read`].
    pub fn write<T>(&mut self, change: impl FnOnce(&mut [u8]) -> Result<T>) -> Result<T> {
        self.sync(Access::Write, false)?;
        let changed = change(self.map.bytes_mut());
        self.sync(Access::Write, true)?;
        changed
    }

    fn sync(&self, access: Access, end: bool) -> Result<()> {
        sys::sync(self.file.as_fd(), access, end).context("the dma-buf's exporter refuses access (DMA_BUF_IOCTL_SYNC)")
    }
}

fn open(path: &str, module: &str) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {path} (CONFIG_{module})"))
}

/// A memfd that cannot shrink, as udmabuf demands.
///
/// # Errors
/// The kernel's.
pub fn memfd(length: usize, huge: bool) -> io::Result<OwnedFd> {
    let flags = if huge { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::empty() };
    let file = rustix::fs::memfd_create("devmem", flags | MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, length as u64)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK)?;
    Ok(file)
}

fn udmabuf(length: usize, huge: bool) -> Result<OwnedFd> {
    let device = open(UDMABUF, "UDMABUF")?;
    let pages = if huge { "huge pages" } else { "pages" };
    let memfd = memfd(length, huge).with_context(|| format!("cannot make a memfd of {length} bytes of {pages}"))?;
    sys::udmabuf(device.as_fd(), memfd.as_fd(), length).with_context(|| {
        let hint = if huge { "; `sysctl vm.nr_hugepages` says how many there are" } else { "" };
        let limit = fs::read_to_string("/sys/module/udmabuf/parameters/size_limit_mb").unwrap_or_default();
        format!(
            "cannot make a udmabuf of {length} bytes of {pages} (udmabuf.size_limit_mb is {}{hint})",
            if limit.is_empty() { "unknown" } else { limit.trim() }
        )
    })
}

fn heap(length: usize) -> Result<OwnedFd> {
    let device = open(HEAP, "DMABUF_HEAPS_SYSTEM")?;
    sys::heap_buffer(device.as_fd(), length).with_context(|| format!("{HEAP} has no {length} bytes"))
}

fn free_huge_pages() -> usize {
    fs::read_to_string("/proc/meminfo").map(|text| huge_pages_in(&text)).unwrap_or(0)
}

fn huge_pages_in(meminfo: &str) -> usize {
    let value = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0)
    };
    value("HugePages_Free:").saturating_sub(value("HugePages_Rsvd:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_that_somebody_reserved_are_not_free() {
        let text =
            "HugePages_Total:      64\nHugePages_Free:       40\nHugePages_Rsvd:        8\nHugePages_Surp:        0\n";
        assert_eq!(huge_pages_in(text), 32);
        assert_eq!(huge_pages_in("MemTotal: 1 kB\n"), 0);
    }

    #[test]
    fn memory_reads_as_it_is_written() {
        for memory in [Memory::Udmabuf, Memory::Huge, Memory::Heap] {
            assert_eq!(memory.to_string().parse::<Memory>().unwrap(), memory);
        }
        assert!("vram".parse::<Memory>().unwrap_err().to_string().contains("udmabuf, huge, heap"));
    }
}
