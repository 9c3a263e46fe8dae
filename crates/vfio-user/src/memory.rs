//! The guest's memory as the client maps it for the device: addresses of the bus, and the files behind them.
//!
//! Copies hold a read lock on the table of maps for as long as they take, and an unmap waits for it: the protocol wants the
//! answer to mean that nobody touches the memory any more ("`VFIO_USER_DMA_UNMAP`" of QEMU's `docs/interop/vfio-user.rst`:
//! in-flight transactions included). An uncontended read lock is one atomic instruction; [`GuestMemory::view`] takes it once
//! for many copies.
//!
//! A file is mapped whole and once, however many maps name parts of it. With an IOMMU in the guest there are thousands of
//! maps of a page each, which would be more than the kernel allows mappings in a process.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use crate::error::{BadAddress, Refusal};
use crate::mapping::{Candidate, Mapping};
use crate::wire::{MAX_MAPS, PAGE};

/// What a device may do to a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Read it.
    pub read: bool,
    /// Write it.
    pub write: bool,
}

/// The guest's memory. The guest may change any byte at any time, so nothing read here should be read a second time and
/// believed to be the same.
#[derive(Debug, Default)]
pub struct GuestMemory {
    table: RwLock<Table>,
}

/// The guest's memory with its maps held as they are, for several copies in a row. Unmapping waits for it, and with that the
/// guest: not to be kept for longer than a batch of packets takes. A thread that has one must not ask for a second one, nor
/// call [`GuestMemory`]: it would wait for itself when an unmap waits already.
#[derive(Debug)]
pub struct View<'a>(RwLockReadGuard<'a, Table>);

#[derive(Debug, Default)]
struct Table {
    /// By address; they do not overlap.
    maps: Vec<Map>,
    /// Files that are mapped, or were until lately.
    files: Vec<Weak<Mapping>>,
}

#[derive(Debug)]
struct Map {
    first: u64,
    last: u64,
    access: Access,
    /// The file and where in it; `None`: memory this process cannot reach.
    file: Option<(Arc<Mapping>, usize)>,
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

impl GuestMemory {
    /// Nothing mapped yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Maps `size` bytes at `address` to `file`, from `offset` on. Without a file there is nothing to access, but the
    /// addresses are taken: QEMU sends ROMs like that. The descriptor is closed either way.
    ///
    /// # Errors
    /// Not whole pages, a map that is there already, or a file that cannot be mapped like that.
    pub fn map(
        &self,
        address: u64,
        size: u64,
        access: Access,
        file: Option<OwnedFd>,
        offset: u64,
    ) -> Result<(), Refusal> {
        let range = Refusal::Range { address, size, offset };
        if size == 0 || [address, size, offset].iter().any(|value| value % PAGE != 0) {
            return Err(range);
        }
        let (Some(last), Some(end)) = (address.checked_add(size - 1), offset.checked_add(size)) else {
            return Err(range);
        };
        // The file is looked at before the lock is taken: copies need not wait for that.
        let candidate = file.map(Candidate::new).transpose()?;
        let mut table = self.lock();
        let at = table.maps.partition_point(|map| map.last < address);
        if table.maps.get(at).is_some_and(|map| map.first <= last) {
            return Err(Refusal::Mapped { address, last });
        }
        if table.maps.len() >= MAX_MAPS {
            return Err(Refusal::TooManyMaps);
        }
        let file = match candidate {
            Some(candidate) => {
                if end > candidate.length {
                    return Err(Refusal::FileTooShort { length: candidate.length, needed: end });
                }
                if access.write && !candidate.identity.writable {
                    return Err(Refusal::FileAccess);
                }
                let offset = usize::try_from(offset).map_err(|_| Refusal::NotMemory)?;
                Some((table.file(candidate, end)?, offset))
            }
            None => None,
        };
        table.maps.insert(at, Map { first: address, last, access, file });
        Ok(())
    }

    /// Unmaps everything in a range, when nobody accesses it any more. Nothing being there is no error: QEMU unmaps what it
    /// did not map.
    ///
    /// # Errors
    /// A range that wraps, or one that ends in the midst of a map.
    pub fn unmap(&self, address: u64, size: u64) -> Result<(), Refusal> {
        let last = match size.checked_sub(1).and_then(|less| address.checked_add(less)) {
            Some(last) => last,
            None => return Err(Refusal::Range { address, size, offset: 0 }),
        };
        let mut table = self.lock();
        let from = table.maps.partition_point(|map| map.last < address);
        let to = table.maps.partition_point(|map| map.first <= last);
        let Some(hit) = table.maps.get(from..to) else { return Ok(()) };
        if hit.iter().any(|map| map.first < address || map.last > last) {
            return Err(Refusal::CutsMap { address, last });
        }
        table.maps.drain(from..to);
        table.forget_files();
        Ok(())
    }

    /// Unmaps everything, when nobody accesses it any more.
    pub fn clear(&self) {
        *self.lock() = Table::default();
    }

    /// How many maps there are.
    pub fn maps(&self) -> usize {
        self.view().0.maps.len()
    }

    /// Holds the maps for several copies.
    pub fn view(&self) -> View<'_> {
        // Whoever panics with the lock held has not been changing the table.
        View(self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies `into.len()` bytes from the guest. A failed read has not changed `into`.
    ///
    /// # Errors
    /// Part of it is not mapped, or not for reading.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
        self.view().read(address, into)
    }

    /// Copies `from` to the guest. A failed write has changed nothing.
    ///
    /// # Errors
    /// Part of it is not mapped, or not for writing.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), BadAddress> {
        self.view().write(address, from)
    }

    /// Writes `from`, its byte number `last` after all of the others: a guest that sees this byte sees them too. If there
    /// is no such byte, it is a write like any other.
    ///
    /// # Errors
    /// Part of it is not mapped, or not for writing. Nothing was written then.
    pub fn publish(&self, address: u64, from: &[u8], last: usize) -> Result<(), BadAddress> {
        self.view().publish(address, from, last)
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View<'_> {
    /// As [`GuestMemory::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
        let first = self.0.check(address, into.len(), Direction::Read)?;
        let mut rest = into;
        self.0.pieces(first, address, rest.len(), |file, offset, length| {
            let (piece, more) = std::mem::take(&mut rest).split_at_mut(length);
            file.read(offset, piece);
            rest = more;
        });
        Ok(())
    }

    /// As [`GuestMemory::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), BadAddress> {
        let first = self.0.check(address, from.len(), Direction::Write)?;
        self.copy_in(first, address, from);
        Ok(())
    }

    /// As [`GuestMemory::publish`].
    ///
    /// # Errors
    /// As there.
    pub fn publish(&self, address: u64, from: &[u8], last: usize) -> Result<(), BadAddress> {
        let first = self.0.check(address, from.len(), Direction::Write)?;
        let Some((before, [byte, after @ ..])) = from.split_at_checked(last) else {
            self.copy_in(first, address, from);
            return Ok(());
        };
        let mut done = false;
        self.0.pieces(first, address, from.len(), |file, offset, length| {
            done |= length == from.len() && file.publish(offset, from, last);
        });
        if done {
            return Ok(());
        }
        // It fits as a whole, so its parts do not wrap.
        let at = address + last as u64;
        self.copy_in(first, address, before);
        self.copy_in(first, at.wrapping_add(1), after);
        self.0.pieces(first, at, 1, |file, offset, _| file.release(offset, *byte));
        Ok(())
    }

    /// Whether all of it could be written. Another thread may unmap it as soon as this view is gone.
    pub fn is_writable(&self, address: u64, length: usize) -> bool {
        self.0.check(address, length, Direction::Write).is_ok()
    }

    fn copy_in(&self, first: usize, address: u64, from: &[u8]) {
        let mut rest = from;
        self.0.pieces(first, address, rest.len(), |file, offset, length| {
            let (piece, more) = rest.split_at(length);
            file.write(offset, piece);
            rest = more;
        });
    }
}

impl Table {
    /// The first map of an access that is wholly within maps that allow it.
    fn check(&self, address: u64, length: usize, direction: Direction) -> Result<usize, BadAddress> {
        let bad = BadAddress { address, length };
        let Some(less) = (length as u64).checked_sub(1) else { return Ok(0) };
        let last = address.checked_add(less).ok_or(bad)?;
        let first = self.maps.partition_point(|map| map.last < address);
        let mut next = address;
        for map in self.maps.get(first..).unwrap_or_default() {
            let allowed = match direction {
                Direction::Read => map.access.read,
                Direction::Write => map.access.write,
            };
            if map.first > next || !allowed || map.file.is_none() {
                return Err(bad);
            }
            if map.last >= last {
                return Ok(first);
            }
            // Less than `last`, so it does not wrap.
            next = map.last + 1;
        }
        Err(bad)
    }

    /// The files and offsets behind an access that was checked, one after the other. `first` is a map not behind it.
    fn pieces(&self, first: usize, address: u64, length: usize, mut piece: impl FnMut(&Mapping, usize, usize)) {
        let (mut next, mut left) = (address, length);
        for map in self.maps.get(first..).unwrap_or_default() {
            if left == 0 {
                return;
            }
            let (Some((file, base)), Some(into)) = (&map.file, next.checked_sub(map.first)) else { return };
            if map.last < next {
                continue;
            }
            let here = (map.last - next).saturating_add(1).min(left as u64);
            // The map is within the file, and the file within this process: neither is more than a usize.
            piece(file, base + into as usize, here as usize);
            next = next.wrapping_add(here);
            left -= here as usize;
        }
    }

    /// The mapping of a file, `needed` bytes of it at least.
    fn file(&mut self, candidate: Candidate, needed: u64) -> Result<Arc<Mapping>, Refusal> {
        self.forget_files();
        let known = self.files.iter().filter_map(Weak::upgrade);
        // One that was mapped while the file was smaller will not do.
        if let Some(file) = known.into_iter().find(|f| f.identity == candidate.identity && f.length() >= needed) {
            return Ok(file);
        }
        let file = Arc::new(candidate.map()?);
        self.files.push(Arc::downgrade(&file));
        Ok(file)
    }

    fn forget_files(&mut self) {
        self.files.retain(|file| file.strong_count() > 0);
    }
}
