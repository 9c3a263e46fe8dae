//! A stream as the agent uses it: typed events out, typed failures.

use std::io;

use protocol::mux::MuxStream;
use protocol::{ChannelError, Event, Failure, FailureKind};

/// Sends an event. An error means that the host has gone or closed the stream; there is nobody left to tell.
pub fn send(stream: &MuxStream, event: &Event) -> Result<(), ChannelError> {
    let bytes = postcard::to_stdvec(event)
        .map_err(|error| ChannelError::Protocol { what: format!("an event cannot be encoded: {error}") })?;
    stream.send_message(&bytes)
}

/// Makes a failure.
pub fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into() }
}

/// Makes a failure out of an error of the system; `what` says what was done to what.
pub fn failed(what: &str, error: &io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FailureKind::NotFound,
        io::ErrorKind::PermissionDenied => FailureKind::Denied,
        io::ErrorKind::InvalidInput => FailureKind::Invalid,
        _ => FailureKind::Io,
    };
    failure(kind, format!("{what}: {error}"))
}
