//! How other threads ask a switch's thread for something.
//!
//! Everything a switch is made of belongs to its thread; a question is a closure that runs there between two frames. No
//! lock lies on a frame's way, and an answer is consistent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use rustix::event::{EventfdFlags, eventfd};

use crate::core::Core;
use crate::error::FabricError;

type Job = Box<dyn FnOnce(&mut Core) + Send>;

/// The asking end.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    network: Arc<str>,
    jobs: Sender<Job>,
    wake: Arc<OwnedFd>,
}

/// The answering end.
pub(crate) struct Jobs {
    jobs: Receiver<Job>,
    wake: Arc<OwnedFd>,
}

/// Both ends.
pub(crate) fn pair(network: &str) -> Result<(Control, Jobs), FabricError> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| FabricError::System {
        network: network.to_owned(),
        what: "make an eventfd",
        source: e.into(),
    })?;
    let wake = Arc::new(wake);
    let (sender, receiver) = channel();
    Ok((Control { network: network.into(), jobs: sender, wake: Arc::clone(&wake) }, Jobs { jobs: receiver, wake }))
}

impl Control {
    /// The network's name.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Has the switch's thread do something and waits for the result.
    ///
    /// # Errors
    /// [`FabricError::Stopped`] when that thread is gone.
    pub fn call<R: Send + 'static>(&self, ask: impl FnOnce(&mut Core) -> R + Send + 'static) -> Result<R, FabricError> {
        let stopped = || FabricError::Stopped { network: self.network.to_string() };
        let (reply, answer) = sync_channel(1);
        let job: Job = Box::new(move |core| {
            // Whoever asked waits below.
            let _ = reply.send(ask(core));
        });
        self.jobs.send(job).map_err(|_| stopped())?;
        // Fails only when the counter is full, and then the thread is about to wake anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        answer.recv().map_err(|_| stopped())
    }
}

impl Jobs {
    /// What becomes readable when somebody asks.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Answers everybody who asked so far.
    pub fn run(&self, core: &mut Core) {
        // Read first: who asks after this wakes the thread again.
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        while let Ok(job) = self.jobs.try_recv() {
            job(core);
        }
    }
}
