//! TX descriptors and completions.
//!
//! A packet is an optional TSO context, an optional general context and one packet descriptor a buffer, the last of which
//! ends the packet (`gve_tx_add_skb_dqo`, gve_tx_dqo.c).

use super::field;

/// Bytes of every TX descriptor: `struct gve_tx_pkt_desc_dqo` and the two contexts, gve_desc_dqo.h.
pub const DESCRIPTOR: usize = 16;
/// Bytes of a TX completion: `struct gve_tx_compl_desc`, gve_desc_dqo.h.
pub const COMPLETION: usize = 8;
/// `GVE_TX_PKT_DESC_DTYPE_DQO`, gve_desc_dqo.h.
pub const DTYPE_PACKET: u8 = 0xc;
/// `GVE_TX_TSO_CTX_DESC_DTYPE_DQO`, gve_desc_dqo.h.
pub const DTYPE_TSO: u8 = 0x5;
/// `GVE_TX_GENERAL_CTX_DESC_DTYPE_DQO`, gve_desc_dqo.h.
pub const DTYPE_GENERAL: u8 = 0x4;
/// Buffers of a packet that is not segmented, at most: `GVE_TX_MAX_DATA_DESCS`, gve_desc_dqo.h; the driver linearises what
/// has more (`gve_try_tx_skb`, gve_tx_dqo.c).
pub const BUFFERS_MAX: usize = 10;
/// Buffers of a packet to be segmented, at most. The driver's bound is one a segment (`gve_can_send_tso`, gve_tx_dqo.c);
/// over all it has a head, up to 45 fragments (`CONFIG_MAX_SKB_FRAGS`, net/Kconfig), and cuts 262,143 bytes at 16,383
/// (`gve_tx_fill_pkt_desc_dqo`), which makes 17 more at most.
pub const TSO_BUFFERS_MAX: usize = 64;
/// Bytes of a packet that is not segmented, from and to: `gve_tx_add_skb_no_copy_dqo`, gve_tx_dqo.c.
pub const PACKET_BYTES: std::ops::RangeInclusive<usize> = 17..=9728;
/// Segment sizes: `GVE_TX_MIN_TSO_MSS_DQO` to `GVE_TX_MAX_TSO_MSS_DQO`, gve_desc_dqo.h.
pub const MSS: std::ops::RangeInclusive<u16> = 88..=9728;
/// Bytes of a packet to be segmented, without headers: `GVE_DQO_TX_MAX`, gve.h, and the 24 bits of `tso_total_len` hold more.
pub const TSO_BYTES_MAX: usize = 0x3_ffff;
/// Bytes of headers at most: `GVE_TX_MAX_HDR_SIZE_DQO`, gve_desc_dqo.h.
pub const HEADER_MAX: usize = 255;

/// A TX descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    /// A buffer of a packet: `struct gve_tx_pkt_desc_dqo`.
    Packet(Packet),
    /// How to segment the packet that follows: `struct gve_tx_tso_context_desc_dqo`.
    Tso(Tso),
    /// Metadata, which is the driver's hash of the flow; the device needs none of it:
    /// `struct gve_tx_general_context_desc_dqo`.
    General,
    /// No type there is.
    Unknown(u8),
}

/// A buffer of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Its bus address.
    pub address: u64,
    /// Its bytes, 14 bits.
    pub length: u16,
    /// What the completion carries: `compl_tag`.
    pub tag: u16,
    /// Whether it is the packet's last.
    pub end: bool,
    /// Whether the device fills in checksums: `checksum_offload_enable`.
    pub checksum: bool,
    /// Whether the driver wants to know that it was read: `report_event`.
    pub report: bool,
}

/// How to segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tso {
    /// Bytes behind the headers, 24 bits.
    pub total: u32,
    /// Bytes of a segment behind the headers, 14 bits.
    pub mss: u16,
    /// Bytes of the headers.
    pub header: u8,
    /// Whether it is meant: `cmd_dtype.tso`.
    pub enabled: bool,
}

impl Descriptor {
    /// Takes it apart.
    pub fn decode(bytes: &[u8; DESCRIPTOR]) -> Descriptor {
        let [.., kind, _, _, _, _, _, _, _] = *bytes;
        match kind & 0x1f {
            DTYPE_PACKET => Descriptor::Packet(Packet {
                address: u64::from_le_bytes(field(bytes, 0)),
                length: u16::from_le_bytes(field(bytes, 14)) & 0x3fff,
                tag: u16::from_le_bytes(field(bytes, 12)),
                end: kind & 0x20 != 0,
                checksum: kind & 0x40 != 0,
                report: kind & 0x80 != 0,
            }),
            DTYPE_TSO => {
                let [header] = field(bytes, 6);
                Descriptor::Tso(Tso {
                    total: u32::from_le_bytes(field(bytes, 0)) & 0xff_ffff,
                    mss: u16::from_le_bytes(field(bytes, 4)) & 0x3fff,
                    header,
                    enabled: kind & 0x20 != 0,
                })
            }
            DTYPE_GENERAL => Descriptor::General,
            other => Descriptor::Unknown(other),
        }
    }
}

/// What a completion says: `GVE_COMPL_TYPE_DQO_*`, gve_desc_dqo.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CompletionType {
    /// The packet took the slow path; a re-injection completion follows (`gve_handle_miss_completion`, gve_tx_dqo.c).
    Miss = 1,
    /// The packet is sent, its buffers are the driver's again.
    Packet = 2,
    /// A packet of the slow path is sent.
    Reinjection = 3,
    /// Descriptors up to an index are read, their slots are the driver's again.
    Descriptors = 4,
}

/// Offset of the byte with the generation bit in a completion.
pub const GENERATION_AT: usize = 1;

/// A TX completion. `value` is the packet's tag, or the index behind the last descriptor read.
pub fn completion(queue: u16, kind: CompletionType, value: u16, generation: bool) -> [u8; COMPLETION] {
    let head = (queue & 0x7ff) | u16::from(kind as u8) << 11 | u16::from(generation) << 15;
    let mut bytes = [0; COMPLETION];
    bytes[..2].copy_from_slice(&head.to_le_bytes());
    bytes[2..4].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_read_as_the_driver_lays_them_out() {
        let mut packet = [0; DESCRIPTOR];
        packet[..8].copy_from_slice(&0x1_2345_6789_abcd_u64.to_le_bytes());
        packet[8] = 0xc | 0x20 | 0x80;
        packet[12..14].copy_from_slice(&0x1ff_u16.to_le_bytes());
        packet[14..].copy_from_slice(&(0x3fff_u16 | 0x4000).to_le_bytes());
        let expected =
            Packet { address: 0x1_2345_6789_abcd, length: 16383, tag: 511, end: true, checksum: false, report: true };
        assert_eq!(Descriptor::decode(&packet), Descriptor::Packet(expected));
        let tso = [0xff, 0xff, 3, 0xee, 0xa8, 0x05, 66, 0xee, 0x25, 0, 0, 0, 0, 0, 0, 0];
        let expected = Tso { total: 262_143, mss: 1448, header: 66, enabled: true };
        assert_eq!(Descriptor::decode(&tso), Descriptor::Tso(expected));
        let with = |kind| Descriptor::decode(&[0, 0, 0, 0, 0, 0, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((with(0x4), with(0)), (Descriptor::General, Descriptor::Unknown(0)));
    }

    #[test]
    fn completions_have_their_bits() {
        assert_eq!(completion(5, CompletionType::Packet, 0x102, true), [5, 0x90, 2, 1, 0, 0, 0, 0]);
        assert_eq!(completion(0x7ff, CompletionType::Descriptors, 7, false), [0xff, 0x27, 7, 0, 0, 0, 0, 0]);
    }
}
