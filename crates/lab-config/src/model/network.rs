//! Networks, the NICs on them and what goes wrong between them.

use std::time::Duration;

use gvnic::fault::FaultPlan;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::{Cidr, Mac};

/// An Ethernet segment between guests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Network {
    /// Its name in the file.
    pub name: String,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Seed of every random decision, so that a faulty run can be repeated.
    pub seed: u64,
    /// Faults on every link of the network.
    pub fault: Fault,
    /// Faults on single links; they replace [`Network::fault`] there.
    pub links: Vec<Link>,
}

/// Faults of the frames that go from one guest to another; the way back is another link.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Link {
    /// The guest that sends.
    pub from: String,
    /// The guest that receives.
    pub to: String,
    /// What happens to its frames.
    pub fault: Fault,
}

/// What a link does to frames. Probabilities are between 0 and 1, one draw a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Fault {
    /// Probability that a frame is lost.
    pub loss: f64,
    /// Time every frame is held.
    pub delay: Duration,
    /// The delay varies by up to this much either way (never more than the delay itself).
    pub jitter: Duration,
    /// Probability that a frame overtakes those held before it.
    pub reorder: f64,
    /// Probability that a frame arrives twice.
    pub duplicate: f64,
    /// Probability that one bit of a frame is flipped.
    pub corrupt: f64,
    /// Nothing gets through.
    pub partition: bool,
}

impl Fault {
    /// Whether frames pass untouched.
    pub fn is_none(&self) -> bool {
        *self == Fault::default()
    }
}

/// A guest's network interface.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Nic {
    /// What the interface is called in the guest.
    pub interface: String,
    /// The network it is on; a key of `Lab::networks`.
    pub network: String,
    /// The device the guest sees.
    pub model: NicModel,
    /// Pairs of transmit and receive queues it offers; 1 for a device that has no choice.
    pub queues: u32,
    /// What goes wrong with a gvnic; the seed is the network's. Empty for any other device.
    pub faults: FaultPlan,
    /// Its address: the file's, or one derived from guest and interface that stays the same from run to run.
    pub mac: Mac,
    /// Largest IP packet, in bytes; at most the network's.
    pub mtu: u32,
    /// IP addresses the interface is given.
    pub addresses: Vec<Cidr>,
}

/// A device a guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    /// virtio-net.
    Virtio,
    /// Google's gVNIC, emulated by a process of the lab's own: header split, flow steering, device-memory TCP.
    Gvnic,
    /// Intel's 82576 as QEMU emulates it, for comparison; the lab's own kernels have no driver for it, Debian's has.
    Igb,
}

impl NicModel {
    /// As the file says it.
    pub fn name(self) -> &'static str {
        match self {
            NicModel::Virtio => "virtio",
            NicModel::Gvnic => "gvnic",
            NicModel::Igb => "igb",
        }
    }
}
