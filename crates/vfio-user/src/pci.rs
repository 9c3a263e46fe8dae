//! A function as its regions: configuration space, MSI-X, and the BARs that are the device's.

use crate::config::ConfigSpace;
use crate::device::Device;
use crate::error::{BadFunction, Refusal};
use crate::function::{CONFIG_SIZE, PciFunction};
use crate::interrupts::Interrupts;
use crate::msix::{MsixTable, Part};
use crate::wire::{MAX_TRANSFER, RegionAccess, region};

/// The state of a function as far as it is not the device's.
#[derive(Debug)]
pub(crate) struct Pci {
    function: PciFunction,
    config: ConfigSpace,
    msix: Option<MsixTable>,
    /// Its vectors.
    pub interrupts: Interrupts,
}

impl Pci {
    /// A function as after a reset.
    pub fn new(function: PciFunction) -> Result<Self, BadFunction> {
        function.check()?;
        Ok(Pci {
            config: ConfigSpace::new(&function),
            msix: function.msix.map(MsixTable::new),
            interrupts: Interrupts::new(function.msix.map_or(0, |msix| msix.vectors)),
            function,
        })
    }

    /// Bytes of a region; 0: there is nothing.
    ///
    /// # Errors
    /// There is no such region.
    pub fn region_size(&self, index: u32) -> Result<u64, Refusal> {
        match index {
            region::CONFIG => Ok(CONFIG_SIZE as u64),
            index if index < region::BARS => Ok(self.function.bar_size(index)),
            index if index < region::COUNT => Ok(0),
            index => Err(Refusal::NoRegion(index)),
        }
    }

    /// Whether an access is within its region, and not larger than agreed. What passes can be allocated.
    pub fn check(&self, access: &RegionAccess) -> Result<(), Refusal> {
        let RegionAccess { offset, region, count } = *access;
        let size = self.region_size(region)?;
        if count as usize > MAX_TRANSFER {
            return Err(Refusal::Transfer(count));
        }
        match offset.checked_add(count.into()) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Refusal::OutsideRegion { region, offset, count, size }),
        }
    }

    /// Reads a region; the access was checked.
    pub fn read(&self, device: &mut dyn Device, region: u32, offset: u64, into: &mut [u8]) {
        if region == region::CONFIG {
            return self.config.read(offset, into);
        }
        let (bar, mut offset, mut rest) = (region as u8, offset, into);
        while !rest.is_empty() {
            let (part, at, length) = self.part(bar, offset);
            let (piece, more) = rest.split_at_mut(bounded(length, rest.len()));
            offset += piece.len() as u64;
            match (part, &self.msix) {
                (Part::Table, Some(msix)) => msix.read_table(at, piece),
                (Part::Pending, Some(msix)) => msix.read_pending(at, piece, &self.interrupts),
                _ => device.read(bar, at, piece),
            }
            rest = more;
        }
    }

    /// Writes a region; the access was checked.
    pub fn write(&mut self, device: &mut dyn Device, region: u32, offset: u64, from: &[u8]) {
        if region == region::CONFIG {
            self.config.write(offset, from);
            return self.interrupts.mask_function(self.config.msix_masked());
        }
        let (bar, mut offset, mut rest) = (region as u8, offset, from);
        while !rest.is_empty() {
            let (part, at, length) = self.part(bar, offset);
            let (piece, more) = rest.split_at(bounded(length, rest.len()));
            offset += piece.len() as u64;
            match (part, &mut self.msix) {
                (Part::Table, Some(msix)) => msix.write_table(at, piece, &self.interrupts),
                // Read-only.
                (Part::Pending, _) => {}
                _ => device.write(bar, at, piece),
            }
            rest = more;
        }
    }

    /// As after a reset; the device has been reset.
    pub fn reset(&mut self) {
        self.config.reset();
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        self.interrupts.reset();
    }

    fn part(&self, bar: u8, offset: u64) -> (Part, u64, u64) {
        self.msix.as_ref().map_or((Part::Device, offset, u64::MAX), |msix| msix.part(bar, offset))
    }
}

/// `length`, or all there is if that is less; never 0, for then nothing would go on.
fn bounded(length: u64, all: usize) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX).clamp(1, all.max(1))
}
