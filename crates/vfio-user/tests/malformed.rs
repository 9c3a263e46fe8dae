//! Messages that are wrong in one field each: refused with an error answer, and the stream in step after it.

mod common;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use common::*;
use vfio_user::Ended;
use vfio_user::wire::{
    DeviceInfo, DmaMap, DmaUnmap, Header, IrqInfo, IrqSet, MAX_MESSAGE, RegionAccess, RegionInfo, Version, command,
    dma, flags, irq,
};

const INVAL: u32 = 22;
const EXIST: u32 = 17;
const TOOBIG: u32 = 7;
const NOTSUP: u32 = 95;
const ACCESS: u32 = 13;

struct Case {
    command: u16,
    body: Vec<u8>,
    fds: usize,
    errno: u32,
    why: &'static str,
}

fn case(command: u16, body: Vec<u8>, errno: u32, why: &'static str) -> Case {
    Case { command, body, fds: 0, errno, why }
}

fn map(change: impl FnOnce(&mut DmaMap)) -> Vec<u8> {
    let mut map = DmaMap { argsz: 32, flags: READ_WRITE, offset: 0, address: 0x10_0000, size: 0x1000 };
    change(&mut map);
    body(|b| map.append(b))
}

fn unmap(change: impl FnOnce(&mut DmaUnmap)) -> Vec<u8> {
    let mut unmap = DmaUnmap { argsz: 24, flags: 0, address: 0, size: 0x4000 };
    change(&mut unmap);
    body(|b| unmap.append(b))
}

fn irqs(data: &[u8], change: impl FnOnce(&mut IrqSet)) -> Vec<u8> {
    let flags = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
    let mut set = IrqSet { argsz: 20 + data.len() as u32, flags, index: irq::MSIX, start: 0, count: 1 };
    change(&mut set);
    body(|b| {
        set.append(b);
        b.extend_from_slice(data);
    })
}

fn access(offset: u64, region: u32, count: u32, data: &[u8]) -> Vec<u8> {
    body(|b| {
        RegionAccess { offset, region, count }.append(b);
        b.extend_from_slice(data);
    })
}

/// Wrong in one thing each. There are four pages at 0 and eventfds that come along.
fn cases() -> Vec<Case> {
    use command::*;
    let info = |argsz| body(|b| DeviceInfo { argsz, ..Default::default() }.append(b));
    let region = |argsz, index| body(|b| RegionInfo { argsz, index, ..Default::default() }.append(b));
    let irq_info = |argsz, index| body(|b| IrqInfo { argsz, index, ..Default::default() }.append(b));
    let with = |fds, case: Case| Case { fds, ..case };
    vec![
        // Commands.
        case(0, vec![], NOTSUP, "command 0 is unknown"),
        case(11, vec![0; 16], NOTSUP, "command 11 is unknown"),
        case(14, vec![1; 100], NOTSUP, "command 14 is unknown"),
        case(16, vec![0; 8], NOTSUP, "command 16 is unknown"),
        case(u16::MAX, vec![3; 65_552], NOTSUP, "command 65535 is unknown"),
        case(DEVICE_GET_REGION_IO_FDS, vec![0; 16], NOTSUP, "is not supported"),
        with(1, case(0, vec![1, 2], INVAL, "1 file descriptors")),
        case(VERSION, body(|b| Version::default().append(b)), INVAL, "once"),
        // Descriptors where none belong.
        with(1, case(DEVICE_GET_INFO, info(16), INVAL, "1 file descriptors came along, not 0")),
        with(16, case(DEVICE_RESET, vec![], INVAL, "16 file descriptors came along, not 0")),
        with(1, case(REGION_READ, access(0, 0, 4, &[]), INVAL, "1 file descriptors")),
        with(1, case(DMA_UNMAP, unmap(|_| ()), INVAL, "1 file descriptors")),
        with(17, case(REGION_READ, access(0, 0, 4, &[]), INVAL, "more than 16")),
        with(17, case(DMA_MAP, map(|_| ()), INVAL, "more than 16")),
        with(200, case(DEVICE_SET_IRQS, irqs(&[], |s| s.count = 17), INVAL, "more than 16")),
        // Questions.
        case(DEVICE_GET_INFO, info(15), INVAL, "argsz is 15"),
        case(DEVICE_GET_INFO, info(16)[..15].to_vec(), INVAL, "the body has 15 bytes"),
        case(DEVICE_GET_INFO, [info(16), vec![0]].concat(), INVAL, "the body has 17 bytes"),
        case(DEVICE_GET_INFO, vec![], INVAL, "the body has 0 bytes"),
        case(DEVICE_GET_REGION_INFO, region(31, 0), INVAL, "argsz is 31"),
        case(DEVICE_GET_REGION_INFO, region(32, 9), INVAL, "no region 9"),
        case(DEVICE_GET_REGION_INFO, region(32, u32::MAX), INVAL, "no region 4294967295"),
        case(DEVICE_GET_REGION_INFO, region(32, 0)[..31].to_vec(), INVAL, "the body has 31 bytes"),
        case(DEVICE_GET_IRQ_INFO, irq_info(15, 2), INVAL, "argsz is 15"),
        case(DEVICE_GET_IRQ_INFO, irq_info(16, 5), INVAL, "no interrupt of kind 5"),
        case(DEVICE_GET_IRQ_INFO, irq_info(16, 2)[..3].to_vec(), INVAL, "the body has 3 bytes"),
        case(DEVICE_RESET, vec![0], INVAL, "the body has 1 bytes"),
        // Accesses.
        case(REGION_READ, access(0, 0, 4, &[])[..15].to_vec(), INVAL, "the body has 15 bytes"),
        case(REGION_READ, access(0, 0, 4, &[0]), INVAL, "the body has 17 bytes"),
        case(REGION_READ, access(0, 9, 4, &[]), INVAL, "no region 9"),
        case(REGION_READ, access(0, 1, 1, &[]), INVAL, "within the 0x0 bytes of region 1"),
        case(REGION_READ, access(0, 3, 1, &[]), INVAL, "within the 0x0 bytes of region 3"),
        case(REGION_READ, access(0, 6, 1, &[]), INVAL, "region 6"),
        case(REGION_READ, access(0, 8, 1, &[]), INVAL, "region 8"),
        case(REGION_READ, access(4093, 0, 4, &[]), INVAL, "4 bytes at 0xffd"),
        case(REGION_READ, access(253, 7, 4, &[]), INVAL, "4 bytes at 0xfd"),
        case(REGION_READ, access(u64::MAX, 0, 1, &[]), INVAL, "at 0xffffffffffffffff"),
        case(REGION_READ, access(u64::MAX, 0, 0, &[]), INVAL, "at 0xffffffffffffffff"),
        case(REGION_READ, access(0, 5, 65537, &[]), TOOBIG, "an access of 65537 bytes"),
        case(REGION_READ, access(0, 5, u32::MAX, &[]), TOOBIG, "an access of 4294967295 bytes"),
        case(REGION_WRITE, access(0, 0, 4, &[1, 2, 3]), INVAL, "the body has 19 bytes"),
        case(REGION_WRITE, access(0, 0, 2, &[1, 2, 3]), INVAL, "the body has 19 bytes"),
        case(REGION_WRITE, access(0, 0, u32::MAX, &[1]), INVAL, "the body has 17 bytes"),
        case(REGION_WRITE, access(0, 0, 1, &[1])[..7].to_vec(), INVAL, "the body has 7 bytes"),
        case(REGION_WRITE, access(4095, 0, 2, &[1, 2]), INVAL, "2 bytes at 0xfff"),
        case(REGION_WRITE, access(256, 7, 1, &[1]), INVAL, "1 bytes at 0x100"),
        case(REGION_WRITE, access(u64::MAX - 1, 2, 4, &[1; 4]), INVAL, "4 bytes at 0xffff"),
        case(REGION_WRITE, access(0, 10, 1, &[1]), INVAL, "no region 10"),
        case(REGION_WRITE, access(0, 5, 70_000, &[0; 70_000]), TOOBIG, "a message of 70032 bytes"),
        // Maps.
        with(1, case(DMA_MAP, map(|m| m.argsz = 31), INVAL, "argsz is 31")),
        with(1, case(DMA_MAP, map(|m| m.flags = 0), INVAL, "flags 0x0")),
        with(1, case(DMA_MAP, map(|m| m.flags = 7), INVAL, "flags 0x7")),
        with(1, case(DMA_MAP, map(|m| m.offset = 1), INVAL, "not whole pages")),
        with(1, case(DMA_MAP, map(|m| m.address = 0x10_0800), INVAL, "not whole pages")),
        with(1, case(DMA_MAP, map(|m| m.size = 0), INVAL, "not whole pages")),
        with(1, case(DMA_MAP, map(|m| m.size = 100), INVAL, "not whole pages")),
        with(1, case(DMA_MAP, map(|m| m.address = u64::MAX - 0xfff), INVAL, "not a file")),
        with(1, case(DMA_MAP, map(|m| (m.address, m.size) = (1 << 63, (1 << 63) + 4096)), INVAL, "not whole pages")),
        with(1, case(DMA_MAP, map(|m| m.offset = u64::MAX - 0xfff), INVAL, "not whole pages")),
        with(1, case(DMA_MAP, map(|m| m.address = 0x3000), INVAL, "not a file")),
        with(2, case(DMA_MAP, map(|_| ()), INVAL, "2 file descriptors")),
        with(1, case(DMA_MAP, map(|_| ()), INVAL, "not a file that can be mapped")),
        case(DMA_MAP, map(|m| m.address = 0x3000), EXIST, "mapped already"),
        case(DMA_MAP, map(|m| (m.address, m.size) = (0, 1 << 30)), EXIST, "mapped already"),
        case(DMA_MAP, map(|_| ())[..31].to_vec(), INVAL, "the body has 31 bytes"),
        case(DMA_UNMAP, unmap(|u| u.argsz = 23), INVAL, "argsz is 23"),
        case(DMA_UNMAP, unmap(|u| u.flags = dma::UNMAP_DIRTY_BITMAP), NOTSUP, "which pages were written"),
        case(DMA_UNMAP, unmap(|u| u.flags = 3), NOTSUP, "which pages were written"),
        case(DMA_UNMAP, unmap(|u| u.flags = 4), INVAL, "flags 0x4"),
        case(DMA_UNMAP, unmap(|u| u.size = 0), INVAL, "not whole pages"),
        case(DMA_UNMAP, unmap(|u| u.address = 1 << 63), 0, ""),
        case(DMA_UNMAP, unmap(|u| u.address = u64::MAX - 0x3ffe), INVAL, "not whole pages"),
        case(DMA_UNMAP, unmap(|u| u.size = 0x3fff), INVAL, "a map extends beyond"),
        case(DMA_UNMAP, unmap(|u| u.address = 1), INVAL, "a map extends beyond"),
        case(DMA_UNMAP, unmap(|_| ())[..23].to_vec(), INVAL, "the body has 23 bytes"),
        case(DMA_UNMAP, [unmap(|_| ()), vec![0; 16]].concat(), INVAL, "the body has 40 bytes"),
        // Interrupts.
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.argsz = 19), INVAL, "argsz is 19")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.flags = 0), INVAL, "flags 0x0")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.flags = 4), INVAL, "flags 0x4")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.flags = 0x20), INVAL, "flags 0x20")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.flags = 0x26), INVAL, "flags 0x26")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.flags = 0x34), INVAL, "flags 0x34")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.flags = 0x64), INVAL, "flags 0x64")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.flags = 0x0c), NOTSUP, "an eventfd for masking")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.flags = 0x14), NOTSUP, "an eventfd for masking")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.index = 5), INVAL, "no interrupt of kind 5")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.index = 0), INVAL, "1 vectors from 0: there are 0")),
        with(
            2,
            case(DEVICE_SET_IRQS, irqs(&[], |s| (s.index, s.count) = (3, 2)), INVAL, "2 vectors from 0: there are 1"),
        ),
        case(DEVICE_SET_IRQS, irqs(&[], |s| (s.index, s.flags) = (3, 0x21)), NOTSUP, "anything but MSI-X"),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.index = 3), 0, "")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.start = 70), INVAL, "1 vectors from 70: there are 70")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.start = u32::MAX), INVAL, "1 vectors from 4294967295")),
        case(DEVICE_SET_IRQS, irqs(&[], |s| s.count = 71), INVAL, "71 vectors from 0"),
        case(DEVICE_SET_IRQS, irqs(&[], |s| (s.start, s.count) = (1, u32::MAX)), INVAL, "4294967295 vectors from 1"),
        case(DEVICE_SET_IRQS, irqs(&[], |s| s.count = 0), INVAL, "0 vectors from 0"),
        case(DEVICE_SET_IRQS, irqs(&[], |s| (s.flags, s.start, s.count) = (0x21, 1, 0)), INVAL, "0 vectors from 1"),
        with(1, case(DEVICE_SET_IRQS, irqs(&[], |s| s.flags = 0x21), INVAL, "1 file descriptors came along, not 0")),
        with(2, case(DEVICE_SET_IRQS, irqs(&[], |_| ()), INVAL, "2 file descriptors came along, not one for each")),
        with(2, case(DEVICE_SET_IRQS, irqs(&[], |s| s.count = 3), INVAL, "2 file descriptors came along")),
        with(1, case(DEVICE_SET_IRQS, irqs(&[0; 4], |_| ()), INVAL, "the body has 24 bytes")),
        case(DEVICE_SET_IRQS, irqs(&[1, 1], |s| (s.flags, s.count) = (0x22, 3)), INVAL, "the body has 22 bytes"),
        case(DEVICE_SET_IRQS, irqs(&[1, 1], |s| (s.flags, s.argsz, s.count) = (0x22, 21, 2)), INVAL, "argsz is 21"),
        case(DEVICE_SET_IRQS, irqs(&[1], |s| (s.flags, s.count) = (0x21, 1)), INVAL, "the body has 21 bytes"),
        case(DEVICE_SET_IRQS, irqs(&[], |_| ())[..19].to_vec(), INVAL, "the body has 19 bytes"),
    ]
}

#[test]
fn one_wrong_field_is_refused_by_name_and_the_stream_stays_in_step() {
    let mut bench = Bench::new();
    let ram = memfd(0x4000);
    assert_eq!(bench.client.map(0, 0x4000, READ_WRITE, Some(ram.as_fd()), 0), 0);
    let fds: Vec<OwnedFd> = (0..200).map(|_| event()).collect();
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    for Case { command, body, fds: count, errno, why } in cases() {
        let answer = bench.client.ask(command, &body, &fds[..count]);
        assert_eq!(answer.header.error, errno, "command {command}: {why}");
        if errno != 0 {
            assert_eq!((answer.header.flags, answer.body.len()), (flags::REPLY | flags::ERROR, 0), "{why}");
            let said = bench.last_refusal();
            assert!(said.contains(why), "{said:?} does not say {why:?}");
        }
        bench.client.in_step();
    }
    // Nothing of it did anything.
    assert_eq!((bench.log(), bench.memory.maps()), (Vec::<String>::new(), 1));
    bench.interrupts.raise(0);
    assert!(bench.interrupts.is_pending(0));
}

#[test]
fn files_that_cannot_be_what_they_should_be_are_refused() {
    let mut bench = Bench::new();
    let ram = memfd(0x4000);
    let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&ram));
    let readable: OwnedFd = std::fs::File::open(&own).unwrap().into();
    let writable: OwnedFd = std::fs::OpenOptions::new().write(true).open(&own).unwrap().into();
    let folder: OwnedFd = std::fs::File::open("/tmp").unwrap().into();
    let pipe = rustix::pipe::pipe().unwrap();
    let empty = memfd(0);
    let odd = memfd(0x1800);
    let cases: [(&OwnedFd, u32, u64, u64, u32); 12] = [
        (&folder, READ_WRITE, 0, 0x1000, INVAL),
        (&pipe.0, READ_WRITE, 0, 0x1000, INVAL),
        (&empty, READ_WRITE, 0, 0x1000, INVAL),
        (&odd, READ_WRITE, 0, 0x2000, INVAL),
        (&odd, READ_WRITE, 0, 0x1000, 0),
        (&ram, READ_WRITE, 0x4000, 0x1000, INVAL),
        (&ram, READ_WRITE, 0x1000, 0x4000, INVAL),
        (&ram, READ_WRITE, 0x3000, 0x1000, 0),
        (&readable, READ_WRITE, 0, 0x1000, ACCESS),
        (&readable, dma::WRITE, 0, 0x1000, ACCESS),
        (&readable, dma::READ, 0, 0x1000, 0),
        (&writable, dma::READ, 0, 0x1000, ACCESS),
    ];
    for (n, (file, rights, offset, size, errno)) in cases.into_iter().enumerate() {
        let address = (n as u64) << 20;
        assert_eq!(bench.client.map(address, size, rights, Some(file.as_fd()), offset), errno, "case {n}");
        bench.client.in_step();
    }
    // Not eventfds, and one among those that are: none of them counts.
    let event = event();
    for fd in [&ram, &pipe.1, &folder] {
        let fds = [event.as_fd(), fd.as_fd()];
        assert_eq!(bench.client.set_irqs(irq::DATA_EVENTFD | irq::ACTION_TRIGGER, 0, 2, &[], &fds), INVAL);
        assert!(bench.last_refusal().contains("the descriptor for vector 1 is not an eventfd"));
    }
    bench.interrupts.raise(0);
    assert_eq!(count(&event), 0);
}

#[test]
fn a_header_that_makes_no_sense_ends_the_connection() {
    for (size, kind) in [(0, 0), (15, 0), (16, 1), (16, 2), (32, 15), (u32::MAX, 1)] {
        let mut bench = Bench::new();
        let mut bytes = Vec::new();
        Header { id: 1, command: command::DEVICE_GET_INFO, size, flags: kind, error: 0 }.append(&mut bytes);
        bytes.extend_from_slice(&[0; 64]);
        bench.client.send(&bytes, &[]);
        assert_eq!(bench.client.answer(), None);
        assert!(matches!(bench.ended(), Ended::Nonsense { size: s, flags } if (s, flags) == (size, kind)));
    }
}

#[test]
fn what_is_too_large_is_swallowed_and_answered() {
    let mut bench = Bench::new();
    for size in [MAX_MESSAGE + 1, MAX_MESSAGE + 16_384, 10 << 20] {
        for command in [command::REGION_WRITE, command::VERSION, 77] {
            // The largest one that is taken in, then one byte more.
            let bytes = message(9, command, &vec![0xff; size - 16], 0);
            bench.client.send(&bytes, &[]);
            let answer = bench.client.answer().unwrap();
            assert_eq!((answer.header.id, answer.header.error, answer.body.len()), (9, TOOBIG, 0));
            bench.client.in_step();
        }
    }
}

#[test]
fn a_message_that_dribbles_in_with_descriptors_ends_in_a_refusal() {
    let mut bench = Bench::new();
    let fds: Vec<OwnedFd> = (0..8).map(|_| event()).collect();
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let bytes = message(5, command::DEVICE_SET_IRQS, &irqs(&[], |s| s.count = 16), 0);
    for byte in &bytes {
        bench.client.send(std::slice::from_ref(byte), &fds);
    }
    assert_eq!(bench.client.answer().map(|a| a.header.error), Some(INVAL));
    assert!(bench.last_refusal().contains("more than 16"));
    bench.client.in_step();
    // In two halves that are no more than there may be.
    bench.client.send(&bytes[..10], &fds);
    bench.client.send(&bytes[10..], &fds);
    assert_eq!(bench.client.answer().map(|a| a.header.error), Some(0));
}
