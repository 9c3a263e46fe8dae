//! A vfio-user server: a PCI device of a QEMU guest that lives in a process of its own.
//!
//! QEMU (`-device vfio-user-pci`) connects to a unix socket and sends there what the guest does to the device: accesses to
//! its BARs and its configuration space, the guest's memory as file descriptors to map, and an eventfd for each of its
//! interrupt vectors. [`Server`] answers all of that but the BARs, which are a [`Device`]'s; the device reaches back
//! into the guest through [`GuestMemory`] and [`Interrupts`], from any thread.
//!
//! In: a [`PciFunction`], a socket, a [`Device`]. Out: what the guest sees.
//!
//! Nobody is trusted. The guest chooses what is in registers and memory; the client chooses every byte of a message and every
//! descriptor. What is wrong is refused ([`Refusal`]) with an error answer, what cannot be made sense of ends the connection
//! ([`Ended`]), and the next client finds the device reset.
//!
//! Sources: `docs/interop/vfio-user.rst` and `hw/vfio-user/` of QEMU, `include/uapi/linux/vfio.h` and
//! `include/uapi/linux/pci_regs.h` of Linux.

mod config;
mod device;
mod error;
mod function;
mod inlet;
mod interrupts;
mod irqs;
mod mapping;
mod memory;
mod msix;
mod pci;
mod server;
mod session;
mod version;
pub mod wire;

pub use device::{Device, Event};
pub use error::{BadAddress, BadFunction, Ended, Refusal};
pub use function::{Bar, Capability, Msix, PciFunction, Place};
pub use interrupts::Interrupts;
pub use memory::{Access, GuestMemory, View};
pub use server::{Server, Stopper};
