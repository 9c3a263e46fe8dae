//! What the suite needs of a lab: guests that take requests, report their health and can be rebooted.
//!
//! The suite never sees QEMU, sockets or consoles. It opens a [`protocol::Request`] in a guest, reads the events of
//! the answer, and asks how the guest is. The lab implements [`Guests`] over its machines;
//! the tests of this crate do so over agent processes on the host, to try the runner's own failure cases without a boot.
//!
//! Errors are kept apart here, where the difference is known: a [`GuestError`] says that the *lab* did not do what
//! was asked (an infrastructure error), while a kernel that died is told by [`Guests::health`].

use std::collections::BTreeMap;
use std::iter::Sum;
use std::time::Duration;

use protocol::{Event, Input, Request};
use serde::{Deserialize, Serialize};

/// A guest of the lab, as tests see it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GuestInfo {
    /// The guest's name in `lab.toml`.
    pub name: String,
    /// The name of its kernel in `lab.toml` (`patched`, `stock`…): what `expect.NAME` of a test refers to.
    pub kernel: String,
    /// What `uname -r` says there.
    pub kernel_release: String,
    /// Identity of the kernel tree it was built from; empty when unknown.
    pub kernel_tree: String,
    /// The accelerator the guest really runs on: `kvm`, `tcg`, or `none` where there is no machine.
    pub accelerator: String,
    /// Whether its time is the count of its instructions: see [`crate::DETERMINISTIC`].
    #[serde(default)]
    pub deterministic: bool,
    /// Its network interfaces, in the order of `lab.toml`.
    pub nics: Vec<NicInfo>,
}

/// One network interface of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NicInfo {
    /// The network of `lab.toml` it is plugged into.
    pub network: String,
    /// The name of the netdev in the guest, for instance `eth0`.
    pub device: String,
    /// MAC address, lower case with colons.
    pub mac: String,
    /// Addresses with prefix lengths, as assigned: `192.168.77.1/24`, `fd77::1/64`.
    pub addresses: Vec<String>,
}

/// What became of descriptors that a driver gave an emulated NIC: TX descriptors, or RX buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// The driver gave them.
    pub posted: u64,
    /// The device has read them.
    pub consumed: u64,
    /// A completion gave them back.
    pub returned: u64,
    /// Their queue ended before: they are the driver's again, without a completion.
    pub abandoned: u64,
}

impl Ledger {
    /// What the device holds; below zero, what it gave back without having had it.
    pub fn outstanding(&self) -> i128 {
        i128::from(self.posted) - i128::from(self.returned) - i128::from(self.abandoned)
    }
}

impl Sum for Ledger {
    fn sum<I: Iterator<Item = Ledger>>(all: I) -> Ledger {
        all.fold(Ledger::default(), |sum, one| Ledger {
            posted: sum.posted + one.posted,
            consumed: sum.consumed + one.consumed,
            returned: sum.returned + one.returned,
            abandoned: sum.abandoned + one.abandoned,
        })
    }
}

/// What an emulated NIC's own process has counted since it was started, over all queues.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NicBooks {
    /// TX descriptors.
    pub tx: Ledger,
    /// RX buffers.
    pub rx: Ledger,
    /// Resets, changes of the link, queues that came and went, faults that struck, by the device's own names.
    pub events: BTreeMap<String, u64>,
}

/// A kernel that died or complained, as read from its console.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CrashInfo {
    /// What it was: `panic`, `oops`, `bug`, `kasan`, `lockdep`, `soft-lockup`, `warning`…
    pub kind: String,
    /// One line for people: the kernel's own headline.
    pub title: String,
    /// The first frames of the trace, joined: equal for equal crashes.
    pub fingerprint: String,
    /// The report, decoded as far as the kernel's symbols allow.
    pub trace: String,
}

/// How a guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Its agent answers.
    Alive {
        /// Time since the agent was last heard (a heartbeat counts).
        idle: Duration,
    },
    /// The console shows a crash since the last boot.
    Crashed(CrashInfo),
    /// The machine runs, the console is silent about it, and the agent has not been heard for too long.
    Hung {
        /// Time since the agent was last heard.
        idle: Duration,
    },
    /// There is no machine, or its process ended without a crash on the console.
    Down {
        /// Why, as far as known.
        reason: String,
    },
}

/// The lab could not do what the suite asked. None of these says anything about the kernel under test.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GuestError {
    /// No guest of that name.
    #[error("the lab has no guest `{0}`")]
    Unknown(String),
    /// The channel to the agent is gone, or the agent is.
    #[error("guest `{guest}`: channel to the agent lost: {message}")]
    Channel {
        /// The guest.
        guest: String,
        /// What the channel said.
        message: String,
    },
    /// The agent refused a request.
    #[error("guest `{guest}`: {message}")]
    Refused {
        /// The guest.
        guest: String,
        /// The agent's words.
        message: String,
    },
    /// The guest did not come back.
    #[error("guest `{guest}` could not be rebooted: {message}")]
    Reboot {
        /// The guest.
        guest: String,
        /// Why.
        message: String,
    },
    /// The console could not be read.
    #[error("guest `{guest}`: console: {message}")]
    Console {
        /// The guest.
        guest: String,
        /// Why.
        message: String,
    },
}

fn no_orders(guest: &str, nic: usize) -> GuestError {
    GuestError::Refused { guest: guest.into(), message: format!("NIC {nic} is not emulated by a process of the lab") }
}

/// The guests of a running lab.
pub trait Guests: Sync {
    /// Every guest, in the order of `lab.toml`. Asked once a run.
    fn guests(&self) -> Vec<GuestInfo>;

    /// Opens a stream and sends `request` on it. Must not block longer than the channel needs to take it.
    fn open(&self, guest: &str, request: Request) -> Result<Box<dyn GuestStream>, GuestError>;

    /// Resets the guest and returns when its agent is ready again. `reason` is for logs.
    fn reboot(&self, guest: &str, reason: &str) -> Result<(), GuestError>;

    /// Console bytes from offset `from` on, and the offset to ask for next. Offsets only grow, also over reboots;
    /// one past the end gives no bytes and the end.
    fn console(&self, guest: &str, from: u64) -> Result<(Vec<u8>, u64), GuestError>;

    /// Tells an emulated NIC, by its place in `lab.toml`, what to do, in the words of `lab fault --device`.
    ///
    /// # Errors
    /// Refused when they are not understood, or that NIC is not one that takes orders.
    fn nic_order(&self, guest: &str, nic: usize, _order: &str) -> Result<(), GuestError> {
        Err(no_orders(guest, nic))
    }

    /// What an emulated NIC has counted.
    ///
    /// # Errors
    /// Refused when that NIC is not one that keeps books.
    fn nic_books(&self, guest: &str, nic: usize) -> Result<NicBooks, GuestError> {
        Err(no_orders(guest, nic))
    }

    /// How the guest is now. Cheap: the runner asks several times a second while it waits.
    /// A crash is reported until [`Guests::reboot`].
    fn health(&self, guest: &str) -> Health;
}

/// The answer to one request. Dropping it kills what the request started in the guest.
pub trait GuestStream: Send {
    /// The next event, or `None` when `timeout` passed without one.
    fn recv(&mut self, timeout: Duration) -> Result<Option<Event>, GuestError>;

    /// Sends input: standard input, a signal, a window size.
    fn send(&mut self, input: Input) -> Result<(), GuestError>;
}
