//! Where a frame's headers end and its payload begins.

use super::Headers;
use crate::abi::ptype::L4;

/// Bytes of headers, when they can be split off: TCP and UDP that is whole. Everything else has no payload that anybody would
/// want elsewhere, and of a fragment nobody knows where its headers end.
pub fn header_bytes(headers: &Headers) -> Option<usize> {
    matches!(headers.l4, L4::Tcp | L4::Udp).then_some(usize::from(headers.payload_at))
}
