//! An emulated Google gVNIC: the one NIC whose unmodified Linux driver does device-memory TCP without hardware.

pub mod abi;
pub mod bus;
pub mod clock;
pub mod config;
pub mod control;
pub mod fault;
pub mod frame;
pub mod irq;
pub mod plug;
pub mod port;
pub mod queues;
pub mod rx;
pub mod shared;
pub mod stats;
pub mod status;
pub mod steer;
pub mod tx;
pub mod wire;

mod adminq;
mod device;
mod registers;
