//! What is in a frame, and what a NIC does to it: checksums, segments, merging, splitting. Pure functions over bytes, none of
//! which knows of rings or of a guest.

pub mod checksum;
pub mod merge;
mod parse;
pub mod segment;
pub mod split;

pub use parse::{Headers, parse, parse_whole};

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
