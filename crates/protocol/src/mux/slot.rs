//! One stream at one end: what waits to be sent, what arrived, and the credits of both directions.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar};

use super::{Item, WINDOW};
use crate::ChannelError;
use crate::frame::Frame;

pub(super) type Waker = Arc<dyn Fn() + Send + Sync>;

/// One stream at one end.
pub(super) struct Slot {
    pub(super) epoch: u64,
    /// Frames to send, in order.
    pub(super) out: VecDeque<Frame>,
    /// Bytes of data among them.
    pub(super) queued: usize,
    /// Bytes of data the other end still allows.
    pub(super) credit: u32,
    /// The handle is gone; the slot goes once `out` is empty.
    pub(super) closing: bool,
    /// A message that has begun.
    pub(super) partial: Vec<u8>,
    pub(super) inbox: VecDeque<Item>,
    /// Bytes of data we still allow the other end.
    pub(super) allowed: u32,
    /// Bytes taken from the inbox and not yet given back as credit.
    pub(super) owed: u32,
    /// No more will arrive, and why.
    pub(super) ended: Option<ChannelError>,
    /// The request is complete (guest).
    pub(super) opened: bool,
    pub(super) signal: Arc<Condvar>,
    pub(super) waker: Option<Waker>,
}

impl Slot {
    pub(super) fn new(epoch: u64) -> Self {
        Slot {
            epoch,
            out: VecDeque::new(),
            queued: 0,
            credit: WINDOW,
            closing: false,
            partial: Vec::new(),
            inbox: VecDeque::new(),
            allowed: WINDOW,
            owed: 0,
            ended: None,
            opened: false,
            signal: Arc::new(Condvar::new()),
            waker: None,
        }
    }

    pub(super) fn wake(&self) {
        self.signal.notify_all();
        if let Some(waker) = &self.waker {
            waker();
        }
    }

    pub(super) fn end(&mut self, error: ChannelError) {
        self.ended.get_or_insert(error);
        self.wake();
    }
}
