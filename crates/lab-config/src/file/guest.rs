//! `[network.NAME]`, `[guest.NAME]` and what is on them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Interface, Memory, Name, NicFault, Parameter, Percent, Period};
use crate::model::{Cidr, Mac, NicModel};

/// An Ethernet segment between guests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct NetworkTable {
    /// Largest IP packet, in bytes.
    #[schemars(range(min = 68, max = 65535), extend("default" = 1500))]
    pub(crate) mtu: Option<At<u32>>,
    /// Seed of every random decision about faults, so that a run can be repeated.
    #[schemars(extend("default" = 1))]
    pub(crate) seed: Option<u64>,
    /// Faults on every link of the network.
    pub(crate) fault: FaultTable,
    /// Faults on single links.
    pub(crate) link: Vec<LinkTable>,
}

/// Faults of what one guest sends to another; the way back is another link.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct LinkTable {
    /// The guest that sends.
    pub(crate) from: At<Name>,
    /// The guest that receives.
    pub(crate) to: At<Name>,
    /// What happens to its frames, in place of the network's own `fault`.
    pub(crate) fault: FaultTable,
}

/// What happens to frames on a link.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct FaultTable {
    /// Share of frames that are lost.
    #[schemars(extend("default" = "0%"))]
    pub(crate) loss: Option<At<Percent>>,
    /// Time every frame is held, at most one minute.
    #[schemars(extend("default" = "0s"))]
    pub(crate) delay: Option<At<Period>>,
    /// The delay varies by up to this much either way; at most the delay itself.
    #[schemars(extend("default" = "0s"))]
    pub(crate) jitter: Option<At<Period>>,
    /// Share of frames that overtake those before them.
    #[schemars(extend("default" = "0%"))]
    pub(crate) reorder: Option<At<Percent>>,
    /// Share of frames that arrive twice.
    #[schemars(extend("default" = "0%"))]
    pub(crate) duplicate: Option<At<Percent>>,
    /// Share of frames of which one bit is flipped.
    #[schemars(extend("default" = "0%"))]
    pub(crate) corrupt: Option<At<Percent>>,
    /// Nothing gets through.
    #[schemars(extend("default" = false))]
    pub(crate) partition: Option<bool>,
}

/// A guest: one virtual machine. Its name is also its host name.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct GuestTable {
    /// The image it boots; `image` of `[lab]` if left out.
    pub(crate) image: Option<At<Name>>,
    /// The kernel it boots; `kernel` of `[lab]`, or what `--kernel` names, if left out.
    pub(crate) kernel: Option<At<Name>>,
    /// Virtual CPUs.
    #[schemars(range(min = 1, max = 64), extend("default" = 2))]
    pub(crate) cpus: Option<At<u32>>,
    /// Memory, between 256MiB and 1TiB.
    #[schemars(extend("default" = "1GiB"))]
    pub(crate) memory: Option<At<Memory>>,
    /// Kernel parameters beyond those every guest gets.
    #[schemars(extend("uniqueItems" = true))]
    pub(crate) cmdline: Vec<At<Parameter>>,
    /// Network interfaces.
    #[schemars(length(max = 16))]
    pub(crate) nic: Vec<NicTable>,
}

/// A guest's network interface.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct NicTable {
    /// The network it is on.
    pub(crate) network: At<Name>,
    /// What the interface is called in the guest; `eth0`, `eth1`, … in the order of the file if left out.
    #[serde(default)]
    pub(crate) interface: Option<At<Interface>>,
    /// The device the guest sees.
    #[serde(default)]
    #[schemars(extend("default" = "virtio"))]
    pub(crate) model: Option<NicModel>,
    /// Pairs of transmit and receive queues that a gvnic offers; the driver takes as many as the guest has CPUs until told
    /// otherwise.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16), extend("default" = 16))]
    pub(crate) queues: Option<At<u32>>,
    /// What goes wrong with a gvnic: frames, completions, commands, the link, the device as a whole. The words are in gvnic.md.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(crate) fault: Vec<At<NicFault>>,
    /// Ethernet address; if left out, one that stays the same from run to run.
    #[serde(default)]
    pub(crate) mac: Option<At<Mac>>,
    /// Largest IP packet, in bytes; the network's if left out, and never more than that.
    #[serde(default)]
    #[schemars(range(min = 68, max = 65535))]
    pub(crate) mtu: Option<At<u32>>,
    /// IP addresses of the interface.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true))]
    pub(crate) addresses: Vec<At<Cidr>>,
}
