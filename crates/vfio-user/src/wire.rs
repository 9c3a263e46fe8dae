//! What travels over the socket: commands, flags, and the structures behind the header.
//!
//! Everything is in the host's byte order ("Protocol Specification" of QEMU's `docs/interop/vfio-user.rst`); sections of that
//! document are cited by their names.

/// Bytes of a [`Header`].
pub const HEADER: usize = 16;

/// Most file descriptors in one message. More than that QEMU refuses to be told (`VFIO_USER_MAX_MAX_FDS`,
/// `hw/vfio-user/protocol.h`).
pub const MAX_FDS: usize = 16;

/// Most bytes of one region access. A guest's instruction reads or writes up to 8, QEMU the configuration space at once.
pub const MAX_TRANSFER: usize = 64 << 10;

/// Largest message, in bytes: a write of [`MAX_TRANSFER`]. Of a larger one only the header is looked at.
pub const MAX_MESSAGE: usize = HEADER + RegionAccess::SIZE + MAX_TRANSFER;

/// The page sizes which DMA maps may have, or'ed: all multiples of 4 KiB (`VFIO_USER_DEF_PGSIZE`, `hw/vfio-user/protocol.h`).
pub const PAGE: u64 = 4096;

/// Most DMA maps at a time (`VFIO_USER_DEF_MAP_MAX`, `hw/vfio-user/protocol.h`).
pub const MAX_MAPS: usize = 65535;

/// Bytes that one write of a [`command::REGION_WRITE_MULTI`] carries ("Single Device Write Format").
pub const MULTI_DATA: usize = 8;

/// Most writes in a [`command::REGION_WRITE_MULTI`] (`VFIO_USER_MULTI_MAX`, `hw/vfio-user/protocol.h`).
pub const MULTI_MAX: u64 = 200;

/// What is asked for ("Commands").
pub mod command {
    /// Agree on version and capabilities: the first message.
    pub const VERSION: u16 = 1;
    /// Here is memory.
    pub const DMA_MAP: u16 = 2;
    /// It is gone.
    pub const DMA_UNMAP: u16 = 3;
    /// How many regions and kinds of interrupt?
    pub const DEVICE_GET_INFO: u16 = 4;
    /// What is this region like?
    pub const DEVICE_GET_REGION_INFO: u16 = 5;
    /// Is there a quicker way into this region?
    pub const DEVICE_GET_REGION_IO_FDS: u16 = 6;
    /// What is this kind of interrupt like?
    pub const DEVICE_GET_IRQ_INFO: u16 = 7;
    /// Set up, mask or fire interrupts.
    pub const DEVICE_SET_IRQS: u16 = 8;
    /// Read of a region.
    pub const REGION_READ: u16 = 9;
    /// Write to a region.
    pub const REGION_WRITE: u16 = 10;
    /// Reset.
    pub const DEVICE_RESET: u16 = 13;
    /// Several small writes.
    pub const REGION_WRITE_MULTI: u16 = 15;
}

/// Flags of a [`Header`] ("Header").
pub mod flags {
    /// The bits that say what kind of message it is.
    pub const TYPE: u32 = 0xf;
    /// A command.
    pub const COMMAND: u32 = 0;
    /// An answer.
    pub const REPLY: u32 = 1;
    /// Nobody waits for an answer.
    pub const NO_REPLY: u32 = 1 << 4;
    /// The answer is that it failed; nothing follows the header.
    pub const ERROR: u32 = 1 << 5;
}

/// `VFIO_DEVICE_FLAGS_*`, `linux/vfio.h`.
pub mod device_flags {
    /// It can be reset.
    pub const RESET: u32 = 1 << 0;
    /// It is a PCI device.
    pub const PCI: u32 = 1 << 1;
}

/// `VFIO_PCI_*_REGION_INDEX`, `linux/vfio.h`.
pub mod region {
    /// BARs are the regions below this one.
    pub const BARS: u32 = 6;
    /// The configuration space.
    pub const CONFIG: u32 = 7;
    /// How many there are (`VFIO_PCI_NUM_REGIONS`).
    pub const COUNT: u32 = 9;
    /// `VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE`.
    pub const READ_WRITE: u32 = 3;
}

/// `VFIO_PCI_*_IRQ_INDEX` and `VFIO_IRQ_*`, `linux/vfio.h`.
pub mod irq {
    /// The vectors (`VFIO_PCI_MSIX_IRQ_INDEX`).
    pub const MSIX: u32 = 2;
    /// The device has failed (`VFIO_PCI_ERR_IRQ_INDEX`).
    pub const ERROR: u32 = 3;
    /// How many kinds there are (`VFIO_PCI_NUM_IRQS`).
    pub const COUNT: u32 = 5;
    /// `VFIO_IRQ_INFO_EVENTFD`.
    pub const EVENTFD: u32 = 1 << 0;
    /// `VFIO_IRQ_INFO_MASKABLE`.
    pub const MASKABLE: u32 = 1 << 1;
    /// `VFIO_IRQ_SET_DATA_NONE`: all of the range.
    pub const DATA_NONE: u32 = 1 << 0;
    /// `VFIO_IRQ_SET_DATA_BOOL`: those of the range whose byte is not 0.
    pub const DATA_BOOL: u32 = 1 << 1;
    /// `VFIO_IRQ_SET_DATA_EVENTFD`: descriptors come along, or none to take them away.
    pub const DATA_EVENTFD: u32 = 1 << 2;
    /// `VFIO_IRQ_SET_ACTION_MASK`.
    pub const ACTION_MASK: u32 = 1 << 3;
    /// `VFIO_IRQ_SET_ACTION_UNMASK`.
    pub const ACTION_UNMASK: u32 = 1 << 4;
    /// `VFIO_IRQ_SET_ACTION_TRIGGER`.
    pub const ACTION_TRIGGER: u32 = 1 << 5;
}

/// `VFIO_DMA_MAP_FLAG_*` and `VFIO_DMA_UNMAP_FLAG_*`, `linux/vfio.h`.
pub mod dma {
    /// The device may read there.
    pub const READ: u32 = 1 << 0;
    /// The device may write there.
    pub const WRITE: u32 = 1 << 1;
    /// With an unmap: and say which pages were written.
    pub const UNMAP_DIRTY_BITMAP: u32 = 1 << 0;
    /// Unmap everything, whatever address and size say.
    pub const UNMAP_ALL: u32 = 1 << 1;
}

/// Declares a structure of the wire: fields in their order without padding, and its size, checked at compile time.
macro_rules! wire {
    ($(#[$doc:meta])* $name:ident = $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        const _: () = assert!(size_of::<$name>() == $size && $name::SIZE == $size);

        impl $name {
            /// Its bytes on the wire.
            pub const SIZE: usize = 0 $(+ size_of::<$type>())*;

            /// Takes it off the front of `bytes` and returns it with what follows; `None` if they are too few.
            pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
                $(let (raw, bytes) = bytes.split_first_chunk()?; let $field = <$type>::from_ne_bytes(*raw);)*
                Some((Self { $($field),* }, bytes))
            }

            /// Appends it to `bytes`.
            pub fn append(&self, bytes: &mut Vec<u8>) {
                $(bytes.extend_from_slice(&self.$field.to_ne_bytes());)*
            }
        }
    };
}

wire! {
    /// Before every message ("Header").
    Header = 16 {
        /// Given back in the answer.
        id: u16,
        /// One of [`command`].
        command: u16,
        /// Bytes of the message, this header among them.
        size: u32,
        /// Of [`flags`].
        flags: u32,
        /// Errno of a failed command; 0 otherwise.
        error: u32,
    }
}

wire! {
    /// [`command::VERSION`], before the capabilities as JSON with a NUL behind.
    Version = 4 {
        /// Both ends have the same one.
        major: u16,
        /// The answer's is not larger than the question's.
        minor: u16,
    }
}

wire! {
    /// [`command::DMA_MAP`].
    DmaMap = 32 {
        /// Bytes of this structure.
        argsz: u32,
        /// Of [`dma`].
        flags: u32,
        /// Where in the file the memory is, in bytes.
        offset: u64,
        /// Where the device finds it (IOVA).
        address: u64,
        /// In bytes.
        size: u64,
    }
}

wire! {
    /// [`command::DMA_UNMAP`] and its answer.
    DmaUnmap = 24 {
        /// Most bytes the answer may have.
        argsz: u32,
        /// Of [`dma`].
        flags: u32,
        /// First address (IOVA).
        address: u64,
        /// In bytes.
        size: u64,
    }
}

wire! {
    /// [`command::DEVICE_GET_INFO`] and its answer (`struct vfio_device_info`).
    DeviceInfo = 16 {
        /// Most bytes the answer may have; in the answer, the bytes it needs.
        argsz: u32,
        /// Of [`device_flags`].
        flags: u32,
        /// How many regions.
        regions: u32,
        /// How many kinds of interrupt.
        irqs: u32,
    }
}

wire! {
    /// [`command::DEVICE_GET_REGION_INFO`] and its answer (`struct vfio_region_info`).
    RegionInfo = 32 {
        /// Most bytes the answer may have; in the answer, the bytes it needs.
        argsz: u32,
        /// Of [`region`].
        flags: u32,
        /// Which.
        index: u32,
        /// Where capabilities begin; 0: there are none.
        cap_offset: u32,
        /// In bytes.
        size: u64,
        /// For mmap.
        offset: u64,
    }
}

wire! {
    /// [`command::DEVICE_GET_IRQ_INFO`] and its answer (`struct vfio_irq_info`).
    IrqInfo = 16 {
        /// Most bytes the answer may have; in the answer, the bytes it needs.
        argsz: u32,
        /// Of [`irq`].
        flags: u32,
        /// Which kind.
        index: u32,
        /// How many vectors.
        count: u32,
    }
}

wire! {
    /// [`command::DEVICE_SET_IRQS`], before the booleans if there are any (`struct vfio_irq_set`).
    IrqSet = 20 {
        /// Bytes of this structure and of what follows.
        argsz: u32,
        /// Of [`irq`].
        flags: u32,
        /// Which kind.
        index: u32,
        /// First vector.
        start: u32,
        /// How many from there.
        count: u32,
    }
}

wire! {
    /// [`command::REGION_READ`], [`command::REGION_WRITE`], their answers, and each write of a
    /// [`command::REGION_WRITE_MULTI`]; data follows where there are any.
    RegionAccess = 16 {
        /// In the region, in bytes.
        offset: u64,
        /// Which.
        region: u32,
        /// Bytes of data.
        count: u32,
    }
}

wire! {
    /// [`command::REGION_WRITE_MULTI`], before that many writes, and its answer.
    MultiWrite = 8 {
        /// How many.
        count: u64,
    }
}
