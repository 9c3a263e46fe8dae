//! (fabric)
