//! Receive-side scaling on the wire (`gve_adminq_configure_rss` and `gve_adminq_process_rss_query`, gve_adminq.c).

use super::wire::wire;

/// Bytes of the hash key: `GVE_RSS_KEY_SIZE`, gve.h.
pub const KEY_BYTES: usize = 40;
/// Entries of the table, each a u32 on the wire: `GVE_RSS_INDIR_SIZE`, gve.h.
pub const LUT_ENTRIES: usize = 128;
/// The hash is Toeplitz: the driver writes `ETH_RSS_HASH_TOP` (include/linux/ethtool.h).
pub const HASH_TOEPLITZ: u8 = 1;

/// What is hashed, a bit each: `enum gve_rss_hash_type`, gve_adminq.h. This one: the addresses of IPv4.
pub const HASH_IPV4: u16 = 1 << 0;
/// Addresses and ports of TCP over IPv4.
pub const HASH_TCP4: u16 = 1 << 1;
/// The addresses of IPv6.
pub const HASH_IPV6: u16 = 1 << 2;
/// The same, with extension headers.
pub const HASH_IPV6_EX: u16 = 1 << 3;
/// Addresses and ports of TCP over IPv6.
pub const HASH_TCP6: u16 = 1 << 4;
/// The same, with extension headers.
pub const HASH_TCP6_EX: u16 = 1 << 5;
/// Addresses and ports of UDP over IPv4.
pub const HASH_UDP4: u16 = 1 << 6;
/// Addresses and ports of UDP over IPv6.
pub const HASH_UDP6: u16 = 1 << 7;
/// The same, with extension headers.
pub const HASH_UDP6_EX: u16 = 1 << 8;
/// Every bit there is.
pub const HASH_ALL: u16 = (1 << 9) - 1;

wire! {
    /// `struct gve_adminq_configure_rss`: a zero leaves what was (`gve_adminq_configure_rss`, gve_adminq.c).
    struct ConfigureRss[24] {
        /// What is hashed.
        hash_types: u16,
        /// [`HASH_TOEPLITZ`].
        algorithm: u8,
        /// Nothing.
        reserved: u8,
        /// [`KEY_BYTES`].
        key_size: u16,
        /// [`LUT_ENTRIES`].
        lut_size: u16,
        /// Where the key is.
        key: u64,
        /// Where the table is.
        lut: u64,
    }

    /// `struct gve_adminq_query_rss`.
    struct QueryRss[16] {
        /// Bytes there are for the answer.
        available: u64,
        /// Where it goes.
        address: u64,
    }

    /// `struct gve_query_rss_descriptor`: key and table follow.
    struct RssDescriptor[8] {
        /// Bytes of the whole answer.
        total_length: u32,
        /// What is hashed.
        hash_types: u16,
        /// [`HASH_TOEPLITZ`].
        algorithm: u8,
        /// Nothing.
        reserved: u8,
    }
}
