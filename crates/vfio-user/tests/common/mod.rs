//! A client of the tests' own, and a device that shows what reached it.
#![allow(dead_code)]

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vfio_user::wire::{
    DmaMap, DmaUnmap, HEADER, Header, IrqSet, RegionAccess, Version, command, dma, flags, irq, region,
};
use vfio_user::{Bar, Device, Ended, Event, GuestMemory, Interrupts, Msix, PciFunction, Place, Server, Stopper};

/// How long anything may take before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of BAR 0.
pub const BAR0: u64 = 4096;
/// Vectors of the function.
pub const VECTORS: u16 = 70;
/// BAR 2: the table, registers, the pending bits, registers.
pub const TABLE: u64 = 0x100;
/// See [`TABLE`].
pub const PBA: u64 = 0x800;

pub fn function() -> PciFunction {
    let bar = |size, wide| Some(Bar { size, wide, prefetchable: false });
    PciFunction {
        vendor: 0x1234,
        device: 0x5678,
        class: 0xff_00_00,
        revision: 1,
        bars: [bar(BAR0, false), None, bar(8192, true), None, None, bar(1 << 18, false)],
        msix: Some(Msix {
            vectors: VECTORS,
            table: Place { bar: 2, offset: TABLE as u32 },
            pba: Place { bar: 2, offset: PBA as u32 },
        }),
        ..PciFunction::default()
    }
}

/// What the device was asked to do, and what it was told.
#[derive(Debug, Default)]
pub struct Seen {
    pub log: Vec<String>,
    pub refused: Vec<String>,
    pub resets: usize,
}

/// Registers that are memory: what was written can be read, BAR by BAR. Writing a vector's number to the last word of BAR 0
/// raises it.
pub struct Registers {
    pub bars: Vec<Vec<u8>>,
    pub interrupts: Interrupts,
    pub seen: Arc<Mutex<Seen>>,
    /// Messages are many in some tests.
    pub quiet: bool,
}

impl Registers {
    pub fn new(interrupts: Interrupts) -> Self {
        let bars = (0..6).map(|n| vec![0; function().bar_size(n) as usize]).collect();
        Registers { bars, interrupts, seen: Arc::default(), quiet: false }
    }
}

impl Device for Registers {
    fn read(&mut self, bar: u8, offset: u64, into: &mut [u8]) {
        assert!(!into.is_empty(), "an empty read");
        into.copy_from_slice(&self.bars[bar as usize][offset as usize..][..into.len()]);
        if !self.quiet {
            self.seen.lock().unwrap().log.push(format!("read {bar} {offset:#x} {}", into.len()));
        }
    }

    fn write(&mut self, bar: u8, offset: u64, from: &[u8]) {
        assert!(!from.is_empty(), "an empty write");
        self.bars[bar as usize][offset as usize..][..from.len()].copy_from_slice(from);
        if !self.quiet {
            self.seen.lock().unwrap().log.push(format!("write {bar} {offset:#x} {from:x?}"));
        }
        if bar == 0 && offset == BAR0 - 4 && from.len() >= 2 {
            self.interrupts.raise(u16::from_le_bytes([from[0], from[1]]));
        }
    }

    fn reset(&mut self) {
        self.bars.iter_mut().for_each(|bar| bar.fill(0));
        self.seen.lock().unwrap().resets += 1;
    }

    fn event(&mut self, event: Event<'_>) {
        if let Event::Refused { command, why } = event {
            let line = format!("{command}: {why}");
            if !self.quiet {
                self.seen.lock().unwrap().refused.push(line);
            }
        }
    }
}

/// A server on one end of a socket pair, and what is needed to talk to it and about it.
pub struct Bench {
    pub client: Client,
    pub memory: Arc<GuestMemory>,
    pub interrupts: Interrupts,
    pub stopper: Stopper,
    pub seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<Ended>>,
}

impl Bench {
    /// Version not negotiated yet.
    pub fn silent() -> Self {
        Self::with(false)
    }

    pub fn new() -> Self {
        let mut bench = Self::silent();
        bench.client.negotiate();
        bench
    }

    pub fn with(quiet: bool) -> Self {
        let (here, there) = UnixStream::pair().unwrap();
        let mut server = Server::new(function()).unwrap();
        let (memory, interrupts, stopper) = (server.memory(), server.interrupts(), server.stopper());
        let mut device = Registers::new(interrupts.clone());
        device.quiet = quiet;
        let seen = device.seen.clone();
        let thread = Some(thread::spawn(move || server.serve_one(&there, &mut device)));
        Bench { client: Client::new(here), memory, interrupts, stopper, seen, thread }
    }

    /// What the device did since the last time.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap().log)
    }

    /// Why the last command failed.
    pub fn last_refusal(&self) -> String {
        self.seen.lock().unwrap().refused.last().cloned().unwrap_or_default()
    }

    /// Hangs up and says how the server took it.
    pub fn end(mut self) -> Ended {
        self.client.socket.shutdown(std::net::Shutdown::Both).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }

    /// Waits for the server to have had enough.
    pub fn ended(mut self) -> Ended {
        self.thread.take().unwrap().join().unwrap()
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub header: Header,
    pub body: Vec<u8>,
}

pub struct Client {
    pub socket: UnixStream,
    pub id: u16,
}

impl Client {
    pub fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { socket, id: 0 }
    }

    pub fn negotiate(&mut self) {
        let answer = self.ask(command::VERSION, &body(|b| Version { major: 0, minor: 1 }.append(b)), &[]);
        assert_eq!(answer.header.error, 0);
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
        let sent = sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
        let rest = &bytes[sent..];
        std::io::Write::write_all(&mut &self.socket, rest).unwrap();
    }

    /// A whole message.
    pub fn message(&mut self, command: u16, body: &[u8], flags: u32) -> Vec<u8> {
        self.id = self.id.wrapping_add(1);
        message(self.id, command, body, flags)
    }

    pub fn ask(&mut self, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> Answer {
        let message = self.message(command, body, 0);
        self.send(&message, fds);
        let answer = self.answer().expect("the server hung up");
        assert_eq!((answer.header.id, answer.header.command), (self.id, command));
        answer
    }

    /// Asks and wants no error.
    pub fn ok(&mut self, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> Vec<u8> {
        let answer = self.ask(command, body, fds);
        assert_eq!((answer.header.flags, answer.header.error), (flags::REPLY, 0));
        answer.body
    }

    /// The next answer; `None`: the server has closed the connection.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut raw = [0; HEADER];
        match self.socket.read_exact(&mut raw) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer in {PATIENCE:?}"),
            Err(_) => return None,
        }
        let (header, _) = Header::split(&raw).unwrap();
        let mut body = vec![0; header.size as usize - HEADER];
        self.socket.read_exact(&mut body).unwrap();
        Some(Answer { header, body })
    }

    /// The errno of a command that has to fail.
    pub fn refused(&mut self, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> u32 {
        let answer = self.ask(command, body, fds);
        assert_eq!(answer.header.flags, flags::REPLY | flags::ERROR, "it was not refused");
        assert!(answer.body.is_empty());
        answer.header.error
    }

    pub fn map(&mut self, address: u64, size: u64, rights: u32, file: Option<BorrowedFd<'_>>, offset: u64) -> u32 {
        let map = DmaMap { argsz: 32, flags: rights, offset, address, size };
        self.ask(command::DMA_MAP, &body(|b| map.append(b)), file.as_slice()).header.error
    }

    pub fn unmap(&mut self, address: u64, size: u64) -> u32 {
        let unmap = DmaUnmap { argsz: 24, flags: 0, address, size };
        self.ask(command::DMA_UNMAP, &body(|b| unmap.append(b)), &[]).header.error
    }

    pub fn read(&mut self, region: u32, offset: u64, count: u32) -> Vec<u8> {
        let access = RegionAccess { offset, region, count };
        let answer = self.ok(command::REGION_READ, &body(|b| access.append(b)), &[]);
        let (said, data) = RegionAccess::split(&answer).unwrap();
        assert_eq!((said, data.len()), (access, count as usize));
        data.to_vec()
    }

    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        let access = RegionAccess { offset, region, count: data.len() as u32 };
        let answer = self.ok(command::REGION_WRITE, &write_body(region, offset, data), &[]);
        assert_eq!(RegionAccess::split(&answer), Some((access, &[][..])));
    }

    pub fn set_irqs(&mut self, rights: u32, start: u32, count: u32, data: &[u8], fds: &[BorrowedFd<'_>]) -> u32 {
        let set = IrqSet { argsz: 20 + data.len() as u32, flags: rights, index: irq::MSIX, start, count };
        let body = body(|b| {
            set.append(b);
            b.extend_from_slice(data);
        });
        self.ask(command::DEVICE_SET_IRQS, &body, fds).header.error
    }

    /// Connects a vector and returns the client's end.
    pub fn connect(&mut self, vector: u32) -> OwnedFd {
        let fd = event();
        assert_eq!(self.set_irqs(irq::DATA_EVENTFD | irq::ACTION_TRIGGER, vector, 1, &[], &[fd.as_fd()]), 0);
        fd
    }

    /// Whether the stream is in step: a question that has one answer.
    pub fn in_step(&mut self) {
        let config = self.read(region::CONFIG, 0, 4);
        assert_eq!(config, [0x34, 0x12, 0x78, 0x56]);
    }
}

pub fn message(id: u16, command: u16, body: &[u8], flags: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header { id, command, size: (HEADER + body.len()) as u32, flags, error: 0 }.append(&mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

pub fn body(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    fill(&mut bytes);
    bytes
}

pub fn write_body(region: u32, offset: u64, data: &[u8]) -> Vec<u8> {
    body(|b| {
        RegionAccess { offset, region, count: data.len() as u32 }.append(b);
        b.extend_from_slice(data);
    })
}

pub const READ_WRITE: u32 = dma::READ | dma::WRITE;

pub fn memfd(size: u64) -> OwnedFd {
    let fd = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, size).unwrap();
    fd
}

/// Reads a file without a mapping.
pub fn peek(fd: &OwnedFd, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    assert_eq!(rustix::io::pread(fd, &mut bytes, offset).unwrap(), length);
    bytes
}

pub fn poke(fd: &OwnedFd, offset: u64, bytes: &[u8]) {
    assert_eq!(rustix::io::pwrite(fd, bytes, offset).unwrap(), bytes.len());
}

pub fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// How often an eventfd was signalled since the last time.
pub fn count(fd: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    match rustix::io::read(fd, &mut bytes) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}

/// Waits for an eventfd to be signalled.
pub fn wait(fd: &OwnedFd) -> u64 {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&patience)).unwrap(), 1, "not signalled");
    count(fd)
}

/// File descriptors of this process.
pub fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
