//! A stream of bytes against a server, and what must be true of the answers whatever the bytes are.
//!
//! Shared by the seeded mutations (`tests/mutation.rs`) and the fuzz target (`fuzz/fuzz_targets/messages.rs`). One thread is
//! client and server by turns: the bytes are sent, the sending side is shut, the server runs until it sees the end, and then the
//! answers are there to be read. So a stream is short enough for the socket's buffers.
#![allow(dead_code)]

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vfio_user::wire::{
    DeviceInfo, DmaMap, DmaUnmap, HEADER, Header, IrqInfo, IrqSet, MultiWrite, RegionAccess, RegionInfo, Version,
    command, flags, irq,
};
use vfio_user::{Bar, Device, Ended, GuestMemory, Interrupts, Msix, PciFunction, Place, Server};

/// Most messages that are looked at. Each answer may be as large as [`BAR`].
pub const MESSAGES: usize = 16;
/// Most bytes that are looked at.
pub const BYTES: usize = 80_000;
/// Bytes of the largest BAR.
const BAR: u64 = 4096;

/// Descriptors to send along: files of memory and eventfds by turns.
pub struct Along(Vec<OwnedFd>);

impl Along {
    pub fn new() -> Self {
        let file = |_| {
            let fd = memfd_create("ram", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&fd, 1 << 16).unwrap();
            fd
        };
        let event = |_| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        Along((0..20).map(|n| if n % 2 == 0 { file(n) } else { event(n) }).collect())
    }

    /// Those of a message, as its header says: most often those it needs, now and then too many or the wrong ones.
    fn of(&self, header: &Header) -> Vec<BorrowedFd<'_>> {
        let (from, many) = match (header.command, header.id % 8) {
            (_, 7) => (0, usize::from(header.id / 8 % 20)),
            (command::DMA_MAP, 0..=5) => (0, 1),
            (command::DEVICE_SET_IRQS, 0..=3) => (1, 1),
            _ => (0, 0),
        };
        self.0[from..][..many.min(self.0.len() - from)].iter().map(AsFd::as_fd).collect()
    }
}

/// A device that uses what it is given, as a driver might tell it to: the first words of BAR 0 are an address and a length,
/// and writing the doorbell behind them copies there and raises a vector.
struct Copier {
    registers: Vec<u8>,
    memory: std::sync::Arc<GuestMemory>,
    interrupts: Interrupts,
}

impl Device for Copier {
    fn read(&mut self, bar: u8, offset: u64, into: &mut [u8]) {
        assert!(bar == 0 && !into.is_empty());
        into.copy_from_slice(&self.registers[offset as usize..][..into.len()]);
    }

    fn write(&mut self, bar: u8, offset: u64, from: &[u8]) {
        assert!(bar == 0 && !from.is_empty());
        self.registers[offset as usize..][..from.len()].copy_from_slice(from);
        let word = |at: usize| u64::from_ne_bytes(self.registers[at..at + 8].try_into().unwrap());
        let mut bytes = vec![0x77; (word(8) % 20_000) as usize];
        let _ = self.memory.write(word(0), &bytes);
        let _ = self.memory.publish(word(0), &bytes, word(8) as usize % 64);
        let _ = self.memory.read(word(0), &mut bytes);
        self.interrupts.raise(word(8) as u16);
    }

    fn reset(&mut self) {
        self.registers.fill(0);
    }
}

fn function() -> PciFunction {
    let bar = Some(Bar { size: BAR, wide: false, prefetchable: false });
    PciFunction {
        vendor: 1,
        device: 2,
        bars: [bar, bar, None, None, None, None],
        msix: Some(Msix { vectors: 256, table: Place { bar: 1, offset: 0 }, pba: Place { bar: 0, offset: 2048 } }),
        ..PciFunction::default()
    }
}

/// The messages of a stream that a server gets to see whole, and whether it has to give up after them.
fn walk(stream: &[u8]) -> (Vec<(Header, &[u8])>, bool) {
    let (mut messages, mut rest) = (Vec::new(), stream);
    while let Some((header, _)) = Header::split(rest) {
        let size = header.size as usize;
        if size < HEADER || header.flags & flags::TYPE != flags::COMMAND {
            return (messages, true);
        }
        let Some((message, more)) = rest.split_at_checked(size) else { break };
        messages.push((header, message));
        rest = more;
    }
    (messages, false)
}

/// Sends a stream to a new server and checks what comes back: each message that wants one has exactly its answer, in order, and
/// everything is let go of at the end. Returns the errors among the answers.
pub fn replay(stream: &[u8], along: &Along) -> Vec<u32> {
    let stream = &stream[..stream.len().min(BYTES)];
    let (mut messages, mut nonsense) = walk(stream);
    let mut whole: usize = messages.iter().map(|(header, _)| header.size as usize).sum();
    let mut tail = &stream[whole..];
    if messages.len() > MESSAGES {
        messages.truncate(MESSAGES);
        whole = messages.iter().map(|(header, _)| header.size as usize).sum();
        (tail, nonsense) = (&stream[whole..whole], false);
    }

    let (mut client, socket) = UnixStream::pair().unwrap();
    for (header, message) in &messages {
        send(&client, message, &along.of(header));
    }
    if !tail.is_empty() {
        let header = Header::split(tail).map(|(header, _)| header).unwrap_or_default();
        send(&client, tail, &along.of(&header));
    }
    client.shutdown(Shutdown::Write).unwrap();

    let mut server = Server::new(function()).unwrap();
    let (memory, interrupts) = (server.memory(), server.interrupts());
    let mut device =
        Copier { registers: vec![0; BAR as usize], memory: memory.clone(), interrupts: interrupts.clone() };
    let ended = server.serve_one(&socket, &mut device);
    drop(socket);
    match ended {
        Ended::Nonsense { .. } => assert!(nonsense, "{ended}"),
        Ended::Closed => assert!(!nonsense, "{ended}"),
        _ => panic!("{ended}"),
    }
    assert_eq!(memory.maps(), 0);
    assert!((0..interrupts.vectors()).all(|vector| !interrupts.is_pending(vector)));

    let mut answers = Vec::new();
    match client.read_to_end(&mut answers) {
        Ok(_) => {}
        // What the server did not want to read any more was still there.
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => assert!(nonsense),
        Err(e) => panic!("{e}"),
    }
    let (mut rest, mut errors) = (&answers[..], Vec::new());
    for (asked, _) in messages.iter().filter(|(header, _)| header.flags & flags::NO_REPLY == 0) {
        let (answer, _) = Header::split(rest).expect("an answer is missing");
        assert_eq!((answer.id, answer.command), (asked.id, asked.command));
        let failed = answer.flags == flags::REPLY | flags::ERROR;
        assert!(failed || answer.flags == flags::REPLY, "{answer:?}");
        assert_eq!(failed, answer.error != 0, "{answer:?}");
        assert!(!failed || answer.size as usize == HEADER, "{answer:?}");
        errors.extend(failed.then_some(answer.error));
        rest = rest.get(answer.size as usize..).expect("an answer is cut short");
    }
    assert!(rest.is_empty(), "{} bytes nobody asked for", rest.len());
    errors
}

fn send(client: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(20))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    let sent = sendmsg(client, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT).unwrap();
    assert_eq!(sent, bytes.len(), "a stream too long for the socket");
}

fn message(id: u16, command: u16, flags: u32, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    fill(&mut body);
    let mut bytes = Vec::new();
    Header { id, command, size: (HEADER + body.len()) as u32, flags, error: 0 }.append(&mut bytes);
    bytes.extend_from_slice(&body);
    bytes
}

/// The first message of every client.
pub fn hello() -> Vec<u8> {
    message(0, command::VERSION, 0, |b| {
        Version { major: 0, minor: 0 }.append(b);
        b.extend_from_slice(b"{\"capabilities\":{\"max_msg_fds\":16,\"pgsizes\":4096,\"write_multiple\":true}}\0");
    })
}

/// Valid messages of every kind.
pub fn corpus() -> Vec<Vec<u8>> {
    use command::*;
    let access = |offset, region, count, data: &'static [u8]| {
        move |b: &mut Vec<u8>| {
            RegionAccess { offset, region, count }.append(b);
            b.extend_from_slice(data);
        }
    };
    let irqs = |flags, start, count, data: &'static [u8]| {
        move |b: &mut Vec<u8>| {
            IrqSet { argsz: 20 + data.len() as u32, flags, index: irq::MSIX, start, count }.append(b);
            b.extend_from_slice(data);
        }
    };
    let map =
        |address, size, offset| move |b: &mut Vec<u8>| DmaMap { argsz: 32, flags: 3, offset, address, size }.append(b);
    let unmap = |flags, address, size| move |b: &mut Vec<u8>| DmaUnmap { argsz: 24, flags, address, size }.append(b);
    vec![
        hello(),
        message(1, DMA_MAP, 0, map(0, 0x4000, 0x1000)),
        message(2, DMA_MAP, 0, map(0x4000, 0x4000, 0x8000)),
        message(3, DMA_MAP, 0, map(u64::MAX - 0xfff, 0x1000, 0)),
        message(6, DMA_MAP, 0, map(0x10_0000, 0x4_0000, 0)),
        message(8, DMA_UNMAP, 0, unmap(0, 0, 0x4000)),
        message(8, DMA_UNMAP, 0, unmap(2, 0, 0)),
        message(8, DEVICE_GET_INFO, 0, |b| DeviceInfo { argsz: 16, ..Default::default() }.append(b)),
        message(8, DEVICE_GET_REGION_INFO, 0, |b| RegionInfo { argsz: 32, index: 1, ..Default::default() }.append(b)),
        message(8, DEVICE_GET_REGION_IO_FDS, 0, |b| IrqInfo { argsz: 16, ..Default::default() }.append(b)),
        message(8, DEVICE_GET_IRQ_INFO, 0, |b| IrqInfo { argsz: 16, index: 2, ..Default::default() }.append(b)),
        message(1, DEVICE_SET_IRQS, 0, irqs(irq::DATA_EVENTFD | irq::ACTION_TRIGGER, 7, 1, &[])),
        message(4, DEVICE_SET_IRQS, 0, irqs(irq::DATA_EVENTFD | irq::ACTION_TRIGGER, 7, 2, &[])),
        message(4, DEVICE_SET_IRQS, 0, irqs(irq::DATA_NONE | irq::ACTION_MASK, 0, 256, &[])),
        message(4, DEVICE_SET_IRQS, 0, irqs(irq::DATA_BOOL | irq::ACTION_UNMASK, 6, 4, &[0, 1, 1, 0])),
        message(4, DEVICE_SET_IRQS, 0, irqs(irq::DATA_NONE | irq::ACTION_TRIGGER, 0, 0, &[])),
        message(8, REGION_READ, 0, access(0, 7, 256, &[])),
        message(8, REGION_READ, 0, access(2040, 0, 48, &[])),
        message(8, REGION_READ, 0, access(0, 1, 4096, &[])),
        message(8, REGION_WRITE, 0, access(4, 7, 2, &[6, 0])),
        message(8, REGION_WRITE, 0, access(0x42, 7, 2, &[0, 0xc0])),
        message(8, REGION_WRITE, 0, access(7 * 16, 1, 16, &[1; 16])),
        message(
            8,
            REGION_WRITE,
            flags::NO_REPLY,
            access(0, 0, 16, &[0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0, 0, 0]),
        ),
        message(8, REGION_WRITE, flags::NO_REPLY, access(0x800, 0, 1, &[0])),
        message(8, DEVICE_RESET, 0, |_| ()),
        message(8, REGION_WRITE_MULTI, 0, |b| {
            MultiWrite { count: 2 }.append(b);
            for offset in [0, 8] {
                RegionAccess { offset, region: 0, count: 8 }.append(b);
                b.extend_from_slice(&[3; 8]);
            }
        }),
        message(8, 16, 0, |b| b.extend_from_slice(&[0; 24])),
    ]
}
