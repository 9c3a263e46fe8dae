//! Which port an Ethernet address is behind.
//!
//! Learned from the source of every frame, as IEEE 802.1D (7.8) has it: the latest port wins, what is silent for too long is
//! forgotten. VLAN tags are not looked at. The table is bounded: a guest that invents addresses makes frames to newcomers
//! flood, and nothing else.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::wire::Mac;

/// Addresses and their ports.
#[derive(Debug)]
pub(crate) struct Table {
    entries: HashMap<Mac, Entry>,
    ageing: Duration,
    limit: usize,
    /// No look for aged entries in a full table before then.
    next_purge: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    port: usize,
    seen: Instant,
}

/// What learning an address did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learned {
    /// It is new.
    New,
    /// It is where it was.
    Known,
    /// It was behind another port.
    Moved,
    /// There is no room for it.
    Full,
}

impl Table {
    /// An empty table.
    pub fn new(ageing: Duration, limit: usize) -> Self {
        Table { entries: HashMap::new(), ageing, limit, next_purge: None }
    }

    /// Notes that a station sent something from behind a port.
    pub fn learn(&mut self, mac: Mac, port: usize, now: Instant) -> Learned {
        if let Some(entry) = self.entries.get_mut(&mac) {
            let moved = entry.port != port && now.duration_since(entry.seen) < self.ageing;
            *entry = Entry { port, seen: now };
            return if moved { Learned::Moved } else { Learned::Known };
        }
        if self.entries.len() >= self.limit {
            self.purge(now);
        }
        if self.entries.len() >= self.limit {
            return Learned::Full;
        }
        self.entries.insert(mac, Entry { port, seen: now });
        Learned::New
    }

    /// The port a station is behind, if it sent something lately.
    pub fn find(&self, mac: &Mac, now: Instant) -> Option<usize> {
        self.entries.get(mac).filter(|e| now.duration_since(e.seen) < self.ageing).map(|e| e.port)
    }

    /// Forgets what is behind a port.
    pub fn forget_port(&mut self, port: usize) {
        self.entries.retain(|_, e| e.port != port);
    }

    /// Every address with its port and how long it has been silent.
    pub fn list(&self, now: Instant) -> Vec<(Mac, usize, Duration)> {
        let mut list: Vec<_> = self.entries.iter().map(|(mac, e)| (*mac, e.port, now.duration_since(e.seen))).collect();
        list.retain(|(_, _, silent)| *silent < self.ageing);
        list.sort();
        list
    }

    /// Drops what is aged, at most once a second: a flood of new addresses must not cost a walk each.
    fn purge(&mut self, now: Instant) {
        if self.next_purge.is_some_and(|next| now < next) {
            return;
        }
        self.next_purge = Some(now + Duration::from_secs(1));
        let ageing = self.ageing;
        self.entries.retain(|_, e| now.duration_since(e.seen) < ageing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_latest_port_wins() {
        let now = Instant::now();
        let mut table = Table::new(300 * SECOND, 10);
        assert_eq!(table.find(&A, now), None);
        assert_eq!(table.learn(A, 1, now), Learned::New);
        assert_eq!(table.learn(A, 1, now), Learned::Known);
        assert_eq!(table.learn(A, 2, now), Learned::Moved);
        assert_eq!(table.find(&A, now), Some(2));
        table.forget_port(2);
        assert_eq!(table.find(&A, now), None);
    }

    #[test]
    fn the_silent_are_forgotten_and_make_room() {
        let now = Instant::now();
        let mut table = Table::new(10 * SECOND, 1);
        table.learn(A, 1, now);
        assert_eq!(table.learn(B, 2, now + 9 * SECOND), Learned::Full);
        assert_eq!(table.find(&A, now + 9 * SECOND), Some(1));
        assert_eq!(table.find(&A, now + 10 * SECOND), None);
        assert_eq!(table.learn(B, 2, now + 11 * SECOND), Learned::New);
        assert_eq!(table.list(now + 11 * SECOND), [(B, 2, Duration::ZERO)]);
    }

    #[test]
    fn a_full_table_is_not_walked_for_every_stranger() {
        let now = Instant::now();
        let mut table = Table::new(2 * SECOND, 1);
        table.learn(A, 1, now);
        assert_eq!(table.learn(B, 2, now + 3 * SECOND / 2), Learned::Full);
        assert_eq!(table.learn(B, 2, now + 2 * SECOND), Learned::Full, "the next walk is due a second after the last");
        assert_eq!(table.learn(B, 2, now + 5 * SECOND / 2), Learned::New);
    }
}
