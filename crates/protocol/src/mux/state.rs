//! The multiplexer's state: what every frame does to it, and which frame goes out next. No threads, no clock but for
//! the heartbeat, no pipe: a fuzzer drives it directly.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::slot::Slot;
use super::{Heartbeat, Item, MAX_MESSAGE, MAX_STREAMS, Vitals, WINDOW};
use crate::event::{Event, Failure, FailureKind};
use crate::frame::{EOF, Frame, Kind, MAX_PAYLOAD, MORE, STDERR};
use crate::{ChannelError, Hello};

/// Urgent frames that may wait to be sent; a host that asks without reading gets no more answers than that.
const MAX_URGENT: usize = 256;
/// Unanswered questions for a sign of life that are remembered.
const MAX_PINGS: usize = 32;
/// Messages that may wait to be taken on a stream.
const MAX_INBOX: usize = 4096;

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens streams.
    Host,
    /// Accepts streams.
    Guest,
}

pub(super) struct State {
    role: Role,
    hello: Hello,
    pub(super) nonce: u32,
    /// Counts sessions, so that a handle of an old one cannot touch a stream of the same number in a new one.
    pub(super) epoch: u64,
    /// The other end's greeting.
    pub(super) peer: Option<Result<Hello, ChannelError>>,
    pub(super) closed: Option<ChannelError>,
    urgent: VecDeque<Frame>,
    pub(super) slots: BTreeMap<u32, Slot>,
    /// The highest stream number of the session.
    pub(super) newest: u32,
    /// The stream served last, for taking turns.
    served: u32,
    pub(super) last_heard: Instant,
    pub(super) heard: u64,
    pub(super) skipped: u64,
    /// Questions for a sign of life that were not answered yet, oldest first.
    pinged: VecDeque<(u64, Instant)>,
    pings: u64,
    pub(super) heartbeat: Option<Heartbeat>,
}

impl State {
    pub(super) fn new(role: Role, hello: Hello) -> Self {
        State {
            role,
            hello,
            nonce: 0,
            epoch: 0,
            peer: None,
            closed: None,
            urgent: VecDeque::new(),
            slots: BTreeMap::new(),
            newest: 0,
            served: 0,
            last_heard: Instant::now(),
            heard: 0,
            skipped: 0,
            pinged: VecDeque::new(),
            pings: 0,
            heartbeat: None,
        }
    }

    /// Starts a session, which ends the one before; nonce 0 is none.
    pub(super) fn begin(&mut self, nonce: u32) {
        self.nonce = nonce;
        self.epoch += 1;
        self.urgent.clear();
        for slot in std::mem::take(&mut self.slots).values() {
            slot.wake();
        }
        (self.newest, self.served, self.peer) = (0, 0, None);
    }

    pub(super) fn greet(&mut self) {
        let payload = self.hello.encode();
        self.urge(Kind::Hello, self.nonce, payload);
    }

    /// Sends what completes any frame a former host left unfinished.
    pub(super) fn pad(&mut self) {
        self.urge(Kind::Padding, self.nonce, vec![0; MAX_PAYLOAD]);
    }

    fn urge(&mut self, kind: Kind, nonce: u32, payload: Vec<u8>) {
        if self.urgent.len() < MAX_URGENT && payload.len() <= MAX_PAYLOAD {
            self.urgent.push_back(Frame { kind, flags: 0, stream: 0, nonce, payload });
        }
    }

    pub(super) fn count(&mut self, bytes: usize) {
        self.heard += bytes as u64;
    }

    pub(super) fn ping(&mut self) {
        if self.nonce == 0 {
            return;
        }
        self.pings += 1;
        // A guest that hangs may answer much later; one answer of many may be lost on the way.
        if self.pinged.len() == MAX_PINGS {
            self.pinged.pop_front();
        }
        self.pinged.push_back((self.pings, Instant::now()));
        self.urge(Kind::Ping, self.nonce, self.pings.to_le_bytes().to_vec());
    }

    pub(super) fn close(&mut self, error: ChannelError) {
        self.closed.get_or_insert_with(|| error.clone());
        for slot in self.slots.values_mut() {
            slot.end(error.clone());
        }
    }

    /// What a frame does. A request that became complete comes back for the owner to serve.
    pub(super) fn take(&mut self, frame: Frame, vitals: Option<Vitals>) -> Option<(u32, u64, Vec<u8>)> {
        if frame.kind == Kind::Hello {
            self.take_hello(&frame);
            return None;
        }
        if frame.nonce != self.nonce || self.nonce == 0 {
            return None;
        }
        self.last_heard = Instant::now();
        match frame.kind {
            Kind::Ping if self.role == Role::Guest => {
                let mut payload = frame.payload.get(..8)?.to_vec();
                payload = postcard::to_extend(&vitals.unwrap_or_default(), payload).ok()?;
                self.urge(Kind::Pong, self.nonce, payload);
            }
            Kind::Pong if self.role == Role::Host => self.take_pong(&frame.payload),
            Kind::Open if self.role == Role::Guest => return self.take_open(frame),
            Kind::Message | Kind::Data | Kind::Credit | Kind::Close => self.take_on_stream(frame),
            _ => {}
        }
        None
    }

    fn take_hello(&mut self, frame: &Frame) {
        let hello = Hello::decode(&frame.payload);
        match self.role {
            Role::Host if frame.nonce == self.nonce => {
                self.last_heard = Instant::now();
                self.peer = Some(hello);
            }
            Role::Host => {}
            Role::Guest if frame.nonce == 0 => {}
            Role::Guest => {
                // Also answered when the versions differ: the host learns it from our greeting.
                if hello.is_ok() && frame.nonce != self.nonce {
                    self.begin(frame.nonce);
                }
                if hello.is_ok() {
                    self.peer = Some(hello);
                    self.last_heard = Instant::now();
                }
                let payload = self.hello.encode();
                self.urge(Kind::Hello, frame.nonce, payload);
            }
        }
    }

    fn take_pong(&mut self, payload: &[u8]) {
        let Some((number, vitals)) = payload.split_first_chunk::<8>() else { return };
        let number = u64::from_le_bytes(*number);
        let Some(found) = self.pinged.iter().position(|(asked, _)| *asked == number) else { return };
        if let Some((_, asked)) = self.pinged.drain(..=found).next_back() {
            let vitals = postcard::from_bytes(vitals).unwrap_or_default();
            let at = Instant::now();
            self.heartbeat = Some(Heartbeat { at, round_trip: at - asked, vitals });
        }
    }

    fn take_open(&mut self, frame: Frame) -> Option<(u32, u64, Vec<u8>)> {
        let id = frame.stream;
        if id > self.newest && id != 0 {
            self.newest = id;
            if self.slots.len() >= MAX_STREAMS {
                self.refuse(id);
                return None;
            }
            self.slots.insert(id, Slot::new(self.epoch));
        }
        let slot = self.slots.get_mut(&id).filter(|slot| !slot.opened)?;
        slot.partial.extend_from_slice(&frame.payload);
        if slot.partial.len() > MAX_MESSAGE {
            self.slots.remove(&id);
            self.refuse(id);
            return None;
        }
        if frame.flags & MORE != 0 {
            return None;
        }
        slot.opened = true;
        let request = std::mem::take(&mut slot.partial);
        Some((id, self.epoch, request))
    }

    fn refuse(&mut self, id: u32) {
        let failure = Event::Failed(Failure {
            kind: FailureKind::Protocol,
            message: format!(
                "the request was refused: more than {MAX_STREAMS} streams are open or it is larger than {MAX_MESSAGE} bytes"
            ),
        });
        if self.urgent.len() + 2 > MAX_URGENT {
            return;
        }
        let payload = postcard::to_stdvec(&failure).unwrap_or_default();
        let nonce = self.nonce;
        self.urgent.push_back(Frame { kind: Kind::Message, flags: 0, stream: id, nonce, payload });
        self.urgent.push_back(Frame { kind: Kind::Close, flags: 0, stream: id, nonce, payload: Vec::new() });
    }

    fn take_on_stream(&mut self, frame: Frame) {
        let id = frame.stream;
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let broken = |what: &str| ChannelError::Protocol { what: format!("stream {id}: {what}") };
        match frame.kind {
            Kind::Credit => {
                let Some(more) = frame.payload.first_chunk::<4>() else { return };
                slot.credit = slot.credit.saturating_add(u32::from_le_bytes(*more));
                return slot.wake();
            }
            Kind::Close => {
                slot.end(ChannelError::Ended);
                slot.out.clear();
                slot.queued = 0;
                // Without a handle, be it gone or not yet made, nobody else would.
                if slot.closing || (self.role == Role::Guest && !slot.opened) {
                    self.slots.remove(&id);
                }
                return;
            }
            _ => {}
        }
        // A handle that is gone, or a stream that has ended, takes nothing more.
        if slot.closing || slot.ended.is_some() {
            return;
        }
        match frame.kind {
            Kind::Message => {
                slot.partial.extend_from_slice(&frame.payload);
                if slot.partial.len() > MAX_MESSAGE || slot.inbox.len() >= MAX_INBOX {
                    return slot.end(broken("too many or too large messages"));
                }
                if frame.flags & MORE == 0 {
                    let message = std::mem::take(&mut slot.partial);
                    slot.inbox.push_back(Item::Message(message));
                    slot.wake();
                }
            }
            Kind::Data => {
                let length = frame.payload.len() as u32;
                if length > slot.allowed || slot.inbox.len() >= MAX_INBOX * 4 {
                    return slot.end(broken("more data than allowed"));
                }
                slot.allowed -= length;
                if length > 0 {
                    slot.inbox.push_back(Item::Data { stderr: frame.flags & STDERR != 0, bytes: frame.payload });
                }
                if frame.flags & EOF != 0 {
                    slot.inbox.push_back(Item::Eof);
                }
                slot.wake();
            }
            _ => {}
        }
    }

    /// The most urgent frame that may be sent now.
    pub(super) fn next_out(&mut self) -> Option<Frame> {
        if let Some(frame) = self.urgent.pop_front() {
            return Some(frame);
        }
        let nonce = self.nonce;
        for (id, slot) in &mut self.slots {
            if slot.owed >= WINDOW / 4 && slot.ended.is_none() && !slot.closing {
                let payload = slot.owed.to_le_bytes().to_vec();
                slot.allowed += std::mem::take(&mut slot.owed);
                return Some(Frame { kind: Kind::Credit, flags: 0, stream: *id, nonce, payload });
            }
        }
        let ready = |data: bool, slot: &Slot| {
            slot.out.front().is_some_and(|frame| {
                (frame.kind == Kind::Data) == data && (!data || frame.payload.len() <= slot.credit as usize)
            })
        };
        let served = self.served;
        let turn = |data: bool, slots: &BTreeMap<u32, Slot>| {
            let after = slots.range(served.saturating_add(1)..).find(|(_, slot)| ready(data, slot));
            after.or_else(|| slots.range(..=served).find(|(_, slot)| ready(data, slot))).map(|(id, _)| *id)
        };
        let id = turn(false, &self.slots).or_else(|| turn(true, &self.slots))?;
        self.served = id;
        let slot = self.slots.get_mut(&id)?;
        let frame = slot.out.pop_front()?;
        if frame.kind == Kind::Data {
            slot.queued -= frame.payload.len();
            slot.credit -= frame.payload.len() as u32;
            slot.wake();
        }
        if frame.kind == Kind::Close {
            self.slots.remove(&id);
        }
        Some(frame)
    }
}
