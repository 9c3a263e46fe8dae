//! `lab-devmem send`: sends out of device memory, many messages at a time.
//!
//! The dma-buf is a ring of parts. A part is filled, handed to the socket in as many messages as that takes, and used again when
//! the kernel reports all of them done, which it does once the other end has acknowledged them.

use std::io::{self, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::event::PollFlags;
use rustix::net::sockopt;

use crate::connection;
use crate::control;
use crate::dmabuf::{Buffer, Memory};
use crate::flow::{Name, Source};
use crate::inflight::InFlight;
use crate::netdev::Netdev;
use crate::options::Bytes;
use crate::report::Sending;
use crate::stage::Stage;
use crate::sys;

/// What to send with.
#[derive(Debug)]
pub struct Plan {
    /// Where to.
    pub to: SocketAddr,
    /// From which address; the route's own without one.
    pub from: Option<IpAddr>,
    /// From which port; any with 0.
    pub from_port: u16,
    /// Where the bytes come from.
    pub source: Name,
    /// How many; without it, until their end.
    pub bytes: Option<Bytes>,
    /// Device memory to send from; none to send as anybody does.
    pub device: Option<Device>,
    /// Bytes of a part of it.
    pub part: usize,
    /// How long nothing may be acknowledged.
    pub patience: Duration,
}

/// Device memory to send from.
#[derive(Debug)]
pub struct Device {
    /// The netdev.
    pub netdev: String,
    /// The dma-buf's memory.
    pub memory: Memory,
    /// Its bytes.
    pub size: usize,
}

/// Sends.
///
/// # Errors
/// When not everything was sent.
pub fn send(plan: &Plan) -> Result<Sending> {
    let stage = Stage::open()?;
    let source = Source::open(&plan.source, plan.bytes)?;
    let Some(device) = &plan.device else {
        let socket = connection::connect(plan.to, plan.from, plan.from_port, None)?;
        return plain(&socket, source, plan);
    };
    let netdev = Netdev::find(&device.netdev)?;
    let buffer = Buffer::new(device.memory, device.size)?;
    let binding = stage.bind_tx(&netdev, &buffer)?;
    let socket = connection::connect(plan.to, plan.from, plan.from_port, Some(&netdev.name))?;
    sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).context("SO_ZEROCOPY")?;
    let sending = Sending { memory: Some(buffer.memory.to_string()), ..Sending::default() };
    let flight = InFlight::new(buffer.len() / plan.part);
    let mut sender = Sender { socket: &socket, binding, buffer, source, flight, sending, part: plan.part };
    let start = Instant::now();
    sender.run(plan.patience)?;
    sender.sending.time = start.elapsed();
    socket.shutdown(Shutdown::Write).context("cannot end the connection")?;
    Ok(sender.sending)
}

fn plain(socket: &TcpStream, mut source: Source, plan: &Plan) -> Result<Sending> {
    socket.set_write_timeout(Some(plan.patience)).context("SO_SNDTIMEO")?;
    let (start, mut sending, mut part) = (Instant::now(), Sending::default(), vec![0; plan.part]);
    loop {
        let filled = source.fill(&mut part)?;
        if filled == 0 {
            break;
        }
        let mut socket = socket;
        socket
            .write_all(&part[..filled])
            .with_context(|| format!("the connection broke after {} bytes", sending.bytes))?;
        sending.bytes += filled as u64;
    }
    sending.time = start.elapsed();
    socket.shutdown(Shutdown::Write).context("cannot end the connection")?;
    Ok(sending)
}

/// A part that is being handed over.
struct Current {
    part: usize,
    /// Where its next message begins, and its end, within the dma-buf.
    next: usize,
    end: usize,
}

/// What the socket would take now.
enum Room {
    /// A message went.
    Sent,
    /// It is full.
    Full,
    /// Too many completions are due.
    Completions,
}

struct Sender<'a> {
    socket: &'a TcpStream,
    binding: u32,
    buffer: Buffer,
    source: Source,
    flight: InFlight,
    sending: Sending,
    part: usize,
}

impl Sender<'_> {
    fn run(&mut self, patience: Duration) -> Result<()> {
        let (mut current, mut ended) = (None, false);
        loop {
            if current.is_none() && !ended {
                current = self.fill()?.transpose(&mut ended);
            }
            let room = match &mut current {
                Some(part) => self.message(part)?,
                None if ended && self.flight.under_way() == 0 => return Ok(()),
                None => Room::Completions,
            };
            if current.as_ref().is_some_and(|part: &Current| part.next == part.end) {
                current = None;
            }
            // What is done is collected whenever there is a pause, and in passing while there is none.
            if matches!(room, Room::Sent) && !self.sending.messages.is_multiple_of(16) {
                continue;
            }
            if self.collect()? > 0 || matches!(room, Room::Sent) {
                continue;
            }
            let events = if matches!(room, Room::Full) { PollFlags::OUT } else { PollFlags::empty() };
            let seen = connection::wait(self.socket, events, patience, "nothing was acknowledged")?;
            if seen.intersects(PollFlags::ERR | PollFlags::HUP) && self.collect()? == 0 {
                let broken = sockopt::socket_error(self.socket).context("SO_ERROR")?;
                broken
                    .map_err(io::Error::from)
                    .with_context(|| format!("the connection broke after {} bytes", self.sending.bytes))?;
                if seen.contains(PollFlags::HUP) {
                    bail!("the other end is gone after {} bytes", self.sending.bytes);
                }
            }
        }
    }

    /// Fills the next free part, if there is one.
    fn fill(&mut self) -> Result<Filled> {
        let Some(part) = self.flight.next_free() else { return Ok(Filled::NoneFree) };
        let start = part * self.part;
        let (source, size) = (&mut self.source, self.part);
        let filled = self.buffer.write(|memory| source.fill(&mut memory[start..start + size]))?;
        Ok(if filled == 0 { Filled::End } else { Filled::Part(Current { part, next: start, end: start + filled }) })
    }

    /// Hands over as much of a part as the socket takes in one message.
    fn message(&mut self, part: &mut Current) -> Result<Room> {
        match sys::send_device(self.socket, self.binding, part.next, part.end - part.next) {
            Ok(sent) => {
                part.next += sent;
                self.flight.sent(part.part);
                self.sending.messages += 1;
                self.sending.bytes += sent as u64;
                Ok(Room::Sent)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Room::Full),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) && self.flight.under_way() > 0 => {
                Ok(Room::Completions)
            }
            Err(error) => Err(anyhow!(
                "cannot send from device memory after {} bytes: {error}{}",
                self.sending.bytes,
                hint(&error)
            )),
        }
    }

    /// Collects completions; returns how many.
    fn collect(&mut self) -> Result<u64> {
        let (mut room, before) = ([0; 512], self.sending.completions);
        loop {
            let received = match sys::receive_error(self.socket, &mut room) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(self.sending.completions - before),
                Err(error) => return Err(error).context("cannot read completions (MSG_ERRQUEUE)"),
            };
            for completion in control::completions(&room[..received.control])? {
                let count = u64::from(self.flight.completed(completion)?);
                self.sending.completions += count;
                self.sending.copied += if completion.copied { count } else { 0 };
            }
        }
    }
}

/// What came of looking for bytes to send.
enum Filled {
    NoneFree,
    End,
    Part(Current),
}

impl Filled {
    fn transpose(self, ended: &mut bool) -> Option<Current> {
        *ended = matches!(self, Filled::End);
        match self {
            Filled::Part(part) => Some(part),
            Filled::NoneFree | Filled::End => None,
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENODEV) => {
            "\nthe route to there leads through another netdev than the one bound; `ip route get` shows it"
        }
        Some(libc::EINVAL) => "\nthe kernel no longer knows the binding: was the NIC removed?",
        _ => "",
    }
}
