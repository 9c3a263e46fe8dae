//! The resolved lab: what the rest of the project plans from.
//!
//! Plain data with public fields; nothing here refers back to the text it came from. Everything that decides what is
//! built and booted is serialised into [`Lab::config_hash`].

mod kernel;
mod machine;
mod network;
mod scalar;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use kernel::{Kernel, KernelOrigin};
pub use machine::{Accelerator, Gdb, Machine, Mirrors};
pub use network::{Fault, Link, Network, Nic, NicModel};
pub use scalar::{BadValue, Cidr, Mac};

/// A lab as the chosen profile makes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lab {
    /// The lab's own name, `lab` unless the file says otherwise; `--name` overrides it at run time.
    pub name: String,
    /// The folder that holds `lab.toml`; `kernel-patches/`, `templates/`, `suites/` and `images/` lie in it.
    #[serde(skip)]
    pub root: PathBuf,
    /// The profile that was laid over the file, if any.
    pub profile: Option<String>,
    /// Every profile the file declares, in name order.
    pub profiles: Vec<ProfileInfo>,
    /// The kernel of guests that name none.
    pub default_kernel: String,
    /// Suites to run, in the order given; each is `suites/<name>.toml`.
    pub suites: Vec<String>,
    /// Every kernel the file declares, by name.
    pub kernels: BTreeMap<String, Kernel>,
    /// Every image the file declares, by name.
    pub images: BTreeMap<String, Image>,
    /// Every network the file declares, by name.
    pub networks: BTreeMap<String, Network>,
    /// The guests that boot, in name order (or in the order of `lab.guests`). Never empty.
    pub guests: Vec<Guest>,
    /// How guests are run.
    pub machine: Machine,
    /// The user's own mirrors, tried before any other.
    pub mirrors: Mirrors,
}

/// A profile, for lists and help texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProfileInfo {
    /// What `--profile` takes.
    pub name: String,
    /// What it is for; empty if the file does not say.
    pub description: String,
}

/// A guest image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Its name in the file.
    pub name: String,
    /// The image definition (packages, files, fix-ups), relative to [`Lab::root`].
    pub definition: PathBuf,
}

/// A guest: one virtual machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Guest {
    /// Its name, which is also its host name.
    pub name: String,
    /// The image it boots; a key of [`Lab::images`].
    pub image: String,
    /// The kernel it boots; a key of [`Lab::kernels`].
    pub kernel: String,
    /// Whether the file names that kernel for this very guest, so that [`Lab::with_kernel`] leaves it alone.
    #[serde(skip)]
    pub own_kernel: bool,
    /// Virtual CPUs, at least 1.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Kernel parameters beyond those every guest gets.
    pub cmdline: Vec<String>,
    /// Network interfaces, in the order of the file.
    pub nics: Vec<Nic>,
}

/// `with_kernel` was given a name the file does not declare.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no kernel `{name}` in lab.toml; there is {}{}", .allowed.join(", "), .nearest.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default())]
pub struct UnknownKernel {
    /// The name that was asked for.
    pub name: String,
    /// The kernels there are.
    pub allowed: Vec<String>,
    /// The one that was probably meant.
    pub nearest: Option<String>,
}

impl Lab {
    /// Whether a guest has a NIC that is emulated by a process of the lab's own.
    pub fn has_gvnic(&self) -> bool {
        self.guests.iter().flat_map(|guest| &guest.nics).any(|nic| nic.model == NicModel::Gvnic)
    }

    /// The same lab on kernel `name` (`lab up --kernel K`): it boots in every guest for which the file names no kernel
    /// of its own. An interoperation of two kernels stays one when the default changes.
    pub fn with_kernel(mut self, name: &str) -> Result<Lab, UnknownKernel> {
        self.known_kernel(name)?;
        self.default_kernel = name.to_owned();
        for guest in self.guests.iter_mut().filter(|g| !g.own_kernel) {
            guest.kernel = name.to_owned();
        }
        Ok(self)
    }

    /// Looks a guest up by name.
    pub fn guest(&self, name: &str) -> Option<&Guest> {
        self.guests.iter().find(|g| g.name == name)
    }

    /// The kernels the guests boot, each once, in name order; a rebuild's package kernel comes before the rebuild.
    pub fn kernels_in_use(&self) -> Vec<&Kernel> {
        let mut used: Vec<&Kernel> = Vec::new();
        let mut push = |kernel| {
            if !used.contains(&kernel) {
                used.push(kernel);
            }
        };
        for (name, kernel) in &self.kernels {
            if self.guests.iter().any(|g| g.kernel == *name) {
                if let KernelOrigin::Rebuild { of } = &kernel.origin {
                    push(&self.kernels[of]);
                }
                push(kernel);
            }
        }
        used
    }

    /// SHA-256 (64 hex digits) of all that decides what is built, booted and run: guests, the kernels, images and
    /// networks they use, suites and machine. What the lab is called, where it lies, which mirrors serve it and what
    /// no guest uses are left out, so equal hashes mean equal labs.
    pub fn config_hash(&self) -> String {
        let networks: Vec<&Network> = self
            .networks
            .values()
            .filter(|n| self.guests.iter().any(|g| g.nics.iter().any(|i| i.network == n.name)))
            .collect();
        let images: Vec<&Image> =
            self.images.values().filter(|i| self.guests.iter().any(|g| g.image == i.name)).collect();
        let identity = serde_json::json!({
            "schema": 1,
            "kernels": self.kernels_in_use(),
            "images": images,
            "networks": networks,
            "guests": self.guests,
            "suites": self.suites,
            "machine": self.machine,
        });
        Sha256::digest(identity.to_string()).iter().map(|b| format!("{b:02x}")).collect()
    }

    fn known_kernel(&self, name: &str) -> Result<(), UnknownKernel> {
        if self.kernels.contains_key(name) {
            return Ok(());
        }
        Err(UnknownKernel {
            name: name.to_owned(),
            allowed: self.kernels.keys().cloned().collect(),
            nearest: crate::nearest::nearest(name, self.kernels.keys().map(String::as_str)).map(str::to_owned),
        })
    }
}
