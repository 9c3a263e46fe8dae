//! What a driver can get wrong in a ring. The device stops the queue and asks to be reset; the rest of the guest goes on.

use thiserror::Error;

use crate::bus::BadAddress;

/// What is wrong with a ring, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Wrong {
    /// A ring or a buffer is not in the guest's memory.
    #[error("{what} {index}: {source}")]
    Address {
        /// What was read or written.
        what: &'static str,
        /// The index of its descriptor or completion in the ring.
        index: u32,
        /// The access.
        source: BadAddress,
    },
    /// A descriptor of a type that does not exist.
    #[error("descriptor {index} is of type {found:#x}, which does not exist")]
    Type {
        /// The index of the descriptor.
        index: u32,
        /// Its type.
        found: u8,
    },
    /// A descriptor where it must not be: a context within a packet, a second one, or one without its flag.
    #[error("descriptor {index}: {why}")]
    Order {
        /// The index of the descriptor.
        index: u32,
        /// What is out of order.
        why: &'static str,
    },
    /// A number in a descriptor is out of bounds.
    #[error("descriptor {index} has {field} = {value}: {allowed}")]
    Field {
        /// The index of the descriptor.
        index: u32,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },
    /// A packet of more buffers than a packet can have.
    #[error("the packet at descriptor {index} has more than {most} buffers")]
    Buffers {
        /// The index of the packet's first descriptor.
        index: u32,
        /// How many it may have.
        most: usize,
    },
    /// The driver sends on without having read completions, and the next would overwrite one.
    #[error("the completion ring of {size} is full of completions the driver has not read")]
    Overrun {
        /// How many completions fit.
        size: u16,
    },
}

impl Wrong {
    /// Whether it is about an address.
    pub fn is_address(&self) -> bool {
        matches!(self, Wrong::Address { .. })
    }
}

/// Says which access failed.
pub(crate) fn at(what: &'static str, index: u32) -> impl FnOnce(BadAddress) -> Wrong {
    move |source| Wrong::Address { what, index, source }
}
