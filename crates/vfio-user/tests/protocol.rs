//! What a client that knows the protocol gets.

mod common;

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::thread;

use common::*;
use vfio_user::wire::{
    DeviceInfo, Header, IrqInfo, MultiWrite, RegionAccess, RegionInfo, Version, command, device_flags, flags, irq,
    region,
};
use vfio_user::{Ended, Server};

#[test]
fn the_device_says_what_it_is() {
    let mut bench = Bench::new();
    let ask = body(|b| DeviceInfo { argsz: 16, ..Default::default() }.append(b));
    let (info, _) =
        DeviceInfo::split(&bench.client.ok(command::DEVICE_GET_INFO, &ask, &[])).map(|(i, r)| (i, r.len())).unwrap();
    assert_eq!(info, DeviceInfo { argsz: 16, flags: device_flags::RESET | device_flags::PCI, regions: 9, irqs: 5 });

    let sizes = [4096, 0, 8192, 0, 0, 1 << 18, 0, 256, 0];
    for (index, size) in (0..).zip(sizes) {
        let ask = body(|b| RegionInfo { argsz: 32, index, ..Default::default() }.append(b));
        let answer = bench.client.ok(command::DEVICE_GET_REGION_INFO, &ask, &[]);
        let flags = if size == 0 { 0 } else { 3 };
        let expected = RegionInfo { argsz: 32, flags, index, cap_offset: 0, size, offset: 0 };
        assert_eq!(RegionInfo::split(&answer), Some((expected, &[][..])));
    }
    for (index, count) in (0..).zip([0, 0, u32::from(VECTORS), 1, 0]) {
        let ask = body(|b| IrqInfo { argsz: 16, index, ..Default::default() }.append(b));
        let answer = bench.client.ok(command::DEVICE_GET_IRQ_INFO, &ask, &[]);
        let flags = [0, 0, irq::EVENTFD | irq::MASKABLE, irq::EVENTFD, 0][index as usize];
        assert_eq!(IrqInfo::split(&answer), Some((IrqInfo { argsz: 16, flags, index, count }, &[][..])));
    }
}

#[test]
fn accesses_reach_the_part_of_the_bar_they_are_for() {
    let mut bench = Bench::new();
    bench.client.write(0, 8, &[1, 2, 3, 4]);
    assert_eq!(bench.client.read(0, 7, 6), [0, 1, 2, 3, 4, 0]);
    assert_eq!(bench.log(), ["write 0 0x8 [1, 2, 3, 4]", "read 0 0x7 6"]);

    // Across the front of the table, all of it, and across its end.
    let size = u64::from(VECTORS) * 16;
    bench.client.write(2, TABLE - 2, &[0xaa, 0xbb, 0xcc, 0xdd]);
    bench.client.write(2, TABLE + size - 2, &[0x11, 0x22, 0x33, 0x44]);
    assert_eq!(bench.log(), ["write 2 0xfe [aa, bb]", "write 2 0x560 [33, 44]"]);
    assert_eq!(bench.client.read(2, TABLE - 2, 6), [0xaa, 0xbb, 0xcc, 0xdd, 0, 0]);
    // Reserved bytes of the last entry stay.
    assert_eq!(bench.client.read(2, TABLE + size - 4, 8), [1, 0, 0, 0, 0x33, 0x44, 0, 0]);
    assert_eq!(bench.log(), ["read 2 0xfe 2", "read 2 0x560 4"]);

    // Pending bits are nobody's to write, what is around them is the device's.
    bench.client.write(2, PBA - 1, &[9; 18]);
    assert_eq!(bench.log(), ["write 2 0x7ff [9]", "write 2 0x810 [9]"]);
    assert_eq!(bench.client.read(2, PBA - 1, 18), [&[9][..], &[0; 16], &[9]].concat());
    bench.log();
    // All of the BAR at once.
    assert_eq!(bench.client.read(2, 0, 8192).len(), 8192);
    assert_eq!(bench.log(), ["read 2 0x0 256", "read 2 0x560 672", "read 2 0x810 6128"]);
    // Nothing at all is nothing for the device.
    assert!(bench.client.read(0, 4096, 0).is_empty());
    bench.client.write(0, 4096, &[]);
    assert_eq!(bench.log(), Vec::<String>::new());
}

#[test]
fn the_largest_transfer_works_both_ways() {
    let mut bench = Bench::new();
    let data: Vec<u8> = (0..1 << 16).map(|n| ((n * 7) >> 3) as u8).collect();
    bench.client.write(5, 1 << 16, &data);
    assert_eq!(bench.client.read(5, 1 << 16, 1 << 16), data);
    bench.client.in_step();
}

#[test]
fn several_writes_in_one_message_are_done_in_order_or_not_at_all() {
    let mut bench = Bench::new();
    let multi = |writes: &[(u32, u64, u32, u64)]| {
        body(|b| {
            MultiWrite { count: writes.len() as u64 }.append(b);
            for &(region, offset, count, data) in writes {
                RegionAccess { offset, region, count }.append(b);
                b.extend_from_slice(&data.to_le_bytes());
            }
        })
    };
    let good = multi(&[(0, 0, 4, 0x0403_0201), (0, 2, 8, 0x0a09_0807_0605_0403), (5, 1, 1, 0xff)]);
    let answer = bench.client.ok(command::REGION_WRITE_MULTI, &good, &[]);
    assert_eq!(MultiWrite::split(&answer), Some((MultiWrite { count: 3 }, &[][..])));
    assert_eq!(bench.log(), ["write 0 0x0 [1, 2, 3, 4]", "write 0 0x2 [3, 4, 5, 6, 7, 8, 9, a]", "write 5 0x1 [ff]"]);
    for (bad, why) in [
        (multi(&[(0, 0, 4, 1), (0, 4093, 4, 1)]), "not within"),
        (multi(&[(0, 0, 4, 1), (9, 0, 4, 1)]), "there is no region 9"),
        (multi(&[(0, 0, 4, 1), (0, 0, 9, 1)]), "an access of 9 bytes"),
        (multi(&vec![(0, 0, 4, 1); 201]), "201 writes"),
        (good[..good.len() - 1].to_vec(), "not those of this command"),
        (body(|b| MultiWrite { count: u64::MAX }.append(b)), "writes in a message"),
        (body(|b| MultiWrite { count: u64::MAX / 24 + 1 }.append(b)), "writes in a message"),
    ] {
        bench.client.refused(command::REGION_WRITE_MULTI, &bad, &[]);
        assert!(bench.last_refusal().contains(why), "{} does not say {why}", bench.last_refusal());
        bench.client.in_step();
    }
    assert_eq!(bench.log(), Vec::<String>::new());
    bench.client.ok(command::REGION_WRITE_MULTI, &multi(&vec![(0, 0, 4, 1); 200]), &[]);
    assert_eq!(bench.log().len(), 200);
}

#[test]
fn nobody_is_answered_who_does_not_want_to_be() {
    let mut bench = Bench::new();
    let write = bench.client.message(command::REGION_WRITE, &write_body(0, 0, &[1]), flags::NO_REPLY);
    let wrong = bench.client.message(command::REGION_WRITE, &write_body(0, 4096, &[1]), flags::NO_REPLY);
    let unknown = bench.client.message(999, &[1, 2, 3], flags::NO_REPLY);
    bench.client.send(&[write, wrong, unknown].concat(), &[]);
    // Its answer is the first one there is.
    bench.client.in_step();
    assert_eq!(bench.log(), ["write 0 0x0 [1]"]);
    assert_eq!(bench.seen.lock().unwrap().refused.len(), 2);
}

#[test]
fn answers_give_back_the_id_and_nothing_else_of_the_header() {
    let mut bench = Bench::new();
    let body = body(|b| RegionAccess { offset: 0, region: region::CONFIG, count: 1 }.append(b));
    for id in [0, 1, 0xffff] {
        let mut bytes = Vec::new();
        // Reserved bits and an error in a question mean nothing.
        Header { id, command: command::REGION_READ, size: 32, flags: 0xffff_ffa0, error: 77 }.append(&mut bytes);
        bytes.extend_from_slice(&body);
        bench.client.send(&bytes, &[]);
        let answer = bench.client.answer().unwrap();
        let expected = Header { id, command: command::REGION_READ, size: 33, flags: flags::REPLY, error: 0 };
        assert_eq!(answer.header, expected);
    }
}

#[test]
fn messages_may_come_in_pieces_and_in_trains() {
    let mut bench = Bench::new();
    let read = |id, offset| {
        message(id, command::REGION_READ, &body(|b| RegionAccess { offset, region: 0, count: 4 }.append(b)), 0)
    };
    bench.client.write(0, 0, &[1, 2, 3, 4, 5, 6, 7, 8]);
    for byte in [read(1, 0), read(2, 4)].concat() {
        bench.client.socket.write_all(&[byte]).unwrap();
        thread::yield_now();
    }
    let bodies: Vec<_> = (0..2).map(|_| bench.client.answer().unwrap().body[16..].to_vec()).collect();
    assert_eq!(bodies, [[1, 2, 3, 4], [5, 6, 7, 8]]);

    // More than the server takes in at once, while nobody reads the answers until the end.
    let train: Vec<u8> = (0..3000u16).flat_map(|id| read(id, u64::from(id % 5))).collect();
    let mut sender = bench.client.socket.try_clone().unwrap();
    let sending = thread::spawn(move || sender.write_all(&train).unwrap());
    for id in 0..3000u16 {
        let answer = bench.client.answer().unwrap();
        assert_eq!((answer.header.id, answer.body[16]), (id, (id % 5) as u8 + 1));
    }
    sending.join().unwrap();
}

#[test]
fn descriptors_stay_with_their_message_in_a_train() {
    let mut bench = Bench::new();
    let files: Vec<_> = (0..3u8)
        .map(|n| {
            let f = memfd(4096);
            poke(&f, 0, &[n + 1]);
            f
        })
        .collect();
    // Posted writes before, between and after, so that the messages end up in the same reads, and those in odd places.
    let padding = |n: usize| message(0, command::REGION_WRITE, &write_body(5, 0, &vec![7; n]), flags::NO_REPLY);
    for filler in [1, 1000, 16_000, 16_300, 16_384, 40_000] {
        for (n, file) in files.iter().enumerate() {
            bench.client.send(&padding(filler), &[]);
            let map = vfio_user::wire::DmaMap {
                argsz: 32,
                flags: READ_WRITE,
                offset: 0,
                address: n as u64 * 4096,
                size: 4096,
            };
            let map = message(n as u16, command::DMA_MAP, &body(|b| map.append(b)), 0);
            bench.client.send(&map, &[file.as_fd()]);
        }
        bench.client.send(&padding(1), &[]);
        for n in 0..3 {
            assert_eq!(bench.client.answer().map(|a| (a.header.id, a.header.error)), Some((n, 0)));
        }
        let mut bytes = [0; 3];
        for (n, byte) in bytes.iter_mut().enumerate() {
            bench.memory.read(n as u64 * 4096, std::slice::from_mut(byte)).unwrap();
        }
        assert_eq!(bytes, [1, 2, 3], "after {filler} bytes");
        assert_eq!(bench.client.unmap(0, 3 * 4096), 0);
    }
}

#[test]
fn the_version_comes_first_and_once() {
    let mut bench = Bench::silent();
    let hello = body(|b| Version { major: 0, minor: 0 }.append(b));
    let info = body(|b| DeviceInfo { argsz: 16, ..Default::default() }.append(b));
    assert_eq!(bench.client.refused(command::DEVICE_GET_INFO, &info, &[]), 22);
    assert_eq!(bench.client.refused(command::VERSION, &body(|b| Version { major: 1, minor: 0 }.append(b)), &[]), 22);
    assert_eq!(bench.client.refused(command::DEVICE_GET_INFO, &info, &[]), 22);
    let answer = bench.client.ok(command::VERSION, &hello, &[]);
    assert_eq!(answer.last(), Some(&0));
    assert_eq!(bench.client.refused(command::VERSION, &hello, &[]), 22);
    bench.client.in_step();
    assert!(matches!(bench.end(), Ended::Closed));
}

#[test]
fn each_client_finds_the_device_reset() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nic");
    let listener = UnixListener::bind(&path).unwrap();
    let mut server = Server::new(function()).unwrap();
    let (stopper, memory, interrupts) = (server.stopper(), server.memory(), server.interrupts());
    let mut device = Registers::new(interrupts.clone());
    let seen = device.seen.clone();
    let serving = thread::spawn(move || server.serve(&listener, &mut device));
    for round in 0..20 {
        let mut client = Client::new(std::os::unix::net::UnixStream::connect(&path).unwrap());
        client.negotiate();
        assert_eq!(seen.lock().unwrap().resets, round);
        assert_eq!(memory.maps(), 0);
        assert_eq!(client.read(0, 0, 2), [0, 0]);
        assert_eq!(client.read(region::CONFIG, 4, 2), [0, 0]);
        assert_eq!(client.read(2, PBA, 8), [0; 8]);
        client.write(0, 0, &[5, 5]);
        client.write(region::CONFIG, 4, &[6, 0]);
        let file = memfd(4096);
        assert_eq!(client.map(0, 4096, READ_WRITE, Some(file.as_fd()), 0), 0);
        let fd = client.connect(3);
        interrupts.raise(3);
        assert_eq!(count(&fd), 1);
        assert_eq!(client.set_irqs(irq::DATA_NONE | irq::ACTION_MASK, 0, VECTORS.into(), &[], &[]), 0);
        interrupts.raise(4);
        if round % 2 == 0 {
            // In the midst of a message.
            client.socket.write_all(&[1, 2, 3]).unwrap();
        }
    }
    // The last one may not have been noticed yet; it does not matter to the stop.
    stopper.stop();
    serving.join().unwrap().unwrap();
    assert_eq!(memory.maps(), 0);
}

#[test]
fn a_server_stops_whatever_it_waits_for() {
    // For a client.
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("nic")).unwrap();
    let mut server = Server::new(function()).unwrap();
    let stopper = server.stopper();
    let mut device = Registers::new(server.interrupts());
    let serving = thread::spawn(move || {
        server.serve(&listener, &mut device).unwrap();
        // For good.
        server.serve(&listener, &mut device).unwrap();
    });
    stopper.stop();
    serving.join().unwrap();

    // For a message.
    let mut bench = Bench::new();
    bench.client.in_step();
    bench.stopper.stop();
    assert!(matches!(bench.ended(), Ended::Stopped));

    // For a client that takes no answers.
    let mut bench = Bench::new();
    let access = RegionAccess { offset: 0, region: 5, count: 65536 };
    let read = message(1, command::REGION_READ, &body(|b| access.append(b)), 0);
    for _ in 0..64 {
        bench.client.send(&read, &[]);
    }
    // The first of them is on its way, so the server is past the point of looking for messages.
    bench.client.answer().unwrap();
    bench.stopper.stop();
    assert!(matches!(bench.ended(), Ended::Stopped));

    // In the midst of a message too large to be kept.
    let mut bench = Bench::new();
    let mut header = Vec::new();
    Header { id: 1, command: 1, size: u32::MAX, flags: 0, error: 0 }.append(&mut header);
    bench.client.send(&header, &[]);
    bench.stopper.stop();
    assert!(matches!(bench.ended(), Ended::Stopped));
}
