//! TX and RX queues as the driver created them: where their rings are, how far the driver has filled them, and whether
//! they are still there.
//!
//! A queue is one creation: the same number created again is another queue, with another [`Queue::generation`]. What the
//! driver set does not change; what changes are the tail (its doorbell) and whether the queue lives. The datapath keeps its
//! own place in the rings, beside the generation it belongs to.
//!
//! Once the driver has the answer that a queue is destroyed, its rings and buffers are its own again, and a single byte
//! written later would corrupt the guest. So guest memory of a queue is touched only in a [`Visit`]: ending a queue turns
//! new visitors away, tells the one that is inside ([`Visit::is_live`]) and waits until it is out.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::config::QUEUES_MAX;
use crate::stats::{Ledger, RxCounters, TxCounters};

/// What the driver set of a TX queue. Addresses are bus addresses of its own; nobody has looked whether they are mapped
/// throughout. Ring sizes are powers of two within the port's bounds, rings do not wrap around the address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TxSetup {
    /// Its number.
    pub id: u16,
    /// Descriptors, 16 bytes each.
    pub ring: u64,
    /// How many.
    pub ring_size: u16,
    /// Completions, 8 bytes each.
    pub completion_ring: u64,
    /// How many.
    pub completion_size: u16,
    /// Its notify block.
    pub notify_block: u16,
    /// Index of its tail in BAR2.
    pub doorbell: u32,
}

/// What the driver set of an RX queue; see [`TxSetup`] about addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RxSetup {
    /// Its number.
    pub id: u16,
    /// Buffer descriptors, 32 bytes each.
    pub buffer_ring: u64,
    /// How many.
    pub buffer_size: u16,
    /// Completions, 32 bytes each.
    pub completion_ring: u64,
    /// How many.
    pub completion_size: u16,
    /// Bytes of every buffer.
    pub packet_buffer: u16,
    /// Bytes of every header buffer; 0 splits nothing.
    pub header_buffer: u16,
    /// Whether segments of a TCP stream may be merged.
    pub merge: bool,
    /// Its notify block.
    pub notify_block: u16,
    /// Index of its tail in BAR2.
    pub doorbell: u32,
}

/// What both kinds have.
pub trait Setup: Copy {
    /// What is counted of such a queue.
    type Counters;
    /// Its number.
    fn id(&self) -> u16;
    /// How many descriptors its doorbell counts in: a power of two.
    fn doorbell_size(&self) -> u16;
}

impl Setup for TxSetup {
    type Counters = TxCounters;

    fn id(&self) -> u16 {
        self.id
    }

    fn doorbell_size(&self) -> u16 {
        self.ring_size
    }
}

impl Setup for RxSetup {
    type Counters = RxCounters;

    fn id(&self) -> u16 {
        self.id
    }

    fn doorbell_size(&self) -> u16 {
        self.buffer_size
    }
}

impl RxSetup {
    /// Whether headers are split off.
    pub fn splits(&self) -> bool {
        self.header_buffer > 0
    }
}

/// A TX queue.
pub type TxQueue = Queue<TxSetup>;
/// An RX queue.
pub type RxQueue = Queue<RxSetup>;

/// One creation of a queue.
#[derive(Debug)]
pub struct Queue<S: Setup> {
    setup: S,
    generation: u64,
    tail: AtomicU32,
    live: AtomicBool,
    inside: Mutex<()>,
    counters: Arc<S::Counters>,
    ledger: Arc<Ledger>,
}

/// The right to touch a queue's guest memory. Keep it for a burst, not longer, and never while waiting for anybody: the
/// driver's command to end the queue waits for it.
#[derive(Debug)]
pub struct Visit<'a> {
    live: &'a AtomicBool,
    _inside: MutexGuard<'a, ()>,
}

impl Visit<'_> {
    /// Whether the queue is still wanted. Ask between descriptors, and leave when it is not.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }
}

impl<S: Setup> Queue<S> {
    pub(crate) fn new(setup: S, generation: u64, counters: Arc<S::Counters>, ledger: Arc<Ledger>) -> Queue<S> {
        let (tail, live, inside) = (AtomicU32::new(0), AtomicBool::new(true), Mutex::new(()));
        Queue { setup, generation, tail, live, inside, counters, ledger }
    }

    /// What the driver set.
    pub fn setup(&self) -> &S {
        &self.setup
    }

    /// Which creation it is; no two of a device have the same.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What is counted of the queue's number.
    pub fn counters(&self) -> &S::Counters {
        &self.counters
    }

    /// Where its descriptors are accounted for: the datapath adds to `consumed` what it reads, and to `returned` what a
    /// completion gives back (for TX: every descriptor of the packet).
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The index behind the last descriptor the driver has filled; always smaller than the ring. What is before it was
    /// written before.
    pub fn tail(&self) -> u32 {
        self.tail.load(Ordering::Acquire)
    }

    /// Starts a visit, or not, when the queue has ended.
    pub fn enter(&self) -> Option<Visit<'_>> {
        // Asked first without the lock, so that a datapath that comes again and again cannot keep `end` waiting.
        if !self.live.load(Ordering::Acquire) {
            return None;
        }
        // Nothing is guarded but the time: a visitor that panicked has left.
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let visit = Visit { live: &self.live, _inside: inside };
        visit.is_live().then_some(visit)
    }

    /// The driver's doorbell. `false` for a tail outside the ring, which changes nothing.
    pub(crate) fn ring(&self, tail: u32) -> bool {
        let size = u32::from(self.setup.doorbell_size());
        if tail >= size {
            return false;
        }
        let before = self.tail.swap(tail, Ordering::AcqRel);
        self.ledger.posted.add(u64::from(tail.wrapping_sub(before) & (size - 1)));
        true
    }

    /// Nobody comes in any more.
    pub(crate) fn close(&self) {
        self.live.store(false, Ordering::Release);
    }

    /// Waits until nobody is inside, and closes the books. After [`Queue::close`].
    pub(crate) fn settle(&self) {
        drop(self.inside.lock().unwrap_or_else(PoisonError::into_inner));
        self.ledger.abandoned.add(self.ledger.count().outstanding());
    }
}

/// The queues there are. A snapshot: who holds it may meet queues that have ended, which [`Queue::enter`] tells.
#[derive(Debug, Clone, Default)]
pub struct Queues {
    tx: [Option<Arc<TxQueue>>; QUEUES_MAX as usize],
    rx: [Option<Arc<RxQueue>>; QUEUES_MAX as usize],
}

impl Queues {
    /// A TX queue by its number.
    pub fn tx(&self, id: u16) -> Option<&Arc<TxQueue>> {
        self.tx.get(usize::from(id))?.as_ref()
    }

    /// An RX queue by its number.
    pub fn rx(&self, id: u16) -> Option<&Arc<RxQueue>> {
        self.rx.get(usize::from(id))?.as_ref()
    }

    /// Every TX queue, by number.
    pub fn all_tx(&self) -> impl Iterator<Item = &Arc<TxQueue>> {
        self.tx.iter().flatten()
    }

    /// Every RX queue, by number.
    pub fn all_rx(&self) -> impl Iterator<Item = &Arc<RxQueue>> {
        self.rx.iter().flatten()
    }

    pub(crate) fn tx_slot(&mut self, id: u16) -> Option<&mut Option<Arc<TxQueue>>> {
        self.tx.get_mut(usize::from(id))
    }

    pub(crate) fn rx_slot(&mut self, id: u16) -> Option<&mut Option<Arc<RxQueue>>> {
        self.rx.get_mut(usize::from(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> TxQueue {
        let setup = TxSetup {
            id: 3,
            ring: 0,
            ring_size: 64,
            completion_ring: 0,
            completion_size: 64,
            notify_block: 3,
            doorbell: 0,
        };
        Queue::new(setup, 1, Arc::default(), Arc::default())
    }

    #[test]
    fn tails_wrap_and_are_counted() {
        let queue = queue();
        let tails =
            [(32, true, 32), (63, true, 63), (31, true, 95), (64, false, 95), (u32::MAX, false, 95), (31, true, 95)];
        for (tail, good, posted) in tails {
            assert_eq!((queue.ring(tail), queue.ledger().count().posted), (good, posted), "{tail}");
        }
        assert_eq!(queue.tail(), 31);
    }

    #[test]
    fn an_ended_queue_abandons_what_it_held() {
        let queue = queue();
        queue.ring(40);
        queue.ledger().consumed.add(12);
        queue.ledger().returned.add(10);
        queue.close();
        queue.settle();
        let count = queue.ledger().count();
        assert_eq!((count.abandoned, count.outstanding(), count.excess()), (30, 0, 0));
        assert!(queue.enter().is_none());
    }

    #[test]
    fn ending_waits_for_the_visitor() {
        let queue = queue();
        let left = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (inside, entered) = std::sync::mpsc::channel();
            let (queue, left) = (&queue, &left);
            scope.spawn(move || {
                let visit = queue.enter().unwrap();
                inside.send(()).unwrap();
                while visit.is_live() {
                    std::thread::yield_now();
                }
                // It takes its time: whoever does not wait is through long before.
                (0..1000).for_each(|_| std::thread::yield_now());
                left.store(true, Ordering::SeqCst);
            });
            entered.recv().unwrap();
            queue.close();
            queue.settle();
            assert!(left.load(Ordering::SeqCst), "the visitor is still inside");
        });
    }
}
