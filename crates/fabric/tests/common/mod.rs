//! NICs for tests: the other end of a port's socket, with no machine behind it.
#![allow(dead_code, reason = "each test uses its part")]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fabric::wire::Mac;
use fabric::{Limits, PortConfig, PortCounters, Switch, SwitchConfig};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for a frame that should not come to have come.
pub const QUIET: Duration = Duration::from_millis(60);

/// Largest untagged frame of the default MTU here.
pub const JUMBO: usize = 9014;

/// What waits for a port at most before its senders do: [`Limits::queue_bytes`].
pub const QUEUE: u64 = 256 << 10;

pub const BROADCAST: Mac = [0xff; 6];

/// A switch with ports `a`, `b`, … and a folder for their sockets.
pub struct Lab {
    pub switch: Switch,
    pub dir: TempDir,
}

/// A configuration with `count` ports in `dir`.
pub fn config(dir: &TempDir, count: usize) -> SwitchConfig {
    let names = ["a", "b", "c", "d"];
    let port = |name: &&str| PortConfig { name: (*name).to_owned(), socket: dir.path().join(name), mtu: 9000 };
    SwitchConfig {
        name: "test".into(),
        ports: names[..count].iter().map(port).collect(),
        faults: Vec::new(),
        seed: 7,
        limits: Limits::default(),
    }
}

impl Lab {
    pub fn new(count: usize) -> Self {
        Lab::with(count, |_| {})
    }

    pub fn with(count: usize, change: impl FnOnce(&mut SwitchConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir, count);
        change(&mut config);
        Lab { switch: Switch::start(config).unwrap(), dir }
    }

    pub fn socket(&self, port: &str) -> PathBuf {
        self.dir.path().join(port)
    }

    /// Plugs a NIC in and waits until the switch has noticed.
    pub fn plug(&self, port: &str) -> Nic {
        let before = self.counters(port).connects;
        let stream = UnixStream::connect(self.socket(port)).unwrap();
        self.wait(port, |c| c.connected && c.connects > before);
        Nic { stream, mac: mac(port), input: Vec::new() }
    }

    pub fn counters(&self, port: &str) -> PortCounters {
        self.switch.counters().unwrap().into_iter().find(|c| c.name == port).unwrap()
    }

    /// Waits until a port's counters are as they should.
    pub fn wait(&self, port: &str, good: impl Fn(&PortCounters) -> bool) -> PortCounters {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counters = self.counters(port);
            if good(&counters) {
                return counters;
            }
            assert!(Instant::now() < deadline, "port {port} never got there: {counters:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The station usually behind a port.
pub fn mac(port: &str) -> Mac {
    [2, 0, 0, 0, 0, port.as_bytes()[0]]
}

/// An Ethernet frame with a number, `len` bytes in all.
pub fn frame(to: Mac, from: Mac, number: u32, len: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from[..], &[0x88, 0xb5], &number.to_be_bytes()].concat();
    assert!(len >= frame.len());
    frame.resize(len, 0x5a);
    frame
}

/// The number of a frame made by [`frame`].
pub fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

pub fn framed(frame: &[u8]) -> Vec<u8> {
    [&u32::try_from(frame.len()).unwrap().to_be_bytes(), frame].concat()
}

/// The guest's side of a port.
pub struct Nic {
    pub stream: UnixStream,
    pub mac: Mac,
    input: Vec<u8>,
}

impl Nic {
    /// Another handle of the same connection, for a thread that sends while another receives.
    pub fn twin(&self) -> Nic {
        Nic { stream: self.stream.try_clone().unwrap(), mac: self.mac, input: Vec::new() }
    }

    pub fn send(&mut self, frame: &[u8]) {
        self.stream.write_all(&framed(frame)).unwrap();
    }

    /// Sends a numbered frame of 64 bytes.
    pub fn send_to(&mut self, to: Mac, number: u32) {
        self.send(&frame(to, self.mac, number, 64));
    }

    /// Says something, so that the switch knows where this NIC is, and waits until it does.
    pub fn announce(&mut self, lab: &Lab) {
        self.send_to([2, 0, 0, 0, 0, 0], 0);
        let deadline = Instant::now() + PATIENCE;
        while !lab.switch.stations().unwrap().iter().any(|s| s.mac == self.mac) {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends numbered jumbo frames to the station behind a port that does not read, until the switch takes no more. Returns
    /// the number of the last, and what of it was not taken.
    pub fn fill(&mut self, lab: &Lab, port: &str) -> (u32, Vec<u8>) {
        self.stream.set_nonblocking(true).unwrap();
        let mut number = 0;
        let mut rest = framed(&frame(mac(port), self.mac, number, JUMBO));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.stream.write(&rest) {
                Ok(sent) => drop(rest.drain(..sent)),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::WouldBlock);
                    if lab.counters(port).backlog_bytes > QUEUE {
                        self.stream.set_nonblocking(false).unwrap();
                        return (number, rest);
                    }
                    assert!(Instant::now() < deadline, "the switch neither takes nor queues anything");
                }
            }
            if rest.is_empty() {
                number += 1;
                rest = framed(&frame(mac(port), self.mac, number, JUMBO));
                assert!(number < 10_000, "nobody reads, and the switch swallows it all");
            }
        }
    }

    /// The next frame, if one comes in time; `None` also at the end of the stream.
    pub fn receive(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(head) = self.input.first_chunk::<4>() {
                let end = 4 + u32::from_be_bytes(*head) as usize;
                if self.input.len() >= end {
                    let frame = self.input[4..end].to_vec();
                    self.input.drain(..end);
                    return Some(frame);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// The number of the next frame, which must come.
    pub fn expect(&mut self) -> u32 {
        number(&self.receive(PATIENCE).expect("a frame"))
    }

    /// Numbers of all frames until it is quiet.
    pub fn drain(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.receive(QUIET)).map(|f| number(&f)).collect()
    }

    /// Takes in whatever frames come, until it is quiet.
    pub fn discard(&mut self) {
        while self.receive(QUIET).is_some() {}
    }

    pub fn expect_nothing(&mut self) {
        if let Some(frame) = self.receive(QUIET) {
            panic!("nothing was to come, but frame {} did", number(&frame));
        }
    }

    /// Whether the switch closed the connection.
    pub fn is_cut(&mut self) -> bool {
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return true,
                Err(_) => return false,
            }
        }
    }
}
