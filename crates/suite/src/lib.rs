//! Tests of a lab: declared as data, run in its guests, told in reports.
//!
//! [`load`] reads `suites/*.toml` into [`Test`]s, [`suites`] and [`select`] choose among them, [`run`] runs them over
//! anything that implements [`Guests`], and the [`Report`] it returns is also written as `results.json`, JUnit XML and
//! KTAP; [`report::table`] is for the terminal. [`compare`] puts numbers of several tests side by side.
//!
//! A test is a list of typed steps and no program: what needs logic is a Rust function called by name
//! ([`functions`]), what reads a tool's output is a parser with a table test over real output ([`parsers`]).

mod bpf;
pub mod compare;
pub mod functions;
pub mod guests;
pub mod ktap;
mod load;
mod model;
mod nearest;
pub mod options;
pub mod parsers;
pub mod report;
pub mod results;
mod run;
mod select;
mod vars;

pub use guests::{CrashInfo, GuestError, GuestInfo, GuestStream, Guests, Health, Ledger, NicBooks, NicInfo};
pub use load::{LoadError, Problem, Suites, load, load_texts};
pub use model::{DETERMINISTIC, Expected, Place, Requirement, Test};
pub use options::{RunOptions, time_scale};
pub use results::{Metric, Provenance, Record, Report, Status};
pub use run::{JOURNAL, JournalError, recover, run};
pub use select::{SelectError, select, suites};
