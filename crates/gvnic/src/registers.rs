//! The registers in BAR0: reset, the admin queue's place, and the driver's version.
//!
//! A device is reset or runs. RUN takes the admin queue as it is configured at that moment; RESET lets go of everything and
//! says so in the device status, which the driver polls (`gve_adminq_alloc`, `gve_adminq_release`, gve_adminq.c). All of it
//! happens inside the write, so a driver never sees a state between.

use crate::abi::adminq::{BUFFER_BYTES, COMMAND_BYTES};
use crate::abi::registers as abi;

/// Characters of the driver's version that are kept.
const VERSION_MAX: usize = 64;

/// What a write asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Nothing,
    Reset,
    /// This many commands were issued since RUN.
    Doorbell(u32),
}

/// The admin queue while the device runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AdminRing {
    pub base: u64,
    /// Commands it holds: a power of two, up to 64.
    pub slots: u32,
}

#[derive(Debug)]
pub(crate) struct Registers {
    max_tx: u32,
    max_rx: u32,
    running: bool,
    driver_status: u32,
    base: u64,
    length: u16,
    doorbell: u32,
    ring: Option<AdminRing>,
    /// Commands answered since RUN.
    pub answered: u32,
    /// Whether the device asks to be reset.
    pub reset_requested: bool,
    version: Vec<u8>,
    version_complete: bool,
}

impl Registers {
    pub fn new(queues: u16) -> Registers {
        Registers {
            max_tx: u32::from(queues),
            max_rx: u32::from(queues),
            running: false,
            driver_status: 0,
            base: 0,
            length: 0,
            doorbell: 0,
            ring: None,
            answered: 0,
            reset_requested: false,
            version: Vec::new(),
            version_complete: false,
        }
    }

    /// What RESET leaves: the driver's version, which it writes once, and how many queues there are.
    pub fn reset(&mut self) {
        let (version, version_complete) = (std::mem::take(&mut self.version), self.version_complete);
        let queues = self.max_tx as u16;
        *self = Registers { version, version_complete, ..Registers::new(queues) };
    }

    pub fn is_running(&self) -> bool {
        self.running
    }

    /// The admin queue; none while the device is reset, or when the driver gave none that can be.
    pub fn ring(&self) -> Option<AdminRing> {
        self.ring
    }

    /// The driver's version, as far as it is printable.
    pub fn version(&self) -> String {
        self.version.iter().map(|byte| char::from(*byte)).collect()
    }

    fn image(&self, link: bool) -> [u8; abi::REGISTERS_SIZE] {
        let mut status = 0;
        for (bit, set) in [
            (abi::STATUS_RESET_REQUEST, self.reset_requested),
            (abi::STATUS_LINK_UP, link),
            (abi::STATUS_IS_RESET, !self.running),
        ] {
            status |= if set { bit } else { 0 };
        }
        let words = [
            (abi::DEVICE_STATUS, status),
            (abi::DRIVER_STATUS, self.driver_status),
            (abi::MAX_TX_QUEUES, self.max_tx),
            (abi::MAX_RX_QUEUES, self.max_rx),
            (abi::ADMINQ_DOORBELL, self.doorbell),
            (abi::ADMINQ_EVENT_COUNTER, self.answered),
            (abi::ADMINQ_BASE_HI, (self.base >> 32) as u32),
            (abi::ADMINQ_BASE_LO, self.base as u32),
            (abi::ADMINQ_LENGTH, u32::from(self.length) << 16),
        ];
        let mut image = [0; abi::REGISTERS_SIZE];
        for (offset, word) in words {
            // Every offset is that of a word within the image.
            if let Some(bytes) = image.get_mut(offset as usize..offset as usize + 4) {
                bytes.copy_from_slice(&word.to_be_bytes());
            }
        }
        image
    }

    /// Reads any part of the BAR; zeros behind the registers.
    pub fn read(&self, offset: u64, into: &mut [u8], link: bool) {
        let image = self.image(link);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (n, byte) in into.iter_mut().enumerate() {
            *byte = start.checked_add(n).and_then(|at| image.get(at)).copied().unwrap_or(0);
        }
    }

    /// Writes a register. What is no register, or not all of one, is left alone.
    pub fn write(&mut self, offset: u64, from: &[u8]) -> Asked {
        match (offset, from) {
            (abi::DRIVER_VERSION, [byte]) => self.take_version(*byte),
            (abi::ADMINQ_LENGTH, [high, low]) => self.length = u16::from_be_bytes([*high, *low]),
            (_, [a, b, c, d]) => return self.write_word(offset, u32::from_be_bytes([*a, *b, *c, *d])),
            _ => {}
        }
        Asked::Nothing
    }

    fn write_word(&mut self, offset: u64, value: u32) -> Asked {
        match offset {
            abi::DRIVER_STATUS => {
                // Reset wins: who asks for both wants to begin anew.
                if value & abi::DRIVER_RESET != 0 {
                    return Asked::Reset;
                }
                if value & abi::DRIVER_RUN != 0 && !self.running {
                    self.run();
                }
                self.driver_status = value & abi::DRIVER_RUN;
            }
            abi::ADMINQ_DOORBELL => {
                self.doorbell = value;
                return Asked::Doorbell(value);
            }
            abi::ADMINQ_BASE_HI => self.base = (self.base & 0xffff_ffff) | u64::from(value) << 32,
            abi::ADMINQ_BASE_LO => self.base = (self.base & !0xffff_ffff) | u64::from(value),
            _ => {}
        }
        Asked::Nothing
    }

    fn run(&mut self) {
        self.running = true;
        self.answered = 0;
        self.doorbell = 0;
        let length = usize::from(self.length);
        let slots = length / COMMAND_BYTES;
        let fits = length <= BUFFER_BYTES && slots.is_power_of_two() && slots * COMMAND_BYTES == length;
        let place = self.base != 0 && self.base.checked_add(length as u64).is_some();
        self.ring = (fits && place).then_some(AdminRing { base: self.base, slots: slots as u32 });
    }

    /// The version comes with a prefix and ends with a newline; the next byte begins another.
    fn take_version(&mut self, byte: u8) {
        if std::mem::take(&mut self.version_complete) {
            self.version.clear();
        }
        if byte == b'\n' {
            self.version_complete = true;
        } else if self.version.len() < VERSION_MAX && (byte.is_ascii_graphic() || byte == b' ') {
            self.version.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(registers: &Registers, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        registers.read(offset, &mut bytes, true);
        u32::from_be_bytes(bytes)
    }

    fn run(base: u64, length: u16) -> Registers {
        let mut registers = Registers::new(4);
        registers.write(abi::ADMINQ_LENGTH, &length.to_be_bytes());
        registers.write(abi::ADMINQ_BASE_HI, &((base >> 32) as u32).to_be_bytes());
        registers.write(abi::ADMINQ_BASE_LO, &(base as u32).to_be_bytes());
        assert_eq!(registers.write(abi::DRIVER_STATUS, &abi::DRIVER_RUN.to_be_bytes()), Asked::Nothing);
        registers
    }

    #[test]
    fn the_status_tells_reset_link_and_request() {
        let mut registers = Registers::new(4);
        assert_eq!(read(&registers, 0), 0b1_0100, "reset, with the link up");
        assert_eq!((read(&registers, 8), read(&registers, 12)), (4, 4));
        registers = run(0x1_2345_6000, 4096);
        assert_eq!(read(&registers, 0), 0b0_0100);
        assert_eq!(registers.ring(), Some(AdminRing { base: 0x1_2345_6000, slots: 64 }));
        assert_eq!((read(&registers, 32), read(&registers, 36), read(&registers, 40)), (1, 0x2345_6000, 4096 << 16));
        registers.reset_requested = true;
        registers.answered = 9;
        assert_eq!((read(&registers, 0), read(&registers, 24)), (0b0_0110, 9));
        assert_eq!(registers.write(abi::DRIVER_STATUS, &3u32.to_be_bytes()), Asked::Reset);
        registers.reset();
        assert_eq!((read(&registers, 0), read(&registers, 24), registers.ring()), (0b1_0100, 0, None));
    }

    #[test]
    fn an_admin_queue_that_cannot_be_is_none() {
        for (base, length) in [(0x1000, 0), (0x1000, 63), (0x1000, 65), (0x1000, 192), (0x1000, 8192), (0, 4096)] {
            let registers = run(base, length);
            assert!(registers.is_running() && registers.ring().is_none(), "{length} bytes at {base:#x}");
        }
        assert!(run(u64::MAX - 4000, 4096).ring().is_none());
        assert!(run(u64::MAX - 4096, 4096).ring().is_some());
        assert_eq!(run(0x1000, 64).ring().map(|r| r.slots), Some(1));
    }

    #[test]
    fn the_queue_does_not_move_while_it_runs() {
        let mut registers = run(0x1000, 4096);
        registers.write(abi::ADMINQ_BASE_LO, &0x9000u32.to_be_bytes());
        registers.write(abi::DRIVER_STATUS, &abi::DRIVER_RUN.to_be_bytes());
        assert_eq!(registers.ring(), Some(AdminRing { base: 0x1000, slots: 64 }));
    }

    #[test]
    fn the_version_is_bounded_and_printable() {
        let mut registers = Registers::new(1);
        let mut say = |text: &[u8]| {
            text.iter().for_each(|byte| {
                registers.write(abi::DRIVER_VERSION, &[*byte]);
            });
            registers.version()
        };
        assert_eq!(say(b"GVE-1.0.0\n"), "GVE-1.0.0");
        assert_eq!(say(b"GVE-\x1b[31m2\x00\xff\n"), "GVE-[31m2");
        assert_eq!(say(&[b'x'; 100_000]).len(), VERSION_MAX);
        registers.reset();
        assert_eq!(registers.version().len(), VERSION_MAX, "the driver writes it once");
    }

    #[test]
    fn odd_accesses_read_what_is_there_and_write_nothing() {
        let mut registers = run(0x1000, 4096);
        let before = registers.image(true);
        for offset in [0, 1, 8, 23, 29, 31, 37, 40, 43, 44, 4095, u64::MAX] {
            for length in [0usize, 1, 2, 3, 5, 8, 4096] {
                if (offset, length) != (40, 2) {
                    assert_eq!(registers.write(offset, &vec![0xff; length]), Asked::Nothing, "{length} at {offset}");
                }
                registers.read(offset, &mut vec![0xaa; length], false);
            }
        }
        assert_eq!(registers.image(true), before);
        let mut across = [0xaa; 6];
        registers.read(42, &mut across, true);
        assert_eq!(across, [0; 6]);
    }
}
