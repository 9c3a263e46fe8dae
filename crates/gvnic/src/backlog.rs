//! Frames that wait for buffers of one RX queue, so that they do not stand in the way of the others': a guest whose program does
//! not give device memory back must still be reachable by its first queue.
//!
//! # Whom a slow queue costs what
//! Its frames wait here first. When there are too many, the port waits, and with it the sender, for a queue that goes on taking
//! frames, however slowly, loses none. One that does not take [`PROGRESS`] frames, or all there are, within the patience has
//! lost those that wait; from then on it is *dry*, and a frame that finds no buffer is lost at once, until [`PROGRESS`] frames in a
//! row have found one. So a queue that stands still costs the others the patience, once.

use std::collections::VecDeque;

use crate::frame::Headers;
use crate::rx::Mark;

/// Bytes that wait before the port has to.
pub(crate) const BYTES_MAX: usize = 512 << 10;
/// Frames that count as progress.
pub(crate) const PROGRESS: u32 = 16;
/// What a small frame costs beside its bytes.
const FRAME_COST: usize = 64;
/// Rooms of frames that are kept for the next.
const SPARE_MAX: usize = 64;

/// A frame, and what was found out about it.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub bytes: Vec<u8>,
    pub headers: Headers,
    pub mark: Mark,
}

/// What becomes of a frame that finds no buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It waits here.
    Waits,
    /// It is lost.
    Lost,
    /// It has to be offered again, and those behind it wait.
    Full,
}

/// A queue's backlog.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    frames: VecDeque<Waiting>,
    bytes: usize,
    /// Since when it has made no progress; it has a meaning only while frames wait.
    since: u64,
    /// Frames taken since then, or in a row while it is dry.
    taken: u32,
    dry: bool,
    spare: Vec<Vec<u8>>,
}

impl Backlog {
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn front(&self) -> Option<&Waiting> {
        self.frames.front()
    }

    /// The queue has no buffer for a frame, or others wait before it. Times are in nanoseconds of the device's clock.
    pub fn offer(&mut self, bytes: &[u8], headers: &Headers, mark: &Mark, now: u64) -> Offered {
        if self.dry {
            self.taken = 0;
            return Offered::Lost;
        }
        if self.bytes >= BYTES_MAX {
            return Offered::Full;
        }
        if self.frames.is_empty() {
            (self.since, self.taken) = (now, 0);
        }
        let mut room = self.spare.pop().unwrap_or_default();
        room.clear();
        room.extend_from_slice(bytes);
        self.bytes += bytes.len() + FRAME_COST;
        self.frames.push_back(Waiting { bytes: room, headers: *headers, mark: *mark });
        Offered::Waits
    }

    /// The queue took a frame that did not wait.
    pub fn passed(&mut self) {
        if self.dry {
            self.taken += 1;
            self.dry = self.taken < PROGRESS;
        }
    }

    /// The queue took the first that waits.
    pub fn took(&mut self, now: u64) {
        let Some(frame) = self.frames.pop_front() else { return };
        self.bytes = self.bytes.saturating_sub(frame.bytes.len() + FRAME_COST);
        if self.spare.len() < SPARE_MAX {
            self.spare.push(frame.bytes);
        }
        self.taken += 1;
        if self.taken >= PROGRESS {
            (self.since, self.taken) = (now, 0);
        }
    }

    /// When what waits is lost, unless there is progress.
    pub fn due(&self, patience: u64) -> Option<u64> {
        (!self.frames.is_empty()).then(|| self.since.saturating_add(patience))
    }

    /// Loses what waits if it has waited for too long: how many.
    pub fn expire(&mut self, now: u64, patience: u64) -> u64 {
        if self.due(patience).is_none_or(|due| now < due) {
            return 0;
        }
        (self.dry, self.taken) = (true, 0);
        self.clear()
    }

    /// Loses what waits: how many.
    pub fn clear(&mut self) -> u64 {
        let lost = self.frames.len() as u64;
        self.frames.clear();
        self.bytes = 0;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::parse;

    const PATIENCE: u64 = 250;

    fn offer(backlog: &mut Backlog, length: usize, now: u64) -> Offered {
        let bytes = vec![0; length];
        backlog.offer(&bytes, &parse(&bytes), &Mark::default(), now)
    }

    #[test]
    fn bytes_are_bounded_and_frames_stay_in_order() {
        let mut backlog = Backlog::default();
        let mut count = 0;
        while offer(&mut backlog, 60 + count, 0) == Offered::Waits {
            count += 1;
        }
        assert_eq!(offer(&mut backlog, 60, 0), Offered::Full);
        assert!(backlog.bytes < BYTES_MAX + 10_000);
        for n in 0..count {
            assert_eq!(backlog.front().unwrap().bytes.len(), 60 + n);
            backlog.took(1);
        }
        assert!((backlog.is_empty(), backlog.bytes, backlog.due(1)) == (true, 0, None));
    }

    #[test]
    fn a_queue_that_takes_frames_keeps_them_and_one_that_does_not_loses_them_once() {
        let mut backlog = Backlog::default();
        (0..100).for_each(|_| assert_eq!(offer(&mut backlog, 60, 1000), Offered::Waits));
        (1..PROGRESS).for_each(|_| backlog.took(1200));
        assert_eq!(backlog.due(PATIENCE), Some(1250), "that is too little");
        backlog.took(1240);
        assert_eq!((backlog.due(PATIENCE), backlog.expire(1489, PATIENCE)), (Some(1490), 0));
        assert_eq!(backlog.expire(1490, PATIENCE), 100 - u64::from(PROGRESS));
        // Dry: nothing waits, and nobody waits for it.
        for _ in 0..3 {
            assert_eq!((offer(&mut backlog, 60, 1491), backlog.due(PATIENCE)), (Offered::Lost, None));
            // A buffer now and then is no recovery.
            (1..PROGRESS).for_each(|_| backlog.passed());
        }
        assert_eq!(offer(&mut backlog, 60, 1491), Offered::Lost);
        (0..PROGRESS).for_each(|_| backlog.passed());
        assert_eq!(offer(&mut backlog, 60, 2000), Offered::Waits);
        assert_eq!(backlog.due(PATIENCE), Some(2250));
    }
}
