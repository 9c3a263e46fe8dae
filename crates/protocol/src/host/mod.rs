//! The host's end: a [`Session`] over a unix socket, and its [`Stream`]s.
//!
//! A session owns three threads: one reads, one writes, one sends the heartbeat. They end when the last handle to the
//! session and the last of its streams are dropped, or when the other end closes the socket.

mod calls;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::event::{Channel, Event};
use crate::mux::{Heartbeat, Item, Mux, MuxStream, Service, Vitals};
use crate::{ChannelError, Hello, Input, Request};
pub use calls::{CallError, Finished};

/// How often the host asks for a sign of life.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// When an unanswered greeting is repeated for the first time; the pause doubles from then on. Bytes written before the
/// guest opens its port wait in QEMU, so repeating often would only make the guest read more at its boot.
const GREET_AGAIN: Duration = Duration::from_secs(3);

/// A conversation with one guest's agent. Clones are handles to the same session.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    mux: Mux,
    socket: UnixStream,
    nonce: u32,
}

impl Inner {
    fn close(&self, reason: &str) {
        self.mux.close(ChannelError::Closed { reason: reason.into() });
        // Fails only when the other end closed first.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close("the session was dropped");
    }
}

/// The host serves nothing.
struct NoService;

impl Service for NoService {
    fn accept(&self, _stream: MuxStream, _request: Vec<u8>) {}
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }
}

impl Session {
    /// Starts a session over the connected socket of the guest's port. At a guest's boot the nonce is the one on its
    /// command line (`lab.nonce=`); every later session of the same guest needs another one. It must not be 0.
    pub fn start(socket: UnixStream, nonce: u32) -> Result<Session, ChannelError> {
        let closed = |what: &str, error: std::io::Error| ChannelError::Closed { reason: format!("{what}: {error}") };
        if nonce == 0 {
            return Err(ChannelError::Protocol { what: "a session's nonce must not be 0".into() });
        }
        let hello = Hello { build: concat!("host ", env!("CARGO_PKG_VERSION")).into(), boot: None };
        let mux = Mux::host(nonce, hello);
        let reader = socket.try_clone().map_err(|error| closed("cannot share the socket", error))?;
        let writer = socket.try_clone().map_err(|error| closed("cannot share the socket", error))?;
        let session = Session { inner: Arc::new(Inner { mux: mux.clone(), socket, nonce }) };
        let spawn = |name: &str, work: Box<dyn FnOnce(Mux) + Send>| {
            let mux = mux.clone();
            let thread = thread::Builder::new().name(name.into());
            thread.spawn(move || work(mux)).map(drop).map_err(|error| closed("cannot start a thread", error))
        };
        spawn("guest-read", Box::new(move |mux| read(&mux, reader)))?;
        spawn("guest-write", Box::new(move |mux| write(&mux, writer)))?;
        spawn("guest-heart", Box::new(|mux| beat(&mux)))?;
        Ok(session)
    }

    /// Waits for the agent's greeting. A greeting of another version is [`ChannelError::Version`].
    pub fn wait_hello(&self, timeout: Duration) -> Result<Hello, ChannelError> {
        self.inner.mux.wait_hello(timeout)
    }

    /// Opens a stream. It may be opened before the greeting; the request then waits in the pipe.
    pub fn open(&self, request: Request) -> Result<Stream, ChannelError> {
        let stream = self.inner.mux.open(&encode(&request)?)?;
        Ok(Stream { stream, _session: self.inner.clone() })
    }

    /// When the agent was last heard of in any way.
    pub fn last_heard(&self) -> Instant {
        self.inner.mux.last_heard()
    }

    /// The last answer to a heartbeat. Its `at` grows old when the guest hangs; comparing `vitals` of two of them tells
    /// how busy its processors were.
    pub fn heartbeat(&self) -> Option<Heartbeat> {
        self.inner.mux.heartbeat()
    }

    /// Why the session is over, if it is.
    pub fn closed(&self) -> Option<ChannelError> {
        self.inner.mux.closed()
    }

    /// Waits until the session is over; false when the time is up first.
    pub fn wait_closed(&self, timeout: Duration) -> bool {
        self.inner.mux.wait_closed(timeout)
    }

    /// Ends the session for all its handles and streams, for the reason given: the guest is being killed, say. The agent
    /// kills what runs for it.
    pub fn close(&self, reason: &str) {
        self.inner.close(reason);
    }

    /// The session's nonce.
    pub fn nonce(&self) -> u32 {
        self.inner.nonce
    }
}

/// One request and what comes of it. Methods take `&self`: share it in an `Arc` to receive in one thread and send in
/// another. Dropping it tells the agent to kill what it still runs for it.
pub struct Stream {
    stream: MuxStream,
    /// Keeps the pipe open for as long as there is a stream.
    _session: Arc<Inner>,
}

impl Stream {
    /// Waits for the next event; `None` when the time is up. [`ChannelError::Ended`] after the last one.
    pub fn recv(&self, timeout: Duration) -> Result<Option<Event>, ChannelError> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            match self.stream.recv(left)? {
                None => return Ok(None),
                Some(Item::Message(bytes)) => return decode(&bytes).map(Some),
                Some(Item::Data { stderr, bytes }) => {
                    let channel = if stderr { Channel::Stderr } else { Channel::Stdout };
                    return Ok(Some(Event::Output { channel, bytes }));
                }
                // The event that follows says the same and more.
                Some(Item::Eof) => {}
            }
        }
    }

    /// Sends input. `Stdin` waits while the guest does not keep up; signals and window sizes overtake it.
    pub fn send(&self, input: Input) -> Result<(), ChannelError> {
        match input {
            Input::Stdin(bytes) => self.stream.send_data(false, &bytes),
            Input::StdinEof => self.stream.send_eof(),
            other => self.stream.send_urgent(&encode(&other)?),
        }
    }

    /// Closes the stream now, dropping input that was not sent yet.
    pub fn abort(&self) {
        self.stream.abort();
    }
}

fn encode<T: serde::Serialize>(message: &T) -> Result<Vec<u8>, ChannelError> {
    postcard::to_stdvec(message)
        .map_err(|error| ChannelError::Protocol { what: format!("a message cannot be encoded: {error}") })
}

fn decode(bytes: &[u8]) -> Result<Event, ChannelError> {
    postcard::from_bytes(bytes).map_err(|error| ChannelError::Protocol {
        what: format!("an event of {} bytes does not decode: {error}", bytes.len()),
    })
}

fn read(mux: &Mux, mut socket: UnixStream) {
    let mut buffer = vec![0; 64 * 1024];
    let reason = loop {
        match socket.read(&mut buffer) {
            Ok(0) => break "the other end closed it".to_string(),
            Ok(length) => mux.feed(&buffer[..length], &NoService),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break format!("reading failed: {error}"),
        }
    };
    mux.close(ChannelError::Closed { reason });
}

fn write(mux: &Mux, mut socket: UnixStream) {
    let mut buffer = Vec::new();
    while let Some(frame) = mux.next_out() {
        buffer.clear();
        frame.encode(&mut buffer);
        if let Err(error) = socket.write_all(&buffer) {
            return mux.close(ChannelError::Closed { reason: format!("writing failed: {error}") });
        }
    }
}

fn beat(mux: &Mux) {
    let (mut pause, mut next) = (GREET_AGAIN, Instant::now() + GREET_AGAIN);
    while !mux.wait_closed(HEARTBEAT) {
        match mux.wait_hello(Duration::ZERO) {
            Ok(_) => mux.ping(),
            Err(ChannelError::NoHello { .. }) if Instant::now() >= next => {
                mux.greet_again();
                pause *= 2;
                next = Instant::now() + pause;
            }
            Err(_) => {}
        }
    }
}
