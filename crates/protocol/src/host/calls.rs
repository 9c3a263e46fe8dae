//! Whole conversations in one call, for callers that need no streaming.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::{Session, Stream};
use crate::event::{Channel, Event, Exit, Failure};
use crate::{ChannelError, Exec, Input, Pull, Push, Request};

/// Bytes read from a local file at a time.
const CHUNK: usize = 128 * 1024;

/// Why a call did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The channel failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The agent could not do it.
    #[error("{0}")]
    Failed(Failure),
    /// No answer in time.
    #[error("no answer to {what} within {waited:?}")]
    NoAnswer {
        /// What was asked.
        what: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Reading or writing on this side failed.
    #[error("{what}: {source}")]
    Local {
        /// What was being done.
        what: String,
        /// The error.
        source: std::io::Error,
    },
}

/// A program that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// All it wrote to standard output.
    pub stdout: Vec<u8>,
    /// All it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// Takes events until the last one, which it returns; output goes to the function.
fn finish(
    stream: &Stream,
    what: &str,
    timeout: Duration,
    mut output: impl FnMut(Channel, Vec<u8>) -> Result<(), CallError>,
) -> Result<Event, CallError> {
    let deadline = Instant::now().checked_add(timeout);
    loop {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        match stream.recv(left)? {
            None => return Err(CallError::NoAnswer { what: what.into(), waited: timeout }),
            Some(Event::Failed(failure)) => return Err(CallError::Failed(failure)),
            Some(Event::Output { channel, bytes }) => output(channel, bytes)?,
            Some(event) if event.is_last() => return Ok(event),
            Some(_) => {}
        }
    }
}

fn unexpected(what: &str, event: &Event) -> CallError {
    CallError::Channel(ChannelError::Protocol { what: format!("{what} was answered by {event:?}") })
}

impl Session {
    /// Asks for something that is answered by a single event (`Wait`, `Probe`, `Info`, `Snapshot`, `EndScope`,
    /// `PowerOff`).
    pub fn call(&self, request: Request, timeout: Duration) -> Result<Event, CallError> {
        let what = format!("{request:?}");
        finish(&self.open(request)?, &what, timeout, |_, _| Ok(()))
    }

    /// Runs a program to its end and collects its output. The timeout is for the answer; to limit the program itself
    /// set [`Exec::timeout_ms`].
    pub fn run(&self, exec: Exec, timeout: Duration) -> Result<Finished, CallError> {
        let what = format!("the program {:?}", exec.argv);
        let stream = self.open(Request::Exec(exec))?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let event = finish(&stream, &what, timeout, |channel, bytes| {
            match channel {
                Channel::Stdout => stdout.extend_from_slice(&bytes),
                Channel::Stderr => stderr.extend_from_slice(&bytes),
            }
            Ok(())
        })?;
        match event {
            Event::Exited(exit) => Ok(Finished { exit, stdout, stderr }),
            other => Err(unexpected(&what, &other)),
        }
    }

    /// Writes a file in the guest out of `size` bytes of the reader. `stalled` is how long the guest may take for its
    /// answer once everything is sent.
    pub fn push(
        &self,
        push: Push,
        mut reader: impl Read,
        stalled: Duration,
        mut sent: impl FnMut(u64),
    ) -> Result<(), CallError> {
        let what = format!("writing {} in the guest", push.path);
        let mut left = push.size;
        let stream = self.open(Request::Push(push))?;
        let mut buffer = vec![0; CHUNK];
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let length = reader
                .read(&mut buffer[..want])
                .map_err(|source| CallError::Local { what: format!("{what}: reading the local bytes"), source })?;
            if length == 0 {
                break;
            }
            left -= length as u64;
            if stream.send(Input::Stdin(buffer[..length].to_vec())).is_err() {
                // The agent gave up; its last event says why.
                break;
            }
            sent(length as u64);
        }
        let _ = stream.send(Input::StdinEof);
        match finish(&stream, &what, stalled, |_, _| Ok(()))? {
            Event::Done => Ok(()),
            other => Err(unexpected(&what, &other)),
        }
    }

    /// Reads a file of the guest into the writer; returns its permission bits. `stalled` is how long to wait for the
    /// next piece.
    pub fn pull(&self, path: &str, mut writer: impl Write, stalled: Duration) -> Result<u32, CallError> {
        let what = format!("reading {path} in the guest");
        let stream = self.open(Request::Pull(Pull { path: path.into() }))?;
        let mut bits = 0;
        loop {
            match stream.recv(stalled)? {
                None => return Err(CallError::NoAnswer { what, waited: stalled }),
                Some(Event::Failed(failure)) => return Err(CallError::Failed(failure)),
                Some(Event::FileInfo { mode, .. }) => bits = mode,
                Some(Event::Output { bytes, .. }) => writer
                    .write_all(&bytes)
                    .map_err(|source| CallError::Local { what: format!("{what}: writing the local copy"), source })?,
                Some(Event::Done) => return Ok(bits),
                Some(other) => return Err(unexpected(&what, &other)),
            }
        }
    }
}
