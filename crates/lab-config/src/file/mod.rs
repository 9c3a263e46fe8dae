//! `lab.toml` as it is written: one type a table, one field a key.
//!
//! These types are the only list of what may stand in the file. The JSON schema is generated from them, the check of
//! keys and values runs on that schema, the reference in `docs/config.md` is printed from it, and serde decodes into
//! them. Their doc comments are therefore texts for users. Values keep their spans ([`At`]) for what can only be
//! judged later: references, conflicts, duplicates.

mod at;
mod fault;
mod guest;
mod kernel;
mod name;
mod place;
mod quantity;
mod scalar;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::{Accelerator, Gdb};

pub(crate) use at::At;
pub(crate) use fault::NicFault;
pub(crate) use guest::{FaultTable, GuestTable, LinkTable, NetworkTable, NicTable};
pub(crate) use kernel::{ImageTable, KernelTable};
pub(crate) use name::{Interface, Name, Parameter};
pub(crate) use place::{DefinitionPath, Release, SourceName, Url};
pub(crate) use quantity::{Memory, Percent, Period};
pub(crate) use scalar::{Scalar, kind, kinds};

/// A map from names to tables, such as all `[kernel.NAME]`.
pub(crate) type Named<T> = BTreeMap<At<Name>, T>;

/// A lab: kernels, image, guests, networks, suites, and profiles that change them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "lab.toml")]
pub(crate) struct LabFile {
    /// What the lab is called, which guests boot and what runs in them.
    pub(crate) lab: LabTable,
    /// Kernels. Each has exactly one of `source`, `package` and `rebuild`, its own or by `extends`.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) kernel: Named<KernelTable>,
    /// Guest images.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) image: Named<ImageTable>,
    /// Ethernet segments between guests.
    #[serde(default)]
    pub(crate) network: Named<NetworkTable>,
    /// Guests: one virtual machine each.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) guest: Named<GuestTable>,
    /// How guests are run.
    #[serde(default)]
    pub(crate) machine: MachineTable,
    /// Your own mirrors, tried in order before any other.
    #[serde(default)]
    pub(crate) mirrors: MirrorsTable,
    /// Variants of the lab, chosen with `--profile NAME`: tables merge into the file's, all else replaces it.
    #[serde(default)]
    #[expect(dead_code, reason = "profiles are laid over the file before it is decoded")]
    pub(crate) profile: Named<ProfileTable>,
}

/// What the lab is called, which guests boot and what runs in them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct LabTable {
    /// Name of the lab, so that several can run at once; `--name` overrides it.
    #[serde(default)]
    #[schemars(extend("default" = "lab"))]
    pub(crate) name: Option<At<Name>>,
    /// Kernel of the guests that name none.
    pub(crate) kernel: At<Name>,
    /// Image of the guests that name none.
    pub(crate) image: At<Name>,
    /// Guests that boot, in this order. All of them if left out.
    #[serde(default)]
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(crate) guests: Option<At<Vec<At<Name>>>>,
    /// Suites to run, in this order; each is `suites/NAME.toml`. None if left out.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true))]
    pub(crate) suites: Vec<At<Name>>,
}

/// How guests are run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct MachineTable {
    /// What executes the guest's instructions.
    #[schemars(extend("default" = "auto"))]
    pub(crate) accelerator: Option<At<Accelerator>>,
    /// How long a guest may take until its agent is ready, between 1 second and 1 hour.
    #[schemars(extend("default" = "120s"))]
    pub(crate) boot_timeout: Option<At<Period>>,
    /// QEMU's gdb stub; `lab up --gdb` turns it on as well.
    #[schemars(extend("default" = "off"))]
    pub(crate) gdb: Option<At<Gdb>>,
    /// Count instructions instead of time (one is one nanosecond), so that latencies repeat whatever the host's load.
    /// Only for a single guest with a single CPU, under TCG.
    #[schemars(extend("default" = false))]
    pub(crate) icount: Option<At<bool>>,
    /// Put an emulated Intel IOMMU between guests and their PCI devices: drivers map what a device may reach, and a device
    /// that reaches for anything else faults. virtio devices keep going past it.
    #[schemars(extend("default" = false))]
    pub(crate) iommu: Option<At<bool>>,
}

/// Your own mirrors, tried in order before any other.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct MirrorsTable {
    /// Mirrors of the Debian archive: the folder that holds `dists/` and `pool/`.
    #[schemars(extend("uniqueItems" = true))]
    pub(crate) debian: Vec<At<Url>>,
    /// Dated snapshots of the Debian archive: the folder that holds `archive/`.
    #[schemars(extend("uniqueItems" = true))]
    pub(crate) snapshot: Vec<At<Url>>,
    /// Mirrors of kernel.org: the folder that holds `linux/kernel/`.
    #[schemars(extend("uniqueItems" = true))]
    pub(crate) kernel: Vec<At<Url>>,
}

/// A variant of the lab: any table of the file, with only the keys that change.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(dead_code, reason = "stands for the schema; see `LabFile::profile`")]
pub(crate) struct ProfileTable {
    /// What the profile is for, in a sentence.
    pub(crate) description: Option<String>,
    /// As `[lab]`.
    pub(crate) lab: LabTable,
    /// As `[kernel.NAME]`.
    pub(crate) kernel: Named<KernelTable>,
    /// As `[image.NAME]`.
    pub(crate) image: Named<ImageTable>,
    /// As `[network.NAME]`.
    pub(crate) network: Named<NetworkTable>,
    /// As `[guest.NAME]`.
    pub(crate) guest: Named<GuestTable>,
    /// As `[machine]`.
    pub(crate) machine: MachineTable,
    /// As `[mirrors]`.
    pub(crate) mirrors: MirrorsTable,
}
