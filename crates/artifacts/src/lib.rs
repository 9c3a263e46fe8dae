//! (artifacts)
