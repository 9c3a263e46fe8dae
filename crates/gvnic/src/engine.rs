//! A device's datapath as one thing: its queues on one side, a port of the network on the other.
//!
//! The engine has no thread and waits for nothing. Whoever has one calls [`Engine::run_once`] until there is nothing to do,
//! and then waits for a wake-up: the driver's doorbell ([`Datapath::wake`](crate::control::Datapath::wake)), a frame in the
//! port, room in it, or [`Turn::due`].

use std::fmt;
use std::sync::Arc;

use crate::receiver::Receiver;
use crate::shared::Shared;
use crate::transmitter::Transmitter;
use crate::wire::{Port, Sent, Wire};
use crate::wrong::Wrong;

/// What a call of [`Engine::run_once`] did, and what to wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    /// Packets taken from TX queues.
    pub sent: u64,
    /// Frames taken from the port.
    pub received: u64,
    /// Whether to call again at once.
    pub more: bool,
    /// Whether the port has no room: nothing is sent until it has.
    pub port_full: bool,
    /// Whether a frame in the port waits for buffers of the driver.
    pub held: bool,
    /// When to call again whatever happens, in nanoseconds of the device's clock.
    pub due: Option<u64>,
}

/// Which direction a wrong ring is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the network.
    Tx,
    /// From the network.
    Rx,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Tx => "TX",
            Direction::Rx => "RX",
        })
    }
}

/// The datapath of a device.
#[derive(Debug)]
pub struct Engine<P: Port> {
    shared: Arc<Shared>,
    /// TX queues.
    pub transmitter: Transmitter,
    /// RX queues.
    pub receiver: Receiver,
    /// The network.
    pub port: P,
}

impl<P: Port> Engine<P> {
    /// For a device and its port.
    pub fn new(shared: Arc<Shared>, port: P) -> Engine<P> {
        let (transmitter, receiver) = (Transmitter::new(Arc::clone(&shared)), Receiver::new(Arc::clone(&shared)));
        Engine { shared, transmitter, receiver, port }
    }

    /// The time by the device's clock, in nanoseconds.
    pub fn now(&self) -> u64 {
        self.shared.clock().nanoseconds()
    }

    /// Moves up to `budget` frames each way.
    pub fn run_once(&mut self, budget: usize) -> Turn {
        let now = self.now();
        let mut turn = Turn::default();
        let mut burst = self.receiver.burst(now);
        turn.held = !burst.release();
        while !turn.held && turn.received < budget as u64 {
            let Some(frame) = self.port.peek() else { break };
            if burst.send(frame) == Sent::Full {
                turn.held = true;
                break;
            }
            self.port.take();
            turn.received += 1;
        }
        drop(burst);
        let sending = self.transmitter.run(budget, now, &mut self.port);
        self.port.flush();
        turn.sent = sending.packets;
        turn.port_full = sending.full;
        turn.more = sending.more || turn.received == budget as u64;
        // What is due and finds no room waits for the room.
        let sending = self.transmitter.due().filter(|_| !turn.port_full);
        turn.due = [sending, self.receiver.due(turn.held)].into_iter().flatten().min();
        turn
    }

    /// What the driver got wrong since the last time: the queue stands still, and the device wants a reset.
    pub fn take_wrong(&mut self) -> Option<(Direction, u16, Wrong)> {
        let tx = self.transmitter.take_wrong().map(|(queue, wrong)| (Direction::Tx, queue, wrong));
        tx.or_else(|| self.receiver.take_wrong().map(|(queue, wrong)| (Direction::Rx, queue, wrong)))
    }
}
