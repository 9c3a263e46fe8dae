//! Memory that is shared with the kernel: the packets' (UMEM) and the rings that hand them over (include/uapi/linux/if_xdp.h).
//!
//! Everything unsafe about it is here. Of a ring one side writes the producer's number and the slots before it, the other the
//! consumer's; each is read with acquire and written with release (Documentation/networking/af_xdp.rst).

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::net::xdp::XdpRingOffset;

/// A mapping, gone when it is dropped.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody has a reference into it any more: those are bound to the owner's life.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn mapping(start: *mut std::ffi::c_void, length: usize) -> io::Result<Mapping> {
    let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
    Ok(Mapping { start, length })
}

/// Memory for packets, in frames of one size.
#[derive(Debug)]
pub struct Umem(Mapping);

impl Umem {
    /// So many bytes.
    pub fn new(length: usize) -> io::Result<Umem> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, which nothing else is at.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), length, protection, MapFlags::PRIVATE) }?;
        Ok(Umem(mapping(start, length)?))
    }

    /// Its address, as the kernel is told.
    pub fn address(&self) -> u64 {
        self.0.start.as_ptr().expose_provenance() as u64
    }

    /// Bytes of a packet the kernel has given to us; `None` for what is not in this memory.
    pub fn packet(&mut self, at: u64, length: u32) -> Option<&mut [u8]> {
        let (at, length) = (usize::try_from(at).ok()?, length as usize);
        (at.checked_add(length)? <= self.0.length).then(|| {
            // SAFETY: it is within the mapping; a packet that came off the ring is not touched by the kernel until it is put
            // on one again, which takes this borrow's end.
            unsafe { slice::from_raw_parts_mut(self.0.start.as_ptr().add(at), length) }
        })
    }
}

/// A ring of slots.
#[derive(Debug)]
pub struct Ring<T> {
    _mapping: Mapping,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    slots: NonNull<T>,
    size: u32,
    _slots: PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    /// Maps the ring of a socket that is at `page` in its file; `size` is a power of two.
    pub fn new(socket: BorrowedFd<'_>, page: u64, places: &XdpRingOffset, size: u32) -> io::Result<Ring<T>> {
        let length = places.desc as usize + size as usize * size_of::<T>();
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping, which nothing else is at.
        let start = unsafe { mmap(ptr::null_mut(), length, protection, flags, socket, page) }?;
        let mapping = mapping(start, length)?;
        let at = |offset: u64| {
            // SAFETY: the kernel's offsets are within the length that they gave.
            unsafe { mapping.start.add(offset as usize) }
        };
        let (producer, consumer) = (at(places.producer).cast(), at(places.consumer).cast());
        let slots = at(places.desc).cast();
        Ok(Ring { producer, consumer, slots, size, _mapping: mapping, _slots: PhantomData })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: it is in the mapping, aligned, and both sides use it atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    fn slot(&self, number: u32) -> *mut T {
        // SAFETY: the remainder is within the ring.
        unsafe { self.slots.as_ptr().add((number & (self.size - 1)) as usize) }
    }

    /// Takes what the kernel has put there.
    pub fn take(&mut self) -> Option<T> {
        let next = self.consumer().load(Ordering::Relaxed);
        if self.producer().load(Ordering::Acquire) == next {
            return None;
        }
        // SAFETY: the slot is ours until the consumer's number says otherwise.
        let value = unsafe { self.slot(next).read() };
        self.consumer().store(next.wrapping_add(1), Ordering::Release);
        Some(value)
    }

    /// Puts something there for the kernel; `false` when it is full.
    pub fn put(&mut self, value: T) -> bool {
        let next = self.producer().load(Ordering::Relaxed);
        if next.wrapping_sub(self.consumer().load(Ordering::Acquire)) >= self.size {
            return false;
        }
        // SAFETY: the slot is ours until the producer's number says otherwise.
        unsafe { self.slot(next).write(value) };
        self.producer().store(next.wrapping_add(1), Ordering::Release);
        true
    }
}
