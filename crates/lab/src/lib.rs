//! A lab, whole: from `lab.toml` and `lab.lock` to running guests and tested results.
//!
//! [`plan`] says what is to be made, [`prepare`] makes it, [`up`] boots it under a [`supervisor`], [`client`] is how
//! everyone talks to that, [`testing`] runs suites over it. The command line is a thin layer over this crate.

pub mod client;
pub mod compare;
pub mod control;
pub mod copy;
pub mod doctor;
mod exclusive;
pub mod interact;
pub mod journal;
pub mod launch;
pub mod lease;
pub mod lock;
pub mod mail;
pub mod order;
pub mod paths;
pub mod plan;
pub mod prepare;
pub mod programs;
pub mod provider;
pub mod supervisor;
pub mod symbols;
pub mod testing;
pub mod up;
pub mod workshop;

pub use lab_config as config;
pub use {kernel, suite};
