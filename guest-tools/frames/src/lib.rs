//! Malformed RoCEv2 frames, made from valid ones.
//!
//! In: a valid frame, as a live queue pair sends it. Out: every corruption of one field of it at a time (boundary values and
//! single bits, in every header from Ethernet to ICRC), and every corruption of its shape (truncation at each length,
//! padding, tags, options, extension headers, fragments). A corruption can be left with the checksums it breaks or be
//! sealed again, so that it gets past the checks that would hide what is behind them.
//!
//! All of this is a pure function of frame and seed; sending is the program's business. Nothing here is taken from the
//! code under test: offsets and sums are those of the standards (IBTA volume 1, annex A17 for RoCEv2).

pub mod bits;
pub mod corrupt;
pub mod icrc;
pub mod layout;
pub mod random;
pub mod seal;
pub mod shape;
pub mod template;

pub use corrupt::{Corruption, corruptions};
pub use seal::Seal;
pub use template::{Key, Template};
