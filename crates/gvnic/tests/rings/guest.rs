//! Two guests with their devices, and a cable between them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gvnic::config::PortConfig;
use gvnic::engine::Engine;
use gvnic::queues::{RxSetup, TxSetup};
use gvnic::wire::{Frame, Port, Sent, Wire};

use super::{Received, Recipe, RxDriver, TxDriver};
use crate::common::{self, Bench, Driver, bench_with, config};

pub type Pipe = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// One end of a cable that holds a few frames.
pub struct End {
    out: Pipe,
    into: Pipe,
    peeked: Option<Vec<u8>>,
    room: usize,
}

impl Wire for End {
    fn send(&mut self, frame: Frame<'_>) -> Sent {
        let mut out = self.out.borrow_mut();
        if out.len() >= self.room {
            return Sent::Full;
        }
        out.push_back(frame.bytes.to_vec());
        Sent::Taken
    }
}

impl Port for End {
    fn peek(&mut self) -> Option<Frame<'_>> {
        if self.peeked.is_none() {
            self.peeked = self.into.borrow_mut().pop_front();
        }
        self.peeked.as_deref().map(Frame::new)
    }

    fn take(&mut self) {
        self.peeked = None;
    }
}

pub fn cable(room: usize) -> (End, End) {
    let (one, other) = (Pipe::default(), Pipe::default());
    let end = |out: &Pipe, into: &Pipe| End { out: Rc::clone(out), into: Rc::clone(into), peeked: None, room };
    (end(&one, &other), end(&other, &one))
}

/// A guest with its device: the driver of its control side, and one of each queue.
pub struct Guest<'a> {
    pub bench: &'a Bench,
    pub driver: Driver<'a>,
    pub tx: Vec<TxDriver>,
    pub rx: Vec<RxDriver>,
    pub resources: Vec<(common::Ring, common::Ring)>,
    pub engine: Engine<End>,
}

const MEMORY: usize = 24 << 20;

impl<'a> Guest<'a> {
    pub fn new(bench: &'a Bench, pairs: u32, size: u16, end: End) -> Guest<'a> {
        let mut driver = Driver::probe(bench, pairs);
        let (resources, tx, rx) = Guest::open(&mut driver, bench, pairs, size);
        let engine = Engine::new(Arc::clone(bench.control.shared()), end);
        (0..2 * pairs).for_each(|block| driver.enable(block));
        Guest { bench, driver, tx, rx, resources, engine }
    }

    pub fn open(
        driver: &mut Driver<'a>,
        bench: &'a Bench,
        pairs: u32,
        size: u16,
    ) -> (Vec<(common::Ring, common::Ring)>, Vec<TxDriver>, Vec<RxDriver>) {
        let resources = driver.open(pairs, size);
        let view = bench.control.shared().view();
        let setup = |id: u32| -> (TxSetup, RxSetup) {
            let (tx, rx) = (view.queues.tx(id as u16).unwrap(), view.queues.rx(id as u16).unwrap());
            (*tx.setup(), *rx.setup())
        };
        let tx = (0..pairs).map(|id| TxDriver::over(&bench.ram, setup(id).0, u64::from(size) * 4096)).collect();
        let rx = (0..pairs).map(|id| RxDriver::over(&bench.ram, setup(id).1)).collect();
        (resources, tx, rx)
    }

    pub fn post(&mut self) {
        for (driver, (_, ring)) in self.rx.iter_mut().zip(&self.resources) {
            driver.post(u32::MAX);
            self.driver.ring(ring, driver.doorbell);
        }
    }

    pub fn kick(&self) {
        for (driver, (ring, _)) in self.tx.iter().zip(&self.resources) {
            self.driver.ring(ring, driver.tail);
        }
    }

    pub fn poll(&mut self) -> Vec<Received> {
        self.tx.iter_mut().for_each(|tx| drop(tx.poll()));
        let got = self.rx.iter_mut().flat_map(RxDriver::poll).collect();
        self.post();
        got
    }

    /// Nothing is lost of what the device was given.
    pub fn accounted(&self) {
        let status = self.bench.control.status();
        for (queue, driver) in status.rx.iter().zip(&self.rx) {
            assert_eq!((queue.buffers.posted, queue.buffers.returned), (driver.given, driver.back));
            assert_eq!((queue.buffers.consumed, queue.buffers.excess()), (driver.back, 0));
        }
        for (queue, driver) in status.tx.iter().zip(&self.tx) {
            assert_eq!((queue.descriptors.outstanding(), queue.descriptors.excess()), (0, 0));
            assert!(driver.flying.is_empty());
        }
    }
}

pub fn port(pairs: u16) -> PortConfig {
    PortConfig { queue_pairs: pairs, ..config() }
}

/// Sends packets from one to the other until all of `count` are through: frames as they arrive.
pub fn flow(
    from: &mut Guest<'_>,
    to: &mut Guest<'_>,
    count: usize,
    mut packet: impl FnMut(usize) -> Vec<u8>,
) -> Vec<Received> {
    let (mut sent, mut got, mut idle) = (0, Vec::new(), 0);
    while idle < 20 {
        let before = (sent, got.len());
        while sent < count {
            let queue = sent % from.tx.len();
            if from.tx[queue].send(&packet(sent), &[], None, true).is_none() {
                break;
            }
            sent += 1;
        }
        from.kick();
        from.engine.run_once(32);
        to.engine.run_once(32);
        got.extend(to.poll());
        from.poll();
        let held = from.engine.transmitter.due().is_some() || to.engine.receiver.due(false).is_some();
        if held {
            std::thread::sleep(Duration::from_millis(1));
        }
        idle = if (sent, got.len()) == before && !held { idle + 1 } else { 0 };
    }
    got
}

/// A packet that says which it is.
pub fn numbered(n: usize) -> Vec<u8> {
    let mut recipe = Recipe { ports: (n as u16, 9), v6: n % 2 == 1, ..Recipe::udp(200 + n % 3000) };
    recipe.payload[..4].copy_from_slice(&(n as u32).to_be_bytes());
    recipe.frame()
}

pub fn number(frame: &Received) -> usize {
    let bytes = frame.frame();
    let at = if bytes[12] == 8 { 42 } else { 62 };
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

pub fn lab(pairs: u16) -> (Bench, Bench) {
    (bench_with(port(pairs), MEMORY), bench_with(port(pairs), MEMORY))
}
