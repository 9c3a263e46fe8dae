//! What this host can do for a lab, found out by trying and not by guessing from version numbers.
//!
//! In: the host's `/proc`, `/sys` and `/dev` (or sample trees in tests). Out: a [`Finding`] for each ability, with the
//! one-line remedy where something is amiss.

mod finding;

pub use finding::{Finding, Status};
