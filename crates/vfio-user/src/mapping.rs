//! A file of the client's memory in this process, and the only code that touches it.
//!
//! The guest changes these bytes while they are looked at. So there is never a reference into them: bytes are copied out or
//! in, by raw pointer, and what was copied is what counts. Copies of 1, 2, 4 or 8 bytes at a multiple of their size are one
//! access, so a driver that writes such a word at once never shows half of it.
//!
//! The one thing that cannot be made safe is a file that shrinks: touching what is beyond its end is SIGBUS, which ends the
//! process. The size is looked at when a file is mapped, and a memfd that allows it is sealed against shrinking (QEMU's
//! `memory-backend-memfd` seals its own). What remains is a client that shrinks a file which cannot be sealed, of its own
//! guest's memory; it loses this one device by that.

use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use rustix::fs::{FileType, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fcntl_getfl, fstat};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::Refusal;

/// Which file it is, as long as somebody has it open or mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    /// Whether this descriptor may write; through another one the same file may be another mapping.
    pub writable: bool,
}

/// What there is to know of a descriptor before it is mapped.
#[derive(Debug)]
pub(crate) struct Candidate {
    fd: OwnedFd,
    /// Which file.
    pub identity: Identity,
    /// Its size now, in bytes.
    pub length: u64,
}

/// A whole file, mapped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length: usize,
    /// Which file.
    pub identity: Identity,
}

// SAFETY: the memory is shared with another process anyway; every access is a copy by raw pointer or an atomic, whichever
// thread it comes from.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Candidate {
    /// Looks at a descriptor that a client sent.
    ///
    /// # Errors
    /// It is not a file of memory, or cannot be read.
    pub fn new(fd: OwnedFd) -> Result<Self, Refusal> {
        let stat = fstat(&fd).map_err(system("look at the descriptor"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Refusal::NotMemory);
        }
        let mode = fcntl_getfl(&fd).map_err(system("look at the descriptor"))?;
        // With O_PATH it is no use at all.
        if mode.contains(OFlags::PATH) || mode & OFlags::RWMODE == OFlags::WRONLY {
            return Err(Refusal::FileAccess);
        }
        // Files that know no seals say so; they just have none.
        let seals = fcntl_get_seals(&fd).unwrap_or(SealFlags::empty());
        let writable =
            mode & OFlags::RWMODE == OFlags::RDWR && !seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE);
        if !seals.contains(SealFlags::SHRINK) {
            // As good as it gets: see the top.
            let _ = fcntl_add_seals(&fd, SealFlags::SHRINK);
        }
        // Only now: a file that is sealed has the size it says.
        let length = fstat(&fd).map_err(system("look at the descriptor"))?.st_size;
        let identity = Identity { device: stat.st_dev, inode: stat.st_ino, writable };
        Ok(Candidate { fd, identity, length: u64::try_from(length).unwrap_or(0) })
    }

    /// Maps all of it.
    ///
    /// # Errors
    /// The kernel refuses; an empty file for one.
    pub fn map(self) -> Result<Mapping, Refusal> {
        let length = usize::try_from(self.length).map_err(|_| Refusal::NotMemory)?;
        let protection = if self.identity.writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: the kernel chooses an address where nothing else is.
        let base = unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, &self.fd, 0) }
            .map_err(system("map the file"))?;
        match NonNull::new(base.cast()) {
            Some(base) => Ok(Mapping { base, length, identity: self.identity }),
            None => Err(Refusal::System { what: "map the file", errno: Errno::NOMEM }),
        }
    }
}

impl Mapping {
    /// In bytes.
    pub fn length(&self) -> u64 {
        self.length as u64
    }

    /// Copies bytes out.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let Some(from) = self.at(offset, into.len()) else { return };
        // SAFETY: `at` says that this many bytes from there are mapped, and they stay so as long as `self` is there. The
        // atomics are aligned, which is looked at. `into` is nobody else's, so it cannot overlap the mapping.
        unsafe {
            match into.len() {
                1 => into[0] = AtomicU8::from_ptr(from).load(Ordering::Relaxed),
                2 if from.cast::<u16>().is_aligned() => {
                    into.copy_from_slice(&AtomicU16::from_ptr(from.cast()).load(Ordering::Relaxed).to_ne_bytes());
                }
                4 if from.cast::<u32>().is_aligned() => {
                    into.copy_from_slice(&AtomicU32::from_ptr(from.cast()).load(Ordering::Relaxed).to_ne_bytes());
                }
                8 if from.cast::<u64>().is_aligned() => {
                    into.copy_from_slice(&AtomicU64::from_ptr(from.cast()).load(Ordering::Relaxed).to_ne_bytes());
                }
                length => ptr::copy_nonoverlapping(from, into.as_mut_ptr(), length),
            }
        }
    }

    /// Copies bytes in. A mapping that may not be written stays as it is.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let Some(to) = self.at(offset, from.len()).filter(|_| self.identity.writable) else { return };
        // SAFETY: as in `read`, and the pages are writable.
        unsafe {
            match *from {
                [byte] => AtomicU8::from_ptr(to).store(byte, Ordering::Relaxed),
                [a, b] if to.cast::<u16>().is_aligned() => {
                    AtomicU16::from_ptr(to.cast()).store(u16::from_ne_bytes([a, b]), Ordering::Relaxed);
                }
                [a, b, c, d] if to.cast::<u32>().is_aligned() => {
                    AtomicU32::from_ptr(to.cast()).store(u32::from_ne_bytes([a, b, c, d]), Ordering::Relaxed);
                }
                [a, b, c, d, e, f, g, h] if to.cast::<u64>().is_aligned() => {
                    let word = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
                    AtomicU64::from_ptr(to.cast()).store(word, Ordering::Relaxed);
                }
                _ => ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()),
            }
        }
    }

    /// Writes a byte such that whoever sees it there sees everything that this thread wrote before, to this mapping or
    /// another one.
    pub fn release(&self, offset: usize, byte: u8) {
        let Some(to) = self.at(offset, 1).filter(|_| self.identity.writable) else { return };
        // The copies before are not atomic: the fence is what orders them.
        fence(Ordering::Release);
        // SAFETY: as in `write`.
        unsafe { AtomicU8::from_ptr(to).store(byte, Ordering::Release) };
    }

    /// The same of many bytes: as words of eight, the one with byte `last` in it behind the others. `false`, and nothing written,
    /// for what is not made of whole words. It is what rings are made of, and three copies around a byte cost more.
    pub fn publish(&self, offset: usize, from: &[u8], last: usize) -> bool {
        let place = self.at(offset, from.len()).filter(|_| self.identity.writable).map(|to| to.cast::<u64>());
        let (Some(to), (words, [])) = (place.filter(|to| to.is_aligned()), from.as_chunks::<8>()) else {
            return false;
        };
        let put = |n: usize, order: Ordering| {
            let Some(word) = words.get(n) else { return };
            // SAFETY: as in `write`; the word is one of those that are there, and aligned.
            unsafe { AtomicU64::from_ptr(to.add(n)).store(u64::from_ne_bytes(*word), order) };
        };
        let behind = last / 8;
        (0..words.len()).filter(|n| *n != behind).for_each(|n| put(n, Ordering::Relaxed));
        // The copies before are not atomic: the fence is what orders them.
        fence(Ordering::Release);
        put(behind, Ordering::Release);
        true
    }

    fn at(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let end = offset.checked_add(length)?;
        // SAFETY: not beyond the end of the mapping, which is one object.
        (end <= self.length).then(|| unsafe { self.base.as_ptr().add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody else has a pointer into it. It cannot fail then.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}

fn system(what: &'static str) -> impl Fn(Errno) -> Refusal {
    move |errno| Refusal::System { what, errno }
}
