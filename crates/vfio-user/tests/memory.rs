//! The guest's memory: lookups, rights, edges, and copies while maps come and go.

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::*;
use rustix::fs::{SealFlags, fcntl_get_seals, ftruncate};
use vfio_user::{Access, BadAddress, GuestMemory, Refusal};

const BOTH: Access = Access { read: true, write: true };
const READ: Access = Access { read: true, write: false };
const WRITE: Access = Access { read: false, write: true };
const PAGE: u64 = 4096;

fn dup(fd: &OwnedFd) -> Option<OwnedFd> {
    Some(fd.try_clone().unwrap())
}

/// Four pages of one file, in another order than in the file, one at the very end of the address space, then a hole, a map
/// without a file, and maps that can only be read or written.
fn memory() -> (GuestMemory, OwnedFd) {
    let file = memfd(8 * PAGE);
    let memory = GuestMemory::new();
    for (address, offset, access) in [
        (0x10_000, 3, BOTH),
        (0x11_000, 1, BOTH),
        (0x12_000, 2, BOTH),
        (0x13_000, 4, READ),
        (0x14_000, 5, WRITE),
        (u64::MAX - 0xfff, 6, BOTH),
    ] {
        memory.map(address, PAGE, access, dup(&file), offset * PAGE).unwrap();
    }
    memory.map(0x20_000, PAGE, BOTH, None, 0).unwrap();
    (memory, file)
}

#[test]
fn accesses_go_where_the_maps_say() {
    let (memory, file) = memory();
    let bytes: Vec<u8> = (0..3 * PAGE).map(|n| (n / 16) as u8 ^ n as u8).collect();
    memory.write(0x10_000, &bytes).unwrap();
    let page = |n: u64| peek(&file, n * PAGE, PAGE as usize);
    assert_eq!([page(3), page(1), page(2)].concat(), bytes);
    assert_eq!(page(0), [0; 4096]);
    let mut back = vec![0; bytes.len()];
    memory.read(0x10_000, &mut back).unwrap();
    assert_eq!(back, bytes);
    // Every way to lie across an edge, and every width that is one access, aligned or not.
    for length in [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 64] {
        for address in 0x11_000 - length - 1..0x11_000 + length + 1 {
            let value: Vec<u8> = (0..length).map(|n| (n + address) as u8).collect();
            memory.write(address, &value).unwrap();
            let mut back = vec![0; length as usize];
            memory.read(address, &mut back).unwrap();
            assert_eq!(back, value, "{length} at {address:#x}");
        }
    }
    // The last byte there is.
    memory.write(u64::MAX, &[77]).unwrap();
    assert_eq!(peek(&file, 7 * PAGE - 1, 1), [77]);
    // What others wrote is seen.
    poke(&file, 3 * PAGE, &[1, 2, 3, 4]);
    let mut word = [0; 4];
    memory.read(0x10_000, &mut word).unwrap();
    assert_eq!(word, [1, 2, 3, 4]);
}

#[test]
fn a_refused_access_has_touched_nothing() {
    let (memory, file) = memory();
    let before = peek(&file, 0, 8 * PAGE as usize);
    let cases: [(u64, usize, bool, bool); 17] = [
        // Address, length, readable, writable.
        (0x10_000, 0x3000, true, true),
        (0x10_000, 0x4000, true, false),
        (0x10_000, 0x4001, false, false),
        (0xffff, 1, false, false),
        (0xffff, 2, false, false),
        (0x12_fff, 2, true, false),
        (0x13_fff, 1, true, false),
        (0x13_fff, 2, false, false),
        (0x14_000, 1, false, true),
        (0x14_fff, 2, false, false),
        (0x15_000, 1, false, false),
        (0x20_000, 1, false, false),
        (0, 1, false, false),
        (u64::MAX - 0xfff, 0x1000, true, true),
        (u64::MAX - 0xfff, 0x1001, false, false),
        (u64::MAX, 2, false, false),
        (u64::MAX, 1 << 20, false, false),
    ];
    for (address, length, readable, writable) in cases {
        let bad = Err(BadAddress { address, length });
        let mut into = vec![0xee; length];
        let expected = if readable { Ok(()) } else { bad };
        assert_eq!(memory.read(address, &mut into), expected, "read {length:#x} at {address:#x}");
        assert_eq!(into.contains(&0xee), !readable);
        // Zeros over zeros where it is allowed.
        let from = vec![if writable { 0 } else { 0xdd }; length];
        let expected = if writable { Ok(()) } else { bad };
        assert_eq!(memory.write(address, &from), expected, "write {length:#x} at {address:#x}");
        for last in [0, length / 2, length - 1] {
            assert_eq!(memory.publish(address, &from, last), expected);
        }
        assert_eq!(memory.view().is_writable(address, length), writable);
    }
    assert_eq!(peek(&file, 0, 8 * PAGE as usize), before);
    // Nothing is everywhere.
    assert_eq!(
        (memory.read(0, &mut []), memory.write(u64::MAX, &[]), memory.publish(5, &[], 0)),
        (Ok(()), Ok(()), Ok(()))
    );
}

#[test]
fn publishing_writes_all_of_it_wherever_the_last_byte_is() {
    let (memory, _file) = memory();
    for address in [0x10_000, 0x10_003, 0x11_000 - 16, 0x12_000 - 1] {
        for last in 0..34 {
            let value: Vec<u8> = (0..32).map(|n| n + last as u8).collect();
            memory.publish(address, &value, last).unwrap();
            let mut back = [0; 32];
            memory.read(address, &mut back).unwrap();
            assert_eq!(back[..], value, "last {last} at {address:#x}");
        }
    }
}

/// Between two looks: quick while the other one runs too, and out of its way if it does not.
fn wait_a_little(looks: &mut u32) {
    *looks += 1;
    if looks.is_multiple_of(64) { thread::yield_now() } else { std::hint::spin_loop() }
}

#[test]
fn whoever_sees_the_published_byte_sees_the_rest() {
    // In two pieces, and in one of whole words.
    in_order(PAGE - 16);
    in_order(0);
}

fn in_order(address: u64) {
    const ROUNDS: u64 = 5000;
    // Much longer than a descriptor, so that an order that is wrong has time to be seen.
    const LENGTH: usize = 4096;
    let file = memfd(2 * PAGE);
    let (memory, guest) = (GuestMemory::new(), GuestMemory::new());
    // In the midst of it a page ends, and the next one is elsewhere.
    for memory in [&memory, &guest] {
        memory.map(0, PAGE, BOTH, dup(&file), PAGE).unwrap();
        memory.map(PAGE, PAGE, BOTH, dup(&file), 0).unwrap();
    }
    let last = 14;
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut looks = 0;
            for round in 1..=ROUNDS {
                let byte = (round % 255) as u8 + 1;
                memory.publish(address, &[byte; LENGTH], last).unwrap();
                while done.load(Ordering::Acquire) < round {
                    wait_a_little(&mut looks);
                }
            }
        });
        let (mut seen, mut looks) = ([0; LENGTH], 0);
        for round in 1..=ROUNDS {
            let (mut byte, expected) = ([0], (round % 255) as u8 + 1);
            while byte[0] != expected {
                guest.read(address + last as u64, &mut byte).unwrap();
                wait_a_little(&mut looks);
            }
            std::sync::atomic::fence(Ordering::Acquire);
            guest.read(address, &mut seen).unwrap();
            // Told before it is judged, or the other thread would wait for ever.
            let whole = seen == [expected; LENGTH];
            done.store(if whole { round } else { u64::MAX }, Ordering::Release);
            assert!(whole, "round {round}");
        }
    });
}

#[test]
fn maps_do_not_overlap_and_unmaps_do_not_cut() {
    let memory = GuestMemory::new();
    let file = memfd(16 * PAGE);
    let map = |first: u64, pages: u64| memory.map(first * PAGE, pages * PAGE, BOTH, dup(&file), 0);
    map(4, 2).unwrap();
    map(8, 2).unwrap();
    for (first, pages, fits) in [
        (3, 1, true),
        (3, 2, false),
        (5, 1, false),
        (6, 2, true),
        (6, 3, false),
        (9, 9, false),
        (0, 16, false),
        (4, 2, false),
    ] {
        let result = map(first, pages);
        if fits {
            result.unwrap();
            memory.unmap(first * PAGE, pages * PAGE).unwrap();
        } else {
            assert!(matches!(result, Err(Refusal::Mapped { .. })), "{first} {pages}: {result:?}");
        }
    }
    for (first, pages, rest) in [
        (4, 1, None),
        (5, 1, None),
        (3, 2, None),
        (5, 4, None),
        (6, 2, Some(2)),
        (4, 5, None),
        (3, 4, Some(1)),
        (0, 100, Some(0)),
    ] {
        let result = memory.unmap(first * PAGE, pages * PAGE);
        match rest {
            Some(rest) => assert_eq!((result.is_ok(), memory.maps()), (true, rest)),
            None => assert!(matches!(result, Err(Refusal::CutsMap { .. })), "{first} {pages}: {result:?}"),
        }
    }
}

#[test]
fn a_file_is_mapped_once_and_as_long_as_it_is_needed() {
    let mappings = |name: &str| {
        std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains(name)).count()
    };
    let file = rustix::fs::memfd_create("only-here", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 1024 * PAGE).unwrap();
    let memory = GuestMemory::new();
    for page in 0..1024 {
        memory.map(page * PAGE * 2, PAGE, BOTH, dup(&file), page * PAGE).unwrap();
    }
    assert_eq!((memory.maps(), mappings("only-here")), (1024, 1));
    // One that grew needs another mapping; what was there keeps its own.
    ftruncate(&file, 1025 * PAGE).unwrap();
    memory.map(1 << 40, PAGE, BOTH, dup(&file), 1024 * PAGE).unwrap();
    assert_eq!(mappings("only-here"), 2);
    memory.write(1 << 40, &[1]).unwrap();
    memory.unmap(0, 1 << 40).unwrap();
    assert_eq!((memory.maps(), mappings("only-here")), (1, 1));
    memory.clear();
    assert_eq!((memory.maps(), mappings("only-here")), (0, 0));
}

#[test]
fn a_file_that_can_be_sealed_does_not_shrink_any_more() {
    let memory = GuestMemory::new();
    let file = memfd(4 * PAGE);
    memory.map(0, 4 * PAGE, BOTH, dup(&file), 0).unwrap();
    assert!(fcntl_get_seals(&file).unwrap().contains(SealFlags::SHRINK));
    assert!(ftruncate(&file, 0).is_err());
    memory.write(3 * PAGE, &[1; 4096]).unwrap();
    // A file nobody can write is no reason to fail, if nobody means to.
    let sealed = memfd(PAGE);
    rustix::fs::fcntl_add_seals(&sealed, SealFlags::WRITE).unwrap();
    assert!(matches!(memory.map(1 << 30, PAGE, BOTH, dup(&sealed), 0), Err(Refusal::FileAccess)));
    memory.map(1 << 30, PAGE, READ, dup(&sealed), 0).unwrap();
    memory.read(1 << 30, &mut [0; 8]).unwrap();
}

#[test]
fn after_an_unmap_nobody_is_copying_any_more() {
    const FRAME: usize = 8896;
    let file = memfd(64 * PAGE);
    let mut bench = Bench::new();
    let memory: Arc<GuestMemory> = bench.memory.clone();
    let quiet = vec![0x5a; 64 * PAGE as usize];
    let stop = AtomicBool::new(false);
    let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for n in 0..2u64 {
            let (memory, stop, hits, misses) = (&memory, &stop, &hits, &misses);
            scope.spawn(move || {
                let (mut frame, mut turn) = ([0; FRAME], n);
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let address = (turn * 4099) % (70 * PAGE);
                    let done = match turn % 3 {
                        0 => memory.read(address, &mut frame),
                        1 => memory.write(address, &frame),
                        _ => memory.publish(address, &frame[..32], 14),
                    };
                    if done.is_ok() { hits } else { misses }.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..12 {
            let half = 32 * PAGE;
            for (address, offset) in [(0, half), (half, 0)] {
                assert_eq!(bench.client.map(address, half, READ_WRITE, Some(file.as_fd()), offset), 0);
            }
            let goal = hits.load(Ordering::Relaxed) + 10;
            while hits.load(Ordering::Relaxed) < goal {
                thread::yield_now();
            }
            if round % 2 == 0 {
                assert_eq!(bench.client.unmap(0, half), 0);
                assert_eq!(bench.client.unmap(half, half), 0);
            } else {
                assert_eq!(bench.client.unmap(0, 1 << 40), 0);
            }
            // After the answer nobody is in there any more: a copy that was still under way would leave its traces.
            poke(&file, 0, &quiet);
            let goal = misses.load(Ordering::Relaxed) + 10;
            while misses.load(Ordering::Relaxed) < goal {
                thread::yield_now();
            }
            assert_eq!(memory.maps(), 0);
            assert!(peek(&file, 0, quiet.len()) == quiet, "written after it was unmapped");
        }
        stop.store(true, Ordering::Relaxed);
    });
}
