//! Many streams over one pipe, the same at both ends.
//!
//! In: bytes that arrived ([`Mux::feed`]). Out: frames to write, most urgent first ([`Mux::next_out`]). In between the
//! streams' handles ([`MuxStream`]) block on each other's pace. Reading and writing the pipe is left to a thread each
//! of whoever owns it, so the same code runs over a virtio port, a socket pair in a test, or no pipe at all in a fuzzer.
//!
//! Order of sending: greetings and signs of life, credits, messages, data. Streams of equal urgency take turns by frame,
//! and a frame is at most [`MAX_PAYLOAD`](crate::frame::MAX_PAYLOAD) bytes, so a heartbeat waits for one frame and what the
//! pipe itself holds.

mod local;
mod slot;
mod state;
mod stream;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::frame::{Decoder, Frame};
use crate::{ChannelError, Hello};
pub use state::Role;
use state::State;
pub use stream::{Item, MuxStream};

/// Bytes of data an end may send on a stream before the first credit.
pub const WINDOW: u32 = 256 * 1024;
/// Largest message, put together from its frames.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Streams that may be open at once.
pub const MAX_STREAMS: usize = 512;

/// What a guest tells about itself with every sign of life; two of them tell a busy guest from a quiet one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Vitals {
    /// Time since the guest's kernel started, in milliseconds.
    pub uptime_ms: u64,
    /// Time its processors spent idle, summed over them, in milliseconds.
    pub idle_ms: u64,
    /// Processors online.
    pub cpus: u32,
}

/// A sign of life as the host received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// When it arrived.
    pub at: Instant,
    /// How long after the question.
    pub round_trip: Duration,
    /// What the guest said.
    pub vitals: Vitals,
}

/// What the owner of a [`Mux`] is asked for while bytes are fed to it. Called without any lock held.
pub trait Service: Send + Sync {
    /// The other end opened a stream with this request (guest only). Must not block.
    fn accept(&self, stream: MuxStream, request: Vec<u8>);
    /// The present [`Vitals`] (guest only). Must not block.
    fn vitals(&self) -> Vitals;
}

/// A multiplexer; clones are handles to the same one.
#[derive(Clone)]
pub struct Mux {
    shared: Arc<Shared>,
}

struct Shared {
    decoder: Mutex<Decoder>,
    state: Mutex<State>,
    /// Something may be ready to be sent, or the session changed.
    outgoing: Condvar,
    /// A greeting came, or the channel closed.
    news: Condvar,
}

impl Mux {
    /// The end that asks. Its greeting is ready to be sent.
    pub fn host(nonce: u32, hello: Hello) -> Mux {
        let mut state = State::new(Role::Host, hello);
        state.begin(nonce);
        state.greet();
        Self::with(state)
    }

    /// The end that answers. With a nonce its greeting is ready to be sent, without waiting for the host's; otherwise it
    /// has no session until a host greets it.
    pub fn guest(nonce: Option<u32>, hello: Hello) -> Mux {
        let mut state = State::new(Role::Guest, hello);
        if let Some(nonce) = nonce {
            state.begin(nonce);
            state.greet();
        }
        Self::with(state)
    }

    fn with(state: State) -> Mux {
        Mux {
            shared: Arc::new(Shared {
                decoder: Mutex::new(Decoder::new()),
                state: Mutex::new(state),
                outgoing: Condvar::new(),
                news: Condvar::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of one thread must not take the channel down: the state is only changed in steps that leave it whole.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes that arrived. Never fails: what is no valid frame of this session is counted and left out.
    pub fn feed(&self, bytes: &[u8], service: &dyn Service) {
        let mut decoder = self.shared.decoder.lock().unwrap_or_else(PoisonError::into_inner);
        decoder.push(bytes);
        self.state().count(bytes.len());
        while let Some(frame) = decoder.next_frame() {
            let vitals = (frame.kind == crate::frame::Kind::Ping).then(|| service.vitals());
            let opened = {
                let mut state = self.state();
                let opened = state.take(frame, vitals);
                self.shared.outgoing.notify_all();
                self.shared.news.notify_all();
                opened
            };
            if let Some((stream, epoch, request)) = opened {
                service.accept(MuxStream::new(self.clone(), stream, epoch), request);
            }
        }
        self.state().skipped = decoder.skipped();
    }

    /// Waits for a frame to send; `None` once the channel is closed.
    pub fn next_out(&self) -> Option<Frame> {
        let mut state = self.state();
        loop {
            if state.closed.is_some() {
                return None;
            }
            if let Some(frame) = state.next_out() {
                return Some(frame);
            }
            state = self.shared.outgoing.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a frame to send if there is one.
    pub fn try_next_out(&self) -> Option<Frame> {
        self.state().next_out()
    }

    /// Opens a stream with its first message.
    pub fn open(&self, request: &[u8]) -> Result<MuxStream, ChannelError> {
        let mut state = self.state();
        let (stream, epoch) = state.open(request)?;
        self.shared.outgoing.notify_all();
        drop(state);
        Ok(MuxStream::new(self.clone(), stream, epoch))
    }

    /// Asks for a sign of life.
    pub fn ping(&self) {
        self.state().ping();
        self.shared.outgoing.notify_all();
    }

    /// Greets again, after enough padding to complete any frame a former host left unfinished: an agent whose decoder
    /// waits for the rest of it would take the greeting for its payload.
    pub fn greet_again(&self) {
        let mut state = self.state();
        state.pad();
        state.greet();
        self.shared.outgoing.notify_all();
    }

    /// Ends the session: every stream ends, what is queued is dropped. A guest then waits for the next greeting.
    pub fn end_session(&self) {
        self.shared.decoder.lock().unwrap_or_else(PoisonError::into_inner).reset();
        self.state().begin(0);
        self.shared.outgoing.notify_all();
    }

    /// Closes for good: every stream gets the error once it has taken what had arrived.
    pub fn close(&self, error: ChannelError) {
        self.state().close(error);
        self.shared.outgoing.notify_all();
        self.shared.news.notify_all();
    }

    /// Why the channel is closed, if it is.
    pub fn closed(&self) -> Option<ChannelError> {
        self.state().closed.clone()
    }

    /// Waits until the channel is closed; false when the time is up first.
    pub fn wait_closed(&self, timeout: Duration) -> bool {
        let state = self.state();
        let (state, _) = self
            .shared
            .news
            .wait_timeout_while(state, timeout, |state| state.closed.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.closed.is_some()
    }

    /// Waits for the other end's greeting.
    pub fn wait_hello(&self, timeout: Duration) -> Result<Hello, ChannelError> {
        let state = self.state();
        let (state, _) = self
            .shared
            .news
            .wait_timeout_while(state, timeout, |state| state.peer.is_none() && state.closed.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match (&state.peer, &state.closed) {
            (Some(peer), _) => peer.clone(),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Err(ChannelError::NoHello { waited: timeout, heard: state.heard, skipped: state.skipped }),
        }
    }

    /// When the last valid frame of this session arrived; the time of creation before that.
    pub fn last_heard(&self) -> Instant {
        self.state().last_heard
    }

    /// The last sign of life.
    pub fn heartbeat(&self) -> Option<Heartbeat> {
        self.state().heartbeat
    }

    /// Bytes that were no part of a valid frame.
    pub fn skipped(&self) -> u64 {
        self.state().skipped
    }
}
