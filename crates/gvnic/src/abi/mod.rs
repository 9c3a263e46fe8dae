//! What driver and device say to each other, byte for byte. Structs here only know their layout; what they mean to the
//! device is elsewhere.
//!
//! Facts are those of Linux 7.3.4's driver, `drivers/net/ethernet/google/gve/` (its register, admin-queue and descriptor
//! headers are GPL-2.0 OR MIT); files are named from there. Everything but the rings ([`dqo`]) is big-endian.

pub mod adminq;
pub mod describe;
pub mod dqo;
pub mod flow;
pub mod ptype;
pub mod registers;
pub mod rss;
pub mod stats;
pub mod wire;
