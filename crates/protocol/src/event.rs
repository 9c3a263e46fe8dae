//! What the agent answers on a stream.

use serde::{Deserialize, Serialize};

use crate::{BootReport, Pod, Snapshot};

/// One answer. After an event for which [`Event::is_last`] holds, the stream ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The program runs.
    Started {
        /// Its process id, also its process group's.
        pid: u32,
    },
    /// The program is gone and all its output was sent.
    Exited(Exit),
    /// Bytes of the program or of a pulled file.
    Output {
        /// Where they were written.
        channel: Channel,
        /// The bytes, in order per channel.
        bytes: Vec<u8>,
    },
    /// Answer to `Info`.
    Info(Info),
    /// Answer to `Probe`.
    Probed(Vec<Probe>),
    /// Answer to `Snapshot`.
    Snapshot(Snapshot),
    /// Answer to `EndScope`.
    ScopeEnded {
        /// What still ran and was killed: `pid command line`.
        killed: Vec<String>,
    },
    /// Answer to `Lease`.
    Leases(Vec<Pod>),
    /// About the file whose bytes follow.
    FileInfo {
        /// Permission bits.
        mode: u32,
        /// Size in bytes as the file system tells it (0 for files made up on reading).
        size: u64,
    },
    /// What was asked is done.
    Done,
    /// What was asked could not be done.
    Failed(Failure),
}

impl Event {
    /// Whether nothing follows this event on its stream.
    pub fn is_last(&self) -> bool {
        !matches!(self, Event::Started { .. } | Event::Output { .. } | Event::FileInfo { .. })
    }
}

/// Where output was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Channel {
    /// Standard output, a pty, or a file's content.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a program ended. Exactly one of `code` and `signal` is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status, 0 to 255.
    pub code: Option<i32>,
    /// Number of the signal that killed it.
    pub signal: Option<i32>,
    /// It dumped core.
    pub core: bool,
    /// The agent killed it because its time was up.
    pub timed_out: bool,
    /// From start to end, in microseconds.
    pub wall_us: u64,
    /// CPU time in user mode of the program and the children it waited for, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, likewise.
    pub sys_us: u64,
    /// Largest resident set, in KiB.
    pub max_rss_kib: u64,
}

impl Exit {
    /// Whether it ended by itself with status 0.
    pub fn success(&self) -> bool {
        self.code == Some(0) && !self.timed_out
    }

    /// The status a shell would report: the code, or 128 + signal.
    pub fn shell_code(&self) -> i32 {
        self.code.unwrap_or_else(|| 128 + self.signal.unwrap_or(0))
    }
}

/// Who is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// `uname -r`.
    pub kernel_release: String,
    /// `uname -v`.
    pub kernel_version: String,
    /// Host name.
    pub hostname: String,
    /// Time since the kernel started, in microseconds.
    pub uptime_us: u64,
    /// Total memory in KiB.
    pub mem_kib: u64,
    /// Processors online.
    pub cpus: u32,
    /// Which build of the agent this is.
    pub agent_build: String,
    /// How the boot went.
    pub boot: BootReport,
}

/// One capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Its name, as asked.
    pub name: String,
    /// Whether the guest has it.
    pub present: bool,
    /// Why, or why not, for people: a path, a version, what is missing.
    pub detail: String,
}

/// Why a request was not fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What sort of failure.
    pub kind: FailureKind,
    /// What failed, on which input, and what to do next.
    pub message: String,
}

/// Sorts of failure that a caller may treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureKind {
    /// The request itself makes no sense (empty argv, relative path, bad scope name).
    Invalid,
    /// A file, program, namespace or device is not there.
    NotFound,
    /// There, but could not be executed or opened.
    Denied,
    /// The condition did not come true in time.
    TimedOut,
    /// The kernel or file system refused; the message carries its error.
    Io,
    /// The two ends disagree about the protocol: a defect.
    Protocol,
}
