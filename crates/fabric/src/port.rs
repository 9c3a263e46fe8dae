//! A port: the socket it listens on, the NIC plugged into it, and what goes in and out.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::capture::Tap;
use crate::config::PortConfig;
use crate::counters::PortCounters;
use crate::error::FabricError;
use crate::inlet::Inlet;
use crate::outlet::Outlet;
use crate::wire::{ETHERNET_HEADER, TAGS};

/// A port of a running switch.
#[derive(Debug)]
pub(crate) struct Port {
    /// Where it listens. Removed with the port.
    pub listener: Listener,
    /// The connection, while a NIC is plugged in.
    pub cable: Option<Cable>,
    /// What came from it.
    pub inlet: Inlet,
    /// What goes to it.
    pub outlet: Outlet,
    /// The port whose queue has no room for the next frame from here.
    pub blocked_on: Option<usize>,
    /// Largest frame, in bytes.
    pub frame_max: usize,
    /// What happened here.
    pub counters: PortCounters,
    /// Captures.
    pub taps: Vec<Arc<Tap>>,
}

/// A connection and what the switch's epoll watches it for.
#[derive(Debug)]
pub(crate) struct Cable {
    /// The socket.
    pub socket: OwnedFd,
    /// `None` while it is not watched at all: the other end is gone and nothing can be read yet.
    watched: Option<EventFlags>,
    /// Whether the other end is gone.
    pub hung_up: bool,
}

/// A listening socket that takes its file with it.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The socket.
    pub socket: UnixListener,
    path: PathBuf,
}

impl Port {
    /// Listens.
    pub fn open(config: &PortConfig) -> Result<Self, FabricError> {
        Ok(Port {
            listener: Listener::bind(config)?,
            cable: None,
            inlet: Inlet::default(),
            outlet: Outlet::default(),
            blocked_on: None,
            frame_max: config.mtu as usize + ETHERNET_HEADER + TAGS,
            counters: PortCounters { name: config.name.clone(), ..PortCounters::default() },
            taps: Vec::new(),
        })
    }

    /// Whether frames can go there.
    pub fn connected(&self) -> bool {
        self.cable.is_some() && !self.outlet.broken
    }

    /// The counters, with what is true now.
    pub fn snapshot(&self) -> PortCounters {
        PortCounters {
            connected: self.cable.is_some(),
            backlog_bytes: (self.outlet.bytes() + self.outlet.delayed) as u64,
            stalled: self.outlet.stalled,
            ..self.counters.clone()
        }
    }

    /// Tells epoll what this port waits for now: bytes unless it is blocked, room when its queue is not empty.
    pub fn watch(&mut self, epoll: &OwnedFd, token: EventData) -> io::Result<()> {
        let Some(cable) = &mut self.cable else { return Ok(()) };
        let mut wanted = EventFlags::empty();
        if self.blocked_on.is_none() {
            wanted |= EventFlags::IN;
        }
        if self.outlet.waiting && !cable.hung_up {
            wanted |= EventFlags::OUT;
        }
        // A hang-up is reported whether asked for or not, again and again: until it can be read, it is not watched.
        let wanted = (!wanted.is_empty() || !cable.hung_up).then_some(wanted);
        match (cable.watched, wanted) {
            (old, new) if old == new => {}
            (Some(_), Some(flags)) => epoll::modify(epoll, &cable.socket, token, flags)?,
            (None, Some(flags)) => epoll::add(epoll, &cable.socket, token, flags)?,
            (Some(_), None) => epoll::delete(epoll, &cable.socket)?,
            (None, None) => {}
        }
        cable.watched = wanted;
        Ok(())
    }
}

impl Cable {
    /// A fresh connection, not watched yet.
    pub fn new(socket: OwnedFd) -> Self {
        Cable { socket, watched: None, hung_up: false }
    }
}

impl Listener {
    fn bind(config: &PortConfig) -> Result<Self, FabricError> {
        let path = config.socket.clone();
        let failed = |source| FabricError::Listen { port: config.name.clone(), socket: config.socket.clone(), source };
        let socket = match UnixListener::bind(&path) {
            Err(e) if e.kind() == ErrorKind::AddrInUse && is_socket(&path) => match UnixStream::connect(&path) {
                // Its owner died without removing it.
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                    fs::remove_file(&path).and_then(|()| UnixListener::bind(&path)).map_err(failed)?
                }
                Ok(_) => return Err(FabricError::SocketInUse { port: config.name.clone(), socket: path }),
                Err(e) => return Err(failed(e)),
            },
            bound => bound.map_err(failed)?,
        };
        let listener = Listener { socket, path };
        listener.socket.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_socket(path: &PathBuf) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}
