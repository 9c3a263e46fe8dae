//! A port on a socket, with a switch that is written out here.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Driver, RxRing, TxRing, bench, config, tcp4};
use gvnic::config::PortConfig;
use gvnic::plug::{Plug, serve};
use gvnic::port::{Port, Wire};
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

/// Waits for a frame as a port does.
fn receive(plug: &mut Plug, into: &mut Vec<u8>) {
    let kick = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    while !plug.receive(into) {
        plug.wait(&kick, Duration::from_secs(1)).unwrap();
    }
}

#[test]
fn frames_arrive_whole_however_they_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("switch")).unwrap();
    let mut plug = Plug::new(&folder.path().join("switch"));
    let mut into = Vec::new();
    assert!(!plug.receive(&mut into));
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
        plug.receive(&mut into);
    }
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(plug.lost().connections, 1);
}

#[test]
fn a_full_switch_is_no_room_and_a_missing_one_loses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("switch");
    let mut plug = Plug::new(&path);
    assert!(plug.send(&[0; 64]), "lost, as on a cable that is out");
    assert_eq!((plug.is_connected(), plug.lost().unplugged), (false, 1));
    let listener = UnixListener::bind(&path).unwrap();
    let mut plug = Plug::new(&path);
    let mut sent = 0u32;
    while plug.send(&[&sent.to_be_bytes()[..], &[0; 8000]].concat()) {
        sent += 1;
        assert!(sent < 10_000, "memory is bounded");
    }
    assert!(!plug.send(&[0; 64]));
    let (mut peer, _) = listener.accept().unwrap();
    for n in 0..sent {
        assert_eq!(read_frame(&mut peer)[..4], n.to_be_bytes());
        plug.flush();
    }
    assert!(plug.send(&[9; 64]));
    plug.flush();
    assert_eq!(read_frame(&mut peer), [9; 64]);
}

#[test]
fn a_thread_serves_a_port_and_finds_a_new_switch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("switch");
    let listener = UnixListener::bind(&path).unwrap();
    let bench = bench(PortConfig { queue_pairs: 1, ..config() });
    let mut driver = Driver::probe(&bench, 1);
    let (tx, rx) = (driver.rings(64), driver.rings(64));
    assert_eq!((driver.execute(driver.create_tx(0, &tx)), driver.execute(driver.create_rx(0, &rx, 128))), (1, 1));
    let (mut tx, mut rx) = (TxRing::new(&driver, tx), RxRing::new(&driver, rx));
    let tail = rx.post();
    driver.ring(&rx.ring, tail);
    let at = bench.ram.alloc(4096);
    let bytes = tcp4(1000, 0);
    bench.ram.poke(at, &bytes);
    let mut port = Port::new(Arc::clone(bench.control.shared()), Plug::new(&path));
    let (kick, stop) = (eventfd(0, EventfdFlags::NONBLOCK).unwrap(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&mut port, &kick, &stop).unwrap());
        for round in 0..2 {
            let (mut peer, _) = listener.accept().unwrap();
            tx.add(at, bytes.len(), round, 4096, None);
            driver.ring(&tx.ring, tx.tail);
            rustix::io::write(&kick, &1u64.to_ne_bytes()).unwrap();
            assert!(read_frame(&mut peer) == bytes);
            peer.write_all(&behind_length(&bytes)).unwrap();
            loop {
                let got = rx.poll();
                if let Some(got) = got.first() {
                    assert!(got.split && got.bytes() == bytes);
                    break;
                }
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Release);
        rustix::io::write(&kick, &1u64.to_ne_bytes()).unwrap();
    });
}
