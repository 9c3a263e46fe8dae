//! The life of a switch's thread: wait for sockets, timers and questions, and do what they want.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

use crate::control::Jobs;
use crate::core::Core;
use crate::port::Cable;

/// What an event is about: two tokens a port, and these.
const TIMER: u64 = u64::MAX;
const JOBS: u64 = u64::MAX - 1;

/// Reads from one port before others get their turn.
const READS: usize = 16;

/// How long a port waits that could not accept a connection, for want of file descriptors as a rule.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

fn listener_token(port: usize) -> EventData {
    EventData::new_u64(port as u64 * 2)
}

fn cable_token(port: usize) -> EventData {
    EventData::new_u64(port as u64 * 2 + 1)
}

impl Core {
    /// Runs the switch until it is told to stop.
    ///
    /// # Errors
    /// When epoll or the timer fail, which leaves nothing to go on with.
    pub fn run(mut self, jobs: &Jobs) -> io::Result<()> {
        epoll::add(&self.epoll, jobs.wake(), EventData::new_u64(JOBS), EventFlags::IN)?;
        epoll::add(&self.epoll, self.timer.as_fd(), EventData::new_u64(TIMER), EventFlags::IN)?;
        for (n, port) in self.ports.iter().enumerate() {
            epoll::add(&self.epoll, &port.listener.socket, listener_token(n), EventFlags::IN)?;
        }
        let mut events: Vec<Event> = Vec::with_capacity(64);
        while !self.stopping {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            for event in &events {
                self.tick();
                match event.data.u64() {
                    TIMER => self.timer_fired()?,
                    JOBS => jobs.run(&mut self),
                    token if token % 2 == 0 => self.accept((token / 2) as usize)?,
                    token => self.cable_event((token / 2) as usize, event.flags)?,
                }
            }
            self.look_for_stalls();
            self.resume()?;
            self.arm()?;
        }
        Ok(())
    }

    /// Tells epoll what a port waits for now. A connection that cannot be watched is of no use.
    pub fn watch(&mut self, port: usize) {
        if self.ports[port].watch(&self.epoll, cable_token(port)).is_err() {
            // Epoll failed before if it fails for the listener, and then nothing works.
            let _ = self.unplug(port);
        }
    }

    /// Time goes on. Delayed frames whose time has come go first: a frame sent now must not overtake them.
    fn tick(&mut self) {
        self.now = Instant::now();
        self.arrivals();
    }

    fn timer_fired(&mut self) -> io::Result<()> {
        // Only its end matters, not how often it came.
        let _ = rustix::io::read(&self.timer, &mut [0u8; 8]);
        self.armed = None;
        if self.accept_again.is_some_and(|then| then <= self.now) {
            self.accept_again = None;
            for port in 0..self.ports.len() {
                if self.ports[port].cable.is_none() {
                    self.listen(port, EventFlags::IN)?;
                }
            }
        }
        Ok(())
    }

    fn listen(&self, port: usize, wanted: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, &self.ports[port].listener.socket, listener_token(port), wanted)?)
    }

    /// Plugs a NIC in. While it is, others wait in the listener's backlog: a port has one socket, and whoever restarts is
    /// let in as soon as the one before is gone.
    fn accept(&mut self, port: usize) -> io::Result<()> {
        if self.ports[port].cable.is_some() {
            return Ok(());
        }
        let socket = match self.ports[port].listener.socket.accept() {
            Ok((socket, _)) => socket,
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                ) =>
            {
                return Ok(());
            }
            Err(_) => {
                self.accept_again = Some(self.now + ACCEPT_AGAIN);
                return self.listen(port, EventFlags::empty());
            }
        };
        socket.set_nonblocking(true)?;
        self.ports[port].cable = Some(Cable::new(socket.into()));
        self.ports[port].counters.connects += 1;
        self.listen(port, EventFlags::empty())?;
        self.watch(port);
        Ok(())
    }

    /// A port's connection can be read, can be written, or is gone.
    fn cable_event(&mut self, port: usize, flags: EventFlags) -> io::Result<()> {
        if flags.contains(EventFlags::OUT) {
            self.ports[port].outlet.writable();
            self.flush(port, &[]);
        }
        let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        if gone && let Some(cable) = &mut self.ports[port].cable {
            cable.hung_up = true;
        }
        if self.ports[port].blocked_on.is_none() && (gone || flags.contains(EventFlags::IN)) {
            return self.receive(port);
        }
        self.watch(port);
        Ok(())
    }

    /// Takes in what a port sent, and what it sends meanwhile: in a train of frames, asking again costs less than going
    /// back to epoll. After a while it is the others' turn.
    fn receive(&mut self, port: usize) -> io::Result<()> {
        for _ in 0..READS {
            let of = &mut self.ports[port];
            let Some(cable) = &of.cable else { return Ok(()) };
            match of.inlet.fill(&cable.socket) {
                Err(Errno::AGAIN) => break,
                Ok(0) | Err(_) => return self.unplug(port),
                Ok(_) => self.pass_on(port)?,
            }
            if self.ports[port].blocked_on.is_some() {
                break;
            }
            self.tick();
        }
        self.watch(port);
        Ok(())
    }

    fn pass_on(&mut self, port: usize) -> io::Result<()> {
        if self.forward(port) {
            return Ok(());
        }
        self.ports[port].counters.protocol_errors += 1;
        self.unplug(port)
    }

    /// Forgets everything about a NIC that is gone and lets the next one in.
    fn unplug(&mut self, port: usize) -> io::Result<()> {
        let of = &mut self.ports[port];
        of.cable = None;
        of.inlet.clear();
        if of.blocked_on.take().is_some() {
            self.blocked -= 1;
        }
        let of = &mut self.ports[port];
        of.counters.drops.unplugged += of.outlet.abandon();
        of.outlet.broken = false;
        for held in self.held.remove(|held| held.to == port) {
            of.outlet.delayed -= held.frame.len();
            of.counters.drops.unplugged += 1;
        }
        for from in 0..self.ports.len() {
            self.link(from, port).emptied();
        }
        self.table.forget_port(port);
        self.listen(port, EventFlags::IN)
    }

    /// Lets those go on who waited for a port that has room again, each first in turn.
    pub fn resume(&mut self) -> io::Result<()> {
        while self.blocked > 0 {
            let ports = self.ports.len();
            let next = (0..ports)
                .map(|n| (self.turn + n) % ports)
                .find(|port| self.ports[*port].blocked_on.is_some_and(|to| self.has_much_room(to)));
            let Some(port) = next else { break };
            self.turn = (port + 1) % ports;
            self.ports[port].blocked_on = None;
            self.blocked -= 1;
            self.pass_on(port)?;
            self.watch(port);
        }
        Ok(())
    }

    /// Gives up on ports that took nothing for too long while somebody waits for them.
    fn look_for_stalls(&mut self) {
        if self.blocked == 0 {
            return;
        }
        for from in 0..self.ports.len() {
            let Some(to) = self.ports[from].blocked_on else { continue };
            if self.stalls_at(to).is_none_or(|deadline| deadline > self.now) {
                continue;
            }
            // Epoll speaks up when most of the socket is free again; a slow reader may have taken less than that.
            self.flush(to, &[]);
            self.watch(to);
            if self.stalls_at(to).is_some_and(|deadline| deadline <= self.now) {
                let port = &mut self.ports[to];
                port.counters.drops.stalled += port.outlet.shed();
                port.outlet.stalled = true;
            }
        }
    }

    /// When a port's patience with its silent other end is over.
    fn stalls_at(&self, port: usize) -> Option<Instant> {
        let outlet = &self.ports[port].outlet;
        if !outlet.waiting || outlet.stalled {
            return None;
        }
        outlet.progress.map(|then| then + self.config.limits.stall_after)
    }

    /// Sets the timer to the next thing that happens by itself.
    fn arm(&mut self) -> io::Result<()> {
        let stalls = self.ports.iter().filter_map(|port| port.blocked_on).filter_map(|to| self.stalls_at(to)).min();
        let Some(next) = [self.held.next_due(), stalls, self.accept_again].into_iter().flatten().min() else {
            return Ok(());
        };
        // Waking too early does no harm, and saves setting the timer again for every frame.
        if self.armed.is_some_and(|armed| armed <= next) {
            return Ok(());
        }
        let wait = next.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let value = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: i64::from(wait.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.armed = Some(next);
        Ok(())
    }
}
