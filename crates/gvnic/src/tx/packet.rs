//! The descriptors of one packet.

use super::at;
use crate::abi::dqo::tx::{BUFFERS_MAX, DESCRIPTOR, Descriptor, HEADER_MAX, MSS, TSO_BUFFERS_MAX, TSO_BYTES_MAX, Tso};
use crate::bus::Memory;
use crate::window::Window;
use crate::wrong::Wrong;

/// Bytes of a packet at most.
pub(super) const PACKET_MAX: usize = TSO_BYTES_MAX + HEADER_MAX;

/// A packet, by its descriptors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    /// Its first descriptor, and the one behind its last, counted from the queue's creation.
    pub start: u64,
    pub end: u64,
    /// Bytes in all.
    pub length: usize,
    pub tag: u16,
    pub checksum: bool,
    /// Whether one of its descriptors is to be reported.
    pub report: bool,
    pub tso: Option<Tso>,
}

/// Where the bytes of a packet are; the room is used again for the next.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<(u64, u16)>);

impl Pieces {
    /// Reads the descriptors from `start` on; `None` when the packet does not end before `filled`.
    pub fn read(
        &mut self,
        window: &mut Window<DESCRIPTOR>,
        memory: &dyn Memory,
        start: u64,
        filled: u64,
    ) -> Result<Option<Packet>, Wrong> {
        self.0.clear();
        let mut packet = Packet { start, end: start, length: 0, tag: 0, checksum: false, report: false, tso: None };
        let mut general = false;
        while packet.end < filled {
            let index = window.index(packet.end);
            let order = |why| Wrong::Order { index, why };
            let descriptor = Descriptor::decode(window.get(memory, packet.end, filled)?);
            packet.end += 1;
            match descriptor {
                Descriptor::Unknown(found) => return Err(Wrong::Type { index, found }),
                Descriptor::Tso(_) | Descriptor::General if !self.0.is_empty() => {
                    return Err(order("a context within a packet"));
                }
                Descriptor::General if general => return Err(order("a second general context")),
                Descriptor::General => general = true,
                Descriptor::Tso(_) if packet.tso.is_some() => return Err(order("a second TSO context")),
                Descriptor::Tso(tso) if !tso.enabled => return Err(order("a TSO context without its flag")),
                Descriptor::Tso(tso) => {
                    if !MSS.contains(&tso.mss) {
                        let allowed = "88 to 9728 bytes";
                        return Err(Wrong::Field { index, field: "mss", value: u64::from(tso.mss), allowed });
                    }
                    let total = tso.total as usize;
                    if total == 0 || total > TSO_BYTES_MAX {
                        let allowed = "1 to 262143 bytes";
                        return Err(Wrong::Field { index, field: "tso_total_len", value: total as u64, allowed });
                    }
                    packet.tso = Some(tso);
                }
                Descriptor::Packet(piece) => {
                    let most = if packet.tso.is_some() { TSO_BUFFERS_MAX } else { BUFFERS_MAX };
                    if self.0.len() == most {
                        return Err(Wrong::Buffers { index: window.index(start), most });
                    }
                    if piece.length == 0 {
                        let allowed = "1 to 16383 bytes";
                        return Err(Wrong::Field { index, field: "buf_size", value: 0, allowed });
                    }
                    if !self.0.is_empty() && piece.tag != packet.tag {
                        return Err(order("another compl_tag than the packet began with"));
                    }
                    if piece.report && !piece.end {
                        return Err(order("report_event before the packet's end"));
                    }
                    self.0.push((piece.address, piece.length));
                    packet.tag = piece.tag;
                    packet.length += usize::from(piece.length);
                    packet.checksum |= piece.checksum;
                    packet.report |= piece.report;
                    if piece.end {
                        return packet.check(index).map(Some);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Copies the bytes together. They fit, for their length is checked.
    pub fn copy(&self, memory: &dyn Memory, mut into: &mut [u8], index: u32) -> Result<(), Wrong> {
        for (address, length) in &self.0 {
            let Some((piece, rest)) = into.split_at_mut_checked(usize::from(*length)) else { break };
            memory.read(*address, piece).map_err(at("a buffer of the packet at TX descriptor", index))?;
            into = rest;
        }
        Ok(())
    }
}

impl Packet {
    fn check(self, index: u32) -> Result<Packet, Wrong> {
        if let Some(tso) = self.tso {
            let expected = tso.total as usize + usize::from(tso.header);
            if self.length != expected {
                let allowed = "tso_total_len and header_len together";
                return Err(Wrong::Field { index, field: "buf_size of all", value: self.length as u64, allowed });
            }
        }
        Ok(self)
    }
}
