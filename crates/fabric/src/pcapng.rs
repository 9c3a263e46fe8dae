//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng), as few as a capture of one Ethernet port needs.
//!
//! Pure: every function appends one whole block to a buffer, so whoever writes buffers out never leaves a file that ends in
//! half a block. Numbers are little-endian, which the section header says; times are nanoseconds since 1970.

/// Block types, section 4 of the draft.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Tells a reader the byte order, section 4.1.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// `LINKTYPE_ETHERNET` of the tcpdump group's registry.
const ETHERNET: u16 = 1;

/// Option codes, section 3.5 and those of the blocks.
const END_OF_OPTIONS: u16 = 0;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// Which way a frame went, as the guest's NIC sees it; the values are those of `epb_flags` (section 4.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the guest.
    Inbound = 1,
    /// From the guest.
    Outbound = 2,
}

/// Starts a file: the section and its one interface.
pub fn header(out: &mut Vec<u8>, interface: &str, description: &str) {
    block(out, SECTION_HEADER, |out| {
        out.extend(BYTE_ORDER.to_le_bytes());
        out.extend(1u16.to_le_bytes());
        out.extend(0u16.to_le_bytes());
        // The section's length is not known while it grows.
        out.extend((-1i64).to_le_bytes());
        option(out, SHB_USERAPPL, concat!("devmem-lab fabric ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(out, END_OF_OPTIONS, &[]);
    });
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend(ETHERNET.to_le_bytes());
        out.extend(0u16.to_le_bytes());
        // Frames are never cut.
        out.extend(0u32.to_le_bytes());
        option(out, IF_NAME, interface.as_bytes());
        option(out, IF_DESCRIPTION, description.as_bytes());
        // Powers of ten of a second.
        option(out, IF_TSRESOL, &[9]);
        option(out, END_OF_OPTIONS, &[]);
    });
}

/// One frame.
pub fn packet(out: &mut Vec<u8>, nanos: u64, direction: Direction, frame: &[u8]) {
    // No stream carries frames of 4 GiB.
    let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    block(out, ENHANCED_PACKET, |out| {
        out.extend(0u32.to_le_bytes());
        time(out, nanos);
        out.extend(len.to_le_bytes());
        out.extend(len.to_le_bytes());
        out.extend_from_slice(frame);
        pad(out, frame.len());
        option(out, EPB_FLAGS, &(direction as u32).to_le_bytes());
        option(out, END_OF_OPTIONS, &[]);
    });
}

/// Ends a file: how many frames the interface saw and how many of them are not in the file.
pub fn statistics(out: &mut Vec<u8>, nanos: u64, seen: u64, missed: u64) {
    block(out, INTERFACE_STATISTICS, |out| {
        out.extend(0u32.to_le_bytes());
        time(out, nanos);
        option(out, ISB_IFRECV, &seen.to_le_bytes());
        option(out, ISB_IFDROP, &missed.to_le_bytes());
        option(out, END_OF_OPTIONS, &[]);
    });
}

/// Bytes [`packet`] appends for a frame of `len` bytes.
pub fn packet_size(len: usize) -> usize {
    12 + 20 + len.next_multiple_of(4) + 8 + 4
}

/// Type, length, body, length again.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let total = u32::try_from(out.len() - start + 4).unwrap_or(u32::MAX).to_le_bytes();
    out.extend(total);
    out[start + 4..start + 8].copy_from_slice(&total);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    out.extend(code.to_le_bytes());
    out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(value);
    pad(out, value.len());
}

/// The high half comes first, whatever the byte order.
fn time(out: &mut Vec<u8>, nanos: u64) {
    out.extend(((nanos >> 32) as u32).to_le_bytes());
    out.extend((nanos as u32).to_le_bytes());
}

fn pad(out: &mut Vec<u8>, len: usize) {
    out.resize(out.len() + len.next_multiple_of(4) - len, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_laid_out_as_the_draft_says() {
        let mut out = Vec::new();
        packet(&mut out, 0x0001_0002_0003_0004, Direction::Outbound, &[0xaa; 5]);
        assert_eq!(out.len(), packet_size(5));
        let words = [6, 52, 0, 0x0001_0002, 0x0003_0004, 5, 5, 0xaaaa_aaaa, 0xaa, 0x0004_0002, 2, 0, 52u32];
        assert_eq!(out, words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn every_block_says_its_length_twice() {
        let mut out = Vec::new();
        header(&mut out, "a.0", "network fabric");
        for len in 0..9 {
            packet(&mut out, 1, Direction::Inbound, &vec![1; len]);
        }
        statistics(&mut out, 2, 9, 0);
        let mut at = 0;
        let mut kinds = Vec::new();
        while at < out.len() {
            let word = |at: usize| u32::from_le_bytes(out[at..at + 4].try_into().unwrap());
            let total = word(at + 4) as usize;
            assert_eq!(word(at + total - 4) as usize, total);
            kinds.push(word(at));
            at += total;
        }
        assert_eq!(
            kinds,
            [&[SECTION_HEADER, INTERFACE_DESCRIPTION][..], &[ENHANCED_PACKET; 9], &[INTERFACE_STATISTICS]].concat()
        );
    }
}
