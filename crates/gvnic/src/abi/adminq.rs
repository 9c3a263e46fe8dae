//! The admin queue: 64-byte commands in a ring the driver owns (`union gve_adminq_command`, gve_adminq.h).

use super::wire::{Wire, wire};

/// Bytes of a command.
pub const COMMAND_BYTES: usize = 64;
/// Bytes of a command behind its opcode and status.
pub const BODY_BYTES: usize = 56;
/// Where the status is in a command.
pub const STATUS_AT: u64 = 4;
/// Bytes of the driver's ring, and of the buffers it describes to query commands: `GVE_ADMINQ_BUFFER_SIZE`, gve.h.
pub const BUFFER_BYTES: usize = 4096;
/// Page list of a queue that needs none: `GVE_RAW_ADDRESSING_QPL_ID`, gve_adminq.h.
pub const RAW_ADDRESSING: u32 = 0xffff_ffff;
/// Queue format DQO with raw addressing: `GVE_DQO_RDA_FORMAT`, gve.h.
pub const FORMAT_DQO_RDA: u8 = 3;
/// Smallest and first multiple of a stride between interrupt doorbell indices: it holds a u32.
pub const IRQ_STRIDE_MIN: u32 = 4;

/// Bytes of a TX descriptor: `struct gve_tx_pkt_desc_dqo`, gve_desc_dqo.h.
pub const TX_DESCRIPTOR: u64 = 16;
/// Bytes of a TX completion: `struct gve_tx_compl_desc`, gve_desc_dqo.h.
pub const TX_COMPLETION: u64 = 8;
/// Bytes of an RX buffer descriptor: `struct gve_rx_desc_dqo`, gve_desc_dqo.h.
pub const RX_BUFFER: u64 = 32;
/// Bytes of an RX completion: `struct gve_rx_compl_desc_dqo`, gve_desc_dqo.h.
pub const RX_COMPLETION: u64 = 32;

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$code_meta:meta])* $code:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[repr(u32)]
        pub enum $name {
            $($(#[$code_meta])* $code = $value,)*
        }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [$name] = &[$($name::$code,)*];

            /// The one with this number.
            pub fn from_code(code: u32) -> Option<$name> {
                Self::ALL.iter().copied().find(|c| *c as u32 == code)
            }
        }
    };
}

codes! {
    /// What a command asks for: `enum gve_adminq_opcodes`, gve_adminq.h.
    Opcode {
        /// What can this device do?
        DescribeDevice = 0x1,
        /// Here are the interrupts and the counters.
        ConfigureDeviceResources = 0x2,
        /// Here are pages for copies: never with raw addressing.
        RegisterPageList = 0x3,
        /// They go away.
        UnregisterPageList = 0x4,
        /// A TX queue starts.
        CreateTxQueue = 0x5,
        /// An RX queue starts.
        CreateRxQueue = 0x6,
        /// A TX queue ends.
        DestroyTxQueue = 0x7,
        /// An RX queue ends.
        DestroyRxQueue = 0x8,
        /// The interrupts and counters go away.
        DeconfigureDeviceResources = 0x9,
        /// How frames are spread over RX queues.
        ConfigureRss = 0xa,
        /// The MTU that is in use.
        SetDriverParameter = 0xb,
        /// Where the device writes its statistics.
        ReportStats = 0xc,
        /// How fast is the link?
        ReportLinkSpeed = 0xd,
        /// What do packet types in completions mean?
        GetPtypeMap = 0xe,
        /// This driver can do the following.
        VerifyDriverCompatibility = 0xf,
        /// Which flow rules are there?
        QueryFlowRules = 0x10,
        /// What time is it in the device?
        ReportNicTimestamp = 0x11,
        /// How are frames spread over RX queues?
        QueryRss = 0x12,
        /// The command is elsewhere, for it has more than 56 bytes.
        ExtendedCommand = 0xff,
    }
}

/// The one extended command: `GVE_ADMINQ_CONFIGURE_FLOW_RULE`, gve_adminq.h.
pub const CONFIGURE_FLOW_RULE: u32 = 0x101;

codes! {
    /// Why a command failed: `enum gve_adminq_statuses`, gve_adminq.h. Behind each is what the driver makes of it
    /// (`gve_adminq_parse_err`, gve_adminq.c).
    Status {
        /// EAGAIN.
        Aborted = 0xffff_fff0,
        /// EINVAL.
        AlreadyExists = 0xffff_fff1,
        /// EAGAIN.
        Cancelled = 0xffff_fff2,
        /// EAGAIN.
        DataLoss = 0xffff_fff3,
        /// ETIME.
        DeadlineExceeded = 0xffff_fff4,
        /// EAGAIN.
        FailedPrecondition = 0xffff_fff5,
        /// EINVAL.
        InternalError = 0xffff_fff6,
        /// EINVAL.
        InvalidArgument = 0xffff_fff7,
        /// EINVAL.
        NotFound = 0xffff_fff8,
        /// EINVAL.
        OutOfRange = 0xffff_fff9,
        /// EACCES.
        PermissionDenied = 0xffff_fffa,
        /// EACCES.
        Unauthenticated = 0xffff_fffb,
        /// ENOMEM.
        ResourceExhausted = 0xffff_fffc,
        /// EAGAIN.
        Unavailable = 0xffff_fffd,
        /// EOPNOTSUPP.
        Unimplemented = 0xffff_fffe,
        /// EINVAL.
        Unknown = 0xffff_ffff,
    }
}

/// Status of a command that worked: `GVE_ADMINQ_COMMAND_PASSED`, gve_adminq.h.
pub const PASSED: u32 = 1;

wire! {
    /// The whole of a command.
    struct Command[64] {
        /// An [`Opcode`].
        opcode: u32,
        /// 0 from the driver; the answer from the device.
        status: u32,
        /// What the opcode says.
        body: [u8; 56],
    }

    /// `struct gve_adminq_describe_device`.
    struct DescribeDevice[16] {
        /// Where the answer goes.
        address: u64,
        /// Which descriptor the driver knows: 1.
        version: u32,
        /// Bytes it has room for.
        available: u32,
    }

    /// `struct gve_adminq_extended_command`.
    struct Extended[16] {
        /// [`CONFIGURE_FLOW_RULE`].
        opcode: u32,
        /// Bytes of the command.
        length: u32,
        /// Where it is.
        address: u64,
    }

    /// `struct gve_adminq_verify_driver_compatibility`.
    struct VerifyDriver[16] {
        /// Bytes of [`DriverInfo`].
        length: u64,
        /// Where it is.
        address: u64,
    }

    /// `struct gve_driver_info`.
    struct DriverInfo[304] {
        /// 1 is Linux.
        os_type: u8,
        /// The driver's version.
        driver: [u8; 3],
        /// The system's version: major.
        os_major: u32,
        /// Minor.
        os_minor: u32,
        /// Patch level.
        os_sub: u32,
        /// `enum gve_driver_capbility`, one bit each.
        capabilities: u64,
        /// More of them, none of which is known.
        capabilities_more: [u8; 24],
        /// The system's release, as text.
        os_release: [u8; 128],
        /// The system's version, as text.
        os_version: [u8; 128],
    }

    /// `struct gve_adminq_configure_device_resources`.
    struct ConfigureResources[40] {
        /// Where event counters are; DQO has none.
        counter_array: u64,
        /// Where the device writes each notify block's doorbell index.
        irq_db_addr: u64,
        /// How many counters.
        num_counters: u32,
        /// How many notify blocks: `num_ntfy_blks`.
        num_irq_dbs: u32,
        /// Bytes from one block's index to the next.
        irq_db_stride: u32,
        /// Vector of notify block 0; the driver's is 0.
        msix_base: u32,
        /// [`FORMAT_DQO_RDA`].
        queue_format: u8,
        /// Nothing.
        padding: [u8; 7],
    }

    /// `struct gve_adminq_create_tx_queue`.
    struct CreateTx[48] {
        /// Which queue.
        queue_id: u32,
        /// Nothing.
        reserved: u32,
        /// Where the device writes [`QueueResources`].
        resources: u64,
        /// Descriptors.
        ring: u64,
        /// [`RAW_ADDRESSING`].
        page_list: u32,
        /// Its notify block.
        notify_block: u32,
        /// Completions.
        completion_ring: u64,
        /// Number of descriptors.
        ring_size: u16,
        /// Number of completions.
        completion_size: u16,
        /// Nothing.
        padding: [u8; 4],
    }

    /// `struct gve_adminq_create_rx_queue`.
    struct CreateRx[56] {
        /// Which queue.
        queue_id: u32,
        /// Unused in DQO.
        index: u32,
        /// Nothing.
        reserved: u32,
        /// Its notify block.
        notify_block: u32,
        /// Where the device writes [`QueueResources`].
        resources: u64,
        /// Completions.
        completion_ring: u64,
        /// Buffers.
        buffer_ring: u64,
        /// [`RAW_ADDRESSING`].
        page_list: u32,
        /// Number of completions.
        completion_size: u16,
        /// Bytes of a buffer.
        packet_buffer: u16,
        /// Number of buffer descriptors.
        buffer_size: u16,
        /// Whether segments of a TCP stream may be merged.
        rsc: u8,
        /// Nothing.
        padding1: u8,
        /// Bytes of a header buffer; 0 splits nothing.
        header_buffer: u16,
        /// Nothing.
        padding2: [u8; 2],
    }

    /// The part of `struct gve_queue_resources` that is not reserved.
    struct QueueResources[8] {
        /// Index of the tail's doorbell.
        doorbell: u32,
        /// Index into the event counters (`gve_tx_load_event_counter`, gve_tx.c reads it in DQO, too).
        counter: u32,
    }

    /// `struct gve_adminq_destroy_tx_queue` and its RX twin.
    struct DestroyQueue[4] {
        /// Which queue.
        queue_id: u32,
    }

    /// `struct gve_adminq_set_driver_parameter`.
    struct SetParameter[16] {
        /// [`PARAMETER_MTU`].
        kind: u32,
        /// Nothing.
        reserved: u32,
        /// Its value.
        value: u64,
    }

    /// `struct gve_adminq_report_link_speed`.
    struct LinkSpeed[8] {
        /// Where a u64 goes: Mbit/s.
        address: u64,
    }

    /// `struct gve_adminq_report_nic_ts` and `struct gve_adminq_get_ptype_map`.
    struct Report[16] {
        /// Bytes there are.
        length: u64,
        /// Where the answer goes.
        address: u64,
    }

    /// `struct gve_nic_ts_report`.
    struct NicTimestamp[40] {
        /// The device's clock, in nanoseconds.
        nanoseconds: u64,
        /// Nothing.
        reserved: [u8; 32],
    }
}

const _: () = assert!(Command::SIZE == COMMAND_BYTES && COMMAND_BYTES - 8 == BODY_BYTES);

/// Driver parameter: the MTU in bytes (`GVE_SET_PARAM_MTU`, gve_adminq.h).
pub const PARAMETER_MTU: u32 = 1;
/// Driver capability: it can do DQO with raw addressing (`gve_driver_capability_dqo_rda`, gve_adminq.h).
pub const CAPABILITY_DQO_RDA: u64 = 1 << 3;
