//! Queues come and go: each for itself, in any order, as often as the driver likes.

use std::sync::Arc;

use super::{Answer, ensure, write};
use crate::abi::adminq::{
    CreateRx, CreateTx, DestroyQueue, QueueResources, RAW_ADDRESSING, RX_BUFFER, RX_COMPLETION, Status, TX_COMPLETION,
    TX_DESCRIPTOR,
};
use crate::abi::describe::{BUFFER_DEFAULT, HEADER_BUFFER};
use crate::abi::registers::{RX_DOORBELLS, TX_DOORBELLS};
use crate::abi::wire::Wire;
use crate::config::RingSizes;
use crate::device::Device;
use crate::queues::{Queue, RxSetup, TxSetup};
use crate::shared::Shared;

/// A ring the driver may have: whole descriptors, not around the end of the address space, and its first and last
/// descriptor in the driver's memory. Whoever uses it looks again; this is to say no early.
fn check_ring(shared: &Shared, base: u64, size: u16, bytes: u64, sizes: &RingSizes) -> Answer {
    ensure(sizes.allow(size), Status::OutOfRange)?;
    ensure(base.is_multiple_of(bytes), Status::InvalidArgument)?;
    let last = base.checked_add((u64::from(size) - 1) * bytes).ok_or(Status::InvalidArgument)?;
    let mut descriptor = vec![0; bytes as usize];
    for address in [base, last] {
        shared.memory().read(address, &mut descriptor).map_err(|_| Status::InvalidArgument)?;
    }
    Ok(())
}

impl Device {
    /// What both kinds of queue need: a number there can be, and a notify block in use. Answers the number and the block.
    fn check_queue(&self, id: u32, block: u32, page_list: u32) -> Result<(u16, u16), Status> {
        let blocks = self.resources.ok_or(Status::FailedPrecondition)?;
        let id = u16::try_from(id).ok().filter(|id| *id < self.config.queue_pairs).ok_or(Status::OutOfRange)?;
        let block = u16::try_from(block).ok().filter(|block| *block < blocks).ok_or(Status::OutOfRange)?;
        ensure(page_list == RAW_ADDRESSING, Status::InvalidArgument)?;
        Ok((id, block))
    }

    pub(super) fn create_tx(&mut self, shared: &Shared, asked: CreateTx) -> Answer {
        let (id, notify_block) = self.check_queue(asked.queue_id, asked.notify_block, asked.page_list)?;
        ensure(self.queues.tx(id).is_none(), Status::AlreadyExists)?;
        check_ring(shared, asked.ring, asked.ring_size, TX_DESCRIPTOR, &self.config.tx_ring)?;
        check_ring(shared, asked.completion_ring, asked.completion_size, TX_COMPLETION, &self.config.tx_ring)?;
        let doorbell = TX_DOORBELLS + u32::from(id);
        write(shared, asked.resources, &QueueResources { doorbell, counter: u32::from(id) }.encode())?;
        let setup = TxSetup {
            id,
            ring: asked.ring,
            ring_size: asked.ring_size,
            completion_ring: asked.completion_ring,
            completion_size: asked.completion_size,
            notify_block,
            doorbell,
        };
        let generation = self.next_generation();
        let (counters, ledger) = shared.stats().tx_parts(id);
        let slot = self.queues.tx_slot(id).ok_or(Status::OutOfRange)?;
        *slot = Some(Arc::new(Queue::new(setup, generation, counters, ledger)));
        shared.stats().control.tx_created.add(1);
        self.dirty.queues = true;
        Ok(())
    }

    pub(super) fn create_rx(&mut self, shared: &Shared, asked: CreateRx) -> Answer {
        let (id, notify_block) = self.check_queue(asked.queue_id, asked.notify_block, asked.page_list)?;
        ensure(self.queues.rx(id).is_none(), Status::AlreadyExists)?;
        check_ring(shared, asked.buffer_ring, asked.buffer_size, RX_BUFFER, &self.config.rx_ring)?;
        check_ring(shared, asked.completion_ring, asked.completion_size, RX_COMPLETION, &self.config.rx_ring)?;
        let buffer = (BUFFER_DEFAULT..=self.config.rx_buffer).contains(&asked.packet_buffer);
        ensure(buffer, Status::InvalidArgument)?;
        // The driver lays header buffers out by the size it was told (`gve_rx_post_buffers_dqo`, gve_rx_dqo.c).
        let split = asked.header_buffer == HEADER_BUFFER && self.config.header_split;
        ensure(asked.header_buffer == 0 || split, Status::InvalidArgument)?;
        ensure(asked.rsc <= 1, Status::InvalidArgument)?;
        let doorbell = RX_DOORBELLS + u32::from(id);
        let counter = u32::from(self.config.queue_pairs + id);
        write(shared, asked.resources, &QueueResources { doorbell, counter }.encode())?;
        let setup = RxSetup {
            id,
            buffer_ring: asked.buffer_ring,
            buffer_size: asked.buffer_size,
            completion_ring: asked.completion_ring,
            completion_size: asked.completion_size,
            packet_buffer: asked.packet_buffer,
            header_buffer: asked.header_buffer,
            merge: asked.rsc == 1,
            notify_block,
            doorbell,
        };
        // Without a table of the driver's, frames go to all of its queues. A queue that is only being restarted leaves the
        // number alone, or flows would move for a moment: it begins anew when there were none.
        let first = self.queues.all_rx().next().is_none();
        let queues = if first { id + 1 } else { self.spread.queues.max(id + 1) };
        self.dirty.spread |= queues != self.spread.queues;
        self.spread.queues = queues;
        let generation = self.next_generation();
        let (counters, ledger) = shared.stats().rx_parts(id);
        let slot = self.queues.rx_slot(id).ok_or(Status::OutOfRange)?;
        *slot = Some(Arc::new(Queue::new(setup, generation, counters, ledger)));
        shared.stats().control.rx_created.add(1);
        self.dirty.queues = true;
        Ok(())
    }

    pub(super) fn destroy_tx(&mut self, shared: &Shared, asked: DestroyQueue) -> Answer {
        let slot = u16::try_from(asked.queue_id).ok().and_then(|id| self.queues.tx_slot(id));
        let queue = slot.and_then(Option::take).ok_or(Status::NotFound)?;
        queue.close();
        queue.settle();
        shared.stats().control.tx_destroyed.add(1);
        self.dirty.queues = true;
        Ok(())
    }

    pub(super) fn destroy_rx(&mut self, shared: &Shared, asked: DestroyQueue) -> Answer {
        let slot = u16::try_from(asked.queue_id).ok().and_then(|id| self.queues.rx_slot(id));
        let queue = slot.and_then(Option::take).ok_or(Status::NotFound)?;
        queue.close();
        queue.settle();
        shared.stats().control.rx_destroyed.add(1);
        self.dirty.queues = true;
        Ok(())
    }
}
