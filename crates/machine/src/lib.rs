//! (machine)
