//! What a switch is made of.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::FabricError;
use crate::fault::Fault;

/// A switch: one Ethernet segment.
#[derive(Debug, Clone)]
pub struct SwitchConfig {
    /// The network's name, for messages.
    pub name: String,
    /// Its ports.
    pub ports: Vec<PortConfig>,
    /// Faults from the start on; links that are not named are sound.
    pub faults: Vec<LinkFault>,
    /// Seed of every random decision: the same seed, faults and frames on a link give the same fates.
    pub seed: u64,
    /// How much it holds, and for how long.
    pub limits: Limits,
}

/// A port.
#[derive(Debug, Clone)]
pub struct PortConfig {
    /// Its name; unique in the switch.
    pub name: String,
    /// The unix socket it listens on. Made at the start, removed at the end.
    pub socket: PathBuf,
    /// Largest IP packet, in bytes; frames may be larger by an Ethernet header and two VLAN tags.
    pub mtu: u32,
}

/// A fault of the frames from one port to another.
#[derive(Debug, Clone)]
pub struct LinkFault {
    /// The port that sends.
    pub from: String,
    /// The port that receives.
    pub to: String,
    /// What happens to its frames.
    pub fault: Fault,
}

/// Bounds of a switch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes that may wait for a port whose side does not read. A sender of more is held back.
    pub queue_bytes: usize,
    /// Bytes of delayed frames that may be on the way to a port. A sender of more is held back.
    pub delayed_bytes: usize,
    /// How long a port may take nothing while a sender waits for it; what comes after that is dropped until it reads again.
    pub stall_after: Duration,
    /// How long an address that sends nothing is remembered (IEEE 802.1D recommends 300 s).
    pub ageing: Duration,
    /// Addresses remembered at most; frames to others are flooded.
    pub addresses: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            queue_bytes: 256 << 10,
            delayed_bytes: 16 << 20,
            // An emulated guest on a busy host may not get a processor for a second; that is no reason to lose frames.
            stall_after: Duration::from_secs(3),
            ageing: Duration::from_secs(300),
            addresses: 4096,
        }
    }
}

impl SwitchConfig {
    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// Naming the port or the link that is wrong.
    pub fn check(&self) -> Result<(), FabricError> {
        for (n, port) in self.ports.iter().enumerate() {
            if self.ports[..n].iter().any(|other| other.name == port.name) {
                return Err(FabricError::DuplicatePort { network: self.name.clone(), port: port.name.clone() });
            }
            if !(68..=65535).contains(&port.mtu) {
                return Err(FabricError::BadMtu { network: self.name.clone(), port: port.name.clone(), mtu: port.mtu });
            }
        }
        for link in &self.faults {
            self.port(&link.from)?;
            self.port(&link.to)?;
            if link.from == link.to {
                return Err(FabricError::SelfLink { network: self.name.clone(), port: link.from.clone() });
            }
            link.fault.check()?;
        }
        Ok(())
    }

    /// The number of a port.
    pub(crate) fn port(&self, name: &str) -> Result<usize, FabricError> {
        self.ports.iter().position(|p| p.name == name).ok_or_else(|| FabricError::UnknownPort {
            network: self.name.clone(),
            port: name.to_owned(),
            ports: self.ports.iter().map(|p| p.name.clone()).collect(),
        })
    }
}
