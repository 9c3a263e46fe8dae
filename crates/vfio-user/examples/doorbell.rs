//! The smallest device there is: a page of registers that are memory, and a doorbell that raises an interrupt.
//!
//! `doorbell /tmp/doorbell.sock`, then QEMU with memory that can be shared:
//! `-object memory-backend-memfd,id=mem0,size=512M,share=on -machine q35,memory-backend=mem0`
//! `-device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/doorbell.sock"}}'`.
//!
//! BAR 0: at 0xff8 a write copies the 8 bytes at 0 to the address in the 8 bytes at 8, and at 0xffc it raises the vector that is
//! written; the rest is memory. BAR 2: MSI-X table and pending bits.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use vfio_user::{Bar, Device, Event, GuestMemory, Interrupts, Msix, PciFunction, Place, Server};

/// Offset of the register that copies.
const COPY: u64 = 0xff8;
/// Offset of the register that raises.
const RAISE: u64 = 0xffc;

struct Doorbell {
    registers: [u8; 4096],
    memory: Arc<GuestMemory>,
    interrupts: Interrupts,
}

impl Device for Doorbell {
    fn read(&mut self, bar: u8, offset: u64, into: &mut [u8]) {
        into.fill(0);
        // Around the table in BAR 2 there is nothing.
        if bar == 0 {
            into.copy_from_slice(&self.registers[offset as usize..][..into.len()]);
        }
    }

    fn write(&mut self, bar: u8, offset: u64, from: &[u8]) {
        if bar != 0 {
            return;
        }
        self.registers[offset as usize..][..from.len()].copy_from_slice(from);
        match (offset, from) {
            (COPY, _) => {
                let (value, address) = (&self.registers[..8], &self.registers[8..16]);
                let address = u64::from_le_bytes(address.try_into().unwrap_or_default());
                if let Err(e) = self.memory.write(address, value) {
                    eprintln!("{e}");
                }
            }
            (RAISE, [low, high, ..]) => self.interrupts.raise(u16::from_le_bytes([*low, *high])),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.registers.fill(0);
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Refused { command, why } => eprintln!("command {command} refused: {why}"),
            Event::Ended(why) => eprintln!("over: {why}"),
            event => eprintln!("{event:?}"),
        }
    }
}

fn main() -> io::Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        return Err(io::Error::other("usage: doorbell SOCKET"));
    };
    let bar = |size| Some(Bar { size, wide: false, prefetchable: false });
    let mut server = Server::new(PciFunction {
        vendor: 0x1234,
        device: 0x11e8,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
        class: 0xff_00_00,
        revision: 0x10,
        bars: [bar(4096), None, bar(8192), None, Some(Bar { size: 1 << 20, wide: true, prefetchable: true }), None],
        msix: Some(Msix { vectors: 5, table: Place { bar: 2, offset: 0 }, pba: Place { bar: 2, offset: 4096 } }),
        ..PciFunction::default()
    })?;
    let listener = UnixListener::bind(path)?;
    let mut device = Doorbell { registers: [0; 4096], memory: server.memory(), interrupts: server.interrupts() };
    server.serve(&listener, &mut device)
}
