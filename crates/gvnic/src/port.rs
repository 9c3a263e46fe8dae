//! The engine of a port: moves what the driver sends to the wire, and what comes from the wire to the driver.
//!
//! In: [`Shared`], of which it is the only datapath, and a [`Wire`]. Out: frames, completions, events. One thread calls
//! [`Port::run_once`] until it answers false, and then waits for a wake-up or the wire.
//!
//! # When the driver is slow
//! A queue that is out of buffers keeps its frames in a backlog of its own, so that it does not stand in the way of the
//! others: a guest that does not give device memory back must still be reachable by its first queue. When the backlog is full
//! the port takes nothing from the wire any more, and the sender has to wait; when the queue has not taken a single frame for
//! the port's patience, its frames are dropped, as any NIC would.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::abi::dqo::About;
use crate::abi::ptype::L3;
use crate::config::QUEUES_MAX;
use crate::frame::{Parsed, verify};
use crate::queues::RxQueue;
use crate::rx::{Delivery, RxFrame, RxPlace};
use crate::shared::{Shared, View};
use crate::tx::{Limits, Scratch, TxPlace};

pub use crate::wire::{Loop, Pair, Wire};

/// Bytes a queue's backlog may have before the port stops receiving.
const BACKLOG_BYTES: usize = 512 << 10;
/// How long a queue may stand still before frames for it are dropped.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// Most bytes of a frame: an IP packet and its Ethernet header.
pub const FRAME_MAX: usize = 65535 + 14;

/// Frames that wait for buffers of one queue.
#[derive(Debug, Default)]
struct Backlog {
    frames: VecDeque<(Vec<u8>, RxNote)>,
    bytes: usize,
    /// Since when it has not moved.
    since: Option<Instant>,
}

/// What is remembered of a frame beside its bytes.
#[derive(Debug, Clone, Copy)]
struct RxNote {
    header: usize,
    about: About,
}

/// One queue's place and what waits for it.
#[derive(Debug, Default)]
struct RxLane {
    place: RxPlace,
    backlog: Backlog,
}

/// A port.
pub struct Port<W> {
    shared: Arc<Shared>,
    view: Arc<View>,
    wire: W,
    tx: Vec<TxPlace>,
    rx: Vec<RxLane>,
    scratch: Scratch,
    frame: Vec<u8>,
    /// Which TX queue comes first the next time.
    turn: usize,
    /// A backlog is full.
    choked: bool,
    patience: Duration,
    /// Buffers of frames that were in a backlog.
    spare: Vec<Vec<u8>>,
}

impl<W: Wire> Port<W> {
    /// A port that is plugged in.
    pub fn new(shared: Arc<Shared>, wire: W) -> Port<W> {
        let view = shared.view();
        Port {
            shared,
            view,
            wire,
            tx: (0..QUEUES_MAX).map(|_| TxPlace::default()).collect(),
            rx: (0..QUEUES_MAX).map(|_| RxLane::default()).collect(),
            scratch: Scratch::default(),
            frame: Vec::new(),
            turn: 0,
            choked: false,
            patience: PATIENCE,
            spare: Vec::new(),
        }
    }

    /// Another patience than [`PATIENCE`].
    pub fn with_patience(mut self, patience: Duration) -> Port<W> {
        self.patience = patience;
        self
    }

    /// What it is plugged into.
    pub fn wire(&self) -> &W {
        &self.wire
    }

    /// The same, to change it.
    pub fn wire_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    /// Whether a queue without buffers keeps the port from receiving. It has to be looked after again within its patience,
    /// even if nothing happens.
    pub fn is_choked(&self) -> bool {
        self.choked
    }

    /// Moves at most `budget` packets each way. False when there was nothing to move, or nothing could be.
    pub fn run_once(&mut self, budget: usize) -> bool {
        self.shared.refresh(&mut self.view);
        let sent = self.transmit(budget);
        self.wire.flush();
        let received = self.receive(budget);
        sent || received
    }

    fn transmit(&mut self, budget: usize) -> bool {
        let Port { shared, view, wire, tx, scratch, turn, .. } = self;
        let (count, link) = (tx.len().max(1), shared.link_up());
        let mut left = budget;
        let mut moved = false;
        let first = *turn;
        for n in 0..count {
            let id = (first + n) % count;
            let (Some(place), Some(queue)) = (tx.get_mut(id), view.queues.tx(id as u16)) else { continue };
            if left == 0 {
                // It comes first the next time.
                *turn = id;
                break;
            }
            if place.is_idle(queue) {
                continue;
            }
            let Some(visit) = queue.enter() else { continue };
            let limits = Limits { mtu: view.mtu, link, packets: left };
            let mut taken = 0;
            let progress = place.run(queue, &visit, shared.memory(), &limits, scratch, &mut |frame| {
                let took = wire.send(frame);
                taken += usize::from(took);
                took
            });
            drop(visit);
            if progress.completed > 0 {
                shared.blocks().event(queue.setup().notify_block);
            }
            moved |= progress.completed > 0 || taken > 0;
            left = left.saturating_sub(progress.completed);
        }
        moved
    }

    fn receive(&mut self, budget: usize) -> bool {
        let mut moved = self.drain();
        let mut touched = 0u32;
        // The clock is read once: a burst came at once.
        let mut now = None;
        for _ in 0..budget {
            if self.choked || !self.wire.receive(&mut self.frame) {
                break;
            }
            moved = true;
            let stamp = *now.get_or_insert_with(|| self.shared.clock().nanoseconds() as u32);
            touched |= self.accept(stamp);
        }
        self.raise(touched);
        moved
    }

    /// One event for each queue of a set.
    fn raise(&self, touched: u32) {
        for queue in self.view.queues.all_rx() {
            if touched >> queue.setup().id & 1 != 0 {
                self.shared.blocks().event(queue.setup().notify_block);
            }
        }
    }

    /// Steers the frame that was received. Answers the set of queues there is an event of.
    fn accept(&mut self, stamp: u32) -> u32 {
        let Port { shared, view, rx, frame, spare, choked, patience, .. } = self;
        let parsed = Parsed::of(frame);
        let steered = match parsed.flow_key(frame) {
            Some(key) => view.steer(&key),
            None => view.steer_other(),
        };
        let counters = shared.stats().rx(steered.queue);
        if !shared.link_up() {
            counters.drop_link_down.add(1);
            return 0;
        }
        // Merged frames may be longer than the MTU; nothing else is.
        if frame.len() > usize::from(view.mtu) + 18 {
            counters.drop_oversize.add(1);
            return 0;
        }
        let (Some(queue), Some(lane)) = (view.queues.rx(steered.queue), rx.get_mut(usize::from(steered.queue))) else {
            counters.drop_no_queue.add(1);
            return 0;
        };
        let integrity = verify(frame, &parsed);
        let about = About {
            packet_type: parsed.packet_type(),
            processed: matches!(parsed.l3, L3::Ipv4 | L3::Ipv6),
            bad_ip_checksum: integrity.l3_error(),
            bad_l4_checksum: integrity.l4_error(),
            ipv6_extended: parsed.ipv6_extra,
            segment: None,
            hash: steered.hash.value,
            timestamp: Some(stamp),
        };
        let note = RxNote { header: parsed.split_at().unwrap_or(0), about };
        if lane.backlog.frames.is_empty() {
            match lane.give(shared, queue, frame, note) {
                Delivery::Done => return 1 << steered.queue,
                Delivery::Dropped => return 0,
                Delivery::Full => {}
            }
        }
        if lane.backlog.bytes >= BACKLOG_BYTES {
            counters.drop_no_buffer.add(1);
            return 0;
        }
        let bytes = std::mem::replace(frame, spare.pop().unwrap_or_default());
        // A small frame costs more than its bytes.
        lane.backlog.bytes += bytes.len().max(64);
        lane.backlog.frames.push_back((bytes, note));
        let since = *lane.backlog.since.get_or_insert_with(Instant::now);
        *choked |= lane.backlog.bytes >= BACKLOG_BYTES && since.elapsed() < *patience;
        0
    }

    /// Gives what waits to queues that have buffers again.
    fn drain(&mut self) -> bool {
        let Port { shared, view, rx, spare, choked, patience, .. } = self;
        *choked = false;
        let (mut moved, mut touched) = (false, 0u32);
        for (id, lane) in (0u16..).zip(rx.iter_mut()) {
            if lane.backlog.frames.is_empty() {
                continue;
            }
            let counters = shared.stats().rx(id);
            let queue = view.queues.rx(id);
            while let Some((bytes, note)) = lane.backlog.frames.pop_front() {
                let delivery = match queue {
                    Some(queue) if shared.link_up() => lane.give(shared, queue, &bytes, note),
                    Some(_) => {
                        counters.drop_link_down.add(1);
                        Delivery::Dropped
                    }
                    None => {
                        counters.drop_no_queue.add(1);
                        Delivery::Dropped
                    }
                };
                if delivery == Delivery::Full {
                    lane.backlog.frames.push_front((bytes, note));
                    break;
                }
                touched |= u32::from(delivery == Delivery::Done) << id;
                moved = true;
                lane.backlog.bytes = lane.backlog.bytes.saturating_sub(bytes.len().max(64));
                lane.backlog.since = (!lane.backlog.frames.is_empty()).then(Instant::now);
                if spare.len() < 256 {
                    spare.push(bytes);
                }
            }
            let stuck = lane.backlog.bytes >= BACKLOG_BYTES;
            *choked |= stuck && lane.backlog.since.is_some_and(|since| since.elapsed() < *patience);
        }
        self.raise(touched);
        moved
    }
}

impl RxLane {
    fn give(&mut self, shared: &Shared, queue: &RxQueue, bytes: &[u8], note: RxNote) -> Delivery {
        let Some(visit) = queue.enter() else {
            queue.counters().drop_no_queue.add(1);
            return Delivery::Dropped;
        };
        let frame = RxFrame { bytes, header: note.header, about: note.about };
        self.place.deliver(queue, &visit, shared.memory(), &frame)
    }
}

impl<W: std::fmt::Debug> std::fmt::Debug for Port<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").field("shared", &self.shared).field("wire", &self.wire).finish_non_exhaustive()
    }
}
