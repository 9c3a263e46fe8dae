//! Frames on a port's socket, and the few bytes of Ethernet a switch looks at.
//!
//! Framing is that of QEMU's `-netdev stream` (net/stream.c, net/net.c): a big-endian u32 length, then that many bytes,
//! with no virtio-net header. A peer without that header makes QEMU's virtio-net withdraw every checksum and
//! segmentation offload from its guest (hw/net/virtio-net.c), and the device models that segment on their own do so
//! before they send: a frame on the wire is never larger than the NIC's MTU and its headers.

use std::ops::Range;

/// Bytes of the length in front of each frame.
pub const LENGTH_BYTES: usize = 4;

/// Largest frame QEMU takes from a stream or sends on one, in bytes: `NET_BUFSIZE` of include/net/net.h. A greater length
/// means the stream is out of step, and nothing after it can be trusted.
pub const FRAME_MAX: usize = 4096 + 65536;

/// Destination, source and EtherType (IEEE 802.3, 3.2).
pub const ETHERNET_HEADER: usize = 14;

/// Room for two VLAN tags (IEEE 802.1Q, 802.1ad), which do not count towards the MTU.
pub const TAGS: usize = 8;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Whether an address stands for a group of stations (IEEE 802, the I/G bit).
pub fn is_group(mac: &Mac) -> bool {
    mac[0] & 1 != 0
}

/// Where a frame lies in a buffer of stream bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    /// Length and frame, as they travel.
    pub whole: Range<usize>,
    /// The frame alone.
    pub frame: Range<usize>,
}

/// The frame that starts at `at`: `None` while bytes of it are missing.
///
/// # Errors
/// With the length read when it is larger than [`FRAME_MAX`].
pub(crate) fn locate(bytes: &[u8], at: usize) -> Result<Option<Located>, u32> {
    let Some(head) = bytes.get(at..at + LENGTH_BYTES) else { return Ok(None) };
    let claimed = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let len = usize::try_from(claimed).unwrap_or(usize::MAX);
    if len > FRAME_MAX {
        return Err(claimed);
    }
    let start = at + LENGTH_BYTES;
    let end = start + len;
    Ok((end <= bytes.len()).then_some(Located { whole: at..end, frame: start..end }))
}

/// Destination and source of a frame; `None` for one too short to have an Ethernet header.
pub(crate) fn addresses(frame: &[u8]) -> Option<(Mac, Mac)> {
    if frame.len() < ETHERNET_HEADER {
        return None;
    }
    Some((frame[..6].try_into().ok()?, frame[6..12].try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_once_it_is_whole() {
        let bytes = [0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0];
        assert_eq!(locate(&bytes[..3], 0), Ok(None));
        assert_eq!(locate(&bytes[..5], 0), Ok(None));
        assert_eq!(locate(&bytes, 0), Ok(Some(Located { whole: 0..6, frame: 4..6 })));
        assert_eq!(locate(&bytes, 6), Ok(Some(Located { whole: 6..10, frame: 10..10 })));
        assert_eq!(locate(&bytes, 10), Ok(None));
    }

    #[test]
    fn a_length_no_sender_uses_is_refused_before_its_bytes_arrive() {
        assert_eq!(locate(&69_633u32.to_be_bytes(), 0), Err(69_633));
        assert_eq!(locate(&u32::MAX.to_be_bytes(), 0), Err(u32::MAX));
        assert_eq!(locate(&69_632u32.to_be_bytes(), 0), Ok(None));
    }

    #[test]
    fn addresses_need_a_header() {
        assert_eq!(addresses(&[1; 13]), None);
        assert_eq!(addresses(&[1; 14]), Some(([1; 6], [1; 6])));
    }
}
