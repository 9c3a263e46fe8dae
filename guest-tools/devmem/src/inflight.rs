//! Which parts of a dma-buf the kernel is still sending: a part is free again when every message from it is completed.
//!
//! The kernel numbers a socket's messages from 0 and reports them done in ranges, mostly in order and not always.

use std::collections::VecDeque;

use anyhow::{Result, bail};

use crate::control::Completion;

/// The parts of a dma-buf and the messages under way.
#[derive(Debug)]
pub struct InFlight {
    /// Messages under way from each part.
    pending: Vec<u32>,
    /// The part that is to be used next.
    next: usize,
    /// The parts of messages from `first` on; none for what is completed already.
    messages: VecDeque<Option<usize>>,
    /// The number of the oldest message that is not completed.
    first: u32,
    under_way: usize,
}

impl InFlight {
    /// Of a buffer of so many parts.
    pub fn new(parts: usize) -> InFlight {
        InFlight { pending: vec![0; parts], next: 0, messages: VecDeque::new(), first: 0, under_way: 0 }
    }

    /// The next part to fill, once it is free.
    pub fn next_free(&mut self) -> Option<usize> {
        let part = self.next;
        if self.pending[part] > 0 {
            return None;
        }
        self.next = (part + 1) % self.pending.len();
        Some(part)
    }

    /// A message from this part went out.
    pub fn sent(&mut self, part: usize) {
        self.pending[part] += 1;
        self.messages.push_back(Some(part));
        self.under_way += 1;
    }

    /// Messages were completed; returns how many.
    ///
    /// # Errors
    /// When the kernel speaks of messages that are not under way.
    pub fn completed(&mut self, completion: Completion) -> Result<u32> {
        let count = completion.last.wrapping_sub(completion.first).wrapping_add(1);
        let start = completion.first.wrapping_sub(self.first) as usize;
        if count == 0 || start.checked_add(count as usize).is_none_or(|end| end > self.messages.len()) {
            bail!("messages {} to {} are completed, and were never sent", completion.first, completion.last);
        }
        for message in self.messages.range_mut(start..start + count as usize) {
            match message.take() {
                Some(part) => self.pending[part] -= 1,
                None => bail!("a message of {} to {} is completed twice", completion.first, completion.last),
            }
        }
        self.under_way -= count as usize;
        while let Some(None) = self.messages.front() {
            self.messages.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        Ok(count)
    }

    /// Messages under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, last: u32) -> Completion {
        Completion { first, last, copied: false }
    }

    #[test]
    fn a_part_is_free_when_all_its_messages_are_done() {
        let mut flight = InFlight::new(2);
        for messages in [2, 1] {
            let part = flight.next_free().unwrap();
            (0..messages).for_each(|_| flight.sent(part));
        }
        assert_eq!((flight.next_free(), flight.under_way()), (None, 3));
        assert_eq!(flight.completed(range(0, 0)).unwrap(), 1);
        assert_eq!(flight.next_free(), None);
        // Out of order: message 2 is of the other part.
        assert_eq!(flight.completed(range(2, 2)).unwrap(), 1);
        assert_eq!(flight.next_free(), None);
        assert_eq!(flight.completed(range(1, 1)).unwrap(), 1);
        assert_eq!((flight.next_free(), flight.next_free(), flight.under_way()), (Some(0), Some(1), 0));
    }

    #[test]
    fn completions_that_cannot_be_are_errors() {
        let mut flight = InFlight::new(1);
        flight.next_free();
        flight.sent(0);
        flight.sent(0);
        for wrong in [range(0, 2), range(2, 2), range(1, 0), range(u32::MAX, 0)] {
            assert!(flight.completed(wrong).is_err(), "{wrong:?}");
        }
        flight.completed(range(1, 1)).unwrap();
        assert!(flight.completed(range(0, 1)).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn numbers_go_round() {
        let mut flight = InFlight { first: u32::MAX - 1, ..InFlight::new(1) };
        (0..4).for_each(|_| flight.sent(0));
        assert_eq!(flight.completed(range(u32::MAX - 1, 1)).unwrap(), 4);
        assert_eq!((flight.first, flight.under_way()), (2, 0));
    }
}
