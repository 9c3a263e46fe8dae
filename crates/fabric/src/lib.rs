//! The Ethernet between guests: a learning switch whose ports are unix stream sockets.
//!
//! QEMU plugs a NIC in with `-netdev stream,server=off,addr.type=unix,addr.path=…,reconnect-ms=…`; each frame travels
//! behind its length as a big-endian u32 ([`wire`]). One thread a switch owns every socket, queue and table and waits in
//! one epoll; [`Switch`] is a handle that asks it things. So a frame goes on as soon as it came in, in order, and
//! nothing is locked on its way. The switch is also where links go bad ([`Fault`]) and where one listens in ([`Capture`]).
//!
//! In: a [`SwitchConfig`]. Out: [`PortCounters`] and pcapng files.
//!
//! A guest that does not read holds back those who send to it, and nobody else, and only for a while
//! ([`Limits::stall_after`]); what is for everybody never waits for anybody.

mod capture;
mod config;
mod control;
mod core;
mod counters;
mod error;
mod fault;
mod forward;
mod held;
mod inlet;
mod outlet;
mod pcapng;
mod port;
pub mod random;
mod run;
mod switch;
mod table;
pub mod wire;

pub use capture::{Capture, CaptureSummary};
pub use config::{Limits, LinkFault, PortConfig, SwitchConfig};
pub use counters::{Drops, PortCounters};
pub use error::FabricError;
pub use fault::{DELAY_MAX, Fault};
pub use switch::{Station, Switch};
