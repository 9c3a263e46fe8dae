//! Queues and devices that come and go while a datapath works on them: nothing is touched afterwards, and the books balance.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Bench, Driver, Ring, bench, bench_with, config};
use gvnic::config::PortConfig;
use gvnic::queues::{Queue, Setup};
use gvnic::shared::Shared;

/// A datapath that gives every descriptor back as soon as it sees it: a word of each is read, and its completion written.
struct Engine<'a> {
    shared: &'a Shared,
    /// Where it is in each ring: the creation, and the index.
    places: HashMap<(bool, u16), (u64, u32)>,
}

impl Engine<'_> {
    fn run(shared: &Shared, stop: &AtomicBool) {
        let mut engine = Engine { shared, places: HashMap::new() };
        let mut view = shared.view();
        while !stop.load(Ordering::SeqCst) {
            shared.refresh(&mut view);
            let mut work = 0;
            for queue in view.queues.all_tx() {
                let setup = queue.setup();
                work += engine.drain(queue, false, (setup.ring, 16), (setup.completion_ring, 8), setup.notify_block);
            }
            for queue in view.queues.all_rx() {
                let setup = queue.setup();
                work +=
                    engine.drain(queue, true, (setup.buffer_ring, 32), (setup.completion_ring, 32), setup.notify_block);
            }
            if work == 0 {
                std::thread::yield_now();
            }
        }
    }

    fn drain<S: Setup>(&mut self, queue: &Queue<S>, rx: bool, ring: (u64, u64), done: (u64, u64), block: u16) -> u32 {
        let place = self.places.entry((rx, queue.setup().id())).or_default();
        if place.0 != queue.generation() {
            *place = (queue.generation(), 0);
        }
        let Some(visit) = queue.enter() else { return 0 };
        let mut work = 0;
        while visit.is_live() && place.1 != queue.tail() {
            let index = u64::from(place.1);
            let mut descriptor = [0; 8];
            self.shared.memory().read(ring.0 + index * ring.1, &mut descriptor).unwrap();
            queue.ledger().consumed.add(1);
            self.shared.memory().publish(done.0 + index * done.1, &[0xd0; 8], 7).unwrap();
            queue.ledger().returned.add(1);
            place.1 = (place.1 + 1) & u32::from(queue.setup().doorbell_size() - 1);
            work += 1;
        }
        drop(visit);
        if work > 0 {
            self.shared.blocks().event(block);
        }
        work
    }
}

fn with_engine(bench: &Bench, test: impl FnOnce()) {
    let (shared, stop) = (Arc::clone(bench.control.shared()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| Engine::run(&shared, &stop));
        // Stopped also when the test fails, or the failure would never be seen.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let _stop = Stop(&stop);
        test();
    });
}

/// Every queue's descriptors came back or were abandoned, exactly once.
fn balanced(bench: &Bench) -> (u64, u64) {
    let status = bench.control.status();
    let ledgers = status.rx.iter().map(|q| q.buffers).chain(status.tx.iter().map(|q| q.descriptors));
    ledgers.fold((0, 0), |(returned, abandoned), ledger| {
        assert_eq!((ledger.outstanding(), ledger.excess()), (0, 0), "{ledger:?}");
        assert!(ledger.consumed >= ledger.returned);
        (returned + ledger.returned, abandoned + ledger.abandoned)
    })
}

fn returned(bench: &Bench) -> u64 {
    let stats = bench.control.shared().stats();
    let (rx, tx) = (stats.rx_counts(16), stats.tx_counts(16));
    rx.iter().map(|q| q.1.returned).chain(tx.iter().map(|q| q.1.returned)).sum()
}

const POISON: [u8; 2048] = [0x5a; 2048];

#[test]
fn a_thousand_restarts_of_a_queue_under_traffic() {
    let bench = bench(PortConfig { queue_pairs: 4, ..config() });
    let mut driver = Driver::probe(&bench, 4);
    let rings = driver.open(4, 64);
    with_engine(&bench, || {
        for n in 0..1000u32 {
            let before = returned(&bench);
            for (tx, rx) in &rings {
                driver.ring(tx, (n * 7 + 1) % 64);
                driver.ring(rx, n * 32 % 64);
            }
            // The datapath is sure to be at it now and then; in between chance decides, also on a busy machine.
            while n % 50 == 0 && returned(&bench) == before {
                std::thread::yield_now();
            }
            for (tx, rx) in &rings {
                driver.ring(tx, (n * 7 + 50) % 64);
                driver.ring(rx, (n * 32 + 31) % 64);
            }
            // Queue 0, too: that a driver keeps it is its own affair.
            let id = n % 4;
            let (tx, rx) = rings[id as usize];
            let (ring, status) = if n % 8 < 4 { (rx, driver.destroy_rx(id)) } else { (tx, driver.destroy_tx(id)) };
            assert_eq!(status, 1);
            // The memory is the guest's again: whatever it puts there stays.
            bench.ram.poke(ring.ring, &POISON);
            bench.ram.poke(ring.completions, &POISON);
            for (tx, rx) in &rings {
                driver.ring(tx, (n * 7 + 5) % 64);
                driver.ring(rx, (n * 32 + 16) % 64);
            }
            assert_eq!(bench.ram.peek(ring.ring, 2048), POISON, "restart {n}");
            assert_eq!(bench.ram.peek(ring.completions, 2048), POISON, "restart {n}");
            let create = if n % 8 < 4 { driver.create_rx(id, &rx, 128) } else { driver.create_tx(id, &tx) };
            assert_eq!(driver.execute(create), 1);
        }
        driver.close(4);
    });
    let (returned, abandoned) = balanced(&bench);
    let control = bench.control.status().control;
    assert_eq!((control.rx_created, control.rx_destroyed), (504, 504));
    assert_eq!((control.tx_created, control.tx_destroyed), (504, 504));
    assert!(returned > 20, "{returned} returned, {abandoned} abandoned: there was traffic");
}

#[test]
fn a_thousand_resets_in_the_middle_of_traffic() {
    let bench = bench_with(PortConfig { queue_pairs: 2, ..config() }, 64 << 10);
    with_engine(&bench, || {
        for n in 0..1000u32 {
            bench.ram.free_all();
            let mut driver = Driver::attach(&bench);
            driver.configure(2);
            let rings = driver.open(2, 64);
            let before = returned(&bench);
            for (tx, rx) in &rings {
                driver.ring(tx, 40 + n % 20);
                driver.ring(rx, 32);
            }
            while n % 50 == 0 && returned(&bench) == before {
                std::thread::yield_now();
            }
            // Some are left half way through a batch of commands.
            if n % 3 == 0 {
                driver.issue(driver.create_rx(1, &rings[1].1, 0));
            }
            // And some by way of the function, as when a guest is reset.
            if n % 5 == 0 {
                bench.control.function_reset()
            } else {
                driver.release()
            }
            let written = bench.ram.written();
            for _ in 0..100 {
                assert_eq!(bench.ram.written(), written, "reset {n}: nothing is written afterwards");
            }
        }
    });
    balanced(&bench);
    let control = bench.control.status().control;
    assert_eq!((control.driver_resets, control.function_resets), (800, 200));
    assert_eq!((control.rx_created, control.rx_destroyed), (2000, 2000));
    assert_eq!(control.command_errors, 0);
}

#[test]
fn every_creation_is_another_queue_and_starts_empty() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 16);
    let ring: Ring = driver.rings(128);
    let mut generations = Vec::new();
    for id in [3, 3, 7, 0, 3] {
        assert_eq!(driver.execute(driver.create_rx(id, &ring, 0)), 1);
        let view = bench.control.shared().view();
        let queue = view.queues.rx(id as u16).unwrap();
        assert_eq!((queue.tail(), queue.setup().splits()), (0, false));
        driver.ring(&ring, 64);
        assert_eq!(queue.tail(), 64);
        generations.push(queue.generation());
        assert_eq!(driver.destroy_rx(id), 1);
        driver.ring(&ring, 96);
        assert_eq!(queue.tail(), 64, "a doorbell of a queue that has ended does nothing");
    }
    let mut unique = generations.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 5);
    assert_eq!(bench.control.status().control.bad_doorbells, 5);
    balanced(&bench);
}
