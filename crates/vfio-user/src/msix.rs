//! The MSI-X table and the pending bits, for guests and clients that look at them here.
//!
//! QEMU keeps the table itself and asks here for the pending bits (`vfio_user_pba_read`, `hw/vfio-user/pci.c`). For a client that
//! sends accesses to the table too, this is one: its mask bits work, its addresses and data are the client's business.

use crate::function::{MSIX_ENTRY, Msix};
use crate::interrupts::Interrupts;

/// `PCI_MSIX_ENTRY_VECTOR_CTRL`, `linux/pci_regs.h`.
const CONTROL: usize = 12;
/// `PCI_MSIX_ENTRY_CTRL_MASKBIT`.
const MASKED: u8 = 1;
/// A vector is masked after a reset.
const ENTRY: [u8; MSIX_ENTRY as usize] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, MASKED, 0, 0, 0];

/// What of a BAR an access is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Registers: the device's.
    Device,
    /// The table.
    Table,
    /// The pending bits.
    Pending,
}

/// Table and pending bits.
#[derive(Debug)]
pub(crate) struct MsixTable {
    layout: Msix,
    entries: Vec<[u8; MSIX_ENTRY as usize]>,
}

impl MsixTable {
    /// As after a reset.
    pub fn new(layout: Msix) -> Self {
        MsixTable { layout, entries: vec![ENTRY; layout.vectors.into()] }
    }

    /// As after a reset.
    pub fn reset(&mut self) {
        self.entries.fill(ENTRY);
    }

    /// What is at `offset` of a BAR, where in there that is, and for how many bytes it goes on.
    pub fn part(&self, bar: u8, offset: u64) -> (Part, u64, u64) {
        let places = [
            (Part::Table, self.layout.table, self.layout.table_size()),
            (Part::Pending, self.layout.pba, self.layout.pba_size()),
        ];
        let mut until = u64::MAX;
        for (part, place, size) in places {
            if place.bar != bar {
                continue;
            }
            let start = u64::from(place.offset);
            match offset.checked_sub(start) {
                Some(into) if into < size => return (part, into, size - into),
                Some(_) => {}
                None => until = until.min(start - offset),
            }
        }
        (Part::Device, offset, until)
    }

    /// Reads the table.
    pub fn read_table(&self, offset: u64, into: &mut [u8]) {
        for (byte, at) in into.iter_mut().zip(offset..) {
            let entry = self.entries.get((at / MSIX_ENTRY) as usize);
            *byte = entry.and_then(|entry| entry.get((at % MSIX_ENTRY) as usize)).copied().unwrap_or(0);
        }
    }

    /// Writes the table.
    pub fn write_table(&mut self, offset: u64, from: &[u8], interrupts: &Interrupts) {
        for (byte, at) in from.iter().zip(offset..) {
            let (vector, within) = (at / MSIX_ENTRY, (at % MSIX_ENTRY) as usize);
            let Some(slot) = self.entries.get_mut(vector as usize).and_then(|entry| entry.get_mut(within)) else {
                continue;
            };
            match within {
                CONTROL => {
                    *slot = byte & MASKED;
                    // There are less than 2^32 entries.
                    interrupts.mask_by_table(vector as u32, *slot != 0);
                }
                // Reserved.
                13.. => {}
                _ => *slot = *byte,
            }
        }
    }

    /// Reads the pending bits.
    pub fn read_pending(&self, offset: u64, into: &mut [u8], interrupts: &Interrupts) {
        for (byte, at) in into.iter_mut().zip(offset..) {
            let bits = (0..8u64).map(|bit| {
                let vector = u16::try_from(at.saturating_mul(8).saturating_add(bit));
                u8::from(vector.is_ok_and(|vector| interrupts.is_pending(vector))) << bit
            });
            *byte = bits.fold(0, |all, bit| all | bit);
        }
    }
}
