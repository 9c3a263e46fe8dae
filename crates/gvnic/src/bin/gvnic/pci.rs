//! The device as a PCI function: what it says of itself, and which access goes where.

use std::sync::Arc;

use gvnic::abi::registers::{
    DEVICE, DOORBELL_BAR, DOORBELL_BAR_SIZE, REGISTER_BAR, REGISTER_BAR_SIZE, REVISION, VENDOR,
};
use gvnic::bus::{self, BadAddress};
use gvnic::config::PortConfig;
use gvnic::control::Control;
use vfio_user::{Bar, Device, Event, Msix, PciFunction, Place};

/// The BAR of the MSI-X table and its pending bits. The driver leaves it to the kernel.
const MSIX_BAR: u8 = 1;
/// Its size, in bytes: a page for the table, a page for the pending bits.
const MSIX_BAR_SIZE: u64 = 0x2000;
/// Where the pending bits are in it.
const PENDING_AT: u32 = 0x1000;
/// An Ethernet controller (PCI Code and ID Assignment, class 02h).
const ETHERNET: u32 = 0x02_00_00;

/// What the function says of itself.
pub fn function(config: &PortConfig) -> PciFunction {
    let mut bars = [None; 6];
    let bar = |size| Some(Bar { size, wide: false, prefetchable: false });
    bars[usize::from(REGISTER_BAR)] = bar(REGISTER_BAR_SIZE);
    bars[usize::from(MSIX_BAR)] = bar(MSIX_BAR_SIZE);
    bars[usize::from(DOORBELL_BAR)] = bar(DOORBELL_BAR_SIZE);
    let place = |offset| Place { bar: MSIX_BAR, offset };
    PciFunction {
        vendor: VENDOR,
        device: DEVICE,
        subsystem_vendor: VENDOR,
        subsystem: DEVICE,
        class: ETHERNET,
        revision: REVISION,
        bars,
        msix: Some(Msix { vectors: config.vectors(), table: place(0), pba: place(PENDING_AT) }),
        capabilities: Vec::new(),
    }
}

/// The guest's memory, as the device sees it.
pub struct GuestMemory(pub Arc<vfio_user::GuestMemory>);

fn bad(error: vfio_user::BadAddress) -> BadAddress {
    BadAddress { address: error.address, length: error.length }
}

impl bus::Memory for GuestMemory {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
        self.0.read(address, into).map_err(bad)
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), BadAddress> {
        self.0.write(address, from).map_err(bad)
    }

    fn publish(&self, address: u64, from: &[u8], generation_at: usize) -> Result<(), BadAddress> {
        self.0.publish(address, from, generation_at).map_err(bad)
    }
}

/// The guest's interrupt vectors, as the device sees them.
pub struct Vectors(pub vfio_user::Interrupts);

impl bus::Interrupts for Vectors {
    fn raise(&self, vector: u16) {
        self.0.raise(vector);
    }
}

/// The registers, as the guest sees them.
pub struct Function(pub Arc<Control>);

impl Device for Function {
    fn read(&mut self, bar: u8, offset: u64, into: &mut [u8]) {
        match bar {
            REGISTER_BAR => self.0.read_register(offset, into),
            _ => self.0.read_doorbell(offset, into),
        }
    }

    fn write(&mut self, bar: u8, offset: u64, from: &[u8]) {
        match bar {
            REGISTER_BAR => self.0.write_register(offset, from),
            DOORBELL_BAR => self.0.write_doorbell(offset, from),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.0.function_reset();
    }

    fn event(&mut self, event: Event<'_>) {
        if let Event::Refused { command, why } = event {
            eprintln!("gvnic: command {command} refused: {why}");
        }
    }
}
