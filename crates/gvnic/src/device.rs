//! The state of a device's control side, and how it begins anew.
//!
//! Commands change it ([`crate::adminq`]); what the datapath has to know of it is published once behind each doorbell, so
//! that sixty-four commands make one new view and not sixty-four.

use std::sync::Arc;

use crate::abi::adminq::DriverInfo;
use crate::config::PortConfig;
use crate::fault::Faults;
use crate::queues::{Queues, RxQueue, TxQueue};
use crate::registers::Registers;
use crate::shared::Shared;
use crate::steer::rss::Spread;
use crate::steer::rules::RuleTable;

/// The driver's report of statistics, in its memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatsReport {
    pub address: u64,
    pub length: u64,
    /// Ticks between two writings.
    pub every: u32,
    /// Ticks until the next.
    pub left: u32,
}

/// What of the view is no longer as it was published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dirty {
    pub queues: bool,
    pub rules: bool,
    pub spread: bool,
    pub mtu: bool,
    pub faults: bool,
}

impl Dirty {
    /// What a reset changes; the faults stay.
    const RESET: Dirty = Dirty { queues: true, rules: true, spread: true, mtu: true, faults: false };
}

#[derive(Debug)]
pub(crate) struct Device {
    pub config: PortConfig,
    pub registers: Registers,
    /// Notify blocks in use, once the driver has configured its resources.
    pub resources: Option<u16>,
    pub queues: Queues,
    pub rules: RuleTable,
    pub spread: Spread,
    pub mtu: u16,
    pub report: Option<StatsReport>,
    pub driver: Option<DriverInfo>,
    pub faults: Faults,
    /// A fault left a command without an answer: none is answered until the driver resets the device.
    pub stalled: bool,
    pub dirty: Dirty,
    /// What the link is without a fault.
    pub link_wanted: bool,
    /// Ticks a fault keeps it down for.
    pub link_down_for: u32,
    generation: u64,
}

impl Device {
    pub fn new(config: PortConfig) -> Device {
        Device {
            registers: Registers::new(config.queue_pairs),
            resources: None,
            queues: Queues::default(),
            rules: RuleTable::new(config.flow_rules, config.queue_pairs),
            spread: Spread::new(config.initial_queues()),
            mtu: config.mtu,
            report: None,
            driver: None,
            faults: Faults::new(config.faults.clone()),
            stalled: false,
            dirty: Dirty { faults: true, ..Dirty::RESET },
            link_wanted: true,
            link_down_for: 0,
            generation: 0,
            config,
        }
    }

    /// Which creation of a queue the next one is.
    pub fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// Lets go of everything that is the driver's. When this returns the device touches none of its memory.
    pub fn reset(&mut self, shared: &Shared) {
        let tx: Vec<Arc<TxQueue>> = self.queues.all_tx().cloned().collect();
        let rx: Vec<Arc<RxQueue>> = self.queues.all_rx().cloned().collect();
        // All of them first, so that the datapath is waited for once and not for each.
        tx.iter().for_each(|q| q.close());
        rx.iter().for_each(|q| q.close());
        tx.iter().for_each(|q| q.settle());
        rx.iter().for_each(|q| q.settle());
        let counted = &shared.stats().control;
        counted.tx_destroyed.add(tx.len() as u64);
        counted.rx_destroyed.add(rx.len() as u64);
        self.registers.reset();
        self.resources = None;
        self.queues = Queues::default();
        self.rules.clear();
        self.spread = Spread::new(self.config.initial_queues());
        self.mtu = self.config.mtu;
        self.report = None;
        self.stalled = false;
        self.dirty = Dirty::RESET;
        shared.blocks().configure(0);
    }

    /// Tells the datapath what changed; `false` when nothing did.
    pub fn publish(&mut self, shared: &Shared) -> bool {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty == Dirty::default() {
            return false;
        }
        let rules = dirty.rules.then(|| Arc::new(self.rules.compile()));
        let rss = dirty.spread.then(|| Arc::new(self.spread.compile()));
        let faults = dirty.faults.then(|| Arc::new(self.config.faults.clone()));
        shared.publish(|view| {
            view.queues = self.queues.clone();
            view.mtu = self.mtu;
            if let Some(rules) = rules {
                view.rules = rules;
            }
            if let Some(rss) = rss {
                view.rss = rss;
            }
            if let Some(faults) = faults {
                view.faults = faults;
            }
        });
        true
    }

    /// Sets the link as it is wanted and as faults leave it, and tells the driver of a change; `false` when there is none.
    pub fn apply_link(&mut self, shared: &Shared) -> bool {
        let changed = shared.set_link(self.link_wanted && self.link_down_for == 0);
        if changed {
            shared.stats().control.link_changes.add(1);
            shared.blocks().management();
        }
        changed
    }

    /// Asks the driver to reset the device.
    pub fn request_reset(&mut self, shared: &Shared) {
        self.registers.reset_requested = true;
        shared.stats().control.reset_requests.add(1);
        shared.blocks().management();
    }
}
