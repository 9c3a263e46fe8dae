//! Wakes the thread that moves frames.

use std::io;
use std::os::fd::OwnedFd;

use gvnic::control::{Datapath, Wake};
use rustix::event::{EventfdFlags, eventfd};

/// A bell the control side rings and the datapath waits for.
#[derive(Debug)]
pub struct Bell {
    eventfd: OwnedFd,
}

impl Bell {
    /// A bell nobody has rung.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell { eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// What becomes readable when it rings.
    pub fn eventfd(&self) -> &OwnedFd {
        &self.eventfd
    }
}

impl Datapath for Bell {
    fn wake(&self, _why: Wake) {
        // Full means that it rings already.
        let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }
}
