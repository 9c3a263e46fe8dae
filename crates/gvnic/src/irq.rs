//! Notify blocks: what lies between an event of a queue and an MSI-X vector.
//!
//! An event gets through once and masks its block; the driver polls, and enables the block again when it finds nothing
//! more (`gve_napi_poll_dqo`, gve_main.c), without looking once more after that: "Another interrupt would be triggered
//! if a new event came in since the last one". So an event that finds the block masked is latched, and fires on enable.
//!
//! In: events of the datapath's thread, doorbells of the server's. Out: raised vectors. The two meet in one atomic word a
//! block: whichever comes second sees the other, so nothing is lost and nothing is locked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crate::abi::registers::{ITR_CLEAR_PBA, ITR_ENABLE, ITR_INTERVAL_MASK, ITR_INTERVAL_SHIFT, ITR_NO_UPDATE};
use crate::bus::Interrupts;

/// The next event fires.
const ENABLED: u32 = 1;
/// An event came while masked.
const LATCHED: u32 = 2;

#[derive(Debug, Default)]
struct Block {
    state: AtomicU32,
    /// Microseconds between interrupts, as the driver wants them.
    interval: AtomicU32,
}

/// The notify blocks of a device. Block and vector have the same number; the management vector is behind the last block.
pub struct NotifyBlocks {
    blocks: Box<[Block]>,
    /// How many the driver uses; 0 while it has configured none.
    used: AtomicU16,
    interrupts: Arc<dyn Interrupts>,
}

impl NotifyBlocks {
    pub(crate) fn new(count: u16, interrupts: Arc<dyn Interrupts>) -> NotifyBlocks {
        let blocks = (0..count).map(|_| Block::default()).collect();
        NotifyBlocks { blocks, used: AtomicU16::new(0), interrupts }
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        u16::try_from(self.blocks.len()).unwrap_or(u16::MAX)
    }

    /// How many the driver uses.
    pub fn used(&self) -> u16 {
        self.used.load(Ordering::Acquire)
    }

    fn block(&self, block: u16) -> Option<&Block> {
        (block < self.used()).then(|| self.blocks.get(usize::from(block))).flatten()
    }

    /// Something happened to a queue of this block, and it is written: raises the vector now, or when the driver enables
    /// the block. A block that is not in use is ignored.
    pub fn event(&self, block: u16) {
        let Some(found) = self.block(block) else { return };
        // SeqCst: the completion that was published before this is never older than the mask that is read here.
        let before = found.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| {
            Some(if state & ENABLED != 0 { 0 } else { LATCHED })
        });
        if before.is_ok_and(|state| state & ENABLED != 0) {
            self.interrupts.raise(block);
        }
    }

    /// The driver's doorbell.
    pub(crate) fn doorbell(&self, block: u16, value: u32) {
        let Some(found) = self.block(block) else { return };
        if value & ITR_NO_UPDATE != ITR_NO_UPDATE {
            let interval = (value >> ITR_INTERVAL_SHIFT) & ITR_INTERVAL_MASK;
            found.interval.store(interval * 2, Ordering::Relaxed);
        }
        let clear = value & ITR_CLEAR_PBA != 0;
        let enable = value & ITR_ENABLE != 0;
        let next = |state: u32| {
            let latched = if clear { 0 } else { state & LATCHED };
            match (enable, latched != 0) {
                // It fires at once, and firing masks.
                (true, true) => 0,
                (true, false) => ENABLED,
                (false, _) => latched,
            }
        };
        let before = found.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| Some(next(state)));
        if before.is_ok_and(|state| enable && !clear && state & LATCHED != 0) {
            self.interrupts.raise(block);
        }
    }

    /// Microseconds the driver wants between interrupts of a block; 0 is as many as there are events. Whoever batches
    /// events may hold them back for that long.
    pub fn interval(&self, block: u16) -> u32 {
        self.block(block).map_or(0, |b| b.interval.load(Ordering::Relaxed))
    }

    /// Tells the driver to look at the device status. Before it has configured its vectors it looks by itself
    /// (`gve_probe`, gve_main.c queues the service task).
    pub(crate) fn management(&self) {
        let used = self.used();
        if used > 0 {
            self.interrupts.raise(used);
        }
    }

    /// The driver uses the first `used` blocks from now on, all of them masked.
    pub(crate) fn configure(&self, used: u16) {
        self.used.store(0, Ordering::Release);
        for block in &self.blocks {
            block.state.store(0, Ordering::SeqCst);
            block.interval.store(0, Ordering::Relaxed);
        }
        self.used.store(used.min(self.count()), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Raised(Mutex<Vec<u16>>);

    impl Interrupts for Raised {
        fn raise(&self, vector: u16) {
            self.0.lock().unwrap().push(vector);
        }
    }

    const REARM: u32 = ITR_NO_UPDATE | ITR_ENABLE;

    fn blocks() -> (NotifyBlocks, Arc<Raised>) {
        let raised = Arc::new(Raised::default());
        let blocks = NotifyBlocks::new(4, Arc::clone(&raised) as Arc<dyn Interrupts>);
        blocks.configure(4);
        (blocks, raised)
    }

    #[test]
    fn events_fire_once_and_are_latched_while_masked() {
        enum Do {
            Event,
            Bell(u32),
        }
        use Do::{Bell, Event};
        let cases: &[(&str, &[Do], usize)] = &[
            ("masked from the start", &[Event], 0),
            ("enabled, then an event", &[Bell(REARM), Event], 1),
            ("firing masks", &[Bell(REARM), Event, Event], 1),
            ("an event before enable fires on enable", &[Event, Bell(REARM)], 1),
            ("many events are one", &[Event, Event, Event, Bell(REARM)], 1),
            ("firing on enable masks", &[Event, Bell(REARM), Event], 1),
            ("and the next enable fires again", &[Event, Bell(REARM), Event, Bell(REARM)], 2),
            ("enabling twice fires nothing", &[Bell(REARM), Bell(REARM), Event], 1),
            ("clear forgets", &[Event, Bell(REARM | ITR_CLEAR_PBA)], 0),
            ("and enables all the same", &[Event, Bell(REARM | ITR_CLEAR_PBA), Event], 1),
            ("without the enable bit it is masked", &[Bell(REARM), Bell(ITR_NO_UPDATE), Event], 0),
            ("and latches", &[Bell(REARM), Bell(0), Event, Bell(REARM)], 1),
        ];
        for (what, steps, fired) in cases {
            let (blocks, raised) = blocks();
            for step in *steps {
                match step {
                    Event => blocks.event(2),
                    Bell(value) => blocks.doorbell(2, *value),
                }
            }
            assert_eq!(*raised.0.lock().unwrap(), vec![2; *fired], "{what}");
        }
    }

    #[test]
    fn intervals_are_in_microseconds_and_kept_on_no_update() {
        let (blocks, _) = blocks();
        // `gve_setup_itr_interval_dqo(50)`.
        blocks.doorbell(1, ITR_ENABLE | (25 << 5));
        assert_eq!(blocks.interval(1), 50);
        blocks.doorbell(1, REARM);
        assert_eq!(blocks.interval(1), 50);
        blocks.doorbell(1, ITR_ENABLE | (0xfff << 5));
        assert_eq!(blocks.interval(1), 8190);
        assert_eq!(blocks.interval(0), 0);
    }

    #[test]
    fn blocks_that_are_not_in_use_do_nothing() {
        let (blocks, raised) = blocks();
        blocks.configure(2);
        for block in [2, 4, u16::MAX] {
            blocks.doorbell(block, REARM);
            blocks.event(block);
        }
        assert!(raised.0.lock().unwrap().is_empty());
        blocks.management();
        assert_eq!(*raised.0.lock().unwrap(), [2], "the management vector is behind the last block in use");
        blocks.configure(0);
        blocks.management();
        assert_eq!(raised.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn no_event_is_lost_between_two_threads() {
        let (blocks, raised) = blocks();
        const EVENTS: u64 = 100_000;
        let produced = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=EVENTS {
                    produced.store(n, Ordering::SeqCst);
                    blocks.event(0);
                }
            });
            // A driver: sleeps until an interrupt, takes what there is, enables.
            let mut seen = 0;
            let mut interrupts = 0;
            blocks.doorbell(0, REARM);
            while seen < EVENTS {
                while raised.0.lock().unwrap().len() == interrupts {
                    std::thread::yield_now();
                }
                interrupts = raised.0.lock().unwrap().len();
                seen = produced.load(Ordering::SeqCst);
                blocks.doorbell(0, REARM);
            }
        });
    }
}
