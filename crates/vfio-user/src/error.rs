//! What can be wrong: with the device's description, with a message, with an address, with a connection.

use std::io;

use rustix::io::Errno;
use thiserror::Error;

use crate::wire::{MAX_FDS, MAX_MAPS, MAX_MESSAGE, MAX_TRANSFER, MULTI_MAX};

/// An access outside the memory that the client mapped for the device, or one that the map does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{length} bytes at {address:#x} are not mapped for the device (or not for this access)")]
pub struct BadAddress {
    /// Bus address (IOVA), in bytes.
    pub address: u64,
    /// How many bytes from there.
    pub length: usize,
}

/// A description of a PCI function that no function can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadFunction {
    /// A size that cannot be told by sizing.
    #[error("BAR {bar} has {size:#x} bytes: the size of a BAR is a power of two, from 16 bytes to {max:#x}")]
    BarSize {
        /// Which.
        bar: usize,
        /// Its size, in bytes.
        size: u64,
        /// The largest one of its width.
        max: u64,
    },
    /// A 64-bit BAR whose upper half has no place.
    #[error("BAR {bar} is 64 bits wide: BAR {} has to be free for its upper half", bar + 1)]
    BarWidth {
        /// Which.
        bar: usize,
    },
    /// No vectors, or more than MSI-X can have.
    #[error("{vectors} MSI-X vectors: there can be 1 to 2048")]
    Vectors {
        /// How many.
        vectors: u16,
    },
    /// Table or pending bits outside of their BAR.
    #[error(
        "MSI-X {what} at {offset:#x} of BAR {bar}: the {size} bytes have to be within an existing BAR, at a multiple of 8"
    )]
    MsixPlace {
        /// Table or pending bits.
        what: &'static str,
        /// Where.
        bar: u8,
        /// Where in there, in bytes.
        offset: u32,
        /// In bytes.
        size: u64,
    },
    /// Table and pending bits in one place.
    #[error("the MSI-X table and the pending bits overlap")]
    MsixOverlap,
    /// More capabilities than 256 bytes of configuration space can hold, or masks that do not fit.
    #[error(
        "capability {id:#04x} has {length} bytes and {masks} of masks: they have to be equal, and there is room for {room}"
    )]
    Capability {
        /// Its id.
        id: u8,
        /// Bytes behind its header.
        length: usize,
        /// Bytes of masks.
        masks: usize,
        /// Bytes that are left behind its header.
        room: usize,
    },
}

/// Why a command failed. The client is told the errno alone.
#[derive(Debug, Error)]
pub enum Refusal {
    /// A command this server does not have.
    #[error("command {0} is unknown")]
    UnknownCommand(u16),
    /// A command that is known, and that this server does without.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// Something before the version, or the version again.
    #[error("the version is agreed on first, and once")]
    OutOfTurn,
    /// A message larger than any this server takes.
    #[error("a message of {0} bytes: the most is {MAX_MESSAGE}")]
    TooLarge(u32),
    /// A body that is not as long as it has to be.
    #[error("the body has {0} bytes, which are not those of this command")]
    Length(usize),
    /// Room for an answer that the answer does not fit into.
    #[error("argsz is {argsz}, which is less than {needed}")]
    Argsz {
        /// What the client said.
        argsz: u32,
        /// Bytes it takes.
        needed: usize,
    },
    /// Descriptors with a command that takes none, or not as many.
    #[error("{got} file descriptors came along, not {wanted}")]
    Descriptors {
        /// How many came.
        got: usize,
        /// How many should have.
        wanted: &'static str,
    },
    /// Too many descriptors; the kernel or this server closed some.
    #[error("more than {MAX_FDS} file descriptors came along")]
    TooManyDescriptors,
    /// A version or capabilities nobody can agree on.
    #[error("version: {0}")]
    Version(String),
    /// Flags that do not exist, or do not go together.
    #[error("flags {0:#x} do not exist or do not go together")]
    Flags(u32),
    /// A region there is not.
    #[error("there is no region {0}")]
    NoRegion(u32),
    /// An access that does not fit into the region.
    #[error("{count} bytes at {offset:#x} are not within the {size:#x} bytes of region {region}")]
    OutsideRegion {
        /// Which.
        region: u32,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        count: u32,
        /// What the region has.
        size: u64,
    },
    /// An access larger than agreed.
    #[error("an access of {0} bytes: the most is {MAX_TRANSFER}")]
    Transfer(u32),
    /// More writes in one message than there may be.
    #[error("{0} writes in a message: the most is {MULTI_MAX}")]
    Writes(u64),
    /// A kind of interrupt there is not.
    #[error("there is no interrupt of kind {0}")]
    NoIrq(u32),
    /// Vectors there are not.
    #[error("{count} vectors from {start}: there are {vectors}")]
    NoVector {
        /// First one.
        start: u32,
        /// How many.
        count: u32,
        /// How many there are.
        vectors: u32,
    },
    /// A descriptor that is not an eventfd.
    #[error("the descriptor for vector {0} is not an eventfd")]
    NotAnEventfd(u32),
    /// Addresses that wrap, are empty or are not whole pages.
    #[error("{size:#x} bytes at {address:#x}, offset {offset:#x}: not whole pages of an address space")]
    Range {
        /// Where (IOVA).
        address: u64,
        /// In bytes.
        size: u64,
        /// In the file.
        offset: u64,
    },
    /// A map over another one.
    #[error("something is mapped already between {address:#x} and {last:#x}")]
    Mapped {
        /// First address.
        address: u64,
        /// Last address.
        last: u64,
    },
    /// An unmap that would cut a map in two.
    #[error("a map extends beyond {address:#x} to {last:#x}")]
    CutsMap {
        /// First address.
        address: u64,
        /// Last address.
        last: u64,
    },
    /// No more maps.
    #[error("there are {MAX_MAPS} maps already")]
    TooManyMaps,
    /// Not a file of memory.
    #[error("the descriptor is not a file that can be mapped")]
    NotMemory,
    /// The file ends before the map does.
    #[error("the file has {length:#x} bytes, the map needs {needed:#x}")]
    FileTooShort {
        /// What it has.
        length: u64,
        /// What it would need.
        needed: u64,
    },
    /// The descriptor does not allow what the map should.
    #[error("the descriptor does not allow what the map should")]
    FileAccess,
    /// The kernel refused.
    #[error("cannot {what}: {errno}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
}

impl Refusal {
    /// What the client is told.
    pub fn errno(&self) -> Errno {
        match self {
            Refusal::UnknownCommand(_) | Refusal::Unsupported(_) => Errno::NOTSUP,
            Refusal::TooLarge(_) | Refusal::Transfer(_) | Refusal::Writes(_) => Errno::TOOBIG,
            Refusal::Mapped { .. } => Errno::EXIST,
            Refusal::TooManyMaps => Errno::NOSPC,
            Refusal::FileAccess => Errno::ACCESS,
            Refusal::System { errno, .. } => *errno,
            _ => Errno::INVAL,
        }
    }
}

/// Why a connection is over.
#[derive(Debug, Error)]
pub enum Ended {
    /// The client closed it.
    #[error("the client is gone")]
    Closed,
    /// [`Stopper::stop`](crate::Stopper::stop).
    #[error("the server was told to stop")]
    Stopped,
    /// A header after which nothing can be trusted to be where it seems.
    #[error("a message with a size of {size} bytes and flags {flags:#x} makes no sense")]
    Nonsense {
        /// Of the header.
        size: u32,
        /// Of the header.
        flags: u32,
    },
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
}
