//! What a port is plugged into: takes frames, gives frames, and never waits.

use std::collections::VecDeque;

/// The other end of a port.
pub trait Wire {
    /// Takes a frame; false when there is no room now, and then it has not taken it.
    fn send(&mut self, frame: &[u8]) -> bool;
    /// Replaces `into` by the next frame; false when there is none.
    fn receive(&mut self, into: &mut Vec<u8>) -> bool;
    /// A burst has ended: what was kept back to be sent together goes now.
    fn flush(&mut self) {}
}

/// Frames in order, whose buffers are used again.
#[derive(Debug)]
struct Pipe {
    frames: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    capacity: usize,
}

impl Pipe {
    fn new(capacity: usize) -> Pipe {
        Pipe { frames: VecDeque::new(), spare: Vec::new(), capacity }
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        if self.frames.len() >= self.capacity {
            return false;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(frame);
        self.frames.push_back(bytes);
        true
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> bool {
        let Some(next) = self.frames.pop_front() else { return false };
        self.spare.push(std::mem::replace(into, next));
        true
    }
}

/// A plug that connects a port to itself.
#[derive(Debug)]
pub struct Loop(Pipe);

impl Loop {
    /// With room for so many frames.
    pub fn new(capacity: usize) -> Loop {
        Loop(Pipe::new(capacity))
    }
}

impl Wire for Loop {
    fn send(&mut self, frame: &[u8]) -> bool {
        self.0.send(frame)
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> bool {
        self.0.receive(into)
    }
}

type Way = std::sync::Arc<std::sync::Mutex<Pipe>>;

/// One end of a cable between two ports.
#[derive(Debug)]
pub struct Pair {
    out: Way,
    back: Way,
}

impl Pair {
    /// Both ends of a cable, with room for so many frames in each direction.
    pub fn new(capacity: usize) -> (Pair, Pair) {
        let way = || Way::new(std::sync::Mutex::new(Pipe::new(capacity)));
        let (a, b) = (way(), way());
        (Pair { out: a.clone(), back: b.clone() }, Pair { out: b, back: a })
    }
}

fn lock(way: &Way) -> std::sync::MutexGuard<'_, Pipe> {
    way.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Wire for Pair {
    fn send(&mut self, frame: &[u8]) -> bool {
        lock(&self.out).send(frame)
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> bool {
        lock(&self.back).receive(into)
    }
}
