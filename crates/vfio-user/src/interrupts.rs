//! The interrupt vectors: raised by the device from any thread, masked and connected by the thread that serves.
//!
//! A vector that is raised and cannot be delivered is pending, once, and is delivered as soon as it can be. There are three
//! reasons why it could not:
//! - no eventfd is connected. QEMU connects one when the guest unmasks the vector for the first time
//!   (`vfio_msix_vector_do_use`, `hw/vfio/pci.c`);
//! - the client masked it, by a message or by the function mask of the MSI-X capability;
//! - the guest masked it in the MSI-X table, and the table is here. QEMU keeps the table to itself: it connects eventfds of its
//!   own to the vectors, masks behind them and never writes the table here. So a vector counts as masked by the table only
//!   after somebody wrote it there.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// The device's MSI-X vectors. A handle: clones are the same vectors.
#[derive(Debug, Clone)]
pub struct Interrupts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    vectors: Box<[Mutex<Vector>]>,
    /// MSI-X is on and its function mask is set.
    masked: AtomicBool,
}

#[derive(Debug, Default)]
struct Vector {
    eventfd: Option<OwnedFd>,
    masked_by_client: bool,
    masked_by_table: bool,
    pending: bool,
}

impl Interrupts {
    pub(crate) fn new(vectors: u16) -> Self {
        let vectors = (0..vectors).map(|_| Mutex::default()).collect();
        Interrupts { shared: Arc::new(Shared { vectors, masked: AtomicBool::new(false) }) }
    }

    /// Raises a vector. It is latched while it cannot be delivered; one that does not exist is ignored.
    pub fn raise(&self, vector: u16) {
        self.with(vector.into(), |v, masked| {
            v.pending = true;
            v.deliver(masked);
        });
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        // It was made of one.
        self.shared.vectors.len() as u16
    }

    /// Whether a vector was raised and not delivered yet.
    pub fn is_pending(&self, vector: u16) -> bool {
        self.with(vector.into(), |v, _| v.pending).unwrap_or(false)
    }

    /// Connects a vector to an eventfd, or to nothing.
    pub(crate) fn connect(&self, vector: u32, eventfd: Option<OwnedFd>) {
        self.with(vector, |v, masked| {
            v.eventfd = eventfd;
            v.deliver(masked);
        });
    }

    /// Masks or unmasks a vector on behalf of the client.
    pub(crate) fn mask(&self, vector: u32, mask: bool) {
        self.with(vector, |v, masked| {
            v.masked_by_client = mask;
            v.deliver(masked);
        });
    }

    /// Masks or unmasks a vector on behalf of the MSI-X table.
    pub(crate) fn mask_by_table(&self, vector: u32, mask: bool) {
        self.with(vector, |v, masked| {
            v.masked_by_table = mask;
            v.deliver(masked);
        });
    }

    /// Masks or unmasks all of them.
    pub(crate) fn mask_function(&self, mask: bool) {
        if self.shared.masked.swap(mask, Ordering::SeqCst) && !mask {
            // Whoever raised a vector and still saw the mask has left it pending before this gets to it.
            for vector in 0..self.shared.vectors.len() as u32 {
                self.with(vector, Vector::deliver);
            }
        }
    }

    /// Nothing connected.
    pub(crate) fn disconnect(&self) {
        for vector in 0..self.shared.vectors.len() as u32 {
            self.with(vector, |v, _| v.eventfd = None);
        }
    }

    /// As after a reset of the function: nothing pending, nothing masked here. What the client connected and masked stays.
    pub(crate) fn reset(&self) {
        self.shared.masked.store(false, Ordering::SeqCst);
        for vector in 0..self.shared.vectors.len() as u32 {
            self.with(vector, |v, _| (v.pending, v.masked_by_table) = (false, false));
        }
    }

    /// As before the first client.
    pub(crate) fn forget(&self) {
        self.shared.masked.store(false, Ordering::SeqCst);
        for vector in 0..self.shared.vectors.len() as u32 {
            self.with(vector, |v, _| *v = Vector::default());
        }
    }

    fn with<T>(&self, vector: u32, act: impl FnOnce(&mut Vector, bool) -> T) -> Option<T> {
        let vector = self.shared.vectors.get(vector as usize)?;
        // Nothing in here can panic half-way.
        let mut vector: MutexGuard<'_, Vector> = vector.lock().unwrap_or_else(PoisonError::into_inner);
        Some(act(&mut vector, self.shared.masked.load(Ordering::SeqCst)))
    }
}

impl Vector {
    fn deliver(&mut self, masked: bool) {
        if !self.pending || masked || self.masked_by_client || self.masked_by_table {
            return;
        }
        let Some(eventfd) = &self.eventfd else { return };
        // Either it counts one more, or it is full and the client has not come to look for a long time.
        let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
        self.pending = false;
    }
}

/// Makes sure that a descriptor is an eventfd, and that writing to it never waits.
///
/// # Errors
/// It is something else, or /proc is not there to tell.
pub(crate) fn check_eventfd(fd: &OwnedFd) -> io::Result<()> {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    if link.as_os_str() != "anon_inode:[eventfd]" {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // The flag is the client's too, for it shares the description. QEMU sets it itself (`event_notifier_init`,
    // `util/event_notifier-posix.c`), and KVM does not care.
    Ok(fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}
