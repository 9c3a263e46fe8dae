//! How a start and a boot can end, one error each.
//!
//! Every boot error carries the console's last lines and, where the console or QEMU's own words allow it, a hint: what
//! is probably missing and what to do about it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use protocol::{ChannelError, Hello};

use crate::accel::Engine;
use crate::check::PlanError;
use crate::console::ConsoleTail;
use crate::crash::Crash;
use crate::process::Exit;
use crate::qmp::QmpError;

/// A guest whose agent has greeted us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The agent's greeting.
    pub hello: Hello,
    /// From QEMU's start to the greeting.
    pub took: Duration,
    /// What runs it.
    pub engine: Engine,
    /// Why KVM was asked for (`auto`) and not used; `None` when it is used or was not asked for.
    pub fallback: Option<String>,
}

/// QEMU could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The plan cannot work.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file the plan names is not there or cannot be read.
    #[error("guest `{guest}`: {what} {path}: {source}")]
    File {
        /// The guest.
        guest: String,
        /// What the file is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// The program could not be executed.
    #[error("guest `{guest}`: cannot run {program}: {source}")]
    Spawn {
        /// The guest.
        guest: String,
        /// The first word of the command line.
        program: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// QEMU ended before its control socket was there.
    #[error("guest `{guest}`: QEMU ended with {exit} before the machine existed{said}{hint}")]
    Exited {
        /// The guest.
        guest: String,
        /// How.
        exit: Exit,
        /// What it printed.
        said: ConsoleTail,
        /// What to do.
        hint: Hint,
    },
    /// A device's process ended before QEMU could connect to it.
    #[error("guest `{guest}`: the device process of NIC {nic} ended with {exit}{said}")]
    Device {
        /// The guest.
        guest: String,
        /// Which NIC, from 0.
        nic: usize,
        /// How.
        exit: Exit,
        /// What it printed.
        said: ConsoleTail,
    },
    /// QEMU or a device's process runs and its sockets do not appear.
    #[error("guest `{guest}`: nobody opened {socket} within {waited:?}{said}")]
    NoSocket {
        /// The guest.
        guest: String,
        /// The socket.
        socket: PathBuf,
        /// How long.
        waited: Duration,
        /// What QEMU printed.
        said: ConsoleTail,
    },
    /// KVM was demanded and cannot be had.
    #[error(
        "guest `{guest}`: KVM was asked for and cannot be used: {reason}; accelerator `auto` or `tcg` would emulate instead"
    )]
    NoKvm {
        /// The guest.
        guest: String,
        /// Why.
        reason: String,
    },
    /// The control socket failed.
    #[error("guest `{guest}`: {source}")]
    Qmp {
        /// The guest.
        guest: String,
        /// What happened.
        source: QmpError,
    },
    /// The agent's channel failed at once.
    #[error("guest `{guest}`: {source}")]
    Channel {
        /// The guest.
        guest: String,
        /// What happened.
        source: ChannelError,
    },
    /// Somebody asked to stop.
    #[error(transparent)]
    Cancelled(#[from] progress::Cancelled),
}

/// The machine started and its agent did not greet us.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel panicked, or broke and then said nothing more.
    #[error("guest `{guest}` crashed while booting on {engine}: {}{console}{hint}", crash.title)]
    Crashed {
        /// The guest.
        guest: String,
        /// What ran it.
        engine: Engine,
        /// The report.
        crash: Box<Crash>,
        /// The console's end.
        console: ConsoleTail,
        /// What to do.
        hint: Hint,
    },
    /// QEMU ended with no panic on the console.
    #[error(
        "guest `{guest}`: QEMU ended with {exit} after {after:.1?}, before the agent greeted{said}\n  console:{console}{hint}"
    )]
    Exited {
        /// The guest.
        guest: String,
        /// How.
        exit: Exit,
        /// When.
        after: Duration,
        /// What QEMU printed.
        said: ConsoleTail,
        /// The console's end.
        console: ConsoleTail,
        /// What to do.
        hint: Hint,
    },
    /// A device that is a process of its own ended.
    #[error(
        "guest `{guest}`: the device process of NIC {nic} ended with {exit}, and QEMU cannot go on without it{said}"
    )]
    DeviceLost {
        /// The guest.
        guest: String,
        /// Which NIC, from 0.
        nic: usize,
        /// How.
        exit: Exit,
        /// What it printed.
        said: ConsoleTail,
    },
    /// The hypervisor stopped the machine, or does not run it.
    #[error("guest `{guest}`: {engine} cannot run it: {status}{said}\n  console:{console}{hint}")]
    Stopped {
        /// The guest.
        guest: String,
        /// What ran it.
        engine: Engine,
        /// What is known about it.
        status: String,
        /// What QEMU printed.
        said: ConsoleTail,
        /// The console's end.
        console: ConsoleTail,
        /// What to do.
        hint: Hint,
    },
    /// Time is up.
    #[error(
        "guest `{guest}`: no greeting from the agent within {waited:?} on {engine} (virtual CPUs: {activity}){console}{hint}"
    )]
    Timeout {
        /// The guest.
        guest: String,
        /// What ran it.
        engine: Engine,
        /// How long.
        waited: Duration,
        /// What the virtual CPUs were doing at the end.
        activity: String,
        /// The console's end.
        console: ConsoleTail,
        /// What to do.
        hint: Hint,
    },
    /// The agent greeted in a way we cannot work with.
    #[error("guest `{guest}`: {source}")]
    Agent {
        /// The guest.
        guest: String,
        /// What happened.
        source: ChannelError,
    },
    /// The second attempt, on TCG, could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A log could not be read.
    #[error("guest `{guest}`: {path}: {source}")]
    Log {
        /// The guest.
        guest: String,
        /// The log.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// Somebody asked to stop.
    #[error(transparent)]
    Cancelled(#[from] progress::Cancelled),
}

/// What to do about it, when that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hint(pub Option<String>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(text) => write!(f, "\n  hint: {text}"),
            None => Ok(()),
        }
    }
}
