//! Tests of a lab: declared as data, run in its guests, told in reports.
//!
//! [`load`] reads `suites/*.toml` into [`Test`]s, [`run`] runs them over anything that implements [`Guests`], and the
//! [`Report`] it returns is written as a table, `results.json`, JUnit XML and KTAP by [`report`].
//!
//! A test is a list of typed steps and no program: what needs logic is a Rust function called by name
//! ([`functions`]), what reads a tool's output is a parser with a table test over real output ([`parsers`]).

pub mod guests;
pub mod options;
pub mod results;

pub use guests::{CrashInfo, GuestError, GuestInfo, GuestStream, Guests, Health, NicInfo};
pub use options::{RunOptions, time_scale};
pub use results::{Metric, Provenance, Record, Report, Status};
