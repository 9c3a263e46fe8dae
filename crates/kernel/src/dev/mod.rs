//! The developer's loop: a git tree with a series as commits, and back.
//!
//! [`checkout`] makes the tree, [`save`] writes its commits as patches, [`check`] holds the patches against what
//! maintainers ask for. Building it is an ordinary build of a user's own tree ([`crate::UserTree`]).

mod check;
mod checkout;
mod diffstat;
mod findings;
mod present;
mod save;
mod steps;

pub use check::{CheckOptions, check};
pub use checkout::{Checkout, CheckoutRequest, checkout};
pub use diffstat::{FileStat, diffstat};
pub use findings::{CheckReport, KernelReport, PatchReport, SeriesReport};
pub use save::{Saved, save};
