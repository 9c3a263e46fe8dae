//! What the host and the agent in a guest say to each other, and how it travels over one byte pipe.
//!
//! The pipe is a virtio-serial port (a unix socket on the host's side). It may lose its host in the middle of a frame,
//! and a new host may come back on the same port, so frames carry a magic number, the session's nonce and two check
//! sums ([`frame`]), and the decoder finds its feet again in garbage. Many conversations share the pipe ([`mux`]): each
//! has credits, so one slow reader stops only itself, and control frames overtake data, so a file copy cannot starve
//! the heartbeat.
//!
//! [`request`] and [`event`] are the messages; [`host`] is the end that asks; the end that answers is the program
//! `guest-agent`. Both ends come out of one build: versions must be equal, and [`hello`] says so clearly if they are not.

pub mod error;
pub mod event;
pub mod frame;
pub mod hello;
pub mod host;
pub mod lease;
pub mod mux;
pub mod request;
pub mod snapshot;

pub use error::ChannelError;
pub use event::{Channel, Event, Exit, Failure, FailureKind, Info, Probe};
pub use hello::{BootReport, BootStep, Hello};
pub use lease::{LeaseAsk, LeasedQueue, NewPod, Pod, PodAddress, QueueChoice, Traffic, Via};
pub use request::{Condition, Exec, Input, Pull, Push, Request, Wait, WinSize};
pub use snapshot::{Leak, Link, Process, Snapshot};

/// Version of the messages. Both ends must have the same one; raise it with every change to a type that is sent.
pub const VERSION: u16 = 2;

/// Name of the virtio-serial port the agent serves, as in QEMU's `virtserialport,name=…` and in the guest's
/// `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "org.devmem-lab.agent.0";
