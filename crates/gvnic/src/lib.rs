//! An emulated Google gVNIC: the one NIC whose unmodified Linux driver does device-memory TCP without hardware.

pub mod bus;
