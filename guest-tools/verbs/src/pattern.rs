//! Data that can be told from any other: each byte follows from a key and its place.
//!
//! Bytes of one transfer differ from those of the one before, so stale data is found; neighbouring words have nothing in
//! common, so is data in the wrong place. What is not part of a transfer is [`GUARD`], and has to stay so.

/// What surrounds transferred data.
pub const GUARD: u8 = 0xa5;

/// The 8 bytes at `index * 8` (splitmix64).
fn word(key: u64, index: u64) -> [u8; 8] {
    let mut z = key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

/// Makes `memory` guard bytes but for `length` bytes of the key's pattern at `offset`.
pub fn fill(memory: &mut [u8], key: u64, offset: usize, length: usize) {
    memory.fill(GUARD);
    for (index, chunk) in memory[offset..offset + length].chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&word(key, index as u64)[..chunk.len()]);
    }
}

/// How many bytes are not what [`fill`] makes them.
pub fn mismatches(memory: &[u8], key: u64, offset: usize, length: usize) -> u64 {
    let end = offset + length;
    let mut wrong = guards(&memory[..offset]) + guards(&memory[end..]);
    for (index, chunk) in memory[offset..end].chunks(8).enumerate() {
        let due = word(key, index as u64);
        if *chunk != due[..chunk.len()] {
            wrong += chunk.iter().zip(due).filter(|(found, due)| **found != *due).count() as u64;
        }
    }
    wrong
}

/// How many bytes are no guard bytes.
pub fn guards(memory: &[u8]) -> u64 {
    // Whole words first: the rest of a large buffer is mostly this.
    let chunks = memory.chunks_exact(8);
    let tail = chunks.remainder();
    let wrong = |bytes: &[u8]| bytes.iter().filter(|byte| **byte != GUARD).count() as u64;
    chunks.filter(|chunk| **chunk != [GUARD; 8]).map(wrong).sum::<u64>() + wrong(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_matches_and_any_change_does_not() {
        for (offset, length) in [(0, 0), (0, 1), (3, 21), (4095, 2), (1, 8000)] {
            let mut memory = vec![0; 8192];
            fill(&mut memory, 7, offset, length);
            assert_eq!(mismatches(&memory, 7, offset, length), 0, "{length} bytes at {offset}");
            for at in [0, offset, (offset + length).saturating_sub(1), offset + length, 8191] {
                let mut changed = memory.clone();
                changed[at] ^= 1;
                assert_eq!(mismatches(&changed, 7, offset, length), 1, "byte {at}, {length} bytes at {offset}");
            }
        }
    }

    #[test]
    fn another_key_and_another_place_are_other_data() {
        let mut memory = vec![0; 8192];
        fill(&mut memory, 7, 8, 4096);
        assert!(mismatches(&memory, 8, 8, 4096) > 4000);
        assert!(mismatches(&memory, 7, 9, 4096) > 4000);
        assert!(mismatches(&memory, 7, 16, 4096) > 4000);
    }
}
