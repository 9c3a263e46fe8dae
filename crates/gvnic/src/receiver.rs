//! All RX queues of a device: a frame is steered to one of them and given to the driver.
//!
//! Frames for a queue without buffers wait in a backlog of its own, and the other queues go on; those of a queue that makes no
//! progress for as long as [`Receiver::set_patience`] says are lost, and counted.

use std::sync::Arc;
use std::time::Duration;

use crate::abi::dqo::rx::Integrity;
use crate::backlog::{Backlog, Offered, Waiting};
use crate::bus::Memory;
use crate::config::QUEUES_MAX;
use crate::fault::{FaultPlan, Way};
use crate::frame::{Headers, checksum, parse};
use crate::mishap::{Kind, Mishaps};
use crate::passage::Passage;
use crate::queues::{RxQueue, Visit};
use crate::rx::{Delivery, Mark, RxRing};
use crate::shared::{Shared, View};
use crate::stats::{RxCount, RxCounters};
use crate::transmitter::frame_max;
use crate::wire::{Frame, Sent, Wire};
use crate::wrong::Wrong;

/// How long a queue may stand still before it loses the frames that wait for it, unless told otherwise.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// A queue's place in its rings.
#[derive(Debug)]
struct Place {
    /// Of the creation it belongs to.
    generation: u64,
    /// `None` when the driver got its ring wrong.
    ring: Option<RxRing>,
    /// What waits for buffers.
    backlog: Backlog,
}

/// Moves frames to RX queues.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    view: Arc<View>,
    /// The faults that are under way.
    plan: Arc<FaultPlan>,
    places: [Option<Place>; QUEUES_MAX as usize],
    passage: Passage,
    splits: Mishaps,
    patience: u64,
    wrong: Option<(u16, Wrong)>,
}

/// A burst of frames. It keeps the queues it meets from ending, and tells the driver when it is dropped: trains are closed,
/// completions counted, interrupts raised. Until then nothing is locked but once for each queue: a locked instruction
/// waits for every write before it, which here are payloads on their way to memory.
#[derive(Debug)]
pub struct Burst<'a> {
    passage: &'a mut Passage,
    queues: Queues<'a>,
}

#[derive(Debug)]
struct Queues<'a> {
    shared: &'a Shared,
    view: &'a View,
    places: &'a mut [Option<Place>; QUEUES_MAX as usize],
    open: [Option<Open<'a>>; QUEUES_MAX as usize],
    splits: &'a mut Mishaps,
    wrong: &'a mut Option<(u16, Wrong)>,
    patience: u64,
    now: u64,
    link_up: bool,
    frame_max: usize,
}

/// A queue that is visited.
#[derive(Debug)]
struct Open<'a> {
    queue: &'a RxQueue,
    /// `None` when the queue has ended: what comes is counted as nobody's.
    visit: Option<Visit<'a>>,
    count: RxCount,
    /// Buffers taken and returned when the visit began.
    taken: u64,
    returned: u64,
}

impl Receiver {
    /// For the device that has this.
    pub fn new(shared: Arc<Shared>) -> Receiver {
        let view = shared.view();
        let plan = Arc::clone(&view.faults);
        Receiver {
            shared,
            view,
            places: Default::default(),
            passage: Passage::new(&plan, Way::Rx),
            splits: Mishaps::new(&plan, Way::Rx),
            patience: PATIENCE.as_nanos() as u64,
            wrong: None,
            plan,
        }
    }

    /// How long a queue may stand still before it loses the frames that wait for it.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
    }

    /// What a driver got wrong since the last time, and in which queue. The queue drops everything until it is created anew:
    /// ask for a reset ([`Control::request_reset`](crate::control::Control::request_reset)).
    pub fn take_wrong(&mut self) -> Option<(u16, Wrong)> {
        self.wrong.take()
    }

    /// When frames that wait for buffers are lost, or one that a fault holds is due, in nanoseconds of the device's clock. While
    /// there is no room (`full`), the latter waits for that.
    pub fn due(&self, full: bool) -> Option<u64> {
        let waiting = self.places.iter().flatten().filter_map(|place| place.backlog.due(self.patience));
        waiting.chain(self.passage.due().filter(|_| !full)).min()
    }

    /// A burst begins; `now` is of the device's clock, and is the time the frames get. Drop it soon: a driver that ends a queue
    /// waits for it.
    pub fn burst(&mut self, now: u64) -> Burst<'_> {
        if self.shared.refresh(&mut self.view) {
            // Faults begin anew when they are replaced, and only then.
            if !Arc::ptr_eq(&self.plan, &self.view.faults) {
                self.plan = Arc::clone(&self.view.faults);
                self.passage.set(&self.plan, Way::Rx);
                self.splits = Mishaps::new(&self.plan, Way::Rx);
            }
            for (slot, id) in self.places.iter_mut().zip(0..) {
                let queue = self.view.queues.rx(id);
                let is_over = |place: &mut Place| queue.is_none_or(|queue| place.generation != queue.generation());
                if let Some(mut place) = slot.take_if(is_over) {
                    self.shared.stats().rx(id).drop_no_queue.add(place.backlog.clear());
                }
            }
        }
        let mut queues = Queues {
            shared: &self.shared,
            view: &self.view,
            places: &mut self.places,
            open: Default::default(),
            splits: &mut self.splits,
            wrong: &mut self.wrong,
            patience: self.patience,
            now,
            link_up: self.shared.link_up(),
            frame_max: frame_max(&self.view),
        };
        queues.drain();
        Burst { passage: &mut self.passage, queues }
    }
}

impl Burst<'_> {
    /// Gives the driver the frames that a mishap held and that are due. `false` when one finds no room.
    pub fn release(&mut self) -> bool {
        self.passage.release(self.queues.now, &mut self.queues)
    }
}

impl Wire for Burst<'_> {
    fn send(&mut self, frame: Frame<'_>) -> Sent {
        let sent = self.passage.send(frame, self.queues.now, &mut self.queues);
        if sent == Sent::Lost {
            // Which queue it was for, nobody has looked.
            self.queues.shared.stats().rx(0).drop_fault.add(1);
        }
        let struck = self.passage.take_struck() + self.queues.splits.take_struck();
        if struck > 0 {
            self.queues.shared.stats().control.strikes.add(struck);
        }
        sent
    }
}

impl<'a> Queues<'a> {
    /// Gives what waits to the queues that have buffers again.
    fn drain(&mut self) {
        let (memory, view) = (self.shared.memory(), self.view);
        for ((slot, open), id) in self.places.iter_mut().zip(&mut self.open).zip(0..) {
            let (Some(place), Some(queue)) = (slot.as_mut().filter(|p| !p.backlog.is_empty()), view.queues.rx(id))
            else {
                continue;
            };
            let open = open.get_or_insert_with(|| Open::enter(queue, place));
            if !self.link_up {
                open.count.drop_link_down += place.backlog.clear();
            }
            while let Some(Waiting { bytes, headers, mark }) = place.backlog.front() {
                if !open.give(memory, &mut place.ring, bytes, headers, mark, self.wrong) {
                    break;
                }
                place.backlog.took(self.now);
            }
            open.count.drop_no_buffer += place.backlog.expire(self.now, self.patience);
        }
    }
}

impl Wire for Queues<'_> {
    fn send(&mut self, frame: Frame<'_>) -> Sent {
        let bytes = frame.bytes;
        let headers = frame.known.map_or_else(|| parse(bytes), |known| known.headers);
        let steered = match headers.flow(bytes) {
            Some(key) => self.view.steer(&key),
            None => self.view.steer_other(),
        };
        let at = usize::from(steered.queue);
        let (Some(queue), Some(slot), Some(open)) =
            (self.view.queues.rx(steered.queue), self.places.get_mut(at), self.open.get_mut(at))
        else {
            self.shared.stats().rx(steered.queue).drop_no_queue.add(1);
            return Sent::Taken;
        };
        let place = slot.get_or_insert_with(|| {
            let ring = Some(RxRing::new(*queue.setup()));
            Place { generation: queue.generation(), ring, backlog: Backlog::default() }
        });
        let open = open.get_or_insert_with(|| Open::enter(queue, place));
        if !self.link_up {
            open.count.drop_link_down += 1;
            return Sent::Unplugged;
        }
        if bytes.len() > self.frame_max {
            open.count.drop_oversize += 1;
            return Sent::Taken;
        }
        let integrity = match frame.known {
            Some(known) if known.sums => Integrity { processed: true, ..Integrity::default() },
            _ => checksum::verify(bytes, &headers),
        };
        let unsplit = !self.splits.is_empty() && self.splits.happens(Kind::MissSplit);
        let (hash, timestamp) = (steered.hash.value, Some(self.now as u32));
        let mark = Mark { hash, integrity, timestamp, unsplit, alone: false };
        let Place { ring, backlog, .. } = place;
        if backlog.is_empty() && open.give(self.shared.memory(), ring, bytes, &headers, &mark, self.wrong) {
            backlog.passed();
            return Sent::Taken;
        }
        match backlog.offer(bytes, &headers, &mark, self.now) {
            Offered::Waits => {}
            Offered::Lost => open.count.drop_no_buffer += 1,
            Offered::Full => return Sent::Full,
        }
        Sent::Taken
    }
}

impl Drop for Queues<'_> {
    fn drop(&mut self) {
        for ((open, place), id) in self.open.iter_mut().zip(self.places.iter_mut()).zip(0..) {
            let (Some(open), Some(place)) = (open, place) else { continue };
            if let Some(ring) = place.ring.as_mut().filter(|ring| ring.merging() && open.is_live())
                && let Err(wrong) = ring.flush(self.shared.memory(), &mut open.count)
            {
                open.count.drop_bad_address += 1;
                open.fail(&mut place.ring);
                *self.wrong = Some((id, wrong));
            }
            let news = open.close(&place.ring);
            add(open.queue.counters(), &open.count);
            if news {
                self.shared.blocks().event(open.queue.setup().notify_block);
            }
        }
    }
}

impl<'a> Open<'a> {
    fn enter(queue: &'a RxQueue, place: &Place) -> Open<'a> {
        let at = |count: fn(&RxRing) -> u64| place.ring.as_ref().map_or(0, count);
        let (taken, returned) = (at(RxRing::taken), at(RxRing::returned));
        Open { queue, visit: queue.enter(), count: RxCount::default(), taken, returned }
    }

    /// Gives a frame to the ring, or says that it has no buffers. A frame that nobody can ever have is counted.
    fn give(
        &mut self,
        memory: &dyn Memory,
        ring: &mut Option<RxRing>,
        bytes: &[u8],
        headers: &Headers,
        mark: &Mark,
        wrong: &mut Option<(u16, Wrong)>,
    ) -> bool {
        if !self.is_live() {
            self.close(ring);
            self.count.drop_no_queue += 1;
            return true;
        }
        let Some(live) = ring else {
            self.count.drop_bad_address += 1;
            return true;
        };
        match live.deliver(memory, self.queue.tail(), bytes, headers, mark, &mut self.count) {
            Ok(Delivery::Done | Delivery::Merging) => true,
            Ok(Delivery::Full) => false,
            Err(why) => {
                self.count.drop_bad_address += 1;
                self.fail(ring);
                *wrong = Some((self.queue.setup().id, why));
                true
            }
        }
    }

    fn is_live(&self) -> bool {
        self.visit.as_ref().is_some_and(Visit::is_live)
    }

    /// The ring is of no use any more; what was done until then counts.
    fn fail(&mut self, ring: &mut Option<RxRing>) {
        self.account(ring);
        *ring = None;
    }

    /// Ends the visit, with its books right before that. Whether there are new completions.
    fn close(&mut self, ring: &Option<RxRing>) -> bool {
        let news = ring.as_ref().is_some_and(|ring| ring.returned() != self.returned);
        if self.visit.is_some() {
            self.account(ring);
            self.visit = None;
        }
        news
    }

    fn account(&mut self, ring: &Option<RxRing>) {
        let Some(ring) = ring else { return };
        self.queue.ledger().consumed.add(ring.taken() - self.taken);
        self.queue.ledger().returned.add(ring.returned() - self.returned);
        (self.taken, self.returned) = (ring.taken(), ring.returned());
    }
}

fn add(to: &RxCounters, count: &RxCount) {
    let pairs = [
        (&to.frames, count.frames),
        (&to.bytes, count.bytes),
        (&to.split_frames, count.split_frames),
        (&to.header_bytes, count.header_bytes),
        (&to.payload_bytes, count.payload_bytes),
        (&to.merged_segments, count.merged_segments),
        (&to.drop_no_buffer, count.drop_no_buffer),
        (&to.drop_oversize, count.drop_oversize),
        (&to.drop_bad_address, count.drop_bad_address),
        (&to.drop_no_queue, count.drop_no_queue),
        (&to.drop_link_down, count.drop_link_down),
    ];
    pairs.into_iter().filter(|(_, n)| *n > 0).for_each(|(counter, n)| counter.add(n));
}
