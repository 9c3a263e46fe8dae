//! What a device is to the server.

use crate::error::{Ended, Refusal};

/// The behaviour behind the BARs. Called by the thread that serves, one thing at a time and in the order in which the guest
/// did it; QEMU waits up to 5 s for each (`hw/vfio-user/pci.c`, property `x-msg-timeout`), so nothing here may take long.
///
/// Accesses are within the BAR and not empty. They are not always as wide as a register or aligned: their offset and length
/// are what the guest chose, up to [`MAX_TRANSFER`](crate::wire::MAX_TRANSFER). The MSI-X table and pending bits never get here.
pub trait Device {
    /// Reads registers.
    fn read(&mut self, bar: u8, offset: u64, into: &mut [u8]);

    /// Writes registers.
    fn write(&mut self, bar: u8, offset: u64, from: &[u8]);

    /// Back to how it was before the first access, with no access to memory and no interrupt under way when this returns. The
    /// guest asks for it, and it happens after each client.
    fn reset(&mut self);

    /// Something that may be worth a line in a log.
    fn event(&mut self, event: Event<'_>) {
        let _ = event;
    }
}

/// What happened on the connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A client came.
    Connected,
    /// A command failed. A client may do this as often as it likes: whoever writes it down should do so with measure.
    Refused {
        /// Which one.
        command: u16,
        /// Why.
        why: &'a Refusal,
    },
    /// The client left.
    Ended(&'a Ended),
}
