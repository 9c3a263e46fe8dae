//! Flow rules: what a packet must be, and the queue it goes to then.
//!
//! Rules are kept by location, as the driver numbers them, and of those that match the lowest location wins ("a flow matching
//! multiple rules will be classified according to the first (lowest numbered) rule", include/uapi/linux/ethtool.h). To find it
//! quickly rules with the same mask are one group: a sorted list in which the packet's masked fields are searched. A packet
//! costs a search in each group that could still beat what was found; no hash, so no guest can make it collide.

use std::collections::BTreeMap;

use super::{Addresses, FlowKey, protocol};
use crate::abi::flow::{FlowRule, FlowSpec};

/// The fields of a packet or of a rule: source, destination, ports, traffic class.
type Fields = [u64; 5];

fn fields(source: &[u8; 16], destination: &[u8; 16], ports: [u8; 4], traffic_class: u8) -> Fields {
    let halves = |address: &[u8; 16]| {
        let whole = u128::from_be_bytes(*address);
        [(whole >> 64) as u64, whole as u64]
    };
    let ([s1, s2], [d1, d2]) = (halves(source), halves(destination));
    [s1, s2, d1, d2, u64::from(u32::from_be_bytes(ports)) << 8 | u64::from(traffic_class)]
}

fn masked(fields: &Fields, mask: &Fields) -> Fields {
    std::array::from_fn(|n| fields[n] & mask[n])
}

/// Where the ports are in the last of the fields.
const PORTS: u64 = 0xff_ffff_ff00;

/// What a rule is for: `enum gve_adminq_flow_type`, gve_adminq.h.
fn flow_type(number: u16) -> Option<(bool, u8)> {
    use protocol::{AH, ESP, SCTP, TCP, UDP};
    let protocols = [TCP, UDP, SCTP, AH, ESP];
    let number = usize::from(number);
    protocols.get(number % 5).filter(|_| number < 10).map(|protocol| (number >= 5, *protocol))
}

/// Why a rule cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadRule {
    /// No such flow type.
    FlowType,
    /// Behind the last location.
    Location,
    /// No such queue.
    Queue,
    /// A mask beyond the address of IPv4.
    Mask,
    /// There is none to remove.
    Missing,
}

/// Rules as the driver added them.
#[derive(Debug)]
pub(crate) struct RuleTable {
    rules: BTreeMap<u32, FlowRule>,
    /// Locations there are; so no more rules than that.
    capacity: u32,
    queues: u16,
}

impl RuleTable {
    pub fn new(capacity: u32, queues: u16) -> RuleTable {
        RuleTable { rules: BTreeMap::new(), capacity, queues }
    }

    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Adds a rule; one that was at its location before is replaced ("the rule to add or update", ethtool.h).
    pub fn add(&mut self, location: u32, rule: FlowRule) -> Result<(), BadRule> {
        let (v6, _) = flow_type(rule.flow_type).ok_or(BadRule::FlowType)?;
        if location >= self.capacity {
            return Err(BadRule::Location);
        }
        if rule.queue >= self.queues {
            return Err(BadRule::Queue);
        }
        let beyond = |address: &[u8; 16]| address.iter().skip(4).any(|byte| *byte != 0);
        if !v6 && (beyond(&rule.mask.source) || beyond(&rule.mask.destination)) {
            return Err(BadRule::Mask);
        }
        self.rules.insert(location, rule);
        Ok(())
    }

    pub fn remove(&mut self, location: u32) -> Result<(), BadRule> {
        self.rules.remove(&location).map(drop).ok_or(BadRule::Missing)
    }

    pub fn clear(&mut self) {
        self.rules.clear();
    }

    /// Rules from a location on, in order.
    pub fn from(&self, start: u32) -> impl Iterator<Item = (u32, &FlowRule)> {
        self.rules.range(start..).map(|(location, rule)| (*location, rule))
    }

    pub fn compile(&self) -> Rules {
        let mut by_mask: BTreeMap<(bool, u8, Fields), Vec<Entry>> = BTreeMap::new();
        for (location, rule) in &self.rules {
            let Some((v6, protocol)) = flow_type(rule.flow_type) else { continue };
            let spec = |s: &FlowSpec| fields(&s.source, &s.destination, s.ports, s.traffic_class);
            let mask = spec(&rule.mask);
            let entry = Entry { key: masked(&spec(&rule.key), &mask), location: *location, queue: rule.queue };
            by_mask.entry((v6, protocol, mask)).or_default().push(entry);
        }
        let group = |((v6, protocol, mask), mut entries): ((bool, u8, Fields), Vec<Entry>)| {
            let first = entries.iter().map(|e| e.location).min().unwrap_or_default();
            entries.sort_by_key(|e| (e.key, e.location));
            entries.dedup_by_key(|e| e.key);
            Group { v6, protocol, mask, first, entries }
        };
        let mut groups: Vec<Group> = by_mask.into_iter().map(group).collect();
        groups.sort_by_key(|g| g.first);
        Rules { groups }
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Fields,
    location: u32,
    queue: u16,
}

#[derive(Debug, Clone)]
struct Group {
    v6: bool,
    protocol: u8,
    mask: Fields,
    /// Its lowest location.
    first: u32,
    /// By key; of equal ones the lowest location.
    entries: Vec<Entry>,
}

/// Rules, ready for use.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// By their lowest locations.
    groups: Vec<Group>,
}

impl Rules {
    /// The location and the queue of the rule that a packet falls under.
    pub fn find(&self, key: &FlowKey<'_>) -> Option<(u32, u16)> {
        if self.groups.is_empty() {
            return None;
        }
        let wide = |address: &[u8; 4]| {
            let mut wide = [0; 16];
            wide[..4].copy_from_slice(address);
            wide
        };
        let ports = key.ports.unwrap_or([0; 4]);
        let (v6, packet) = match key.addresses {
            Addresses::V4 { source, destination } => {
                (false, fields(&wide(source), &wide(destination), ports, key.traffic_class))
            }
            Addresses::V6 { source, destination } => (true, fields(source, destination, ports, key.traffic_class)),
        };
        let mut best: Option<Entry> = None;
        for group in &self.groups {
            if best.is_some_and(|b| b.location < group.first) {
                break;
            }
            // A packet without ports has none that a rule could match, not even zeros.
            let wants_ports = group.mask[4] & PORTS != 0;
            if group.v6 != v6 || group.protocol != key.protocol || (wants_ports && key.ports.is_none()) {
                continue;
            }
            let wanted = masked(&packet, &group.mask);
            let found = group.entries.binary_search_by(|e| e.key.cmp(&wanted)).ok().and_then(|n| group.entries.get(n));
            if let Some(entry) = found.filter(|e| best.is_none_or(|b| e.location < b.location)) {
                best = Some(*entry);
            }
        }
        best.map(|entry| (entry.location, entry.queue))
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
