//! How guests are run, and from where artifacts may come.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How guests are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// What executes the guest's instructions.
    pub accelerator: Accelerator,
    /// How long a guest may take until its agent is ready.
    pub boot_timeout: Duration,
    /// Whether QEMU offers a gdb stub.
    pub gdb: Gdb,
    /// One instruction is one nanosecond of guest time: latencies repeat whatever the host's load. Only with one
    /// guest of one CPU under TCG; [`Machine::accelerator`] is then [`Accelerator::Tcg`].
    pub icount: bool,
    /// Whether guests have an emulated Intel IOMMU between them and their PCI devices.
    pub iommu: bool,
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// KVM if the guest's kernel really runs on it, else TCG with the reason.
    Auto,
    /// KVM or fail.
    Kvm,
    /// QEMU's own translator.
    Tcg,
}

/// QEMU's gdb stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gdb {
    /// No stub.
    Off,
    /// A stub one may attach to at any time.
    Listen,
    /// A stub, and the guest waits for the debugger before its first instruction.
    Wait,
}

/// The user's own mirrors (`http` or `https` addresses without a trailing slash), tried in order before any other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mirrors {
    /// Mirrors of the Debian archive: the folder that holds `dists/` and `pool/`.
    pub debian: Vec<String>,
    /// Dated snapshots of the Debian archive: the folder that holds `archive/`.
    pub snapshot: Vec<String>,
    /// Mirrors of kernel.org: the folder that holds `linux/kernel/`.
    pub kernel: Vec<String>,
}
