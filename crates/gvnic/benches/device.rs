//! How many frames a port moves: from TX buffers of a guest to RX buffers, against one memcpy of the same bytes between the
//! same buffers in the same run.
//!
//! `cargo bench -p gvnic` prints a line for each case. Only the device's processor time counts, so that a machine that does
//! something else as well does not spoil the numbers. A frame is copied three times (out of the
//! guest, over the wire, into the guest) and summed twice, as checksums are filled in and verified.

#[path = "../tests/common/mod.rs"]
mod common;

use std::cell::UnsafeCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Driver, Raised, Ram, Ring, Wakes, config, tcp4};
use gvnic::bus::{BadAddress, Interrupts, Memory};
use gvnic::config::PortConfig;
use gvnic::control::{Control, Datapath};
use gvnic::port::{Loop, Pair, Port, Wire};

/// Where the large memory begins on the bus; below is what the driver's commands use.
const LARGE: u64 = 1 << 32;
const RING: u16 = 1024;
/// Frames in a burst.
const BURST: usize = 128;
const TX_BUFFER: u64 = 16384;
const RX_BUFFER: u64 = 4096;
const TX_RING: u64 = LARGE;
const TX_DONE: u64 = LARGE + (64 << 10);
const RX_RING: u64 = LARGE + (128 << 10);
const RX_DONE: u64 = LARGE + (192 << 10);
const RX_HEADERS: u64 = LARGE + (256 << 10);
const RX_BUFFERS: u64 = LARGE + (1 << 20);
const TX_BUFFERS: u64 = RX_BUFFERS + RING as u64 * RX_BUFFER;
const SIZE: usize = (TX_BUFFERS - LARGE) as usize + RING as usize / 2 * TX_BUFFER as usize;
const RUN: Duration = Duration::from_millis(250);

/// What this thread has used of a processor.
fn used() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Memory without a lock, which the bench uses from one thread; and the small one for everything else.
struct Large {
    bytes: Box<[UnsafeCell<u8>]>,
    ram: Arc<Ram>,
}

// SAFETY: one thread uses it.
unsafe impl Sync for Large {}
// SAFETY: the same.
unsafe impl Send for Large {}

impl Large {
    fn at(&self, address: u64, length: usize) -> Option<*mut u8> {
        let start = usize::try_from(address.checked_sub(LARGE)?).ok()?;
        self.bytes.get(start..start.checked_add(length)?).map(|cells| cells.as_ptr() as *mut u8)
    }
}

impl Memory for Large {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
        match self.at(address, into.len()) {
            // SAFETY: `at` has checked the bounds, and nobody else is there.
            Some(from) => unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) },
            None => self.ram.read(address, into)?,
        }
        Ok(())
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), BadAddress> {
        match self.at(address, from.len()) {
            // SAFETY: `at` has checked the bounds, and nobody else is there.
            Some(to) => unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) },
            None => self.ram.write(address, from)?,
        }
        Ok(())
    }

    fn publish(&self, address: u64, from: &[u8], _generation_at: usize) -> Result<(), BadAddress> {
        self.write(address, from)?;
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        Ok(())
    }
}

/// A guest whose rings are filled once: buffers come back in order, so that only tails move.
struct Guest {
    bench: Bench,
    memory: Arc<Large>,
    tx: Ring,
    rx: Ring,
    tx_tail: u32,
    rx_tail: u32,
}

impl Guest {
    fn new(frame: &[u8], header: u16) -> Guest {
        let ram = Arc::new(Ram::new(1 << 20));
        let bytes = vec![0u8; SIZE].into_iter().map(UnsafeCell::new).collect();
        let memory = Arc::new(Large { bytes, ram: Arc::clone(&ram) });
        let (raised, wakes) = (Arc::new(Raised::default()), Arc::new(Wakes::default()));
        let control = Control::new(
            PortConfig { queue_pairs: 1, ..config() },
            Arc::clone(&memory) as Arc<dyn Memory>,
            Arc::clone(&raised) as Arc<dyn Interrupts>,
            Arc::clone(&wakes) as Arc<dyn Datapath>,
        )
        .unwrap();
        let bench = Bench { control, ram, raised, wakes };
        let resources = [bench.ram.alloc(64), bench.ram.alloc(64)];
        let tx = Ring { resources: resources[0], ring: TX_RING, completions: TX_DONE, size: RING };
        let rx = Ring { resources: resources[1], ring: RX_RING, completions: RX_DONE, size: RING };
        let mut driver = Driver::probe(&bench, 1);
        assert_eq!(driver.execute(driver.create_tx(0, &tx)), 1);
        assert_eq!(driver.execute(driver.create_rx(0, &rx, header)), 1);
        for n in 0..u64::from(RING) {
            let mut buffer = [0; 32];
            buffer[..2].copy_from_slice(&(n as u16).to_le_bytes());
            buffer[8..16].copy_from_slice(&(RX_BUFFERS + n * RX_BUFFER).to_le_bytes());
            buffer[16..24].copy_from_slice(&(RX_HEADERS + n * 128).to_le_bytes());
            memory.write(RX_RING + n * 32, &buffer).unwrap();
        }
        for n in 0..u64::from(RING) / 2 {
            let at = TX_BUFFERS + n * TX_BUFFER;
            memory.write(at, frame).unwrap();
            let (mut context, mut piece) = ([0; 16], [0; 16]);
            context[8] = 4;
            piece[..8].copy_from_slice(&at.to_le_bytes());
            piece[8] = 0xc | 1 << 5 | 1 << 6 | u8::from(n % 16 == 0) << 7;
            piece[14..].copy_from_slice(&(frame.len() as u16).to_le_bytes());
            memory.write(TX_RING + n * 32, &context).unwrap();
            memory.write(TX_RING + n * 32 + 16, &piece).unwrap();
        }
        Guest { bench, memory, tx, rx, tx_tail: 0, rx_tail: 0 }
    }

    fn bell(&self, ring: &Ring, tail: u32) {
        let index = self.bench.ram.peek32(ring.resources);
        self.bench.control.write_doorbell(u64::from(index) * 4, &tail.to_le_bytes());
    }

    fn send(&mut self) {
        self.tx_tail = (self.tx_tail + 2 * BURST as u32) % u32::from(RING);
        self.bell(&self.tx, self.tx_tail);
    }

    fn post(&mut self, buffers: usize) {
        self.rx_tail = (self.rx_tail + buffers as u32) % u32::from(RING);
        self.bell(&self.rx, self.rx_tail);
    }
}

/// Frames a second of one memcpy each, between the same buffers.
fn memcpy(guest: &Guest, length: usize, buffers: usize) -> f64 {
    let (mut done, mut to) = (0usize, 0u64);
    let start = used();
    while used() - start < RUN {
        for n in 0..BURST {
            let from = TX_BUFFERS + ((done + n) % (usize::from(RING) / 2)) as u64 * TX_BUFFER;
            for piece in 0..buffers {
                let at = piece * RX_BUFFER as usize;
                let size = (length - at).min(RX_BUFFER as usize);
                let target = RX_BUFFERS + to * RX_BUFFER;
                let (from, target) = (guest.memory.at(from + at as u64, size), guest.memory.at(target, size));
                if let (Some(from), Some(target)) = (from, target) {
                    // SAFETY: both were checked and are different buffers.
                    unsafe { std::ptr::copy_nonoverlapping(black_box(from), black_box(target), size) };
                }
                to = (to + 1) % u64::from(RING);
            }
        }
        done += BURST;
    }
    done as f64 / (used() - start).as_secs_f64()
}

fn report(what: &str, length: usize, header: u16, rate: f64, copied: f64) {
    let split = if header > 0 { "split" } else { "whole" };
    println!(
        "{what:<5} {length:>5} B {split}  {:>7.2} Gbit/s  {:>6.3} Mpps  {:>6.1} ns  {:>5.3} of memcpy ({:.1} Gbit/s)",
        rate * length as f64 * 8e-9,
        rate * 1e-6,
        1e9 / rate,
        rate / copied,
        copied * length as f64 * 8e-9,
    );
}

fn drive(sender: &mut Guest, receiver: &mut Option<Guest>, buffers: usize, mut run: impl FnMut()) -> f64 {
    let (mut spent, mut bursts) = (Duration::ZERO, 0);
    receiver.as_mut().unwrap_or(sender).post(usize::from(RING) - 32);
    while spent < RUN {
        sender.send();
        let start = used();
        run();
        spent += used() - start;
        receiver.as_mut().unwrap_or(sender).post(buffers * BURST);
        bursts += 1;
    }
    let guest = receiver.as_ref().unwrap_or(sender);
    assert_eq!(guest.bench.control.status().rx[0].frames.frames, (bursts * BURST) as u64, "every frame arrived");
    (bursts * BURST) as f64 / spent.as_secs_f64()
}

fn drain<W: Wire>(port: &mut Port<W>) {
    while port.run_once(256) {}
}

fn main() {
    for length in [64usize, 1448, 8896] {
        for header in [128u16, 0] {
            let frame = tcp4(length - 54, 0);
            let payload = if header > 0 { length - 54 } else { length };
            let buffers = payload.div_ceil(RX_BUFFER as usize);
            let mut guest = Guest::new(&frame, header);
            let copied = memcpy(&guest, length, buffers);
            let mut port = Port::new(Arc::clone(guest.bench.control.shared()), Loop::new(1024));
            let rate = drive(&mut guest, &mut None, buffers, || drain(&mut port));
            report("loop", length, header, rate, copied);

            let (mut left, mut right) = (Guest::new(&frame, header), Some(Guest::new(&frame, header)));
            let (a, b) = Pair::new(1024);
            let mut port_a = Port::new(Arc::clone(left.bench.control.shared()), a);
            let shared_b = right.as_ref().map(|guest| Arc::clone(guest.bench.control.shared())).unwrap();
            let mut port_b = Port::new(shared_b, b);
            let rate = drive(&mut left, &mut right, buffers, || {
                drain(&mut port_a);
                drain(&mut port_b);
            });
            report("pair", length, header, rate, copied);
        }
    }
}
