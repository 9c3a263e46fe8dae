//! The invariant CRC of RoCEv2 (IBTA volume 1, A17.3.3): the CRC-32 of Ethernet over the packet from the IP header on, with
//! all that a router may change taken as ones, behind eight bytes of ones in place of a local routing header.

use crate::layout::{ICRC, Layout};

/// ICRC of the frame as it stands, in the byte order of the wire; `None` if it is too short to have one.
pub fn of(frame: &[u8], layout: &Layout) -> Option<[u8; ICRC]> {
    let end = frame.len().min(layout.end).checked_sub(ICRC)?;
    let mut covered = frame.get(layout.ip..end)?.to_vec();
    let mut ones = |at: usize, mask: u8| {
        if let Some(byte) = at.checked_sub(layout.ip).and_then(|at| covered.get_mut(at)) {
            *byte |= mask;
        }
    };
    let masked: &[(usize, u8)] = if layout.v6 {
        // Traffic class, flow label, hop limit.
        &[(0, 0x0f), (1, 0xff), (2, 0xff), (3, 0xff), (7, 0xff)]
    } else {
        // Type of service, time to live, header checksum.
        &[(1, 0xff), (8, 0xff), (10, 0xff), (11, 0xff)]
    };
    masked.iter().for_each(|(at, mask)| ones(layout.ip + at, *mask));
    // UDP's checksum, and the reserved byte of the BTH in which FECN and BECN are.
    [layout.udp + 6, layout.udp + 7, layout.bth + 4].into_iter().for_each(|at| ones(at, 0xff));
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[0xff; 8]);
    crc.update(&covered);
    Some(crc.finalize().to_le_bytes())
}
