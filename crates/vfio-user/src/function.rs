//! What a PCI function says of itself: a [`PciFunction`] is data, and [`PciFunction::check`] is what makes it sound.

use crate::error::BadFunction;

/// First byte of the capabilities (`PCI_STD_HEADER_SIZEOF`, `linux/pci_regs.h`).
pub(crate) const CAPABILITIES: usize = 0x40;
/// Bytes of a conventional configuration space (`PCI_CFG_SPACE_SIZE`, `linux/pci_regs.h`).
pub(crate) const CONFIG_SIZE: usize = 256;
/// Bytes of an MSI-X capability (`PCI_CAP_MSIX_SIZEOF`, `linux/pci_regs.h`).
pub(crate) const MSIX_CAPABILITY: usize = 12;
/// Bytes of an entry of the MSI-X table (`PCI_MSIX_ENTRY_SIZE`, `linux/pci_regs.h`).
pub(crate) const MSIX_ENTRY: u64 = 16;
/// Most vectors of MSI-X: `PCI_MSIX_FLAGS_QSIZE` + 1, `linux/pci_regs.h`.
const MSIX_VECTORS: u16 = 2048;

/// A PCI function with a type 0 header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PciFunction {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Base class, subclass and programming interface, as in 0x020000 for Ethernet.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Its BARs.
    pub bars: [Option<Bar>; 6],
    /// Its interrupts; without it there are none.
    pub msix: Option<Msix>,
    /// Further capabilities, in their order, after the one of MSI-X.
    pub capabilities: Vec<Capability>,
}

/// A BAR of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// A power of two, in bytes.
    pub size: u64,
    /// Whether it is 64 bits wide. It takes the next one's place then.
    pub wide: bool,
    /// Whether reading does nothing else.
    pub prefetchable: bool,
}

/// MSI-X.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Msix {
    /// How many vectors.
    pub vectors: u16,
    /// Where the table is: 16 bytes a vector.
    pub table: Place,
    /// Where the pending bits are: 8 bytes for each 64 vectors.
    pub pba: Place,
}

/// A place in a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which BAR.
    pub bar: u8,
    /// Where in it, in bytes, at a multiple of 8.
    pub offset: u32,
}

/// A capability with nothing behind it but memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// Its ID (`PCI_CAP_ID_*`, `linux/pci_regs.h`).
    pub id: u8,
    /// What follows the ID and the pointer to the next one.
    pub body: Vec<u8>,
    /// Which bits of it the guest may write; as long as `body`.
    pub writable: Vec<u8>,
}

impl Msix {
    /// Bytes of the table.
    pub fn table_size(&self) -> u64 {
        u64::from(self.vectors) * MSIX_ENTRY
    }

    /// Bytes of the pending bits.
    pub fn pba_size(&self) -> u64 {
        u64::from(self.vectors).div_ceil(64) * 8
    }
}

impl PciFunction {
    /// Size of a BAR in bytes; 0 if there is none, or it is the upper half of another one.
    pub fn bar_size(&self, bar: u32) -> u64 {
        self.bars.get(bar as usize).copied().flatten().map_or(0, |bar| bar.size)
    }

    /// Whether a function can be like that.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), BadFunction> {
        for (n, bar) in self.bars.iter().enumerate() {
            let Some(bar) = bar else { continue };
            let max = if bar.wide { 1 << 62 } else { 1 << 31 };
            if !bar.size.is_power_of_two() || bar.size < 16 || bar.size > max {
                return Err(BadFunction::BarSize { bar: n, size: bar.size, max });
            }
            if bar.wide && !matches!(self.bars.get(n + 1), Some(None)) {
                return Err(BadFunction::BarWidth { bar: n });
            }
        }
        let mut room = CONFIG_SIZE - CAPABILITIES;
        if let Some(msix) = &self.msix {
            self.check_msix(msix)?;
            room -= MSIX_CAPABILITY;
        }
        for capability in &self.capabilities {
            let (length, masks) = (capability.body.len(), capability.writable.len());
            // ID and pointer come before it, and the next one begins at a multiple of 4.
            let needed = (length + 2).next_multiple_of(4);
            if length != masks || needed > room {
                let room = room.saturating_sub(2);
                return Err(BadFunction::Capability { id: capability.id, length, masks, room });
            }
            room -= needed;
        }
        Ok(())
    }

    fn check_msix(&self, msix: &Msix) -> Result<(), BadFunction> {
        if !(1..=MSIX_VECTORS).contains(&msix.vectors) {
            return Err(BadFunction::Vectors { vectors: msix.vectors });
        }
        let parts = [("table", msix.table, msix.table_size()), ("pending bits", msix.pba, msix.pba_size())];
        for (what, place, size) in parts {
            let fits = u64::from(place.offset) + size <= self.bar_size(place.bar.into());
            if place.offset % 8 != 0 || !fits {
                return Err(BadFunction::MsixPlace { what, bar: place.bar, offset: place.offset, size });
            }
        }
        let (table, pba) = (u64::from(msix.table.offset), u64::from(msix.pba.offset));
        if msix.table.bar == msix.pba.bar && table < pba + msix.pba_size() && pba < table + msix.table_size() {
            return Err(BadFunction::MsixOverlap);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(size: u64, wide: bool) -> Option<Bar> {
        Some(Bar { size, wide, prefetchable: false })
    }

    fn sound() -> PciFunction {
        PciFunction {
            bars: [bar(4096, false), bar(8192, false), None, bar(1 << 33, true), None, None],
            msix: Some(Msix { vectors: 65, table: Place { bar: 1, offset: 0 }, pba: Place { bar: 1, offset: 4096 } }),
            ..PciFunction::default()
        }
    }

    #[test]
    fn what_no_function_can_be_is_refused_by_name() {
        assert_eq!(sound().check(), Ok(()));
        assert_eq!(sound().msix.map(|m| (m.table_size(), m.pba_size())), Some((1040, 16)));
        type Spoil = fn(&mut PciFunction);
        let cases: [(Spoil, &str); 14] = [
            (|f| f.bars[0] = bar(4095, false), "BAR 0 has 0xfff bytes"),
            (|f| f.bars[0] = bar(8, false), "BAR 0 has 0x8 bytes"),
            (|f| f.bars[0] = bar(0, false), "BAR 0 has 0x0 bytes"),
            (|f| f.bars[0] = bar(1 << 32, false), "from 16 bytes to 0x80000000"),
            (|f| f.bars[0] = bar(4096, true), "BAR 1 has to be free"),
            (|f| f.bars[5] = bar(4096, true), "BAR 6 has to be free"),
            (|f| f.msix.as_mut().unwrap().vectors = 0, "0 MSI-X vectors"),
            (|f| f.msix.as_mut().unwrap().vectors = 2049, "2049 MSI-X vectors"),
            (|f| f.msix.as_mut().unwrap().table.bar = 2, "MSI-X table at 0x0 of BAR 2: the 1040 bytes"),
            (|f| f.msix.as_mut().unwrap().table.bar = 9, "MSI-X table at 0x0 of BAR 9"),
            (|f| f.msix.as_mut().unwrap().pba.offset = 8184, "MSI-X pending bits at 0x1ff8 of BAR 1: the 16"),
            (|f| f.msix.as_mut().unwrap().pba.offset = 4100, "at a multiple of 8"),
            (|f| f.msix.as_mut().unwrap().pba.offset = 1032, "overlap"),
            (
                |f| {
                    let large = Capability { id: 9, body: vec![0; 100], writable: vec![0; 100] };
                    f.capabilities = vec![large.clone(), large];
                },
                "capability 0x09 has 100 bytes and 100 of masks: they have to be equal, and there is room for 74",
            ),
        ];
        for (spoil, expected) in cases {
            let mut function = sound();
            spoil(&mut function);
            let error = function.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }
}
