//! A valid frame that corruptions start from.

use std::fmt;

use crate::icrc;
use crate::layout::{ICRC, Layout, Unfit};

/// What makes two templates worth having: their frames take different ways through the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// IPv6.
    pub v6: bool,
    /// Sent to a multicast group.
    pub multicast: bool,
    /// Opcode of the BTH: service and operation.
    pub opcode: u8,
    /// Bytes of the frame: corruptions are made for one length.
    pub length: usize,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = ["RC", "UC", "RD", "UD", "CNP", "XRC", "6", "7"][usize::from(self.opcode >> 5)];
        let family = if self.v6 { "v6" } else { "v4" };
        let cast = if self.multicast { "-multicast" } else { "" };
        write!(f, "{family}{cast}-{service}-{:#04x} of {} B", self.opcode, self.length)
    }
}

/// A valid frame with its headers found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The frame, without padding behind the packet.
    pub frame: Vec<u8>,
    /// Its headers.
    pub layout: Layout,
    /// Its kind.
    pub key: Key,
}

impl Template {
    /// Takes a frame if it is a plain RoCEv2 frame whose ICRC is right.
    pub fn new(frame: &[u8]) -> Result<Template, Unfit> {
        let layout = Layout::of(frame)?;
        let frame = frame[..layout.end].to_vec();
        if icrc::of(&frame, &layout).is_none_or(|icrc| frame[layout.end - ICRC..] != icrc) {
            return Err(Unfit("its ICRC is wrong"));
        }
        let multicast = if layout.v6 { frame[layout.ip + 24] == 0xff } else { frame[layout.ip + 16] >> 4 == 0xe };
        let key = Key { v6: layout.v6, multicast, opcode: frame[layout.bth], length: frame.len() };
        Ok(Template { frame, layout, key })
    }

    /// Source and destination, the bytes of the IP header.
    pub fn addresses(&self) -> (&[u8], &[u8]) {
        let (at, len) = if self.layout.v6 { (self.layout.ip + 8, 16) } else { (self.layout.ip + 12, 4) };
        (&self.frame[at..at + len], &self.frame[at + len..at + 2 * len])
    }
}
