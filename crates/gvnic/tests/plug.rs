//! A port on a socket, with a switch that is written out here.

mod common;
mod rings;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Bench, Driver};
use gvnic::engine::{Direction, Engine};
use gvnic::plug::{Plug, serve};
use gvnic::wire::{Frame, Port, Sent, Wire};
use gvnic::wrong::Wrong;
use rings::{Guest, Recipe, lab};
use rustix::event::{EventfdFlags, eventfd};

fn read_frame(stream: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).unwrap();
    frame
}

fn behind_length(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

/// Takes a frame if there is one.
fn take(plug: &mut Plug, into: &mut Vec<u8>) -> bool {
    let Some(frame) = plug.peek() else { return false };
    *into = frame.bytes.to_vec();
    assert_eq!(plug.peek().map(|again| again.bytes.to_vec()).as_ref(), Some(&*into), "the same until it is taken");
    plug.take();
    true
}

/// Waits for a frame as a port does.
fn receive(plug: &mut Plug, into: &mut Vec<u8>) {
    let kick = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    while !take(plug, into) {
        plug.wait(&kick, Duration::from_secs(1)).unwrap();
    }
}

fn send(plug: &mut Plug, frame: &[u8]) -> Sent {
    plug.send(Frame::new(frame))
}

#[test]
fn frames_arrive_whole_however_they_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("switch")).unwrap();
    let mut plug = Plug::new(&folder.path().join("switch"));
    let mut into = Vec::new();
    assert!(!take(&mut plug, &mut into));
    let (mut peer, _) = listener.accept().unwrap();
    for length in [0usize, 1, 14, 60, 1514, 9014, 65549] {
        let frame: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let bytes = behind_length(&frame);
        for piece in [1, 3, 4, 5, 1000, 70_000] {
            // A byte at a time is for short ones.
            for part in bytes.chunks(piece.max(length / 100 + 1)) {
                peer.write_all(part).unwrap();
                if length < 100 {
                    let _ = plug.wait(&eventfd(1, EventfdFlags::NONBLOCK).unwrap(), Duration::ZERO);
                }
            }
            receive(&mut plug, &mut into);
            assert!(into == frame, "{length} in {piece}");
        }
    }
    // One that is too long is skipped, and the next one is not.
    peer.write_all(&behind_length(&vec![1; 65550])).unwrap();
    peer.write_all(&behind_length(&[2; 64])).unwrap();
    receive(&mut plug, &mut into);
    assert_eq!((into.as_slice(), plug.lost().oversize), (&[2; 64][..], 1));
    // What is no length ends the connection.
    peer.write_all(&u32::MAX.to_be_bytes()).unwrap();
    while plug.is_connected() {
        take(&mut plug, &mut into);
    }
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(plug.lost().connections, 1);
}

#[test]
fn a_full_switch_is_no_room_and_a_missing_one_loses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("switch");
    let mut plug = Plug::new(&path);
    assert_eq!(send(&mut plug, &[0; 64]), Sent::Unplugged, "lost, as on a cable that is out");
    assert_eq!((plug.is_connected(), plug.lost().unplugged), (false, 1));
    let listener = UnixListener::bind(&path).unwrap();
    let mut plug = Plug::new(&path);
    let mut sent = 0u32;
    while send(&mut plug, &[&sent.to_be_bytes()[..], &[0; 8000]].concat()) == Sent::Taken {
        sent += 1;
        assert!(sent < 10_000, "memory is bounded");
    }
    assert_eq!(send(&mut plug, &[0; 64]), Sent::Full);
    let (mut peer, _) = listener.accept().unwrap();
    for n in 0..sent {
        assert_eq!(read_frame(&mut peer)[..4], n.to_be_bytes());
        plug.flush();
    }
    assert_eq!(send(&mut plug, &[9; 64]), Sent::Taken);
    plug.flush();
    assert_eq!(read_frame(&mut peer), [9; 64]);
}

/// A thread that serves, and how to stop it.
fn serving(bench: &Bench, path: &std::path::Path, test: impl FnOnce(&dyn Fn(), &Mutex<Vec<String>>)) {
    let mut engine = Engine::new(Arc::clone(bench.control.shared()), Plug::new(path));
    let (kick, stop) = (eventfd(0, EventfdFlags::NONBLOCK).unwrap(), AtomicBool::new(false));
    let ring = || assert_eq!(rustix::io::write(&kick, &1u64.to_ne_bytes()), Ok(8));
    let told = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let (kick, stop, told) = (&kick, &stop, &told);
        scope.spawn(move || {
            let mut wrong = |direction: Direction, queue: u16, wrong: Wrong| {
                told.lock().unwrap().push(format!("{direction} {queue}: {wrong}"));
                bench.control.request_reset();
            };
            serve(&mut engine, kick, stop, &mut wrong).unwrap();
        });
        test(&ring, told);
        stop.store(true, Ordering::Release);
        ring();
    });
}

#[test]
fn a_thread_serves_a_port_and_finds_a_new_switch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("switch");
    let listener = UnixListener::bind(&path).unwrap();
    let (bench, _) = lab(1);
    let mut driver = Driver::probe(&bench, 1);
    let (resources, mut tx, mut rx) = Guest::open(&mut driver, &bench, 1, 64);
    rx[0].post(u32::MAX);
    driver.ring(&resources[0].1, rx[0].doorbell);
    let bytes = Recipe::tcp(1000).frame();
    serving(&bench, &path, |kick, _| {
        for _ in 0..2 {
            let (mut peer, _) = listener.accept().unwrap();
            tx[0].send(&bytes, &[], None, true).unwrap();
            driver.ring(&resources[0].0, tx[0].tail);
            kick();
            assert!(read_frame(&mut peer) == bytes);
            peer.write_all(&behind_length(&bytes)).unwrap();
            loop {
                let got = rx[0].poll();
                if let Some(got) = got.first() {
                    assert!(got.split && got.frame() == bytes);
                    break;
                }
                std::thread::yield_now();
            }
            while tx[0].poll().is_empty() {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn a_wrong_ring_is_told_of_and_the_driver_asked_to_reset() {
    let folder = tempfile::tempdir().unwrap();
    let (bench, _) = lab(1);
    let mut driver = Driver::probe(&bench, 1);
    let (resources, mut tx, _) = Guest::open(&mut driver, &bench, 1, 64);
    tx[0].push([0xff; 16]);
    driver.ring(&resources[0].0, tx[0].tail);
    serving(&bench, &folder.path().join("none"), |kick, told| {
        kick();
        while !bench.control.status().reset_requested {
            std::thread::yield_now();
        }
        let said = told.lock().unwrap().clone();
        assert_eq!(said, ["TX 0: descriptor 0 is of type 0x1f, which does not exist"]);
    });
}
