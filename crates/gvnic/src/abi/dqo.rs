//! Descriptors and completions of the datapath ("DQO", raw addressing): gve_desc_dqo.h. Unlike everything else on this device
//! they are little-endian; bit fields count from the lowest bit of their word.
//!
//! In: bytes that were copied from the guest. Out: plain values; what they mean is checked in [`tx`](crate::tx) and
//! [`rx`](crate::rx).

use crate::abi::adminq::{RX_BUFFER, RX_COMPLETION, TX_COMPLETION, TX_DESCRIPTOR};

/// Bytes of a TX descriptor of any kind: `struct gve_tx_pkt_desc_dqo` and the two beside it, gve_desc_dqo.h.
pub const TX_DESCRIPTOR_BYTES: usize = 16;
/// Bytes of a TX completion: `struct gve_tx_compl_desc`, gve_desc_dqo.h.
pub const TX_COMPLETION_BYTES: usize = 8;
/// Bytes of an RX buffer descriptor: `struct gve_rx_desc_dqo`, gve_desc_dqo.h.
pub const RX_BUFFER_BYTES: usize = 32;
/// Bytes of an RX completion: `struct gve_rx_compl_desc_dqo`, gve_desc_dqo.h.
pub const RX_COMPLETION_BYTES: usize = 32;

const _: () = assert!(TX_DESCRIPTOR_BYTES as u64 == TX_DESCRIPTOR);
const _: () = assert!(TX_COMPLETION_BYTES as u64 == TX_COMPLETION);
const _: () = assert!(RX_BUFFER_BYTES as u64 == RX_BUFFER);
const _: () = assert!(RX_COMPLETION_BYTES as u64 == RX_COMPLETION);

/// Kind of a TX descriptor: `GVE_TX_PKT_DESC_DTYPE_DQO`, gve_desc_dqo.h.
pub const KIND_PACKET: u8 = 0xc;
/// Kind of a TX descriptor: `GVE_TX_TSO_CTX_DESC_DTYPE_DQO`, gve_desc_dqo.h.
pub const KIND_SEGMENTATION: u8 = 0x5;
/// Kind of a TX descriptor: `GVE_TX_GENERAL_CTX_DESC_DTYPE_DQO`, gve_desc_dqo.h.
pub const KIND_CONTEXT: u8 = 0x4;
/// Where a TX descriptor's kind is, in its lower five bits: `dtype` in every one of them, gve_desc_dqo.h.
const KIND_AT: usize = 8;
const KIND_MASK: u8 = 0x1f;

/// Smallest segment: `GVE_TX_MIN_TSO_MSS_DQO`, gve_desc_dqo.h (`gve_can_send_tso`, gve_tx_dqo.c, sends none below).
pub const SEGMENT_MIN: u16 = 88;
/// Largest segment: `GVE_TX_MAX_TSO_MSS_DQO`, gve_desc_dqo.h.
pub const SEGMENT_MAX: u16 = 9728;
/// Longest headers of a packet that is segmented: `GVE_TX_MAX_HDR_SIZE_DQO`, gve_desc_dqo.h.
pub const SEGMENTED_HEADER_MAX: u16 = 255;
/// Most bytes of a packet that is segmented: "the total length of the TSO to be <= 262143", `gve_prep_tso`, gve_tx_dqo.c.
pub const SEGMENTED_MAX: usize = 262_143;
/// Shortest packet: "within the range of [17, 9728]", `gve_tx_add_skb_no_copy_dqo`, gve_tx_dqo.c.
pub const PACKET_MIN: usize = 17;

/// Completion tag bit that makes a packet's completion one of the miss path: `GVE_ALT_MISS_COMPL_BIT`, gve_desc_dqo.h.
pub const TAG_MISS: u16 = 1 << 15;

/// `N` bytes at an offset; zeros stand for those that are not there, which constant offsets into arrays never meet.
fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

/// A TX descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxDescriptor {
    /// A piece of a packet: `struct gve_tx_pkt_desc_dqo`.
    Packet(TxPiece),
    /// How the packet that follows is cut: `struct gve_tx_tso_context_desc_dqo`.
    Segmentation(Segmentation),
    /// What the driver knows of the flow, which is of no use here: `struct gve_tx_general_context_desc_dqo`.
    Context,
    /// None of these.
    Unknown(u8),
}

/// A piece of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TxPiece {
    /// `buf_addr`.
    pub address: u64,
    /// `buf_size`, 14 bits.
    pub length: u16,
    /// `compl_tag`.
    pub tag: u16,
    /// `end_of_packet`: the last one.
    pub end: bool,
    /// `checksum_offload_enable`.
    pub checksum: bool,
    /// `report_event`: the driver wants to know how far the ring has been read.
    pub report: bool,
}

/// How a packet is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// `tso_total_len`: bytes behind the headers, 24 bits.
    pub payload: u32,
    /// `mss`: bytes behind the headers of every segment but the last, 14 bits.
    pub segment: u16,
    /// `header_len`.
    pub header: u8,
    /// `cmd_dtype.tso`.
    pub enabled: bool,
}

impl TxDescriptor {
    /// Reads one.
    pub fn decode(bytes: &[u8; TX_DESCRIPTOR_BYTES]) -> TxDescriptor {
        let [kind] = at(bytes, KIND_AT);
        match kind & KIND_MASK {
            KIND_PACKET => TxDescriptor::Packet(TxPiece {
                address: u64::from_le_bytes(at(bytes, 0)),
                length: u16::from_le_bytes(at(bytes, 14)) & 0x3fff,
                tag: u16::from_le_bytes(at(bytes, 12)),
                end: kind & 1 << 5 != 0,
                checksum: kind & 1 << 6 != 0,
                report: kind & 1 << 7 != 0,
            }),
            KIND_SEGMENTATION => TxDescriptor::Segmentation(Segmentation {
                payload: u32::from_le_bytes(at(bytes, 0)) & 0xff_ffff,
                segment: u16::from_le_bytes(at(bytes, 4)) & 0x3fff,
                header: u8::from_le_bytes(at(bytes, 6)),
                enabled: kind & 1 << 5 != 0,
            }),
            KIND_CONTEXT => TxDescriptor::Context,
            other => TxDescriptor::Unknown(other),
        }
    }
}

/// What a TX completion says. The first four are `GVE_COMPL_TYPE_DQO_*`, gve_desc_dqo.h; how the driver takes them is said
/// above `gve_handle_packet_completion`, gve_tx_dqo.c.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxCompletion {
    /// The packet of this tag is sent: its buffers are the driver's again.
    Packet(u16),
    /// Descriptors before this index were read. The driver learns of free slots from nothing else
    /// (`gve_has_tx_slots_available`, gve_tx_dqo.c), so a ring where this is missing once may stand still for ever.
    Descriptors(u16),
    /// The packet of this tag goes another way, and is completed by a re-injection.
    Miss(u16),
    /// The packet of this tag, that was missed, is sent.
    Reinjection(u16),
}

/// The byte of a TX completion that has the generation: bit 15 of the first word.
pub const TX_GENERATION_AT: usize = 1;

impl TxCompletion {
    /// Its bytes for a queue: `struct gve_tx_compl_desc`, gve_desc_dqo.h.
    pub fn encode(self, queue: u16, generation: bool) -> [u8; TX_COMPLETION_BYTES] {
        let (kind, value) = match self {
            TxCompletion::Miss(tag) => (1, tag),
            TxCompletion::Packet(tag) => (2, tag),
            TxCompletion::Reinjection(tag) => (3, tag),
            TxCompletion::Descriptors(head) => (4, head),
        };
        let word = (queue & 0x7ff) | kind << 11 | u16::from(generation) << 15;
        let ([a, b], [c, d]) = (word.to_le_bytes(), value.to_le_bytes());
        [a, b, c, d, 0, 0, 0, 0]
    }
}

/// An RX buffer: `struct gve_rx_desc_dqo`, gve_desc_dqo.h.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RxBuffer {
    /// `buf_id`: what the completion gives back.
    pub id: u16,
    /// `buf_addr`.
    pub address: u64,
    /// `header_buf_addr`.
    pub header: u64,
}

impl RxBuffer {
    /// Reads one.
    pub fn decode(bytes: &[u8; RX_BUFFER_BYTES]) -> RxBuffer {
        RxBuffer {
            id: u16::from_le_bytes(at(bytes, 0)),
            address: u64::from_le_bytes(at(bytes, 8)),
            header: u64::from_le_bytes(at(bytes, 16)),
        }
    }
}

/// Most bytes one RX completion can tell of: `packet_len`, 14 bits.
pub const RX_LENGTH_MAX: u16 = (1 << 14) - 1;
/// Most header bytes one RX completion can tell of: `header_len`, 10 bits.
pub const RX_HEADER_MAX: u16 = (1 << 10) - 1;
/// The byte of an RX completion that has the generation: bit 14 of the word at 4.
pub const RX_GENERATION_AT: usize = 5;

/// An RX completion: `struct gve_rx_compl_desc_dqo`, gve_desc_dqo.h.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RxCompletion {
    /// `buf_id`.
    pub id: u16,
    /// `packet_len`: bytes in the packet buffer.
    pub length: u16,
    /// `header_len`: bytes in the header buffer.
    pub header: u16,
    /// `split_header`.
    pub split: bool,
    /// `end_of_packet`.
    pub end: bool,
    /// `rx_error`: nothing of it is to be believed but the buffer's number.
    pub error: bool,
    /// `header_buffer_overflow`.
    pub header_overflow: bool,
    /// What is the same in every completion of a frame.
    pub about: About,
}

/// What a completion says of the whole frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct About {
    /// `packet_type`, a number of [`ptype`](crate::abi::ptype).
    pub packet_type: u16,
    /// `l3_l4_processed`: checksums were looked at.
    pub processed: bool,
    /// `csum_ip_err`.
    pub bad_ip_checksum: bool,
    /// `csum_l4_err`.
    pub bad_l4_checksum: bool,
    /// `ipv6_ex_add`: the driver trusts no checksum then (`gve_rx_skb_csum`, gve_rx_dqo.c).
    pub ipv6_extended: bool,
    /// `rsc_seg_len` where segments were merged, with `rsc`.
    pub segment: Option<u16>,
    /// `hash`.
    pub hash: u32,
    /// `ts`: lower 32 bits of nanoseconds, with `GVE_DQO_RX_HWTSTAMP_VALID` (gve.h) in `ts_sub_nsecs_low`.
    pub timestamp: Option<u32>,
}

impl RxCompletion {
    /// Its bytes.
    pub fn encode(&self, generation: bool) -> [u8; RX_COMPLETION_BYTES] {
        let about = &self.about;
        let bit = |set: bool, n: u32| u16::from(set) << n;
        let flag = |set: bool, n: u32| u8::from(set) << n;
        let mut bytes = [0; RX_COMPLETION_BYTES];
        let mut put = |offset: usize, value: &[u8]| {
            if let Some(to) = bytes.get_mut(offset..offset + value.len()) {
                to.copy_from_slice(value);
            }
        };
        // `rxdid` "must be 1".
        put(0, &[1, flag(about.ipv6_extended, 1) | flag(self.error, 2)]);
        put(2, &(about.packet_type & 0x3ff).to_le_bytes());
        put(4, &((self.length & RX_LENGTH_MAX) | bit(generation, 14)).to_le_bytes());
        let header = (self.header & RX_HEADER_MAX) | bit(about.segment.is_some(), 10) | bit(self.split, 11);
        put(6, &header.to_le_bytes());
        let status = flag(true, 0)
            | flag(self.end, 1)
            | flag(self.header_overflow, 2)
            | flag(about.processed, 3)
            | flag(about.bad_ip_checksum, 4)
            | flag(about.bad_l4_checksum, 5);
        put(8, &[status, 0, 0, flag(about.timestamp.is_some(), 0)]);
        put(12, &self.id.to_le_bytes());
        put(14, &about.segment.unwrap_or(0).to_le_bytes());
        put(16, &about.hash.to_le_bytes());
        put(28, &about.timestamp.unwrap_or(0).to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tx_descriptors_are_read_as_the_driver_fills_them() {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&0x1122_3344_5566_7788u64.to_le_bytes());
        bytes[8] = 0xc | 1 << 5 | 1 << 7;
        bytes[12..14].copy_from_slice(&0x1234u16.to_le_bytes());
        bytes[14..].copy_from_slice(&(0xc000u16 | 16383).to_le_bytes());
        let piece = TxPiece {
            address: 0x1122_3344_5566_7788,
            length: 16383,
            tag: 0x1234,
            end: true,
            checksum: false,
            report: true,
        };
        assert_eq!(TxDescriptor::decode(&bytes), TxDescriptor::Packet(piece));
        let mut bytes = [0xff; 16];
        bytes[..3].copy_from_slice(&[0x56, 0x34, 0x02]);
        bytes[4..6].copy_from_slice(&(0xc000u16 | 1448).to_le_bytes());
        bytes[6] = 66;
        bytes[8] = 0x5 | 1 << 5;
        let cut = Segmentation { payload: 0x02_3456, segment: 1448, header: 66, enabled: true };
        assert_eq!(TxDescriptor::decode(&bytes), TxDescriptor::Segmentation(cut));
        bytes[8] = 0x4;
        assert_eq!(TxDescriptor::decode(&bytes), TxDescriptor::Context);
        bytes[8] = 0xff;
        assert_eq!(TxDescriptor::decode(&bytes), TxDescriptor::Unknown(0x1f));
    }

    #[test]
    fn completions_are_where_the_driver_looks() {
        assert_eq!(TxCompletion::Packet(0x0102).encode(5, true), [5, 0x90, 2, 1, 0, 0, 0, 0]);
        assert_eq!(TxCompletion::Descriptors(33).encode(5, false), [5, 0x20, 33, 0, 0, 0, 0, 0]);
        assert_eq!(TxCompletion::Miss(1).encode(0, false)[1], 0x08);
        assert_eq!(TxCompletion::Reinjection(1).encode(0x7ff, true)[..2], [0xff, 0x9f]);
        let about = About {
            packet_type: 0x212,
            processed: true,
            segment: Some(1448),
            hash: 0x0a0b_0c0d,
            timestamp: Some(7),
            ..About::default()
        };
        let completion =
            RxCompletion { id: 0x0304, length: 4096, header: 66, split: true, end: true, about, ..Default::default() };
        let bytes = completion.encode(true);
        assert_eq!(bytes[..4], [1, 0, 0x12, 0x02]);
        assert_eq!(bytes[4..8], [0x00, 0x50, 66, 0x0c]);
        assert_eq!(bytes[8..12], [0b1011, 0, 0, 1]);
        assert_eq!(bytes[12..20], [4, 3, 0xa8, 5, 0x0d, 0x0c, 0x0b, 0x0a]);
        assert_eq!(bytes[28..], [7, 0, 0, 0]);
        assert_eq!(completion.encode(false)[5], 0x10);
    }
}
