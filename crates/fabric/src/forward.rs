//! From an input buffer to the ports the frames are for.
//!
//! A frame to one station waits when that station's port has no room, and everything behind it from the same sender waits
//! too: the sender's socket fills up and QEMU stops taking frames from its guest, as a full NIC ring would. A frame to
//! a group never waits: a port without room misses it.

use std::borrow::Cow;

use crate::core::Core;
use crate::fault::Fate;
use crate::held::Held;
use crate::outlet::Outlet;
use crate::pcapng::Direction;
use crate::table::Learned;
use crate::wire::{Located, addresses, is_group, locate};

/// Where a frame is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To one port.
    Port(usize),
    /// To every other port.
    Everywhere,
    /// Nowhere: it is no Ethernet frame.
    Malformed,
    /// Nowhere: its destination is where it came from.
    Back,
}

/// Destination and source of the last frame and where it went: frames come in trains.
type Train = Option<([u8; 12], Way)>;

/// Why forwarding ended.
enum End {
    /// Nothing whole is left.
    Drained,
    /// The next frame's port has no room.
    NoRoom(usize),
    /// The stream makes no sense.
    OutOfStep,
}

impl Core {
    /// Forwards what a port's input buffer holds, as far as there is room. Where there is none, the port is blocked, until
    /// [`resume`](Core::resume) finds that there is.
    ///
    /// Returns `false` when the stream is out of step and must be cut.
    pub fn forward(&mut self, from: usize) -> bool {
        let mut inlet = std::mem::take(&mut self.ports[from].inlet);
        let input = inlet.pending();
        let (mut at, mut train) = (0, None);
        let end = loop {
            match locate(input, at) {
                Ok(None) => break End::Drained,
                Err(_) => break End::OutOfStep,
                Ok(Some(found)) => match self.frame(from, input, &found, &mut train) {
                    Ok(()) => at = found.whole.end,
                    Err(full) => break End::NoRoom(full),
                },
            }
        };
        self.flush_dirty(input);
        inlet.consume(at);
        self.ports[from].inlet = inlet;
        if let End::NoRoom(to) = end {
            self.ports[from].blocked_on = Some(to);
            self.blocked += 1;
        }
        !matches!(end, End::OutOfStep)
    }

    /// Delivers the frames whose delay is over.
    pub fn arrivals(&mut self) {
        while let Some(Held { to, frame, .. }) = self.held.pop_due(self.now) {
            let port = &mut self.ports[to];
            port.outlet.delayed -= frame.len();
            if !port.connected() {
                port.counters.drops.unplugged += 1;
            } else if port.outlet.stalled {
                port.counters.drops.stalled += 1;
            } else {
                self.put_copy(to, &[], &frame);
            }
        }
        self.flush_dirty(&[]);
    }

    /// Writes a port's queue out.
    pub fn flush(&mut self, to: usize, input: &[u8]) {
        let port = &mut self.ports[to];
        let Some(cable) = &port.cable else { return };
        let taken = port.outlet.flush(&cable.socket, input, self.now);
        port.counters.tx_frames += taken.frames;
        port.counters.tx_bytes += taken.bytes;
        if port.outlet.broken {
            port.counters.drops.unplugged += port.outlet.abandon();
        }
    }

    /// Whether a frame to a port need not wait. That is not to say that it will get there.
    pub fn has_room(&self, to: usize) -> bool {
        let (port, limits) = (&self.ports[to], &self.config.limits);
        !port.connected() || port.outlet.stalled || fits(&port.outlet, limits.queue_bytes, limits.delayed_bytes)
    }

    /// Whether those who wait for room at a port should go on. Half a queue of room makes it worth their while.
    pub fn has_much_room(&self, to: usize) -> bool {
        let (port, limits) = (&self.ports[to], &self.config.limits);
        !port.connected() || port.outlet.stalled || fits(&port.outlet, limits.queue_bytes / 2, limits.delayed_bytes / 2)
    }

    /// Forwards one frame, or says which port has no room for it.
    fn frame(&mut self, from: usize, input: &[u8], found: &Located, train: &mut Train) -> Result<(), usize> {
        let frame = &input[found.frame.clone()];
        let way = match train {
            Some((header, way)) if frame.get(..12) == Some(header) => *way,
            _ => self.way(from, frame, train),
        };
        let oversize = frame.len() > self.ports[from].frame_max;
        match way {
            Way::Port(to) if !oversize => {
                if !self.ports[to].connected() {
                    self.ports[from].counters.drops.unreachable += 1;
                } else if !self.deliver(from, to, input, found, true) {
                    return Err(to);
                }
            }
            Way::Everywhere if !oversize => {
                for to in (0..self.ports.len()).filter(|to| *to != from) {
                    if self.ports[to].connected() {
                        self.deliver(from, to, input, found, false);
                    }
                }
            }
            Way::Port(_) | Way::Everywhere => self.ports[from].counters.drops.oversize += 1,
            Way::Malformed => self.ports[from].counters.drops.malformed += 1,
            Way::Back => self.ports[from].counters.drops.unreachable += 1,
        }
        let port = &mut self.ports[from];
        port.counters.rx_frames += 1;
        port.counters.rx_bytes += frame.len() as u64;
        for tap in &port.taps {
            tap.frame(Direction::Outbound, frame);
        }
        Ok(())
    }

    /// Learns where a frame came from and looks up where it goes.
    fn way(&mut self, from: usize, frame: &[u8], train: &mut Train) -> Way {
        let Some((to, source)) = addresses(frame) else { return Way::Malformed };
        if is_group(&source) {
            return Way::Malformed;
        }
        if self.table.learn(source, from, self.now) == Learned::Moved {
            self.ports[from].counters.moves += 1;
        }
        let way = if is_group(&to) {
            Way::Everywhere
        } else {
            match self.table.find(&to, self.now) {
                Some(port) if port == from => Way::Back,
                Some(port) => Way::Port(port),
                // Between two ports there is nothing to find out.
                None if self.ports.len() == 2 => Way::Port(1 - from),
                None => Way::Everywhere,
            }
        };
        let mut header = [0; 12];
        header.copy_from_slice(&frame[..12]);
        *train = Some((header, way));
        way
    }

    /// Sends a frame over one link. Returns `false` when it would have to wait and `may_wait`.
    fn deliver(&mut self, from: usize, to: usize, input: &[u8], found: &Located, may_wait: bool) -> bool {
        let frame = &input[found.frame.clone()];
        let room = self.has_room(to);
        let now = self.now;
        let cut = self.link(from, to).is_cut();
        let port = &mut self.ports[to];
        let drops = &mut port.counters.drops;
        if cut {
            drops.partition += 1;
            return true;
        }
        if frame.len() > port.frame_max {
            drops.oversize += 1;
            return true;
        }
        if port.outlet.stalled {
            drops.stalled += 1;
            return true;
        }
        if !room {
            if !may_wait {
                drops.overflow += 1;
            }
            return !may_wait;
        }
        match self.link(from, to).fate(now, frame.len()) {
            Fate::Lost => self.ports[to].counters.drops.loss += 1,
            Fate::Cut => self.ports[to].counters.drops.partition += 1,
            Fate::Clear => {
                let port = &mut self.ports[to];
                for tap in &port.taps {
                    tap.frame(Direction::Inbound, frame);
                }
                mark(&mut self.dirty, to, &port.outlet);
                port.outlet.push(input, found.whole.clone());
            }
            Fate::Altered { due, flip, twice } => {
                let frame = flip.map_or(Cow::Borrowed(frame), |bit| Cow::Owned(flipped(frame, bit)));
                for _ in 0..1 + u8::from(twice) {
                    match due {
                        None => self.put_copy(to, input, &frame),
                        Some(due) => {
                            self.ports[to].outlet.delayed += frame.len();
                            self.held.push(due, from, to, &frame);
                        }
                    }
                }
            }
        }
        true
    }

    fn put_copy(&mut self, to: usize, input: &[u8], frame: &[u8]) {
        let port = &mut self.ports[to];
        for tap in &port.taps {
            tap.frame(Direction::Inbound, frame);
        }
        mark(&mut self.dirty, to, &port.outlet);
        port.outlet.push_copy(input, frame);
    }

    /// Writes out every port that got something. A socket that is full is left alone until it asks.
    fn flush_dirty(&mut self, input: &[u8]) {
        while let Some(to) = self.dirty.pop() {
            if !self.ports[to].outlet.waiting {
                self.flush(to, input);
            }
            self.watch(to);
        }
    }
}

/// Notes that a port has something to write, once.
fn mark(dirty: &mut Vec<usize>, to: usize, outlet: &Outlet) {
    if !outlet.waiting && !dirty.contains(&to) {
        dirty.push(to);
    }
}

fn fits(outlet: &Outlet, queue: usize, delayed: usize) -> bool {
    outlet.bytes() <= queue && outlet.delayed <= delayed
}

fn flipped(frame: &[u8], bit: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[bit / 8] ^= 1 << (bit % 8);
    frame
}
