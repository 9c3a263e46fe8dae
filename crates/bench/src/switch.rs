//! How fast the lab's switch is, beside the least that any process between two sockets does: copy blindly.
//!
//! The same frames, one write each as QEMU sends them, go through two socketpairs with a copying thread between them and
//! through a switch with two ports. Both are measured in this program, so its build says how much the numbers mean.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fabric::{Limits, PortConfig, Switch, SwitchConfig};

use crate::ratio::{Bound, Ratio};
use crate::samples::alternate;
use crate::{Bench, Outcome};

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
/// Frame sizes, and how many frames make one measurement.
const SIZES: [(usize, usize); 3] = [(64, 100_000), (1500, 60_000), (9000, 30_000)];
/// As much as QEMU reads at a time.
const READ: usize = 69_632;
/// How long the switch may take to see both ends.
const PLUGGED: Duration = Duration::from_secs(10);

/// Runs the benchmark.
pub(crate) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let mut ratios = Vec::new();
    for (len, count) in SIZES {
        let measure = |make: fn() -> Result<Way>| -> Result<f64> {
            bench.progress.check_cancelled()?;
            Ok(stream(make()?, len, count)? / count as f64 * 1e6)
        };
        let (ours, peer) = alternate(bench.rounds(5), |_| measure(switch), |_| measure(blind_copy))?;
        let gbit = len as f64 * 8.0 / (ours.median() * 1e3);
        ratios.push(Ratio {
            name: format!("fabric-{len}"),
            what: format!("a frame of {len} bytes through the middle"),
            unit: "us",
            ours_is: "a switch with two ports".into(),
            ours,
            peer_is: "two socketpairs and a thread that copies blindly".into(),
            peer,
            bound: Bound::None,
            notes: vec![format!("one write a frame; the switch carried {gbit:.2} Gbit/s")],
        });
    }
    Ok(Outcome::Measured(ratios))
}

/// Two ends and what lies between them.
struct Way {
    a: UnixStream,
    b: UnixStream,
    middle: Middle,
}

enum Middle {
    Copy([JoinHandle<()>; 2]),
    Switch(Switch, tempfile::TempDir),
}

fn blind_copy() -> Result<Way> {
    let (a, near) = UnixStream::pair()?;
    let (far, b) = UnixStream::pair()?;
    let copy = |mut from: UnixStream, mut to: UnixStream| {
        std::thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            // The other direction holds handles of both sockets, too. An end that is gone is shut down already.
            let _ = to.shutdown(Shutdown::Both);
        })
    };
    let twins = (near.try_clone()?, far.try_clone()?);
    Ok(Way { a, b, middle: Middle::Copy([copy(near, far), copy(twins.1, twins.0)]) })
}

fn switch() -> Result<Way> {
    let dir = tempfile::tempdir().context("cannot make a folder for sockets")?;
    let port = |name: &str| PortConfig { name: name.into(), socket: dir.path().join(name), mtu: 9000 };
    let ports = vec![port("a"), port("b")];
    let switch = Switch::start(SwitchConfig {
        name: "bench".into(),
        ports,
        faults: Vec::new(),
        seed: 1,
        limits: Limits::default(),
    })?;
    let (mut a, mut b) = (UnixStream::connect(dir.path().join("a"))?, UnixStream::connect(dir.path().join("b"))?);
    let began = Instant::now();
    while !switch.counters()?.iter().all(|port| port.connected) {
        ensure!(began.elapsed() < PLUGGED, "the switch does not see its ports connected");
        std::thread::yield_now();
    }
    // Each hears the other once, so that the switch knows both.
    introduce(&mut a, &mut b, &frame(B, A, 64))?;
    introduce(&mut b, &mut a, &frame(A, B, 64))?;
    Ok(Way { a, b, middle: Middle::Switch(switch, dir) })
}

fn introduce(from: &mut UnixStream, to: &mut UnixStream, frame: &[u8]) -> Result<()> {
    from.write_all(frame)?;
    to.read_exact(&mut vec![0; frame.len()])?;
    Ok(())
}

/// A frame as it travels: its length, then itself (local experimental EtherType, IEEE 802).
fn frame(to: [u8; 6], from: [u8; 6], len: usize) -> Vec<u8> {
    let length = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = [&length[..], &to, &from, &[0x88, 0xb5]].concat();
    frame.resize(4 + len, 0x5a);
    frame
}

/// Seconds for `count` frames of `len` bytes to arrive.
fn stream(way: Way, len: usize, count: usize) -> Result<f64> {
    let Way { mut a, mut b, middle } = way;
    let bytes = frame(B, A, len);
    let mut left = bytes.len() * count;
    let began = Instant::now();
    let sender = std::thread::spawn(move || (0..count).try_for_each(|_| a.write_all(&bytes)).map(|()| a));
    let mut buffer = vec![0; READ];
    while left > 0 {
        match b.read(&mut buffer)? {
            0 => return Err(anyhow!("the way closed with {left} bytes still to come")),
            n => left = left.saturating_sub(n),
        }
    }
    let took = began.elapsed().as_secs_f64();
    let a = sender.join().map_err(|_| anyhow!("the sender panicked"))??;
    drop((a, b));
    match middle {
        Middle::Copy(threads) => {
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a copying thread panicked"))?;
            }
        }
        Middle::Switch(switch, dir) => {
            let counters = switch.counters()?;
            let lost: u64 = counters.iter().map(|port| port.drops.total()).sum();
            ensure!(lost == 0, "the switch lost {lost} frames");
            switch.stop()?;
            drop(dir);
        }
    }
    Ok(took)
}
