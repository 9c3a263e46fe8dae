//! The sums of a frame, made right again after something else was changed.

use crate::icrc;
use crate::layout::{ICRC, Layout};

/// How much of a corrupted frame is made consistent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Seal {
    /// Nothing: the frame as the corruption left it.
    Broken,
    /// IPv4's header checksum, so that IP lets it pass.
    Header,
    /// That and the ICRC, so that everybody does.
    Whole,
}

impl Seal {
    /// All of them.
    pub const ALL: [Seal; 3] = [Seal::Broken, Seal::Header, Seal::Whole];

    /// Seals `frame`, whose headers are where `layout` says.
    pub fn apply(self, frame: &mut [u8], layout: &Layout) {
        if self == Seal::Broken {
            return;
        }
        if !layout.v6 {
            ipv4_checksum(frame, layout.ip);
        }
        if self == Seal::Whole
            && let Some(icrc) = icrc::of(frame, layout)
        {
            let end = frame.len().min(layout.end);
            frame[end - ICRC..end].copy_from_slice(&icrc);
        }
    }
}

/// Writes the checksum of the IPv4 header at `ip`, as long as it says it is and as far as there is one.
pub fn ipv4_checksum(frame: &mut [u8], ip: usize) {
    let Some(first) = frame.get(ip) else { return };
    let end = (ip + usize::from(first & 0x0f).max(5) * 4).min(frame.len());
    if end < ip + 12 {
        return;
    }
    frame[ip + 10..ip + 12].fill(0);
    let sum = ones_complement([&frame[ip..end]]);
    frame[ip + 10..ip + 12].copy_from_slice(&(!sum).to_be_bytes());
}

/// The ones' complement sum of 16-bit words over byte strings laid end to end, each of even length but the last.
pub fn ones_complement<const N: usize>(parts: [&[u8]; N]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or_default())).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}
