//! Everything a running switch is made of. It belongs to one thread: [`forward`](crate::forward) moves frames through it,
//! [`run`](crate::run) waits for sockets and timers, and what other threads ask for ([`Control`](crate::control::Control))
//! is answered by the methods here.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use crate::capture::Tap;
use crate::config::SwitchConfig;
use crate::counters::PortCounters;
use crate::error::FabricError;
use crate::fault::{Fault, Link};
use crate::held::HeldFrames;
use crate::port::Port;
use crate::switch::Station;
use crate::table::Table;

/// A switch's state.
#[derive(Debug)]
pub(crate) struct Core {
    pub config: SwitchConfig,
    pub epoll: OwnedFd,
    pub timer: OwnedFd,
    pub ports: Vec<Port>,
    /// `links[from * ports + to]`.
    pub links: Vec<Link>,
    pub table: Table,
    pub held: HeldFrames,
    /// Ports whose outlets got something since they were last written out.
    pub dirty: Vec<usize>,
    /// How many ports are blocked on another.
    pub blocked: usize,
    /// The blocked port that is asked first next time.
    pub turn: usize,
    /// The time at which the event in hand is handled.
    pub now: Instant,
    /// When the timer goes off.
    pub armed: Option<Instant>,
    /// When ports that could not accept a connection try again.
    pub accept_again: Option<Instant>,
    pub stopping: bool,
}

impl Core {
    /// Listens on every port's socket.
    pub fn new(config: SwitchConfig) -> Result<Self, FabricError> {
        config.check()?;
        let system = |what| {
            let network = config.name.clone();
            move |e: rustix::io::Errno| FabricError::System { network, what, source: e.into() }
        };
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(system("make an epoll"))?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(system("make a timer"))?;
        let ports = config.ports.iter().map(Port::open).collect::<Result<Vec<_>, _>>()?;
        let mut links = Vec::new();
        for from in &config.ports {
            links.extend(config.ports.iter().map(|to| Link::new(config.seed, &from.name, &to.name)));
        }
        for link in &config.faults {
            let (from, to) = (config.port(&link.from)?, config.port(&link.to)?);
            links[from * ports.len() + to].set(link.fault);
        }
        let table = Table::new(config.limits.ageing, config.limits.addresses);
        Ok(Core {
            config,
            epoll,
            timer,
            ports,
            links,
            table,
            held: HeldFrames::default(),
            dirty: Vec::new(),
            blocked: 0,
            turn: 0,
            now: Instant::now(),
            armed: None,
            accept_again: None,
            stopping: false,
        })
    }

    /// The link from one port to another.
    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let ports = self.ports.len();
        &mut self.links[from * ports + to]
    }

    /// What every port counted.
    pub fn counters(&self) -> Vec<PortCounters> {
        self.ports.iter().map(Port::snapshot).collect()
    }

    /// The stations that sent something lately.
    pub fn stations(&self) -> Vec<Station> {
        let list = self.table.list(self.now);
        list.into_iter()
            .map(|(mac, port, silent)| Station { mac, port: self.config.ports[port].name.clone(), silent })
            .collect()
    }

    /// Gives a link a fault. A partition also takes what is on its way.
    pub fn set_fault(&mut self, from: usize, to: usize, fault: Fault) {
        self.link(from, to).set(fault);
        if fault.partition {
            for held in self.held.remove(|held| (held.from, held.to) == (from, to)) {
                let port = &mut self.ports[to];
                port.outlet.delayed -= held.frame.len();
                port.counters.drops.partition += 1;
            }
            self.link(from, to).emptied();
        }
    }

    /// Lets a capture listen in on a port.
    pub fn tap(&mut self, port: usize, tap: Arc<Tap>) {
        self.ports[port].taps.push(tap);
    }

    /// Takes it off again.
    pub fn untap(&mut self, port: usize, tap: &Arc<Tap>) {
        self.ports[port].taps.retain(|other| !Arc::ptr_eq(other, tap));
    }
}
