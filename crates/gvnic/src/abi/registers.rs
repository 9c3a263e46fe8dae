//! The registers in BAR0 and the doorbells in BAR2.
//!
//! BAR0 is laid out by `struct gve_registers` (gve_register.h), big-endian. Where a doorbell lies in BAR2 is the device's
//! choice: it tells the driver an index into an array of u32 (`db_bar2` in gve.h), for interrupts with
//! CONFIGURE_DEVICE_RESOURCES, for a ring's tail with the queue's resources.

/// The BAR of the registers: `GVE_REGISTER_BAR`, gve.h.
pub const REGISTER_BAR: u8 = 0;
/// The BAR of the doorbells: `GVE_DOORBELL_BAR`, gve.h.
pub const DOORBELL_BAR: u8 = 2;
/// Fewest MSI-X vectors the driver works with: `GVE_MIN_MSIX`, gve.h.
pub const MIN_VECTORS: u16 = 3;

/// PCI vendor: `PCI_VENDOR_ID_GOOGLE`, gve.h.
pub const VENDOR: u16 = 0x1ae0;
/// PCI device: `PCI_DEV_ID_GVNIC`, gve.h.
pub const DEVICE: u16 = 0x0042;
/// PCI revision. Below 1 the driver sets its admin queue up by [`ADMINQ_PFN`] (`gve_adminq_alloc`, gve_adminq.c).
pub const REVISION: u8 = 1;

/// Offset in BAR0 of what the device is; u32 of `STATUS_…` bits. This and the other offsets: `struct gve_registers`,
/// gve_register.h.
pub const DEVICE_STATUS: u64 = 0;
/// What the driver asks the device to be; u32, [`DRIVER_RUN`] or [`DRIVER_RESET`].
pub const DRIVER_STATUS: u64 = 4;
/// TX queues at most; u32.
pub const MAX_TX_QUEUES: u64 = 8;
/// RX queues at most; u32.
pub const MAX_RX_QUEUES: u64 = 12;
/// Page number of the admin queue of drivers that see revision 0; unused here.
pub const ADMINQ_PFN: u64 = 16;
/// How many commands the driver has issued since it runs; u32.
pub const ADMINQ_DOORBELL: u64 = 20;
/// How many of them are answered; u32.
pub const ADMINQ_EVENT_COUNTER: u64 = 24;
/// Takes the driver's version, a byte at a time (`gve_write_version`, gve_main.c).
pub const DRIVER_VERSION: u64 = 31;
/// Upper half of the admin queue's address; u32.
pub const ADMINQ_BASE_HI: u64 = 32;
/// Lower half of the admin queue's address; u32.
pub const ADMINQ_BASE_LO: u64 = 36;
/// Length of the admin queue in bytes; u16.
pub const ADMINQ_LENGTH: u64 = 40;
/// Bytes of `struct gve_registers` with its padding.
pub const REGISTERS_SIZE: usize = 44;

/// Device status: the driver shall reset the device (`gve_handle_status`, gve_main.c).
pub const STATUS_RESET_REQUEST: u32 = 1 << 1;
/// Device status: the link is up (`gve_handle_link_status`, gve_main.c).
pub const STATUS_LINK_UP: u32 = 1 << 2;
/// Device status: the driver shall write its statistics (`gve_handle_status`, gve_main.c).
pub const STATUS_REPORT_STATS: u32 = 1 << 3;
/// Device status: the device holds no memory of the driver's (`gve_adminq_release`, gve_adminq.c).
pub const STATUS_IS_RESET: u32 = 1 << 4;

/// Driver status: use the admin queue (`GVE_DRIVER_STATUS_RUN_MASK`, gve_register.h).
pub const DRIVER_RUN: u32 = 1 << 0;
/// Driver status: forget everything (`GVE_DRIVER_STATUS_RESET_MASK`, gve_register.h).
pub const DRIVER_RESET: u32 = 1 << 1;

/// Bytes of BAR0: one page.
pub const REGISTER_BAR_SIZE: u64 = 4096;
/// Bytes of BAR2: one page.
pub const DOORBELL_BAR_SIZE: u64 = 4096;
/// Bytes of a doorbell; an index counts in these.
pub const DOORBELL_BYTES: u64 = 4;
/// Index of the first notify block's interrupt doorbell; one after another.
pub const IRQ_DOORBELLS: u32 = 0;
/// Index of TX queue 0's tail; one after another.
pub const TX_DOORBELLS: u32 = 256;
/// Index of RX queue 0's tail; one after another.
pub const RX_DOORBELLS: u32 = 512;

/// Interrupt doorbell: let the next event through (`GVE_ITR_ENABLE_BIT_DQO`, gve_dqo.h).
pub const ITR_ENABLE: u32 = 1 << 0;
/// Interrupt doorbell: forget a latched event (`GVE_ITR_CLEAR_PBA_BIT_DQO`, gve_dqo.h).
pub const ITR_CLEAR_PBA: u32 = 1 << 1;
/// Interrupt doorbell: both bits set leave the interval alone (`GVE_ITR_NO_UPDATE_DQO`, gve_dqo.h).
pub const ITR_NO_UPDATE: u32 = 3 << 3;
/// Interrupt doorbell: where the interval is, in units of 2 µs (`gve_setup_itr_interval_dqo`, gve_dqo.h).
pub const ITR_INTERVAL_SHIFT: u32 = 5;
/// Interrupt doorbell: its mask, shifted down (`GVE_ITR_INTERVAL_DQO_MASK`, gve_dqo.h).
pub const ITR_INTERVAL_MASK: u32 = (1 << 12) - 1;
