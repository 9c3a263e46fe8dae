//! The configuration space: 256 bytes, and for each bit whether the guest may change it.
//!
//! All registers are memory with a mask, so accesses of any width and alignment are right. Sizing works by masks too: the
//! address bits of a BAR below its size stay 0. Offsets are those of `linux/pci_regs.h`.

use crate::function::{CAPABILITIES, CONFIG_SIZE, PciFunction};

const VENDOR: usize = 0x00;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CACHE_LINE: usize = 0x0c;
const LATENCY: usize = 0x0d;
const BARS: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITY_LIST: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;

/// `PCI_COMMAND_MEMORY | _MASTER | _PARITY | _SERR | _INTX_DISABLE`: no ports, and nothing of the days before PCI 2.0.
const COMMAND_WRITABLE: u16 = 0x0546;
/// `PCI_STATUS_CAP_LIST`.
const STATUS_CAPABILITIES: u16 = 0x0010;
/// `PCI_BASE_ADDRESS_MEM_TYPE_64`.
const BAR_64: u32 = 0x4;
/// `PCI_BASE_ADDRESS_MEM_PREFETCH`.
const BAR_PREFETCH: u32 = 0x8;
/// `PCI_CAP_ID_MSIX`.
const ID_MSIX: u8 = 0x11;
/// `PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL`.
const MSIX_CONTROL_WRITABLE: u16 = 0xc000;

/// The configuration space of a function.
#[derive(Debug)]
pub(crate) struct ConfigSpace {
    now: [u8; CONFIG_SIZE],
    /// As after a reset.
    initial: [u8; CONFIG_SIZE],
    /// Bits the guest may change.
    writable: [u8; CONFIG_SIZE],
    /// Where the control word of MSI-X is.
    msix_control: Option<usize>,
}

impl ConfigSpace {
    /// The space of a function that was checked.
    pub fn new(function: &PciFunction) -> Self {
        let empty = [0; CONFIG_SIZE];
        let mut space = ConfigSpace { now: empty, initial: empty, writable: empty, msix_control: None };
        space.put(VENDOR, &function.vendor.to_le_bytes());
        space.put(VENDOR + 2, &function.device.to_le_bytes());
        space.put(REVISION, &(function.class << 8 | u32::from(function.revision)).to_le_bytes());
        space.put(SUBSYSTEM, &function.subsystem_vendor.to_le_bytes());
        space.put(SUBSYSTEM + 2, &function.subsystem.to_le_bytes());
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        for register in [CACHE_LINE, LATENCY, INTERRUPT_LINE] {
            space.allow(register, &[0xff]);
        }
        for (n, bar) in function.bars.iter().enumerate() {
            let Some(bar) = bar else { continue };
            let kind = if bar.wide { BAR_64 } else { 0 } | if bar.prefetchable { BAR_PREFETCH } else { 0 };
            let address = !(bar.size - 1);
            space.put(BARS + n * 4, &kind.to_le_bytes());
            let width = if bar.wide { 8 } else { 4 };
            space.allow(BARS + n * 4, &address.to_le_bytes()[..width]);
        }
        space.add_capabilities(function);
        space.now = space.initial;
        space
    }

    fn add_capabilities(&mut self, function: &PciFunction) {
        let (mut link, mut at) = (CAPABILITY_LIST, CAPABILITIES);
        let mut add = |space: &mut Self, id: u8, body: &[u8], writable: &[u8]| {
            // Less than 256: the function was checked.
            space.put(link, &[at as u8]);
            space.put(at, &[id, 0]);
            space.put(at + 2, body);
            space.allow(at + 2, writable);
            (link, at) = (at + 1, (at + 2 + body.len()).next_multiple_of(4));
        };
        if let Some(msix) = &function.msix {
            let mut body = Vec::with_capacity(10);
            body.extend_from_slice(&(msix.vectors - 1).to_le_bytes());
            for place in [msix.table, msix.pba] {
                body.extend_from_slice(&(place.offset | u32::from(place.bar)).to_le_bytes());
            }
            add(self, ID_MSIX, &body, &MSIX_CONTROL_WRITABLE.to_le_bytes());
            self.msix_control = Some(CAPABILITIES + 2);
        }
        for capability in &function.capabilities {
            add(self, capability.id, &capability.body, &capability.writable);
        }
        if self.initial[CAPABILITY_LIST] != 0 {
            self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        }
    }

    /// Reads; what is beyond the end reads as 0.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        into.fill(0);
        for (byte, now) in into.iter_mut().zip(from(&self.now, offset)) {
            *byte = *now;
        }
    }

    /// Writes what may be written.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).unwrap_or(CONFIG_SIZE).min(CONFIG_SIZE);
        for ((now, mask), byte) in self.now[at..].iter_mut().zip(from(&self.writable, offset)).zip(bytes) {
            *now = *now & !mask | byte & mask;
        }
    }

    /// Whether MSI-X is on and all of its vectors are masked at once.
    pub fn msix_masked(&self) -> bool {
        let control = self.msix_control.and_then(|at| self.now.get(at + 1)).unwrap_or(&0);
        control & 0xc0 == 0xc0
    }

    /// As after a reset.
    pub fn reset(&mut self) {
        self.now = self.initial;
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.initial[offset..][..bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..][..mask.len()].copy_from_slice(mask);
    }
}

fn from(bytes: &[u8; CONFIG_SIZE], offset: u64) -> &[u8] {
    usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::{Bar, Capability, Msix, Place};

    fn space() -> ConfigSpace {
        ConfigSpace::new(&PciFunction {
            vendor: 0x1ae0,
            device: 0x0042,
            subsystem_vendor: 0x1ae1,
            subsystem: 0x0058,
            class: 0x02_00_00,
            revision: 1,
            bars: [
                Some(Bar { size: 4096, wide: false, prefetchable: false }),
                None,
                Some(Bar { size: 1 << 33, wide: true, prefetchable: true }),
                None,
                Some(Bar { size: 16, wide: false, prefetchable: false }),
                None,
            ],
            msix: Some(Msix { vectors: 33, table: Place { bar: 0, offset: 0 }, pba: Place { bar: 2, offset: 0x800 } }),
            capabilities: vec![
                Capability { id: 0x01, body: vec![3, 0, 0, 0, 0, 0], writable: vec![0, 0, 3, 0, 0, 0] },
                Capability { id: 0x09, body: vec![7], writable: vec![0] },
            ],
        })
    }

    fn word(space: &ConfigSpace, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        space.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn the_header_says_what_the_function_is() {
        let space = space();
        let expected = [
            (0x00, 0x0042_1ae0),
            (0x04, 0x0010_0000),
            (0x08, 0x0200_0001),
            (0x0c, 0),
            (0x10, 0),
            (0x18, 0xc),
            (0x2c, 0x0058_1ae1),
            (0x30, 0),
            (0x34, 0x40),
            // MSI-X, then the two others, the last of them without a next one.
            (0x40, 0x0020_4c11),
            (0x44, 0x0000_0000),
            (0x48, 0x0000_0802),
            (0x4c, 0x0003_5401),
            (0x54, 0x0007_0009),
        ];
        for (offset, value) in expected {
            assert_eq!(word(&space, offset), value, "at {offset:#x}");
        }
    }

    #[test]
    fn all_ones_size_bars_and_change_nothing_else() {
        let mut space = space();
        let before: Vec<u32> = (0..64).map(|n| word(&space, n * 4)).collect();
        space.write(0, &[0xff; CONFIG_SIZE]);
        let after: Vec<u32> = (0..64).map(|n| word(&space, n * 4)).collect();
        let changed: Vec<(usize, u32)> =
            (0..64).filter(|&n| before[n] != after[n]).map(|n| (n * 4, after[n])).collect();
        assert_eq!(
            changed,
            [
                (0x04, 0x0010_0546),
                (0x0c, 0x0000_ffff),
                (0x10, 0xffff_f000),
                (0x18, 0x0000_000c),
                (0x1c, 0xffff_fffe),
                (0x20, 0xffff_fff0),
                (0x3c, 0x0000_00ff),
                (0x40, 0xc020_4c11),
                (0x50, 0x0000_0003),
            ]
            .into_iter()
            .filter(|(_, value)| *value != 0xc)
            .collect::<Vec<_>>()
        );
        space.reset();
        assert_eq!((0..64).map(|n| word(&space, n * 4)).collect::<Vec<_>>(), before);
    }

    #[test]
    fn writes_of_any_width_and_place_do_what_bytes_would() {
        let mut space = space();
        space.write(0x11, &[0xab]);
        assert_eq!(word(&space, 0x10), 0x0000_a000);
        space.write(0x0e, &[0xff, 0xff, 0x34, 0x12, 0x78, 0x56]);
        assert_eq!(word(&space, 0x10), 0x5678_1000);
        space.write(0xff, &[1, 2, 3]);
        space.write(u64::MAX, &[1]);
        assert_eq!(word(&space, 0xfe), 0);
    }

    #[test]
    fn the_function_mask_counts_only_while_msix_is_on() {
        let mut space = space();
        for (control, masked) in [(0x40, false), (0x80, false), (0xc0, true), (0x00, false), (0xff, true)] {
            space.write(0x43, &[control]);
            assert_eq!(space.msix_masked(), masked, "{control:#x}");
        }
        space.reset();
        assert!(!space.msix_masked());
    }
}
