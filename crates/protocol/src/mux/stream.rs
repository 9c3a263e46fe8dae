//! A stream's handle: blocking receive and send, or a waker for a thread that polls file descriptors.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{MAX_MESSAGE, Mux};
use crate::ChannelError;
use crate::frame::{EOF, Kind, MAX_PAYLOAD, STDERR};

/// Data that may be queued on a stream before a sender has to wait.
const QUEUE_LIMIT: usize = 4 * MAX_PAYLOAD;

/// What arrives on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A whole message.
    Message(Vec<u8>),
    /// Bytes of data.
    Data {
        /// They were written to standard error.
        stderr: bool,
        /// The bytes, never empty.
        bytes: Vec<u8>,
    },
    /// No more data will come.
    Eof,
}

/// One end of a stream. Its methods take `&self`: share it in an `Arc` to receive and send from different threads.
/// Dropping it closes the stream; what was sent before still goes out.
pub struct MuxStream {
    mux: Mux,
    id: u32,
    epoch: u64,
}

impl MuxStream {
    pub(super) fn new(mux: Mux, id: u32, epoch: u64) -> Self {
        MuxStream { mux, id, epoch }
    }

    /// The stream's number in this session.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits for the next item; `None` when the time is up. Everything that arrived is delivered before the error that
    /// says why no more will come ([`ChannelError::Ended`] when the other end closed the stream in good order).
    pub fn recv(&self, timeout: Duration) -> Result<Option<Item>, ChannelError> {
        let item = self.take(timeout)?;
        if let Some(Item::Data { bytes, .. }) = &item {
            self.release(bytes.len());
        }
        Ok(item)
    }

    /// As [`MuxStream::recv`], but data keeps its credit until [`MuxStream::release`]: whoever must look at messages
    /// that come behind data it cannot use yet holds at most a window of it.
    pub fn take(&self, timeout: Duration) -> Result<Option<Item>, ChannelError> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.mux.state();
        loop {
            if let Some(item) = state.pop(self.id, self.epoch)? {
                return Ok(Some(item));
            }
            let left = match deadline {
                None => Duration::MAX,
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            };
            if left.is_zero() {
                return Ok(None);
            }
            state = self.wait(state, left);
        }
    }

    /// Gives the other end credit for so many bytes of data that were taken and used.
    pub fn release(&self, bytes: usize) {
        self.mux.state().release(self.id, self.epoch, bytes);
        self.mux.shared.outgoing.notify_all();
    }

    fn wait<'a>(
        &self,
        state: std::sync::MutexGuard<'a, super::state::State>,
        timeout: Duration,
    ) -> std::sync::MutexGuard<'a, super::state::State> {
        match state.signal(self.id, self.epoch) {
            Some(signal) => signal.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0,
            None => state,
        }
    }

    /// Sends a message. It is queued at once and overtakes other streams' data, never this one's.
    pub fn send_message(&self, message: &[u8]) -> Result<(), ChannelError> {
        if message.len() > MAX_MESSAGE {
            return Err(ChannelError::TooLarge { size: message.len(), limit: MAX_MESSAGE });
        }
        let mut state = self.mux.state();
        state.push_message(self.id, self.epoch, Kind::Message, message)?;
        self.mux.shared.outgoing.notify_all();
        Ok(())
    }

    /// Sends a message that also overtakes this stream's own data: a signal must reach a program that reads no input.
    pub fn send_urgent(&self, message: &[u8]) -> Result<(), ChannelError> {
        if message.len() > MAX_PAYLOAD {
            return Err(ChannelError::TooLarge { size: message.len(), limit: MAX_PAYLOAD });
        }
        self.mux.state().push_urgent(self.id, self.epoch, message)?;
        self.mux.shared.outgoing.notify_all();
        Ok(())
    }

    /// Sends data, waiting while too much is queued already.
    pub fn send_data(&self, stderr: bool, bytes: &[u8]) -> Result<(), ChannelError> {
        for chunk in bytes.chunks(MAX_PAYLOAD) {
            let mut state = self.mux.state();
            while state.queued(self.id, self.epoch)? >= QUEUE_LIMIT {
                state = self.wait(state, Duration::MAX);
            }
            state.push_data(self.id, self.epoch, if stderr { STDERR } else { 0 }, chunk.to_vec())?;
            self.mux.shared.outgoing.notify_all();
        }
        Ok(())
    }

    /// Says that no more data will come.
    pub fn send_eof(&self) -> Result<(), ChannelError> {
        let mut state = self.mux.state();
        state.push_data(self.id, self.epoch, EOF, Vec::new())?;
        self.mux.shared.outgoing.notify_all();
        Ok(())
    }

    /// Whether [`MuxStream::send_data`] of one chunk would return at once.
    pub fn has_room(&self) -> Result<bool, ChannelError> {
        Ok(self.mux.state().queued(self.id, self.epoch)? < QUEUE_LIMIT)
    }

    /// Has the function called whenever an item arrives, room appears or the stream ends. It runs under the
    /// multiplexer's lock: it may write to an eventfd, but must not use the stream.
    pub fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        self.mux.state().set_waker(self.id, self.epoch, Arc::new(waker));
    }

    /// Drops what is queued and closes the stream at once.
    pub fn abort(&self) {
        self.mux.state().close_stream(self.id, self.epoch, true);
        self.mux.shared.outgoing.notify_all();
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        self.mux.state().close_stream(self.id, self.epoch, false);
        self.mux.shared.outgoing.notify_all();
    }
}
