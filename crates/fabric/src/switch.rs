//! The handle of a running switch.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use crate::capture::Capture;
use crate::config::SwitchConfig;
use crate::control::{Control, pair};
use crate::core::Core;
use crate::counters::PortCounters;
use crate::error::FabricError;
use crate::fault::Fault;
use crate::wire::Mac;

/// A switch that runs until it is stopped or dropped. Its methods may be called from any thread.
pub struct Switch {
    config: SwitchConfig,
    control: Control,
    thread: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

/// A station the switch has learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Station {
    /// Its address.
    pub mac: Mac,
    /// The port it is behind.
    pub port: String,
    /// How long ago it sent something.
    pub silent: Duration,
}

impl Switch {
    /// Listens on every port's socket and starts the switch's thread. NICs may connect once this returns.
    ///
    /// # Errors
    /// When the configuration is wrong or a socket cannot be listened on. No socket is left behind then.
    pub fn start(config: SwitchConfig) -> Result<Self, FabricError> {
        let core = Core::new(config.clone())?;
        let (control, jobs) = pair(&config.name)?;
        // The kernel cuts thread names at 15 bytes.
        let name = format!("switch {}", config.name).replace('\0', "");
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || core.run(&jobs))
            .map_err(|source| FabricError::System { network: config.name.clone(), what: "start a thread", source })?;
        Ok(Switch { config, control, thread: Mutex::new(Some(thread)) })
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its ports' names, in order.
    pub fn ports(&self) -> impl Iterator<Item = &str> {
        self.config.ports.iter().map(|port| port.name.as_str())
    }

    /// What every port counted, in the order of the ports.
    ///
    /// # Errors
    /// [`FabricError::Stopped`].
    pub fn counters(&self) -> Result<Vec<PortCounters>, FabricError> {
        self.control.call(|core| core.counters())
    }

    /// The stations it has learned and not forgotten, by address.
    ///
    /// # Errors
    /// [`FabricError::Stopped`].
    pub fn stations(&self) -> Result<Vec<Station>, FabricError> {
        self.control.call(|core| core.stations())
    }

    /// The fault of the frames from one port to another.
    ///
    /// # Errors
    /// [`FabricError::UnknownPort`], [`FabricError::SelfLink`] or [`FabricError::Stopped`].
    pub fn link_fault(&self, from: &str, to: &str) -> Result<Fault, FabricError> {
        let (from, to) = self.link(from, to)?;
        self.control.call(move |core| *core.link(from, to).fault())
    }

    /// Gives the frames from one port to another a fault in place of the one they have. Holds once this returns; the link's
    /// random decisions start from the beginning.
    ///
    /// # Errors
    /// [`FabricError::UnknownPort`], [`FabricError::SelfLink`], [`FabricError::BadFault`] or [`FabricError::Stopped`].
    pub fn set_link_fault(&self, from: &str, to: &str, fault: Fault) -> Result<(), FabricError> {
        fault.check()?;
        let (from, to) = self.link(from, to)?;
        self.control.call(move |core| core.set_fault(from, to, fault))
    }

    /// Gives the frames from every other port to this one a fault, as [`Switch::set_link_fault`] does for one.
    ///
    /// # Errors
    /// [`FabricError::UnknownPort`], [`FabricError::BadFault`] or [`FabricError::Stopped`].
    pub fn set_port_fault(&self, port: &str, fault: Fault) -> Result<(), FabricError> {
        fault.check()?;
        let to = self.config.port(port)?;
        let ports = self.config.ports.len();
        self.control.call(move |core| {
            for from in (0..ports).filter(|from| *from != to) {
                core.set_fault(from, to, fault);
            }
        })
    }

    /// Writes every frame that crosses a port to a pcapng file (replacing what is there), until the capture is dropped. The
    /// file is written as frames come, so it can be read meanwhile; a FIFO will do, too.
    ///
    /// Frames from the guest are as it sent them; frames to it are as they leave the switch, with whatever faults did to them.
    ///
    /// # Errors
    /// [`FabricError::UnknownPort`], [`FabricError::Capture`] or [`FabricError::Stopped`].
    pub fn capture(&self, port: &str, file: &Path) -> Result<Capture, FabricError> {
        let number = self.config.port(port)?;
        let (capture, tap) = Capture::start(self.control.clone(), number, port, file)?;
        self.control.call(move |core| core.tap(number, tap))?;
        Ok(capture)
    }

    /// Stops the switch: connections are closed, sockets removed. Stopping twice is as good as once.
    ///
    /// # Errors
    /// [`FabricError::System`] when the switch had failed before.
    pub fn stop(&self) -> Result<(), FabricError> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        // When it is gone already, its result says why.
        let _ = self.control.call(|core| core.stopping = true);
        let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
        ended.map_err(|source| FabricError::System { network: self.config.name.clone(), what: "go on", source })
    }

    fn link(&self, from: &str, to: &str) -> Result<(usize, usize), FabricError> {
        let link = (self.config.port(from)?, self.config.port(to)?);
        if link.0 == link.1 {
            return Err(FabricError::SelfLink { network: self.config.name.clone(), port: from.to_owned() });
        }
        Ok(link)
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // Who wants to know how it ended calls `stop`.
        let _ = self.stop();
    }
}
