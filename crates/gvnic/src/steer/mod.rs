//! Which RX queue a frame goes to: the flow rule with the lowest location that matches it, else the hash of its flow and the
//! table ([`rss`]).
//!
//! In: a [`FlowKey`], which borrows from the frame. Out: [`Steered`]. A rule may name a queue that is not there now: it is
//! the driver that knows whether it comes back, so the frame is not given to another queue.

pub mod rss;
pub mod rules;
mod toeplitz;

pub use rss::{Hash, HashKind, Rss};
pub use rules::Rules;
pub use toeplitz::Toeplitz;

/// IP protocol numbers that rules and hashes know (IANA).
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// Encapsulating Security Payload.
    pub const ESP: u8 = 50;
    /// Authentication Header.
    pub const AH: u8 = 51;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// The addresses of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses<'a> {
    /// IPv4.
    V4 {
        /// Source.
        source: &'a [u8; 4],
        /// Destination.
        destination: &'a [u8; 4],
    },
    /// IPv6.
    V6 {
        /// Source.
        source: &'a [u8; 16],
        /// Destination.
        destination: &'a [u8; 16],
    },
}

/// What steering looks at in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKey<'a> {
    /// Its addresses.
    pub addresses: Addresses<'a>,
    /// Its protocol, behind all extension headers.
    pub protocol: u8,
    /// Type of service or traffic class.
    pub traffic_class: u8,
    /// Source port and destination port of TCP, UDP and SCTP, or the SPI of AH and ESP, as on the wire. `None` where there
    /// is none, as in every fragment but the first.
    pub ports: Option<[u8; 4]>,
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steered {
    /// The RX queue; whether it is there is another question.
    pub queue: u16,
    /// The rule that said so.
    pub rule: Option<u32>,
    /// The hash for the completion, whoever said so.
    pub hash: Hash,
}

/// Steers a packet.
pub fn steer(rules: &Rules, rss: &Rss, key: &FlowKey<'_>) -> Steered {
    let hash = rss.hash(key);
    match rules.find(key) {
        Some((location, queue)) => Steered { queue, rule: Some(location), hash },
        None => Steered { queue: rss.queue(hash), rule: None, hash },
    }
}
