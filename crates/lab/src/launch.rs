//! What a supervisor is to run: the end of planning, the start of effects.
//!
//! Built by [`crate::plan`] once every artifact exists, written to `launch.json`, read by the supervisor. It says
//! everything: nothing else of the project is consulted after it is written.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use machine::LaunchPlan;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use suite::NicInfo;

use crate::control::FaultSpec;
use crate::paths::LabPaths;

/// A lab ready to be launched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// The lab's name.
    pub name: String,
    /// The project's root.
    pub project: PathBuf,
    /// How long a guest may take until its agent is ready.
    pub boot_timeout: Duration,
    /// The guests, in the order of `lab.toml`.
    pub guests: Vec<GuestLaunch>,
    /// The networks between them.
    pub networks: Vec<NetworkLaunch>,
}

/// One guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GuestLaunch {
    /// How QEMU is started.
    pub plan: LaunchPlan,
    /// Its kernel's name in `lab.toml`.
    pub kernel: String,
    /// The kernel's release, as built.
    pub kernel_release: String,
    /// The kernel's tree id.
    pub kernel_tree: String,
    /// The kernel's published folder, where symbols for a crash are found.
    pub kernel_dir: PathBuf,
    /// How binutils' `addr2line` is started, for source lines in a crash report; empty when it is not at hand.
    pub addr2line: Vec<OsString>,
    /// Its NICs, with the addresses they are to have.
    pub nics: Vec<NicInfo>,
    /// Their MTUs, in bytes.
    pub mtus: Vec<u32>,
}

/// One network: a switch and its ports.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkLaunch {
    /// Its name.
    pub name: String,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Seed of every random decision.
    pub seed: u64,
    /// Its ports.
    pub ports: Vec<PortLaunch>,
    /// Faults on links: sending port, receiving port, fault.
    pub faults: Vec<(String, String, FaultSpec)>,
}

/// A port of a switch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PortLaunch {
    /// `GUEST.N`: the guest and the number of its NIC, from 0.
    pub name: String,
    /// The guest.
    pub guest: String,
    /// The socket QEMU connects to.
    pub socket: PathBuf,
}

impl Launch {
    /// Identity of what is launched: equal launches have equal identities.
    pub fn id(&self) -> Result<String> {
        let json = serde_json::to_vec(self).context("cannot describe the launch")?;
        Ok(Sha256::digest(&json).iter().take(16).map(|b| format!("{b:02x}")).collect())
    }

    /// The folders this lab uses.
    pub fn paths(&self) -> Result<LabPaths> {
        LabPaths::new(&self.project, &self.name)
    }

    /// Writes it where the supervisor finds it.
    pub fn save(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads it back.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| {
            format!("{} is not a launch of this build; run `cargo xtask lab up` again", path.display())
        })
    }
}
