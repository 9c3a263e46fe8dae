//! What the tests of the datapath need: frames and an opinion about frames that is not the crate's, and a driver of rings
//! that does what gve_tx_dqo.c and gve_rx_dqo.c do.
//!
//! Offsets and numbers are written out here and not taken from the crate, so that a wrong constant there does not agree with
//! itself.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod entry;
mod guest;
mod judge;
mod random;
mod recipe;
mod rx;
mod tx;

pub use entry::{Tally, rx_ring, tx_chain};
pub use guest::{End, Guest, cable, flow, lab, number, numbered};
pub use judge::{Judged, judge};
pub use random::Random;
pub use recipe::{Extension, Recipe};
pub use rx::{Received, RxDriver};
pub use tx::{Tso, TxDriver};
