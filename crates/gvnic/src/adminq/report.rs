//! Statistics in the driver's memory, from where `ethtool -S` takes them without asking.

use super::{Answer, ensure};
use crate::abi::adminq::Status;
use crate::abi::stats::{HEADER_BYTES, ReportStats, StatEntry};
use crate::abi::wire::Wire;
use crate::control::TICK;
use crate::device::{Device, StatsReport};
use crate::shared::Shared;

/// Bytes of a report at most; the driver's has 12 entries a queue pair (`gve_alloc_stats_report`, gve_main.c).
const REPORT_MAX: u64 = 64 << 10;
/// Ticks between two writings at most: the driver asks for 20 s, and then shows what is 20 s old.
const EVERY_MAX: u64 = 10;

impl Device {
    pub(super) fn report_stats(&mut self, shared: &Shared, asked: ReportStats) -> Answer {
        if asked.length == 0 {
            self.report = None;
            return Ok(());
        }
        let entries = asked.length.checked_sub(HEADER_BYTES).filter(|bytes| asked.length <= REPORT_MAX && *bytes > 0);
        let entries = entries.ok_or(Status::InvalidArgument)?;
        ensure(entries.is_multiple_of(StatEntry::SIZE as u64), Status::InvalidArgument)?;
        let last = asked.address.checked_add(asked.length - 1).ok_or(Status::InvalidArgument)?;
        for address in [asked.address, last] {
            shared.memory().read(address, &mut [0]).map_err(|_| Status::InvalidArgument)?;
        }
        let tick = TICK.as_millis() as u64;
        let every = (asked.interval / tick).clamp(1, EVERY_MAX) as u32;
        self.report = Some(StatsReport { address: asked.address, length: asked.length, every, left: every });
        self.write_stats(shared);
        Ok(())
    }

    /// Another tick has gone by.
    pub fn tick_stats(&mut self, shared: &Shared) {
        let Some(report) = &mut self.report else { return };
        report.left = report.left.saturating_sub(1);
        if report.left == 0 {
            report.left = report.every;
            self.write_stats(shared);
        }
    }

    /// Writes the device's part: the end of the report, as long as the queues that run make it.
    fn write_stats(&mut self, shared: &Shared) {
        let Some(report) = self.report else { return };
        let mut entries = Vec::new();
        for queue in self.queues.all_rx() {
            queue.counters().count().entries(queue.setup().id).iter().for_each(|entry| entry.put(&mut entries));
        }
        if entries.is_empty() {
            return;
        }
        let room = report.length - HEADER_BYTES;
        let begin = room.checked_sub(entries.len() as u64).map(|front| report.address + HEADER_BYTES + front);
        let written = begin.is_some_and(|begin| shared.memory().write(begin, &entries).is_ok());
        let counted = &shared.stats().control;
        if written { counted.stats_reports.add(1) } else { counted.stats_report_failures.add(1) }
    }
}
