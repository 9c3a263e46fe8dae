//! Interrupts and counters: what has to be there before a queue can be.

use super::describe::counters;
use super::{Answer, ensure, write};
use crate::abi::adminq::{ConfigureResources, FORMAT_DQO_RDA, IRQ_STRIDE_MIN, Status};
use crate::abi::registers::IRQ_DOORBELLS;
use crate::device::Device;
use crate::shared::Shared;

/// Bytes from one block's doorbell index to the next at most: the driver's are a cache line apart (`struct gve_irq_db`,
/// gve.h).
const STRIDE_MAX: u32 = 4096;

impl Device {
    pub(super) fn configure_resources(&mut self, shared: &Shared, asked: ConfigureResources) -> Answer {
        ensure(self.resources.is_none(), Status::AlreadyExists)?;
        ensure(asked.queue_format == FORMAT_DQO_RDA, Status::InvalidArgument)?;
        // The management vector is behind the blocks (`GVE_NTFY_BLK_BASE_MSIX_IDX`, gve_adminq.c).
        ensure(asked.msix_base == 0, Status::InvalidArgument)?;
        ensure(asked.num_counters <= u32::from(counters(&self.config)), Status::OutOfRange)?;
        let most = shared.blocks().count();
        let blocks =
            u16::try_from(asked.num_irq_dbs).ok().filter(|n| (1..=most).contains(n)).ok_or(Status::OutOfRange)?;
        ensure((IRQ_STRIDE_MIN..=STRIDE_MAX).contains(&asked.irq_db_stride), Status::InvalidArgument)?;
        let last = u64::from(blocks - 1) * u64::from(asked.irq_db_stride);
        ensure(asked.irq_db_addr.checked_add(last).is_some(), Status::InvalidArgument)?;
        let places = (0..u64::from(blocks)).map(|n| asked.irq_db_addr + n * u64::from(asked.irq_db_stride));
        // Looked at first, so that an error half way leaves none of them written.
        for address in places.clone() {
            shared.memory().read(address, &mut [0; 4]).map_err(|_| Status::InvalidArgument)?;
        }
        for (address, index) in places.zip(IRQ_DOORBELLS..) {
            write(shared, address, &index.to_be_bytes())?;
        }
        shared.blocks().configure(blocks);
        self.resources = Some(blocks);
        Ok(())
    }

    pub(super) fn deconfigure_resources(&mut self, shared: &Shared) -> Answer {
        ensure(self.resources.is_some(), Status::FailedPrecondition)?;
        // The driver destroys its queues first (`gve_close`, gve_main.c).
        let queues = self.queues.all_tx().count() + self.queues.all_rx().count();
        ensure(queues == 0, Status::FailedPrecondition)?;
        self.resources = None;
        shared.blocks().configure(0);
        Ok(())
    }
}
