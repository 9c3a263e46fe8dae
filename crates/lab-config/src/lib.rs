//! `lab.toml` → a typed, validated model of a lab.
//!
//! In: the text of a `lab.toml`, the name of a profile, and what lies beside the file (series, fragments, suites,
//! image definitions). Out: a [`Lab`] in which every value is resolved (sizes in MiB, durations, parsed addresses, a
//! MAC for every NIC, a kernel and an image for every guest) and every reference is known to hold; or
//! [`ConfigErrors`], each of which points at line and column, says what is allowed and suggests the nearest name.
//!
//! The steps, one module each, so that a mistake is found at the earliest one and reported once:
//! parse (`syntax`) → check against the schema of the file's types (`schema`, `check`) → lay the profile over the
//! rest (`merge`) → decode into those types (`file`) → resolve references and defaults (`resolve`) → [`model`].
//! Positions survive the merge, so an error in a profile points into the profile.

mod catalog;
mod check;
mod errors;
mod file;
mod load;
mod merge;
mod model;
mod nearest;
mod reference;
mod resolve;
mod schema;
mod source;
mod syntax;

pub use catalog::Catalog;
pub use errors::{ConfigError, ConfigErrors};
pub use model::*;
pub use reference::reference_markdown;
pub use schema::json_schema;
