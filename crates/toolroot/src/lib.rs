//! (toolroot)

pub mod deb;
