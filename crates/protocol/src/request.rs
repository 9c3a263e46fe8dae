//! What the host asks of the agent: one [`Request`] opens a stream, [`Input`]s follow on it.

use serde::{Deserialize, Serialize};

use crate::lease::LeaseAsk;

/// Opens a stream. Which events answer is said at each variant; any of them may be answered by
/// [`Event::Failed`](crate::Event::Failed) instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Runs a program: `Started`, `Output`…, `Exited`.
    Exec(Exec),
    /// Writes a file out of the `Stdin` inputs that follow: `Done` once it is in place.
    Push(Push),
    /// Reads a file: `FileInfo`, `Output`…, `Done`.
    Pull(Pull),
    /// Waits until something is true: `Done`, or a failure of kind `TimedOut` that says what was seen last.
    Wait(Wait),
    /// Asks for capabilities by name: `Probed`, one answer a name, in the order asked.
    Probe {
        /// `tool:NAME`, `module:NAME`, `config:SYMBOL`, `file:PATH`, `sysctl:NAME`, or a composed name such as `rxe`.
        names: Vec<String>,
    },
    /// Asks who is there: `Info`.
    Info,
    /// Records what a test could leave behind: `Snapshot`.
    Snapshot,
    /// Kills everything that runs in a scope and removes its control group: `ScopeEnded`.
    EndScope {
        /// The scope's name, as in [`Exec::scope`].
        scope: String,
    },
    /// Leases receive queues of a NIC to pods; what answers is said at each [`LeaseAsk`].
    Lease(LeaseAsk),
    /// Syncs, unmounts and powers off or reboots. `Done` is sent just before; then the channel goes silent.
    PowerOff {
        /// Reboot instead of power off.
        reboot: bool,
    },
}

/// A program to run. It becomes the leader of a session and process group of its own; closing the stream kills that group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; a program without a slash is looked up in the guest's `PATH`.
    pub argv: Vec<String>,
    /// Added to the agent's own small environment (`PATH`, `HOME`, `LANG`, `TERM` with a pty).
    pub env: Vec<(String, String)>,
    /// Working folder; `/` when absent.
    pub cwd: Option<String>,
    /// Run on a pseudo-terminal of this size; all output then arrives as `Stdout`.
    pub pty: Option<WinSize>,
    /// Connect standard input to the stream; otherwise it is `/dev/null`. A pty always has input.
    pub stdin: bool,
    /// Kill it (and say so in the exit) after this long.
    pub timeout_ms: Option<u64>,
    /// Run it in this control group (`lab/<scope>`), shared by all programs of one test. No slashes, no leading dot.
    pub scope: Option<String>,
}

impl Exec {
    /// A program with no input, terminal, limit or scope.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Exec { argv: argv.into_iter().map(Into::into).collect(), ..Exec::default() }
    }
}

/// Size of a terminal, and its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WinSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
    /// Value of `TERM`; empty leaves it alone.
    pub term: String,
}

/// A file to write. It appears under its name only when complete; missing folders are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Absolute path in the guest.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// How many bytes will follow; any other number is a failure and leaves nothing behind.
    pub size: u64,
}

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Absolute path in the guest. Files of unknown size (`/proc`, `/sys`) work: they are read to their end.
    pub path: String,
}

/// Something to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// What must be true.
    pub condition: Condition,
    /// How long to wait at most.
    pub timeout_ms: u64,
    /// How often to look; 0 lets the agent choose.
    pub interval_ms: u64,
}

/// A state of the guest that a test can wait for. `netns` names a namespace in `/run/netns`; absent means the agent's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// A TCP socket listens on the port, v4 or v6.
    TcpListen {
        /// Port number.
        port: u16,
        /// Network namespace.
        netns: Option<String>,
    },
    /// An RDMA connection manager id listens (`rdma resource show cm_id`).
    RdmaListen {
        /// Port number; absent means any.
        port: Option<u16>,
        /// Network namespace.
        netns: Option<String>,
    },
    /// Port 1 of an RDMA device is active with its physical link up.
    RdmaLinkActive {
        /// Device name, for instance `rxe0`.
        name: String,
        /// Network namespace.
        netns: Option<String>,
    },
    /// The path exists.
    FileExists {
        /// Absolute path.
        path: String,
    },
    /// The file holds the text.
    FileContains {
        /// Absolute path.
        path: String,
        /// Plain text to find, not a regular expression.
        pattern: String,
    },
    /// A network link exists, and when asked is up and running (carrier).
    Link {
        /// Interface name.
        name: String,
        /// Network namespace.
        netns: Option<String>,
        /// Also require that it is up with carrier.
        up: bool,
    },
    /// The program exits with 0.
    Succeeds {
        /// Program and arguments.
        argv: Vec<String>,
    },
}

/// What the host may send on an open stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Bytes for standard input, or of the file being pushed.
    Stdin(Vec<u8>),
    /// No more bytes will come.
    StdinEof,
    /// A signal for the program's process group, by number.
    Signal(i32),
    /// The terminal's window changed.
    Resize(WinSize),
}
