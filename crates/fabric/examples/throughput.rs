//! How fast the switch is, beside what the sockets under it can do.
//!
//! The same bytes take three ways in turn: straight through a socketpair; through two socketpairs with a thread between
//! them that copies blindly, which is the least any process in the middle does; and through a switch with two ports. Once
//! with one write a frame, as QEMU sends them, once with many frames a write. Then a 64-byte frame goes there and back.
//!
//! `cargo run --release -p fabric --example throughput [ROUNDS]`: the table shows the median of the rounds (default 5).

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fabric::{Limits, PortConfig, Switch, SwitchConfig};

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// What lies between two ends. Ends with the ends.
enum Middle {
    Nothing,
    Copy([JoinHandle<()>; 2]),
    Switch(Switch, tempfile::TempDir),
}

/// Two ends and what is between them.
type Make = fn() -> (UnixStream, UnixStream, Middle);

fn socketpair() -> (UnixStream, UnixStream, Middle) {
    let (a, b) = UnixStream::pair().expect("a socketpair");
    (a, b, Middle::Nothing)
}

fn blind_copy() -> (UnixStream, UnixStream, Middle) {
    let (a, near) = UnixStream::pair().expect("a socketpair");
    let (far, b) = UnixStream::pair().expect("a socketpair");
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
    let twins = (near.try_clone().expect("a handle"), far.try_clone().expect("a handle"));
    (a, b, Middle::Copy([copy(near, far), copy(twins.1, twins.0)]))
}

fn switch() -> (UnixStream, UnixStream, Middle) {
    let dir = tempfile::tempdir().expect("a folder");
    let port = |name: &str| PortConfig { name: name.into(), socket: dir.path().join(name), mtu: 9000 };
    let ports = vec![port("a"), port("b")];
    let config = SwitchConfig { name: "bench".into(), ports, faults: Vec::new(), seed: 1, limits: Limits::default() };
    let switch = Switch::start(config).expect("a switch");
    let plug = |name: &str| UnixStream::connect(dir.path().join(name)).expect("a port");
    let (mut a, mut b) = (plug("a"), plug("b"));
    while !switch.counters().expect("counters").iter().all(|c| c.connected) {
        std::thread::yield_now();
    }
    // Each hears the other once, so that the switch knows both.
    let hears = |from: &mut UnixStream, to: &mut UnixStream, frame: &[u8]| {
        from.write_all(frame).expect("a port takes frames");
        to.read_exact(&mut vec![0; frame.len()]).expect("frames arrive");
    };
    hears(&mut a, &mut b, &frame(B, A, 64));
    hears(&mut b, &mut a, &frame(A, B, 64));
    (a, b, Middle::Switch(switch, dir))
}

fn frame(to: [u8; 6], from: [u8; 6], len: usize) -> Vec<u8> {
    let length = u32::try_from(len).expect("a small frame").to_be_bytes();
    let mut frame = [&length[..], &to, &from, &[0x88, 0xb5]].concat();
    frame.resize(4 + len, 0x5a);
    frame
}

/// Time for `count` frames of `len` bytes to arrive, and the processor time of everybody on the way.
fn stream(make: Make, len: usize, count: usize, per_write: usize) -> (Duration, Duration) {
    let (mut a, mut b, middle) = make();
    let bytes = frame(B, A, len).repeat(per_write);
    let total = bytes.len() * (count / per_write);
    let (start, cpu) = (Instant::now(), cpu_time());
    let sender = std::thread::spawn(move || {
        for _ in 0..count / per_write {
            a.write_all(&bytes).expect("the way is open");
        }
        a
    });
    let mut left = total;
    // As much as QEMU reads at a time.
    let mut buffer = vec![0; 69_632];
    while left > 0 {
        left -= b.read(&mut buffer).expect("the way is open");
    }
    let took = (start.elapsed(), cpu_time() - cpu);
    drop((sender.join().expect("the sender ends"), b));
    end(middle);
    took
}

/// Median time of a 64-byte frame there and back.
fn round_trip(make: Make, count: usize) -> Duration {
    let (mut a, mut b, middle) = make();
    let echo = std::thread::spawn(move || {
        let (back, mut buffer) = (frame(A, B, 64), [0; 68]);
        while b.read_exact(&mut buffer).is_ok() && b.write_all(&back).is_ok() {}
    });
    let (there, mut buffer) = (frame(B, A, 64), [0; 68]);
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let start = Instant::now();
            a.write_all(&there).expect("the way is open");
            a.read_exact(&mut buffer).expect("the way is open");
            start.elapsed()
        })
        .collect();
    a.shutdown(Shutdown::Both).expect("it is open");
    drop(a);
    end(middle);
    echo.join().expect("the echo ends");
    median(&mut times)
}

fn end(middle: Middle) {
    match middle {
        Middle::Nothing => {}
        Middle::Copy(threads) => threads.into_iter().for_each(|t| t.join().expect("a copying thread ends")),
        Middle::Switch(switch, dir) => {
            let counters = switch.counters().expect("counters");
            assert_eq!(
                counters.iter().map(|c| c.drops.total()).sum::<u64>(),
                0,
                "the switch lost frames: {counters:?}"
            );
            switch.stop().expect("a switch ends");
            drop(dir);
        }
    }
}

/// Processor time of this process so far. Unlike the clock's it hardly depends on what else the machine does.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("time goes forward")
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(5, |n| n.parse().expect("a number of rounds"));
    let ways: [(&str, Make); 3] = [("socketpair", socketpair), ("blind copy", blind_copy), ("switch", switch)];
    println!("                                             of blind   CPU ns  of blind");
    println!(" bytes  per write  way          Gbit/s    frames/s  copy  a frame      copy");
    for (len, count, many) in [(64, 400_000, 1000), (1500, 100_000, 40), (9000, 40_000, 8)] {
        for per_write in [1, many] {
            // Every way in every round, so that a busy moment of the machine hits all.
            let mut times = vec![(Vec::new(), Vec::new()); ways.len()];
            for _ in 0..rounds.max(1) {
                for (way, times) in ways.iter().zip(&mut times) {
                    let (wall, cpu) = stream(way.1, len, count, per_write);
                    times.0.push(wall);
                    times.1.push(cpu);
                }
            }
            let medians: Vec<(f64, f64)> =
                times.iter_mut().map(|t| (median(&mut t.0).as_secs_f64(), median(&mut t.1).as_secs_f64())).collect();
            for ((name, _), (wall, cpu)) in ways.iter().zip(&medians) {
                let rate = count as f64 / wall;
                let gbit = rate * len as f64 * 8.0 / 1e9;
                let nanos = cpu / count as f64 * 1e9;
                let (faster, dearer) = (medians[1].0 / wall, cpu / medians[1].1);
                println!(
                    "{len:>6} {per_write:>10}  {name:<11} {gbit:>7.2} {rate:>11.0} {faster:>5.2} {nanos:>8.0} {dearer:>9.2}"
                );
            }
        }
    }
    for (name, make) in ways {
        println!("64 bytes there and back, {name}: {:?} (median)", round_trip(make, 5000));
    }
}
