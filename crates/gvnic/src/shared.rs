//! What the control side and the datapath have in common.
//!
//! Everything the datapath needs to know about the configuration is one immutable [`View`]. The control side replaces it;
//! the datapath keeps the one it has until [`Shared::refresh`] tells it that there is a newer one, which costs one atomic
//! load. The lock around the newest is held for as long as it takes to clone an `Arc`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bus::{Interrupts, Memory};
use crate::clock::Clock;
use crate::fault::FaultPlan;
use crate::irq::NotifyBlocks;
use crate::queues::Queues;
use crate::stats::Stats;
use crate::steer::rss::Spread;
use crate::steer::{FlowKey, Hash, Rss, Rules, Steered, steer};

/// The configuration at a moment.
#[derive(Debug, Clone)]
pub struct View {
    /// Grows with every change.
    pub epoch: u64,
    /// The queues there are.
    pub queues: Queues,
    /// The flow rules.
    pub rules: Arc<Rules>,
    /// How everything else is spread.
    pub rss: Arc<Rss>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// What goes wrong; another one, even if it says the same, begins anew.
    pub faults: Arc<FaultPlan>,
}

impl View {
    /// Where a packet goes.
    pub fn steer(&self, key: &FlowKey<'_>) -> Steered {
        steer(&self.rules, &self.rss, key)
    }

    /// Where a frame goes that is no IP packet.
    pub fn steer_other(&self) -> Steered {
        Steered { queue: self.rss.queue(Hash::NONE), rule: None, hash: Hash::NONE }
    }
}

/// What both sides hold.
pub struct Shared {
    memory: Arc<dyn Memory>,
    blocks: NotifyBlocks,
    stats: Stats,
    clock: Clock,
    link: AtomicBool,
    epoch: AtomicU64,
    view: Mutex<Arc<View>>,
}

impl Shared {
    pub(crate) fn new(blocks: u16, mtu: u16, memory: Arc<dyn Memory>, interrupts: Arc<dyn Interrupts>) -> Shared {
        let (rules, faults, rss) = (Arc::default(), Arc::default(), Arc::new(Spread::new(1).compile()));
        Shared {
            memory,
            blocks: NotifyBlocks::new(blocks, interrupts),
            stats: Stats::default(),
            clock: Clock::start(),
            link: AtomicBool::new(true),
            epoch: AtomicU64::new(0),
            view: Mutex::new(Arc::new(View { epoch: 0, queues: Queues::default(), rules, rss, mtu, faults })),
        }
    }

    /// The guest's memory.
    pub fn memory(&self) -> &dyn Memory {
        &*self.memory
    }

    /// The interrupts of queues: after a completion is published, `blocks().event(queue.setup().notify_block)`.
    pub fn blocks(&self) -> &NotifyBlocks {
        &self.blocks
    }

    /// Everything that is counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The clock of timestamps.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether frames pass; while they do not, the datapath drops them in both directions, and completes those it was sent.
    pub fn link_up(&self) -> bool {
        self.link.load(Ordering::Acquire)
    }

    pub(crate) fn set_link(&self, up: bool) -> bool {
        self.link.swap(up, Ordering::AcqRel) != up
    }

    /// The newest configuration.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces `cached` if there is a newer one, and says whether it did.
    pub fn refresh(&self, cached: &mut Arc<View>) -> bool {
        if self.epoch.load(Ordering::Acquire) == cached.epoch {
            return false;
        }
        *cached = self.view();
        true
    }

    pub(crate) fn publish(&self, change: impl FnOnce(&mut View)) {
        let mut newest = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let mut view = View::clone(&newest);
        change(&mut view);
        view.epoch += 1;
        self.epoch.store(view.epoch, Ordering::Release);
        *newest = Arc::new(view);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("view", &self.view()).finish_non_exhaustive()
    }
}
