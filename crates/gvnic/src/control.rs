//! The control side of a device, for whoever carries its registers: a vfio-user server, or a test.
//!
//! # Threads
//! - The **server's thread** calls [`Control::read_register`], [`Control::write_register`], [`Control::write_doorbell`],
//!   [`Control::function_reset`] and, every [`TICK`], [`Control::tick`]. Commands are answered before the write returns.
//! - The **datapath** is one thread or more of its own, and moves frames. It never calls `Control`.
//! - **Anybody** may call [`Control::set_link`], [`Control::request_reset`], [`Control::set_faults`] and [`Control::status`].
//!
//! One lock guards the state of the control side; commands are rare, so nobody misses a finer one. The datapath never takes
//! it: what it needs is in [`Shared`], as immutable snapshots and atomics, so that no command holds a frame up.
//!
//! # The seam
//! The datapath is given [`Control::shared`], implements [`Datapath`], and goes round like this:
//! 1. [`Shared::refresh`] its [`View`]; when there is a new one, forget the place in every ring whose queue is
//!    gone, and start those with a new [`generation`](crate::queues::Queue::generation) from index 0 and generation bit 1.
//! 2. For a queue with work (its [`tail`](crate::queues::Queue::tail) is not where it stopped):
//!    [`enter`](crate::queues::Queue::enter), touch its rings and buffers in [`Shared::memory`] while
//!    [`is_live`](crate::queues::Visit::is_live), count in [`counters`](crate::queues::Queue::counters) and
//!    [`ledger`](crate::queues::Queue::ledger), leave.
//! 3. For each queue it completed something on: [`NotifyBlocks::event`](crate::irq::NotifyBlocks::event) of its block.
//! 4. Nothing to do: wait until [`Datapath::wake`].
//!
//! An RX frame is steered by [`View::steer`] and goes to `view.queues.rx(queue)`; where there is none it is dropped and
//! counted in `shared.stats().rx(queue).drop_no_queue`.
//!
//! Inside a visit, neither wait for another port nor for anything `Control` does: a command that ends the queue holds the
//! server's thread, and the guest's processor, until the visit is over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::abi::registers::{DOORBELL_BYTES, IRQ_DOORBELLS, RX_DOORBELLS, TX_DOORBELLS};
use crate::bus::{Interrupts, Memory};
use crate::config::{BadConfig, PortConfig, QUEUES_MAX};
use crate::device::Device;
use crate::fault::{FaultPlan, Faults};
use crate::registers::Asked;
use crate::shared::Shared;
use crate::status::PortStatus;

#[cfg(doc)]
use crate::shared::View;

/// How often [`Control::tick`] is to be called.
pub const TICK: Duration = Duration::from_millis(100);

/// Why the datapath is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// There is a new view, or the link changed.
    Configuration,
    /// The driver filled descriptors of this TX queue.
    Tx(u16),
    /// The driver posted buffers to this RX queue.
    Rx(u16),
}

/// What the datapath is to the control side.
pub trait Datapath: Send + Sync {
    /// There is something to look at. Called on the server's thread, also with the control side's lock held: it must neither
    /// wait nor call [`Control`]. Writing to an eventfd is right.
    fn wake(&self, why: Wake);
}

/// The control side of a device.
pub struct Control {
    state: Mutex<Device>,
    shared: Arc<Shared>,
    datapath: Arc<dyn Datapath>,
}

impl Control {
    /// A device as it is after power-on.
    ///
    /// `interrupts` is called on the server's thread with the control side's lock held, and on the datapath's; it must not call
    /// back.
    ///
    /// # Errors
    /// [`BadConfig`] from [`PortConfig::check`].
    pub fn new(
        config: PortConfig,
        memory: Arc<dyn Memory>,
        interrupts: Arc<dyn Interrupts>,
        datapath: Arc<dyn Datapath>,
    ) -> Result<Control, BadConfig> {
        config.check()?;
        let shared = Arc::new(Shared::new(config.vectors() - 1, config.mtu, memory, interrupts));
        let mut device = Device::new(config);
        device.publish(&shared);
        Ok(Control { state: Mutex::new(device), shared, datapath })
    }

    /// What the datapath needs.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn state(&self) -> MutexGuard<'_, Device> {
        // Nothing panics with the lock held; if it did, a reset would still put the state right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads BAR0: any offset, any length; zeros where there is no register.
    pub fn read_register(&self, offset: u64, into: &mut [u8]) {
        self.state().registers.read(offset, into, self.shared.link_up());
    }

    /// Writes BAR0: any offset, any length. What is no register is ignored.
    pub fn write_register(&self, offset: u64, from: &[u8]) {
        let mut state = self.state();
        match state.registers.write(offset, from) {
            Asked::Nothing => {}
            Asked::Doorbell(issued) => state.admin_doorbell(&self.shared, issued),
            Asked::Reset => {
                self.shared.stats().control.driver_resets.add(1);
                state.reset(&self.shared);
            }
        }
        self.publish(&mut state);
    }

    fn publish(&self, state: &mut Device) {
        if state.publish(&self.shared) {
            self.datapath.wake(Wake::Configuration);
        }
    }

    /// Reads BAR2: doorbells read as zeros.
    pub fn read_doorbell(&self, _offset: u64, into: &mut [u8]) {
        into.fill(0);
    }

    /// Writes BAR2: a little-endian u32 (`iowrite32` in gve_dqo.h, `gve_write_irq_doorbell_dqo` and others). What is no
    /// doorbell of a queue or block that is there is counted and ignored. Takes no lock that a command holds.
    pub fn write_doorbell(&self, offset: u64, from: &[u8]) {
        if !self.ring(offset, from) {
            self.shared.stats().control.bad_doorbells.add(1);
        }
    }

    fn ring(&self, offset: u64, from: &[u8]) -> bool {
        let (Ok(value), true) = (<[u8; 4]>::try_from(from), offset.is_multiple_of(DOORBELL_BYTES)) else {
            return false;
        };
        let value = u32::from_le_bytes(value);
        let Ok(index) = u32::try_from(offset / DOORBELL_BYTES) else { return false };
        // An index within a range of numbers, as a number.
        let within =
            |first: u32, count: u16| index.checked_sub(first).filter(|n| *n < u32::from(count)).map(|n| n as u16);
        if let Some(block) = within(IRQ_DOORBELLS, self.shared.blocks().used()) {
            self.shared.blocks().doorbell(block, value);
            return true;
        }
        let view = self.shared.view();
        let wake = if let Some(id) = within(TX_DOORBELLS, QUEUES_MAX) {
            view.queues.tx(id).is_some_and(|queue| queue.ring(value)).then_some(Wake::Tx(id))
        } else if let Some(id) = within(RX_DOORBELLS, QUEUES_MAX) {
            view.queues.rx(id).is_some_and(|queue| queue.ring(value)).then_some(Wake::Rx(id))
        } else {
            None
        };
        wake.inspect(|why| self.datapath.wake(*why)).is_some()
    }

    /// Resets the function, as PCI does: like the driver's RESET, and the driver is forgotten as well.
    pub fn function_reset(&self) {
        let mut state = self.state();
        self.shared.stats().control.function_resets.add(1);
        state.reset(&self.shared);
        state.registers = crate::registers::Registers::new(state.config.queue_pairs);
        state.driver = None;
        self.publish(&mut state);
    }

    /// Plugs the cable in or pulls it, and tells the driver.
    pub fn set_link(&self, up: bool) {
        let mut state = self.state();
        state.link_wanted = up;
        if state.apply_link(&self.shared) {
            self.datapath.wake(Wake::Configuration);
        }
    }

    /// Has the driver reset the device.
    pub fn request_reset(&self) {
        self.state().request_reset(&self.shared);
    }

    /// Replaces the faults; counts and draws begin anew. A command that is withheld stays so until the next reset.
    ///
    /// # Errors
    /// [`BadConfig`] from [`FaultPlan::check`].
    pub fn set_faults(&self, plan: FaultPlan) -> Result<(), BadConfig> {
        plan.check()?;
        let mut state = self.state();
        state.faults = Faults::new(plan.clone());
        state.config.faults = plan;
        state.dirty.faults = true;
        self.publish(&mut state);
        Ok(())
    }

    /// Another [`TICK`] has gone by: faults that strike by time do, and statistics go to the driver.
    pub fn tick(&self) {
        let mut state = self.state();
        let faults = state.faults.tick();
        state.link_down_for = state.link_down_for.saturating_sub(1).max(faults.flap.unwrap_or(0));
        if state.apply_link(&self.shared) {
            self.datapath.wake(Wake::Configuration);
        }
        if faults.reset {
            state.request_reset(&self.shared);
        }
        state.tick_stats(&self.shared);
    }

    /// What there is to say about the port.
    pub fn status(&self) -> PortStatus {
        PortStatus::of(&self.state(), &self.shared)
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("shared", &self.shared).finish_non_exhaustive()
    }
}
