//! (toolroot)
