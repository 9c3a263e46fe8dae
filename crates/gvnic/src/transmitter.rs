//! All TX queues of a device, served in turn.

use std::sync::Arc;

use crate::config::QUEUES_MAX;
use crate::fault::{FaultPlan, Way};
use crate::frame::ETHERNET;
use crate::mishap::{Kind, Mishaps};
use crate::passage::Passage;
use crate::queues::TxQueue;
use crate::shared::{Shared, View};
use crate::stats::{TxCount, TxCounters};
use crate::tx::{Limits, Outlet, Rest, Scratch, TxRing, Verdict};
use crate::wire::{Frame, Sent, Wire};
use crate::wrong::Wrong;

/// Two VLAN tags: they are not part of the MTU.
const TAGS: usize = 8;
/// Packets of a queue before the next has its turn.
const QUANTUM: usize = 64;

/// Bytes of a frame at most.
pub(crate) fn frame_max(view: &View) -> usize {
    usize::from(view.mtu) + ETHERNET + TAGS
}

/// A queue's place in its rings.
#[derive(Debug)]
struct Place {
    /// Of the creation it belongs to.
    generation: u64,
    /// `None` when the driver got its ring wrong.
    ring: Option<TxRing>,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sending {
    /// Packets that were sent or dropped.
    pub packets: u64,
    /// Whether there is more to send at once.
    pub more: bool,
    /// Whether the wire had no room.
    pub full: bool,
}

/// Moves frames from TX queues to a wire.
#[derive(Debug)]
pub struct Transmitter {
    shared: Arc<Shared>,
    view: Arc<View>,
    /// The faults that are under way.
    plan: Arc<FaultPlan>,
    places: [Option<Place>; QUEUES_MAX as usize],
    next: usize,
    scratch: Scratch,
    passage: Passage,
    completions: Mishaps,
    wrong: Option<(u16, Wrong)>,
}

/// The wire as a queue sees it.
struct Out<'a> {
    wire: &'a mut dyn Wire,
    passage: &'a mut Passage,
    completions: &'a mut Mishaps,
    now: u64,
    up: bool,
}

impl Outlet for Out<'_> {
    fn send(&mut self, frame: Frame<'_>) -> Sent {
        if self.up { self.passage.send(frame, self.now, self.wire) } else { Sent::Unplugged }
    }

    fn verdict(&mut self) -> Verdict {
        if self.completions.is_empty() {
            Verdict::Complete
        } else if self.completions.happens(Kind::WithholdCompletion) {
            Verdict::Withhold
        } else if self.completions.happens(Kind::Miss) {
            Verdict::Miss
        } else {
            Verdict::Complete
        }
    }
}

impl Transmitter {
    /// For the device that has this.
    pub fn new(shared: Arc<Shared>) -> Transmitter {
        let view = shared.view();
        let plan = Arc::clone(&view.faults);
        Transmitter {
            shared,
            view,
            places: Default::default(),
            next: 0,
            scratch: Scratch::default(),
            passage: Passage::new(&plan, Way::Tx),
            completions: Mishaps::new(&plan, Way::Tx),
            wrong: None,
            plan,
        }
    }

    /// What a driver got wrong since the last time, and in which queue. The queue does nothing until it is created anew: ask
    /// for a reset ([`Control::request_reset`](crate::control::Control::request_reset)).
    pub fn take_wrong(&mut self) -> Option<(u16, Wrong)> {
        self.wrong.take()
    }

    /// When a held frame is due, in nanoseconds of the device's clock.
    pub fn due(&self) -> Option<u64> {
        self.passage.due()
    }

    /// Sends up to `budget` packets. `now` is of the device's clock.
    pub fn run(&mut self, budget: usize, now: u64, wire: &mut dyn Wire) -> Sending {
        if self.shared.refresh(&mut self.view) {
            // Faults begin anew when they are replaced, and only then.
            if !Arc::ptr_eq(&self.plan, &self.view.faults) {
                self.plan = Arc::clone(&self.view.faults);
                self.passage.set(&self.plan, Way::Tx);
                self.completions = Mishaps::new(&self.plan, Way::Tx);
            }
            for (place, id) in self.places.iter_mut().zip(0..) {
                if self.view.queues.tx(id).is_none() {
                    *place = None;
                }
            }
        }
        let mut done = Sending { full: !self.passage.release(now, wire), ..Sending::default() };
        if done.full {
            return done;
        }
        let mut left = budget;
        // As long as there is budget, every queue that has work gets its turn, and then another.
        for _ in 0..self.places.len() {
            let id = self.next;
            if left == 0 {
                done.more = true;
                break;
            }
            let rest = self.serve(id as u16, left.min(QUANTUM), now, wire, &mut done);
            left = budget.saturating_sub(done.packets as usize);
            match rest {
                Rest::Full => {
                    // Its turn again when there is room.
                    done.full = true;
                    break;
                }
                Rest::More => done.more = true,
                Rest::Idle => {}
            }
            self.next = (id + 1) % self.places.len();
        }
        self.tell_strikes();
        done
    }

    fn tell_strikes(&mut self) {
        let struck = self.passage.take_struck() + self.completions.take_struck();
        if struck > 0 {
            self.shared.stats().control.strikes.add(struck);
        }
    }

    fn serve(&mut self, id: u16, packets: usize, now: u64, wire: &mut dyn Wire, done: &mut Sending) -> Rest {
        let Some(queue) = self.view.queues.tx(id) else { return Rest::Idle };
        let Some(slot) = self.places.get_mut(usize::from(id)) else { return Rest::Idle };
        if slot.as_ref().is_none_or(|place| place.generation != queue.generation()) {
            *slot = Some(Place { generation: queue.generation(), ring: Some(TxRing::new(*queue.setup())) });
        }
        let Some(Place { ring: Some(ring), .. }) = slot else { return Rest::Idle };
        let tail = queue.tail();
        if !ring.has_work(tail) {
            return Rest::Idle;
        }
        let Some(visit) = queue.enter() else { return Rest::Idle };
        let limits = Limits { packets, frame: frame_max(&self.view) };
        let (mut count, mut descriptors, completed) = (TxCount::default(), 0, ring.completed());
        let (passage, completions, up) = (&mut self.passage, &mut self.completions, self.shared.link_up());
        let mut out = Out { wire, passage, completions, now, up };
        let live = || visit.is_live();
        let (memory, scratch) = (self.shared.memory(), &mut self.scratch);
        let rest = ring.run(memory, tail, limits, &live, scratch, &mut out, &mut count, &mut descriptors);
        let news = ring.completed() != completed;
        settle(queue, &mut count, descriptors, rest.as_ref().err());
        drop(visit);
        done.packets += count.packets + count.drop_oversize + count.drop_malformed;
        if news {
            self.shared.blocks().event(queue.setup().notify_block);
        }
        rest.unwrap_or_else(|wrong| {
            *slot = Some(Place { generation: queue.generation(), ring: None });
            self.wrong = Some((id, wrong));
            Rest::Idle
        })
    }
}

/// Adds up what happened, still within the visit: when the queue ends, its books are right.
fn settle(queue: &TxQueue, count: &mut TxCount, descriptors: u64, wrong: Option<&Wrong>) {
    match wrong {
        Some(wrong) if wrong.is_address() => count.drop_bad_address += 1,
        Some(_) => count.drop_malformed += 1,
        None => {}
    }
    queue.ledger().consumed.add(descriptors);
    queue.ledger().returned.add(descriptors);
    let to: &TxCounters = queue.counters();
    let pairs = [
        (&to.frames, count.frames),
        (&to.bytes, count.bytes),
        (&to.packets, count.packets),
        (&to.segmented_packets, count.segmented_packets),
        (&to.drop_malformed, count.drop_malformed),
        (&to.drop_bad_address, count.drop_bad_address),
        (&to.drop_oversize, count.drop_oversize),
        (&to.drop_link_down, count.drop_link_down),
        (&to.drop_fault, count.drop_fault),
    ];
    pairs.into_iter().filter(|(_, n)| *n > 0).for_each(|(counter, n)| counter.add(n));
}
