//! An emulated Google gVNIC: the one NIC whose unmodified Linux driver does device-memory TCP without hardware.
//!
//! [`control`] is what the driver configures, [`engine`] is what moves its frames; [`shared`] is all they have in common.

pub mod abi;
pub mod bus;
pub mod clock;
pub mod config;
pub mod control;
pub mod engine;
pub mod fault;
pub mod frame;
pub mod irq;
pub mod plug;
pub mod queues;
pub mod receiver;
pub mod rx;
pub mod shared;
pub mod stats;
pub mod status;
pub mod steer;
pub mod transmitter;
pub mod tx;
pub mod wire;
pub mod wrong;

mod adminq;
mod backlog;
mod device;
mod mishap;
mod passage;
mod registers;
mod window;
