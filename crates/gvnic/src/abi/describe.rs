//! The device descriptor and its options (`gve_adminq_describe_device`, gve_adminq.c).

use super::wire::wire;

/// Version of the descriptor: `GVE_ADMINQ_DEVICE_DESCRIPTOR_VERSION`, gve_adminq.h.
pub const DESCRIPTOR_VERSION: u32 = 1;

/// Ids of options: `enum gve_dev_opt_id`, gve_adminq.h. Those not here belong to other queue formats: GQI (1, 2, 3) and
/// DQO with page lists (7).
pub const OPTION_DQO_RDA: u16 = 0x4;
/// Ring sizes may be changed.
pub const OPTION_MODIFY_RING: u16 = 0x6;
/// The MTU may be larger than [`DeviceDescriptor::mtu`].
pub const OPTION_JUMBO_FRAMES: u16 = 0x8;
/// Buffers larger than 2,048 bytes, and header split.
pub const OPTION_BUFFER_SIZES: u16 = 0xa;
/// Flow rules.
pub const OPTION_FLOW_STEERING: u16 = 0xb;
/// Receive timestamps, and a clock to compare them with.
pub const OPTION_NIC_TIMESTAMP: u16 = 0xd;
/// The device can be asked how it spreads frames.
pub const OPTION_RSS_CONFIG: u16 = 0xe;

/// Bits of a supported-features mask: `enum gve_sup_feature_mask`, gve_adminq.h. The driver looks at that of
/// [`OPTION_DQO_RDA`] alone (`gve_adminq_describe_device`, gve_adminq.c).
pub const SUPPORTS_MODIFY_RING: u32 = 1 << 0;
/// Bit of [`OPTION_JUMBO_FRAMES`].
pub const SUPPORTS_JUMBO_FRAMES: u32 = 1 << 2;
/// Bit of [`OPTION_BUFFER_SIZES`].
pub const SUPPORTS_BUFFER_SIZES: u32 = 1 << 4;
/// Bit of [`OPTION_FLOW_STEERING`].
pub const SUPPORTS_FLOW_STEERING: u32 = 1 << 5;
/// Bit of [`OPTION_RSS_CONFIG`].
pub const SUPPORTS_RSS_CONFIG: u32 = 1 << 7;
/// Bit of [`OPTION_NIC_TIMESTAMP`].
pub const SUPPORTS_NIC_TIMESTAMP: u32 = 1 << 8;

/// Header buffer the driver expects where headers are split: `GVE_DEFAULT_HEADER_BUFFER_SIZE`, gve.h.
pub const HEADER_BUFFER: u16 = 128;
/// Buffer the driver starts with: `GVE_DEFAULT_RX_BUFFER_SIZE`, gve.h.
pub const BUFFER_DEFAULT: u16 = 2048;
/// Largest buffer the driver can be told to use: `gve_set_rx_buf_len_config`, gve_main.c.
pub const BUFFER_MAX: u16 = 4096;

wire! {
    /// `struct gve_device_descriptor`.
    struct DeviceDescriptor[40] {
        /// Pages of page lists; none with raw addressing.
        max_registered_pages: u64,
        /// Nothing.
        reserved1: u16,
        /// TX descriptors by default.
        tx_queue_entries: u16,
        /// RX descriptors by default.
        rx_queue_entries: u16,
        /// Queues of each direction in the beginning; 0 is as many as there can be.
        default_num_queues: u16,
        /// Largest MTU without [`OPTION_JUMBO_FRAMES`].
        mtu: u16,
        /// Length of the driver's event counter array.
        counters: u16,
        /// Pages of a TX page list.
        tx_pages_per_qpl: u16,
        /// Pages of an RX page list.
        rx_pages_per_qpl: u16,
        /// The station's address.
        mac: [u8; 6],
        /// How many options follow.
        num_device_options: u16,
        /// Bytes of descriptor and options.
        total_length: u16,
        /// Nothing.
        reserved2: [u8; 6],
    }

    /// `struct gve_device_option`: what every option begins with.
    struct OptionHeader[8] {
        /// Its id.
        id: u16,
        /// Bytes that follow.
        length: u16,
        /// What the driver must know to use it: 0 for every option (`enum gve_dev_opt_req_feat_mask`, gve_adminq.h).
        required_features: u32,
    }

    /// `struct gve_device_option_dqo_rda`.
    struct DqoRda[8] {
        /// Bits of every option the driver may use.
        supported_features: u32,
        /// Nothing.
        reserved: u32,
    }

    /// `struct gve_device_option_jumbo_frames`.
    struct JumboFrames[8] {
        /// [`SUPPORTS_JUMBO_FRAMES`].
        supported_features: u32,
        /// Largest MTU, in bytes.
        max_mtu: u16,
        /// Nothing.
        padding: [u8; 2],
    }

    /// `struct gve_device_option_buffer_sizes`.
    struct BufferSizes[8] {
        /// [`SUPPORTS_BUFFER_SIZES`].
        supported_features: u32,
        /// Largest buffer, in bytes.
        packet_buffer: u16,
        /// Header buffer, in bytes; 0 where headers are not split.
        header_buffer: u16,
    }

    /// `struct gve_device_option_modify_ring`.
    struct ModifyRing[12] {
        /// [`SUPPORTS_MODIFY_RING`].
        supported_features: u32,
        /// Largest RX ring.
        max_rx: u16,
        /// Largest TX ring.
        max_tx: u16,
        /// Smallest RX ring.
        min_rx: u16,
        /// Smallest TX ring.
        min_tx: u16,
    }

    /// `struct gve_device_option_flow_steering`.
    struct FlowSteering[12] {
        /// [`SUPPORTS_FLOW_STEERING`].
        supported_features: u32,
        /// Nothing.
        reserved: u32,
        /// Rules at most.
        max_flow_rules: u32,
    }

    /// `struct gve_device_option_rss_config`.
    struct RssConfig[8] {
        /// [`SUPPORTS_RSS_CONFIG`].
        supported_features: u32,
        /// Bytes of the key.
        key_size: u16,
        /// Entries of the table.
        lut_size: u16,
    }

    /// `struct gve_device_option_nic_timestamp`.
    struct NicTimestampOption[4] {
        /// [`SUPPORTS_NIC_TIMESTAMP`].
        supported_features: u32,
    }
}
