//! The statistics that driver and device share: `struct gve_stats_report`, gve_adminq.h, in the driver's memory.
//!
//! The driver's own part lies in front; the device's is the end of the region, four entries for each RX queue that runs
//! (`gve_get_ethtool_stats`, gve_ethtool.c works out where it begins from the number of queues).

use super::wire::wire;

/// Bytes of `struct gve_stats_report` in front of its entries: a counter that only the driver writes.
pub const HEADER_BYTES: u64 = 8;
/// Entries the driver has for each TX queue: `GVE_TX_STATS_REPORT_NUM`, gve.h.
pub const DRIVER_TX_ENTRIES: u64 = 6;
/// Entries the driver has for each RX queue: `GVE_RX_STATS_REPORT_NUM`, gve.h.
pub const DRIVER_RX_ENTRIES: u64 = 2;
/// Entries the device has for each RX queue, and none for TX: `NIC_RX_STATS_REPORT_NUM`, gve.h.
pub const NIC_RX_ENTRIES: u64 = 4;

/// Names of the device's entries, in the order `ethtool -S` prints them (`gve_gstrings_rx_stats`, gve_ethtool.c):
/// `enum gve_stat_names`, gve_adminq.h. This one: frames dropped.
pub const RX_QUEUE_DROP_COUNT: u32 = 65;
/// Of them, those that found no buffer.
pub const RX_NO_BUFFERS_POSTED: u32 = 66;
/// Of them, those larger than the MTU allows.
pub const RX_DROPS_OVER_MRU: u32 = 67;
/// Of them, those with a wrong checksum.
pub const RX_DROPS_INVALID_CHECKSUM: u32 = 68;

wire! {
    /// `struct gve_adminq_report_stats`.
    struct ReportStats[24] {
        /// Bytes of the report; 0 ends it.
        length: u64,
        /// Where it is.
        address: u64,
        /// How often it is written: every so many milliseconds.
        interval: u64,
    }

    /// `struct stats`.
    struct StatEntry[16] {
        /// What is counted.
        name: u32,
        /// Of which queue.
        queue: u32,
        /// How many.
        value: u64,
    }
}
