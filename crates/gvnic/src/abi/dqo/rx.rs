//! RX buffers and completions.

use super::field;

/// Bytes of a buffer descriptor: `struct gve_rx_desc_dqo`, gve_desc_dqo.h.
pub const BUFFER: usize = 32;
/// Bytes of a completion: `struct gve_rx_compl_desc_dqo`, gve_desc_dqo.h.
pub const COMPLETION: usize = 32;
/// Offset of the byte with the generation bit in a completion: the upper byte of `packet_len`.
pub const GENERATION_AT: usize = 5;
/// Longest header that `header_len` can tell: 10 bits.
pub const HEADER_MAX: usize = 0x3ff;
/// Fragments of an skb by default, `MAX_SKB_FRAGS` (net/Kconfig): a frame of more buffers costs the driver a second skb
/// (`gve_rx_append_frags`, gve_rx_dqo.c).
pub const FRAGMENTS_MAX: usize = 17;
/// In `ts_sub_nsecs_low`: there is a timestamp. `GVE_DQO_RX_HWTSTAMP_VALID`, gve.h.
pub const TIMESTAMP_VALID: u8 = 1;

/// A buffer the driver posted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Buffer {
    /// Its name, which the completion returns.
    pub id: u16,
    /// Bus address of the packet buffer.
    pub address: u64,
    /// Bus address of the header buffer.
    pub header: u64,
}

impl Buffer {
    /// Takes it apart.
    pub fn decode(bytes: &[u8; BUFFER]) -> Buffer {
        Buffer {
            id: u16::from_le_bytes(field(bytes, 0)),
            address: u64::from_le_bytes(field(bytes, 8)),
            header: u64::from_le_bytes(field(bytes, 16)),
        }
    }
}

/// What the completion says about checksums (`gve_rx_skb_csum`, gve_rx_dqo.c).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Integrity {
    /// Both layers were looked at: `l3_l4_processed`.
    pub processed: bool,
    /// The IPv4 header's checksum is wrong: `csum_ip_err`.
    pub l3_error: bool,
    /// The TCP or UDP checksum is wrong: `csum_l4_err`.
    pub l4_error: bool,
}

/// What a completion says: one buffer of a frame.
///
/// The driver takes `split`, `header` and `overflow` from a frame's first completion, everything about the frame from its
/// last (`gve_rx_dqo`, `gve_rx_complete_skb`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Completion {
    /// The buffer.
    pub buffer: u16,
    /// Bytes in it, 14 bits.
    pub length: u16,
    /// Whether it is the frame's last: `end_of_packet`.
    pub end: bool,
    /// Whether the header was split off: `split_header`.
    pub split: bool,
    /// Bytes in the header buffer, 10 bits.
    pub header: u16,
    /// Whether the header was too long for its buffer: `header_buffer_overflow`.
    pub overflow: bool,
    /// What the frame is: `packet_type`.
    pub packet_type: u16,
    /// Checksums.
    pub integrity: Integrity,
    /// Whether an IPv6 packet has destination options or a routing header: `ipv6_ex_add`.
    pub extended: bool,
    /// Bytes of the segments that were merged; 0 when none were: `rsc`, `rsc_seg_len`.
    pub segment: u16,
    /// Hash of the flow.
    pub hash: u32,
    /// When it came, the lower 32 bits of nanoseconds.
    pub timestamp: Option<u32>,
}

/// A completion as it is on the wire, kept as the four words it is written in.
///
/// Words, because the bytes are read again at once: a processor that has to put a wide read together from narrow writes
/// waits until all of its writes are done, and before these there is a payload on its way to memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encoded([u64; 4]);

impl Encoded {
    /// Its bytes.
    pub fn bytes(&self, generation: bool) -> [u8; COMPLETION] {
        let [first, rest @ ..] = self.0;
        let mut bytes = [0; COMPLETION];
        let words = std::iter::once(first | u64::from(generation) << 46).chain(rest);
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    /// The same of another buffer of the frame, with so many bytes in it.
    #[must_use]
    pub fn of(&self, buffer: u16, length: u16, end: bool) -> Encoded {
        let [first, second, third, fourth] = self.0;
        let first = first | u64::from(length & 0x3fff) << 32;
        Encoded([first, second | u64::from(end) << 1 | u64::from(buffer) << 32, third, fourth])
    }

    /// The same without what is about the header.
    #[must_use]
    pub fn behind(&self) -> Encoded {
        let [first, second, third, fourth] = self.0;
        Encoded([first & !(0xbff << 48), second & !(1 << 2), third, fourth])
    }

    /// The same of segments of so many bytes.
    #[must_use]
    pub fn merged(&self, segment: u16) -> Encoded {
        let [first, second, third, fourth] = self.0;
        Encoded([first | u64::from(segment != 0) << 58, second | u64::from(segment) << 48, third, fourth])
    }
}

impl Completion {
    /// As on the wire.
    pub fn encode(&self) -> Encoded {
        let bit = |set: bool, at: u32| u64::from(set) << at;
        // rxdid, "must be 1"; ipv6_ex_add; packet_type; header_len, split_header.
        let first = 1
            | bit(self.extended, 9)
            | u64::from(self.packet_type & 0x3ff) << 16
            | u64::from(self.header & 0x3ff) << 48
            | bit(self.split, 59);
        // descriptor_done, the flags of the header and of checksums, ts_sub_nsecs_low.
        let second = 1
            | bit(self.overflow, 2)
            | bit(self.integrity.processed, 3)
            | bit(self.integrity.l3_error, 4)
            | bit(self.integrity.l4_error, 5)
            | if self.timestamp.is_some() { u64::from(TIMESTAMP_VALID) << 24 } else { 0 };
        let fourth = u64::from(self.timestamp.unwrap_or(0)) << 32;
        Encoded([first, second, u64::from(self.hash), fourth])
            .of(self.buffer, self.length, self.end)
            .merged(self.segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_have_their_bits() {
        let all = Completion {
            buffer: 0x1234,
            length: 0x0abc,
            end: true,
            split: true,
            header: 66,
            overflow: true,
            packet_type: 0x212,
            integrity: Integrity { processed: true, l3_error: true, l4_error: true },
            extended: true,
            segment: 1448,
            hash: 0xdead_beef,
            timestamp: Some(0x0102_0304),
        };
        let expected = [
            1, 2, 0x12, 2, 0xbc, 0x4a, 66, 0x0c, 0x3f, 0, 0, 1, 0x34, 0x12, 0xa8, 5, 0xef, 0xbe, 0xad, 0xde, 0, 0, 0,
            0, 0, 0, 0, 0, 4, 3, 2, 1,
        ];
        assert_eq!(all.encode().bytes(true), expected);
        let mut bare = [0; COMPLETION];
        (bare[0], bare[8]) = (1, 1);
        assert_eq!(Completion::default().encode().bytes(false), bare);
        let behind = Completion { split: false, header: 0, overflow: false, ..all };
        assert_eq!(all.encode().behind(), behind.encode());
    }

    #[test]
    fn buffers_are_read_as_the_driver_lays_them_out() {
        let mut bytes = [0xee; BUFFER];
        bytes[..2].copy_from_slice(&[1, 2]);
        bytes[8..16].copy_from_slice(&0x11_0000_0000_u64.to_le_bytes());
        bytes[16..24].copy_from_slice(&0x22_0000_0080_u64.to_le_bytes());
        let expected = Buffer { id: 0x201, address: 0x11_0000_0000, header: 0x22_0000_0080 };
        assert_eq!(Buffer::decode(&bytes), expected);
    }
}
