//! What a device counts. Counters are atomics that the datapath's thread adds to and others read; they belong to a queue's
//! number and so outlive the queue.
//!
//! A counter alone is exact; two that are read together may be a frame apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::abi::stats::{
    RX_DROPS_INVALID_CHECKSUM, RX_DROPS_OVER_MRU, RX_NO_BUFFERS_POSTED, RX_QUEUE_DROP_COUNT, StatEntry,
};
use crate::config::QUEUES_MAX;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares atomics and the plain struct they are read as.
macro_rules! counters {
    ($($(#[$meta:meta])* $name:ident => $count:ident { $($(#[$field_meta:meta])* $field:ident,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: Counter,)*
        }

        #[doc = concat!("[`", stringify!($name), "`] at a moment.")]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct $count {
            $($(#[$field_meta])* pub $field: u64,)*
        }

        impl $name {
            /// What they are now.
            pub fn count(&self) -> $count {
                $count { $($field: self.$field.get(),)* }
            }
        }
    )*};
}

counters! {
    /// Frames to the driver by one RX queue, and why others did not get there.
    RxCounters => RxCount {
        /// Frames handed over.
        frames,
        /// Their bytes.
        bytes,
        /// Of the frames, those whose headers were split off.
        split_frames,
        /// Bytes in header buffers.
        header_bytes,
        /// Bytes of those frames in packet buffers: what device memory gets.
        payload_bytes,
        /// Segments that were merged into a larger frame.
        merged_segments,
        /// Dropped: no buffer was posted.
        drop_no_buffer,
        /// Dropped: larger than the MTU allows.
        drop_oversize,
        /// Dropped: a checksum is wrong.
        drop_checksum,
        /// Dropped: the driver's buffer or ring is not in its memory.
        drop_bad_address,
        /// Dropped: there is no such queue now.
        drop_no_queue,
        /// Dropped: the link is down.
        drop_link_down,
        /// Dropped: a fault said so.
        drop_fault,
    }

    /// Frames from the driver by one TX queue, and why others went no further.
    TxCounters => TxCount {
        /// Frames on the wire.
        frames,
        /// Their bytes.
        bytes,
        /// Packets of the driver's: one may be many frames.
        packets,
        /// Of them, those that were cut into segments.
        segmented_packets,
        /// Dropped: descriptors that make no sense.
        drop_malformed,
        /// Dropped: the driver's buffer or ring is not in its memory.
        drop_bad_address,
        /// Dropped: larger than the MTU allows.
        drop_oversize,
        /// Dropped: the link is down.
        drop_link_down,
        /// Dropped: a fault said so.
        drop_fault,
    }

    /// What goes with a queue's descriptors: RX buffers, or TX descriptors. After the end of a queue
    /// posted = returned + abandoned, or something leaked.
    Ledger => LedgerCount {
        /// The driver gave them.
        posted,
        /// The device has read them.
        consumed,
        /// A completion gave them back.
        returned,
        /// The queue ended before: they are the driver's again, without a completion.
        abandoned,
    }

    /// What the control side did.
    ControlCounters => ControlCount {
        /// Commands answered.
        commands,
        /// Of them, with an error.
        command_errors,
        /// Commands a fault left without an answer.
        commands_withheld,
        /// Admin-queue doorbells that make no sense, or rang while the queue was not there.
        bad_admin_doorbells,
        /// Commands or answers that are not in the driver's memory.
        bad_admin_addresses,
        /// Doorbells of queues that are not there, or tails outside the ring.
        bad_doorbells,
        /// Resets by the driver.
        driver_resets,
        /// Resets of the PCI function.
        function_resets,
        /// Resets asked for.
        reset_requests,
        /// Changes of the link.
        link_changes,
        /// Times a fault struck a frame, a packet or a completion.
        strikes,
        /// Statistics written to the driver.
        stats_reports,
        /// Those that could not be.
        stats_report_failures,
        /// TX queues created.
        tx_created,
        /// TX queues ended.
        tx_destroyed,
        /// RX queues created.
        rx_created,
        /// RX queues ended.
        rx_destroyed,
    }
}

impl RxCount {
    /// Every frame that was dropped.
    pub fn drops(&self) -> u64 {
        self.drop_no_buffer
            + self.drop_oversize
            + self.drop_checksum
            + self.drop_bad_address
            + self.drop_no_queue
            + self.drop_link_down
            + self.drop_fault
    }

    /// The entries `ethtool -S` shows for a queue.
    pub(crate) fn entries(&self, queue: u16) -> [StatEntry; 4] {
        let entry = |name, value| StatEntry { name, queue: u32::from(queue), value };
        [
            entry(RX_QUEUE_DROP_COUNT, self.drops()),
            entry(RX_NO_BUFFERS_POSTED, self.drop_no_buffer),
            entry(RX_DROPS_OVER_MRU, self.drop_oversize),
            entry(RX_DROPS_INVALID_CHECKSUM, self.drop_checksum),
        ]
    }
}

impl TxCount {
    /// Every packet that was dropped.
    pub fn drops(&self) -> u64 {
        self.drop_malformed + self.drop_bad_address + self.drop_oversize + self.drop_link_down + self.drop_fault
    }
}

impl LedgerCount {
    /// What the device holds now.
    pub fn outstanding(&self) -> u64 {
        self.posted.saturating_sub(self.returned).saturating_sub(self.abandoned)
    }

    /// What came back that was never there; anything but 0 is a defect of the device.
    pub fn excess(&self) -> u64 {
        (self.returned + self.abandoned).saturating_sub(self.posted)
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Stats {
    rx: Vec<(Arc<RxCounters>, Arc<Ledger>)>,
    tx: Vec<(Arc<TxCounters>, Arc<Ledger>)>,
    /// The control side's.
    pub control: ControlCounters,
}

impl Default for Stats {
    fn default() -> Self {
        Stats {
            rx: (0..QUEUES_MAX).map(|_| Default::default()).collect(),
            tx: (0..QUEUES_MAX).map(|_| Default::default()).collect(),
            control: ControlCounters::default(),
        }
    }
}

impl Stats {
    /// An RX queue's counters, whether the queue is there or not; a number no queue can have shares the last one's.
    pub fn rx(&self, queue: u16) -> &RxCounters {
        let last = usize::from(QUEUES_MAX) - 1;
        &self.rx[usize::from(queue).min(last)].0
    }

    /// A TX queue's counters, whether the queue is there or not; a number no queue can have shares the last one's.
    pub fn tx(&self, queue: u16) -> &TxCounters {
        let last = usize::from(QUEUES_MAX) - 1;
        &self.tx[usize::from(queue).min(last)].0
    }

    pub(crate) fn rx_parts(&self, queue: u16) -> (Arc<RxCounters>, Arc<Ledger>) {
        self.rx.get(usize::from(queue)).cloned().unwrap_or_default()
    }

    pub(crate) fn tx_parts(&self, queue: u16) -> (Arc<TxCounters>, Arc<Ledger>) {
        self.tx.get(usize::from(queue)).cloned().unwrap_or_default()
    }

    /// Of the first `queues` RX queues.
    pub fn rx_counts(&self, queues: u16) -> Vec<(RxCount, LedgerCount)> {
        self.rx.iter().take(usize::from(queues)).map(|(c, l)| (c.count(), l.count())).collect()
    }

    /// Of the first `queues` TX queues.
    pub fn tx_counts(&self, queues: u16) -> Vec<(TxCount, LedgerCount)> {
        self.tx.iter().take(usize::from(queues)).map(|(c, l)| (c.count(), l.count())).collect()
    }
}
