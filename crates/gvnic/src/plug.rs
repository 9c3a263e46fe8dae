//! A port's plug into a switch: a unix stream socket on which every frame travels behind its length, a big-endian u32, in both
//! directions.
//!
//! In: the socket's path. Out: a [`Port`], and a place to wait. Nothing here blocks but [`Plug::wait`]. While there is no
//! switch the cable is out: frames that are sent are lost and counted, and every [`PAUSE`] it is tried again.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::engine::{Direction, Engine, Turn};
use crate::wire::{Frame, Port, Sent, Wire};
use crate::wrong::Wrong;

/// Most bytes of a frame on the stream: an IP packet and its Ethernet header.
pub const FRAME_MAX: usize = 65535 + 14;

/// How long to wait before connecting again.
pub const PAUSE: Duration = Duration::from_millis(200);
/// Bytes that may wait to be written before there is no room for another frame.
const OUT_MAX: usize = 512 << 10;
/// Bytes that are written at once while a burst lasts.
const OUT_BURST: usize = 64 << 10;
/// Bytes that are read at once.
const IN_BURST: usize = 256 << 10;
/// A length beyond this is no frame of anybody: the stream is not what it should be.
const SKIP_MAX: usize = 1 << 20;
/// Packets each way between two looks at the rest of the world.
const BUDGET: usize = 256;
/// How long to wait when there is nothing to wait for.
const IDLE: Duration = Duration::from_secs(1);

/// What was lost on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Sent while there was no switch, or to one that went away.
    pub unplugged: u64,
    /// Longer than any frame can be.
    pub oversize: u64,
    /// Connections that ended.
    pub connections: u64,
}

/// A plug.
#[derive(Debug)]
pub struct Plug {
    path: PathBuf,
    stream: Option<UnixStream>,
    /// Not before.
    next_try: Option<Instant>,
    out: Vec<u8>,
    out_at: usize,
    /// Frames in it, of which the first may be written in part.
    input: Vec<u8>,
    /// What of it is there and not taken: from, to.
    fresh: (usize, usize),
    /// Bytes of the frame at its front, behind its length, once it is there in full.
    front: Option<usize>,
    /// Bytes of a frame that is too long, still to come.
    skip: usize,
    /// The last time there was no frame: more has to come from the socket.
    hungry: bool,
    lost: Lost,
}

impl Plug {
    /// A plug that will connect to a socket; there may be none yet.
    pub fn new(path: &Path) -> Plug {
        Plug {
            path: path.to_owned(),
            stream: None,
            next_try: None,
            out: Vec::new(),
            out_at: 0,
            input: vec![0; IN_BURST],
            fresh: (0, 0),
            front: None,
            skip: 0,
            hungry: true,
            lost: Lost::default(),
        }
    }

    /// Whether it is connected.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// What was lost so far.
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// Connects if it is time to.
    fn plug_in(&mut self) -> bool {
        if self.stream.is_some() {
            return true;
        }
        if self.next_try.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        self.stream = open(&self.path).ok();
        self.next_try = Some(Instant::now() + PAUSE);
        self.hungry = true;
        self.stream.is_some()
    }

    /// The connection is gone, and everything half said with it.
    fn pull_out(&mut self) {
        self.stream = None;
        self.next_try = Some(Instant::now() + PAUSE);
        self.lost.connections += 1;
        self.lost.unplugged += u64::from(self.out_at < self.out.len());
        self.out.clear();
        (self.out_at, self.fresh, self.front, self.skip) = (0, (0, 0), None, 0);
    }

    fn write_out(&mut self) {
        while let (Some(stream), Some(rest)) = (&mut self.stream, self.out.get(self.out_at..)) {
            if rest.is_empty() {
                break;
            }
            match stream.write(rest) {
                Ok(0) => return self.pull_out(),
                Ok(written) => self.out_at += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.pull_out(),
            }
        }
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
        } else if self.out_at > OUT_MAX {
            self.out.drain(..self.out_at);
            self.out_at = 0;
        }
    }

    /// Reads what there is; false when there is nothing.
    fn read_in(&mut self) -> bool {
        let (from, to) = self.fresh;
        self.input.copy_within(from..to, 0);
        self.fresh = (0, to - from);
        let (Some(stream), Some(into)) = (&mut self.stream, self.input.get_mut(to - from..)) else { return false };
        match stream.read(into) {
            Ok(0) => self.pull_out(),
            Ok(read) => {
                self.fresh.1 += read;
                return true;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.pull_out(),
        }
        false
    }

    /// Looks for a frame that is there in full; false when more has to be read.
    fn find(&mut self) -> bool {
        loop {
            let fresh = self.input.get(self.fresh.0..self.fresh.1).unwrap_or_default();
            if self.skip > 0 {
                let skipped = self.skip.min(fresh.len());
                self.skip -= skipped;
                self.fresh.0 += skipped;
                if self.skip > 0 {
                    return false;
                }
                continue;
            }
            let Some((length, rest)) = fresh.split_first_chunk::<4>() else { return false };
            let length = u32::from_be_bytes(*length) as usize;
            if length > SKIP_MAX {
                self.pull_out();
                return false;
            }
            if length > FRAME_MAX {
                self.lost.oversize += 1;
                self.fresh.0 += 4;
                self.skip = length;
                continue;
            }
            if rest.len() < length {
                return false;
            }
            self.front = Some(length);
            return true;
        }
    }

    /// Waits until the switch has something to say, or room where there was none, or `kick` (an eventfd, which is emptied) is
    /// written to, or `timeout` is over.
    ///
    /// While the port takes no frames it is not woken by them.
    ///
    /// # Errors
    /// Of poll(2), which has none for descriptors that are open.
    pub fn wait(&self, kick: &OwnedFd, timeout: Duration) -> io::Result<()> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, self.hungry);
        wanted.set(PollFlags::OUT, !self.out.is_empty());
        let timeout = if self.stream.is_some() { timeout } else { timeout.min(PAUSE) };
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let kicked = {
            let mut polled = vec![PollFd::new(kick, PollFlags::IN)];
            // A connection that is gone is always ready: it is asked only if anybody would look.
            if let Some(stream) = self.stream.as_ref().filter(|_| !wanted.is_empty()) {
                polled.push(PollFd::from_borrowed_fd(stream.as_fd(), wanted));
            }
            match poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            polled.first().is_some_and(|fd| !fd.revents().is_empty())
        };
        if kicked {
            // Whoever else empties it has seen the same kick.
            let _ = rustix::io::read(kick, &mut [0; 8]);
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

impl Wire for Plug {
    fn send(&mut self, frame: Frame<'_>) -> Sent {
        if !self.plug_in() {
            self.lost.unplugged += 1;
            return Sent::Unplugged;
        }
        if frame.bytes.len() > FRAME_MAX {
            self.lost.oversize += 1;
            return Sent::Taken;
        }
        if self.out.len() - self.out_at >= OUT_MAX {
            self.write_out();
            if self.out.len() - self.out_at >= OUT_MAX {
                return Sent::Full;
            }
        }
        self.out.extend_from_slice(&(frame.bytes.len() as u32).to_be_bytes());
        self.out.extend_from_slice(frame.bytes);
        if self.out.len() - self.out_at >= OUT_BURST {
            self.write_out();
        }
        Sent::Taken
    }
}

impl Port for Plug {
    fn peek(&mut self) -> Option<Frame<'_>> {
        self.hungry = false;
        if !self.plug_in() {
            return None;
        }
        while self.front.is_none() && !self.find() {
            if !self.read_in() {
                self.hungry = true;
                return None;
            }
        }
        let from = self.fresh.0 + 4;
        self.front.and_then(|length| self.input.get(from..from + length)).map(Frame::new)
    }

    fn take(&mut self) {
        if let Some(length) = self.front.take() {
            self.fresh.0 += 4 + length;
        }
    }

    fn flush(&mut self) {
        self.write_out();
    }
}

/// Runs a device's datapath until `stop`, on this thread. `kick` is an eventfd that
/// [`Datapath::wake`](crate::control::Datapath::wake) writes to, and whoever sets `stop`. `wrong` is told what a driver got wrong
/// in a ring, outside of any visit, so that it may ask for a reset.
///
/// # Errors
/// Those of [`Plug::wait`].
pub fn serve(
    engine: &mut Engine<Plug>,
    kick: &OwnedFd,
    stop: &AtomicBool,
    wrong: &mut dyn FnMut(Direction, u16, Wrong),
) -> io::Result<()> {
    while !stop.load(Ordering::Acquire) {
        let Turn { more, held, due, .. } = engine.run_once(BUDGET);
        while let Some((direction, queue, what)) = engine.take_wrong() {
            wrong(direction, queue, what);
        }
        if more {
            continue;
        }
        // What comes while a frame is held is not taken, and waking for it would be running in circles.
        engine.port.hungry &= !held;
        let left = due.map(|due| Duration::from_nanos(due.saturating_sub(engine.now())));
        engine.port.wait(kick, left.unwrap_or(IDLE).min(IDLE))?;
    }
    Ok(())
}
