//! (lab-config)
