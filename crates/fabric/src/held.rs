//! Frames that a link delays.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

/// A frame on its way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// When it arrives.
    pub due: Instant,
    /// Its place among those that arrive at the same time.
    number: u64,
    /// The port it came from.
    pub from: usize,
    /// The port it goes to.
    pub to: usize,
    /// The frame.
    pub frame: Box<[u8]>,
}

impl Ord for Held {
    /// The earliest is the greatest, which a [`BinaryHeap`] yields first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// All delayed frames of a switch, the earliest first.
#[derive(Debug, Default)]
pub(crate) struct HeldFrames {
    heap: BinaryHeap<Held>,
    count: u64,
}

impl HeldFrames {
    /// Adds a frame.
    pub fn push(&mut self, due: Instant, from: usize, to: usize, frame: &[u8]) {
        self.count += 1;
        self.heap.push(Held { due, number: self.count, from, to, frame: frame.into() });
    }

    /// Takes the earliest frame, if it is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<Held> {
        (self.next_due()? <= now).then(|| self.heap.pop())?
    }

    /// When the earliest frame arrives.
    pub fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|held| held.due)
    }

    /// Takes out every frame that `which` wants gone.
    pub fn remove(&mut self, which: impl Fn(&Held) -> bool) -> Vec<Held> {
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.heap).into_iter().partition(which);
        self.heap = kept.into();
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn frames_come_out_by_time_and_then_by_age() {
        let now = Instant::now();
        let later = now + Duration::from_millis(1);
        let mut held = HeldFrames::default();
        held.push(later, 0, 1, b"c");
        held.push(now, 0, 1, b"a");
        held.push(now, 1, 0, b"b");
        held.push(later, 0, 1, b"d");
        assert_eq!(held.next_due(), Some(now));
        let mut order = Vec::new();
        while let Some(frame) = held.pop_due(now) {
            order.extend_from_slice(&frame.frame);
        }
        assert_eq!(order, b"ab");
        assert_eq!(held.remove(|h| h.frame[0] == b'c').len(), 1);
        assert_eq!(held.pop_due(later).map(|h| h.frame[0]), Some(b'd'));
    }
}
