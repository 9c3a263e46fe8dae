//! The server: one client after the other, on the thread that calls it.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::device::{Device, Event};
use crate::error::{BadFunction, Ended};
use crate::function::PciFunction;
use crate::inlet::{Inlet, wait};
use crate::interrupts::Interrupts;
use crate::memory::GuestMemory;
use crate::pci::Pci;
use crate::session::Session;

/// How long to wait when no connection can be accepted, for want of file descriptors as a rule.
const ACCEPT_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A PCI function on a socket.
#[derive(Debug)]
pub struct Server {
    pci: Pci,
    memory: Arc<GuestMemory>,
    wake: Arc<OwnedFd>,
}

/// Stops a server, from any thread and for good.
#[derive(Debug, Clone)]
pub struct Stopper {
    wake: Arc<OwnedFd>,
}

impl Server {
    /// A server for a function that nobody has looked at yet.
    ///
    /// # Errors
    /// No function can be as `function` says ([`BadFunction`]), or the kernel has no eventfd left.
    pub fn new(function: PciFunction) -> io::Result<Self> {
        let pci = Pci::new(function).map_err(|e: BadFunction| io::Error::new(ErrorKind::InvalidInput, e))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Server { pci, memory: Arc::default(), wake: Arc::new(wake) })
    }

    /// The guest's memory, of whichever guest is there.
    pub fn memory(&self) -> Arc<GuestMemory> {
        self.memory.clone()
    }

    /// The device's interrupt vectors.
    pub fn interrupts(&self) -> Interrupts {
        self.pci.interrupts.clone()
    }

    /// What stops it.
    pub fn stopper(&self) -> Stopper {
        Stopper { wake: self.wake.clone() }
    }

    /// Serves those who connect, one after the other, until it is told to stop. Others wait in the listener's backlog
    /// meanwhile.
    ///
    /// # Errors
    /// The listener is broken.
    pub fn serve(&mut self, listener: &UnixListener, device: &mut dyn Device) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        loop {
            match wait(listener.as_fd(), PollFlags::IN, self.wake.as_fd()) {
                Ok(()) => {}
                Err(Ended::Socket(e)) => return Err(e),
                Err(_) => return Ok(()),
            }
            match listener.accept() {
                Ok((socket, _)) => match self.serve_one(&socket, device) {
                    Ended::Stopped => return Ok(()),
                    _ => continue,
                },
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                    // The wait above says whether it was a stop; it looks at it first.
                    let _ = poll(&mut [PollFd::new(&*self.wake, PollFlags::IN)], Some(&ACCEPT_AGAIN));
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Serves one client, and leaves everything as it was before it came: the device reset, no memory mapped, no
    /// interrupt connected.
    pub fn serve_one(&mut self, socket: &UnixStream, device: &mut dyn Device) -> Ended {
        device.event(Event::Connected);
        let ended = match self.converse(socket.as_fd(), device) {
            Err(ended) => ended,
            Ok(never) => match never {},
        };
        // First of all the device lets go of the memory.
        device.reset();
        self.pci.reset();
        self.pci.interrupts.forget();
        self.memory.clear();
        device.event(Event::Ended(&ended));
        ended
    }

    fn converse(&mut self, socket: BorrowedFd<'_>, device: &mut dyn Device) -> Result<std::convert::Infallible, Ended> {
        let mut inlet = Inlet::default();
        let mut session = Session { pci: &mut self.pci, memory: &self.memory, device, negotiated: false };
        let mut answer = Vec::new();
        loop {
            let message = inlet.next(socket, self.wake.as_fd())?;
            session.handle(message, &mut answer);
            send_all(socket, &answer, self.wake.as_fd())?;
        }
    }
}

impl Stopper {
    /// Makes [`Server::serve`] and [`Server::serve_one`] return as soon as they are done with what they are at, and from now
    /// on at once.
    pub fn stop(&self) {
        // It cannot fail: the counter does not get full by a few.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

fn send_all(socket: BorrowedFd<'_>, bytes: &[u8], wake: BorrowedFd<'_>) -> Result<(), Ended> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match send(socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(Errno::AGAIN) => wait(socket, PollFlags::OUT, wake)?,
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(Ended::Closed),
            Err(e) => return Err(io::Error::from(e).into()),
        }
    }
    Ok(())
}
