//! The Ethernet between guests: a learning switch whose ports are unix stream sockets.
//!
//! QEMU plugs a NIC in with `-netdev stream,server=off,addr.type=unix,addr.path=…,reconnect-ms=…`; each frame travels
//! behind its length as a big-endian u32 ([`wire`]). One thread a switch owns every socket, queue and table and waits in
//! one `epoll` ([`Switch`] is a handle that asks it things), so a frame goes on as soon as it came in, in order, and
//! nothing is locked on its way. The switch is also where links go bad ([`Fault`]) and where one listens in
//! ([`Capture`]).
//!
//! In: a [`SwitchConfig`]. Out: [`PortCounters`] and pcapng files.

mod config;
mod counters;
mod error;
mod fault;
pub mod wire;

pub use config::{Limits, LinkFault, PortConfig, SwitchConfig};
pub use counters::{Drops, PortCounters};
pub use error::FabricError;
pub use fault::Fault;
