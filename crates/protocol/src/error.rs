//! What can go wrong between the two ends.

use std::time::Duration;

/// An error of the channel itself, as opposed to [`Failure`](crate::Failure), which the agent reports about a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The other end closed the pipe, or reading or writing it failed.
    #[error("the channel to the guest agent is closed: {reason}")]
    Closed {
        /// What was seen.
        reason: String,
    },
    /// The two ends come from different builds.
    #[error(
        "the guest agent ({build}) speaks protocol version {theirs}, this program version {ours}: \
         build the guest's initramfs again with this version and reboot the guest"
    )]
    Version {
        /// Our [`VERSION`](crate::VERSION).
        ours: u16,
        /// The agent's.
        theirs: u16,
        /// How the agent describes itself.
        build: String,
    },
    /// No greeting in time.
    #[error("no greeting from the guest agent within {waited:?} ({heard} bytes came, {skipped} of them not ours)")]
    NoHello {
        /// How long was waited.
        waited: Duration,
        /// How many bytes arrived at all.
        heard: u64,
        /// How many of them were no part of a valid frame.
        skipped: u64,
    },
    /// The stream has ended: its last event was already taken, or it was closed.
    #[error("the stream has ended")]
    Ended,
    /// A message is larger than the protocol allows.
    #[error("a message of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Its encoded size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The other end broke the protocol's rules on this stream.
    #[error("the other end broke the protocol: {what}")]
    Protocol {
        /// Which rule.
        what: String,
    },
}
