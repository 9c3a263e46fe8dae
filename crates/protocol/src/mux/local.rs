//! The multiplexer's state as the streams' handles change it: what this end opens, sends, takes and closes.

use std::sync::{Arc, Condvar};

use super::slot::{Slot, Waker};
use super::state::State;
use super::{Item, MAX_MESSAGE, MAX_STREAMS, WINDOW};
use crate::ChannelError;
use crate::frame::{Frame, Kind, MAX_PAYLOAD, MORE};

impl State {
    pub(super) fn open(&mut self, request: &[u8]) -> Result<(u32, u64), ChannelError> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if let Some(Err(error)) = &self.peer {
            return Err(error.clone());
        }
        if request.len() > MAX_MESSAGE {
            return Err(ChannelError::TooLarge { size: request.len(), limit: MAX_MESSAGE });
        }
        let protocol = |what: &str| ChannelError::Protocol { what: what.to_string() };
        if self.slots.len() >= MAX_STREAMS {
            return Err(protocol(&format!("more than {MAX_STREAMS} streams are open")));
        }
        self.newest = self.newest.checked_add(1).ok_or_else(|| protocol("stream numbers are used up"))?;
        let (id, epoch) = (self.newest, self.epoch);
        self.slots.insert(id, Slot::new(epoch));
        self.push_message(id, epoch, Kind::Open, request)?;
        Ok((id, epoch))
    }

    fn slot(&mut self, id: u32, epoch: u64) -> Result<&mut Slot, ChannelError> {
        let replaced = epoch != self.epoch;
        match self.slots.get_mut(&id) {
            Some(slot) if slot.epoch == epoch => Ok(slot),
            _ if replaced => Err(ChannelError::Closed { reason: "the host's session ended".into() }),
            _ => Err(ChannelError::Ended),
        }
    }

    pub(super) fn pop(&mut self, id: u32, epoch: u64) -> Result<Option<Item>, ChannelError> {
        let slot = self.slot(id, epoch)?;
        match slot.inbox.pop_front() {
            Some(item) => Ok(Some(item)),
            None => slot.ended.clone().map_or(Ok(None), Err),
        }
    }

    pub(super) fn release(&mut self, id: u32, epoch: u64, bytes: usize) {
        if let Ok(slot) = self.slot(id, epoch) {
            slot.owed = slot.owed.saturating_add(bytes as u32).min(WINDOW - slot.allowed);
        }
    }

    pub(super) fn push_message(&mut self, id: u32, epoch: u64, kind: Kind, bytes: &[u8]) -> Result<(), ChannelError> {
        let nonce = self.nonce;
        let slot = self.open_slot(id, epoch)?;
        let mut rest = bytes;
        loop {
            let (chunk, tail) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            let flags = if tail.is_empty() { 0 } else { MORE };
            slot.out.push_back(Frame { kind, flags, stream: id, nonce, payload: chunk.to_vec() });
            rest = tail;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    pub(super) fn push_urgent(&mut self, id: u32, epoch: u64, bytes: &[u8]) -> Result<(), ChannelError> {
        let nonce = self.nonce;
        let slot = self.open_slot(id, epoch)?;
        let first_data = slot.out.iter().position(|frame| frame.kind == Kind::Data).unwrap_or(slot.out.len());
        slot.out
            .insert(first_data, Frame { kind: Kind::Message, flags: 0, stream: id, nonce, payload: bytes.to_vec() });
        Ok(())
    }

    pub(super) fn push_data(&mut self, id: u32, epoch: u64, flags: u8, bytes: Vec<u8>) -> Result<(), ChannelError> {
        let nonce = self.nonce;
        let slot = self.open_slot(id, epoch)?;
        slot.queued += bytes.len();
        slot.out.push_back(Frame { kind: Kind::Data, flags, stream: id, nonce, payload: bytes });
        Ok(())
    }

    /// The slot, if the other end still listens on it.
    fn open_slot(&mut self, id: u32, epoch: u64) -> Result<&mut Slot, ChannelError> {
        let slot = self.slot(id, epoch)?;
        match &slot.ended {
            Some(error) => Err(error.clone()),
            None => Ok(slot),
        }
    }

    pub(super) fn queued(&mut self, id: u32, epoch: u64) -> Result<usize, ChannelError> {
        self.open_slot(id, epoch).map(|slot| slot.queued)
    }

    pub(super) fn signal(&self, id: u32, epoch: u64) -> Option<Arc<Condvar>> {
        self.slots.get(&id).filter(|slot| slot.epoch == epoch).map(|slot| slot.signal.clone())
    }

    pub(super) fn set_waker(&mut self, id: u32, epoch: u64, waker: Waker) {
        // Called once at the start, so that nothing that came before is missed.
        waker();
        if let Ok(slot) = self.slot(id, epoch) {
            slot.waker = Some(waker);
        }
    }

    pub(super) fn close_stream(&mut self, id: u32, epoch: u64, at_once: bool) {
        let nonce = self.nonce;
        let Ok(slot) = self.slot(id, epoch) else { return };
        if matches!(slot.ended, Some(ChannelError::Ended | ChannelError::Closed { .. })) {
            self.slots.remove(&id);
            return;
        }
        if at_once {
            // A request that was never sent needs no close either, but the other end ignores a stray one.
            slot.out.clear();
            slot.queued = 0;
        }
        if !slot.closing {
            slot.closing = true;
            slot.out.push_back(Frame { kind: Kind::Close, flags: 0, stream: id, nonce, payload: Vec::new() });
        }
        slot.inbox.clear();
    }
}
