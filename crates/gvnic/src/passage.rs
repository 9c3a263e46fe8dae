//! The way of frames in one direction, with what happens to them there ([`Mishaps`]).
//!
//! Nothing is copied while no mishap strikes. Frames that are held are bounded: beyond that they go on at once.

use std::collections::VecDeque;

use crate::fault::{FaultPlan, Way};
use crate::mishap::{Fate, Mishaps};
use crate::wire::{Frame, Sent, Wire};

/// Bytes of held frames at most.
const HELD_MAX: usize = 16 << 20;
/// How many frames pass one that falls behind, and how long it waits for them.
const BEHIND_FRAMES: u64 = 3;
const BEHIND_NS: u64 = 1_000_000;

#[derive(Debug)]
struct Held {
    /// When it goes on, or behind which frame, whichever comes first.
    due: u64,
    after: u64,
    bytes: Box<[u8]>,
}

#[derive(Debug, Default)]
pub(crate) struct Passage {
    mishaps: Mishaps,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Frames that have passed.
    frames: u64,
    /// The fate of a frame that is offered again.
    drawn: Option<Option<Fate>>,
}

impl Passage {
    /// A way that begins with these faults.
    pub fn new(plan: &FaultPlan, way: Way) -> Passage {
        Passage { mishaps: Mishaps::new(plan, way), ..Passage::default() }
    }

    /// Replaces the plan. What is held arrives all the same.
    pub fn set(&mut self, plan: &FaultPlan, way: Way) {
        self.mishaps = Mishaps::new(plan, way);
        self.drawn = None;
    }

    /// How many mishaps struck since this was asked.
    pub fn take_struck(&mut self) -> u64 {
        self.mishaps.take_struck()
    }

    /// When the next held frame is due, in nanoseconds of the device's clock.
    pub fn due(&self) -> Option<u64> {
        self.held.iter().map(|held| held.due).min()
    }

    /// Sends a frame on, or whatever becomes of it.
    pub fn send(&mut self, frame: Frame<'_>, now: u64, wire: &mut dyn Wire) -> Sent {
        if self.mishaps.is_empty() {
            return wire.send(frame);
        }
        let drawn = self.drawn.take().unwrap_or_else(|| self.mishaps.frame());
        let sent = match drawn {
            None => wire.send(frame),
            Some(fate) => self.suffer(frame, fate, now, wire),
        };
        match sent {
            Sent::Full => self.drawn = Some(drawn),
            _ => self.frames += 1,
        }
        sent
    }

    fn suffer(&mut self, frame: Frame<'_>, fate: Fate, now: u64, wire: &mut dyn Wire) -> Sent {
        if fate.lost {
            return Sent::Lost;
        }
        let flipped = fate.flip.map(|choice| flipped(frame.bytes, choice));
        let frame = flipped.as_deref().map_or(frame, Frame::new);
        let due = if fate.delay > 0 { now + fate.delay * 1000 } else { now + BEHIND_NS };
        let after = if fate.behind { self.frames + BEHIND_FRAMES } else { u64::MAX };
        let mut sent = Sent::Full;
        if fate.behind || fate.delay > 0 {
            sent = if self.hold(frame.bytes, due, after) { Sent::Taken } else { Sent::Full };
        }
        if sent == Sent::Full {
            sent = wire.send(frame);
        }
        if fate.twice && sent == Sent::Taken {
            // No room for it: then it does not come twice.
            self.hold(frame.bytes, now, 0);
        }
        sent
    }

    fn hold(&mut self, bytes: &[u8], due: u64, after: u64) -> bool {
        let fits = self.held_bytes + bytes.len() <= HELD_MAX;
        if fits {
            self.held_bytes += bytes.len();
            self.held.push_back(Held { due, after, bytes: bytes.into() });
        }
        fits
    }

    /// Sends on what is due. `false` when the wire has no room for it.
    pub fn release(&mut self, now: u64, wire: &mut dyn Wire) -> bool {
        let frames = self.frames;
        let is_due = |held: &Held| held.due <= now || held.after <= frames;
        while let Some(n) = self.held.iter().position(is_due) {
            let Some(held) = self.held.get(n) else { break };
            if wire.send(Frame::new(&held.bytes)) == Sent::Full {
                return false;
            }
            self.held_bytes -= held.bytes.len();
            self.held.remove(n);
        }
        true
    }
}

fn flipped(frame: &[u8], choice: u64) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let bits = frame.len() as u64 * 8;
    let bit = choice.checked_rem(bits).unwrap_or(0);
    if let Some(byte) = frame.get_mut((bit / 8) as usize) {
        *byte ^= 1 << (bit % 8);
    }
    frame
}
