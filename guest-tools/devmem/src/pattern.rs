//! Bytes that follow from their place in the stream, so that lost, repeated and misplaced ones are found.
//!
//! The keyed pattern is other data at every place: each word of 8 bytes is a bijection of its index, mixed with the seed. It
//! is cheap on purpose, a multiplication a word, since in an emulated guest the comparison costs as much as the transfer. The
//! pattern of the kernel's ncdevmem repeats every few bytes and is there to talk to that.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

/// 2^64 divided by the golden ratio, made odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// As many bytes as a table of a repeating pattern has at least.
const TABLE: usize = 4096;

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Keyed with a seed.
    Keyed(u64),
    /// Repeating: its period, and the pattern for as long as a table goes.
    Repeating(usize, Vec<u8>),
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wrong {
    /// Bytes that are not as they have to be.
    pub bytes: u64,
    /// The place of the first of them in the stream.
    pub first: Option<u64>,
}

impl Pattern {
    /// Bytes 1 to `period` - 1 and a line's end, again and again: what `ncdevmem -v PERIOD` expects.
    ///
    /// # Errors
    /// When that is no period.
    pub fn ncdevmem(period: usize) -> Result<Pattern> {
        if !(2..=256).contains(&period) {
            bail!("a period of {period} bytes: ncdevmem's patterns have 2 to 256");
        }
        let byte = |at: usize| if at % period == period - 1 { b'\n' } else { (at % period + 1) as u8 };
        Ok(Pattern::Repeating(period, (0..TABLE + period).map(byte).collect()))
    }

    /// Fills `out` with the pattern from `place` on.
    pub fn fill(&self, place: u64, out: &mut [u8]) {
        self.walk(place, out.len(), |at, due| out[at..at + due.len()].copy_from_slice(due));
    }

    /// Compares `found` with the pattern from `place` on.
    pub fn compare(&self, place: u64, found: &[u8]) -> Wrong {
        let mut wrong = Wrong::default();
        self.walk(place, found.len(), |at, due| {
            let piece = &found[at..at + due.len()];
            if piece != due {
                let differs = || piece.iter().zip(due).enumerate().filter(|(_, (found, due))| found != due);
                wrong.bytes += differs().count() as u64;
                wrong.first = wrong.first.or_else(|| differs().next().map(|(n, _)| place + (at + n) as u64));
            }
        });
        wrong
    }

    /// Calls `piece` with the pattern of `length` bytes from `place` on, piece by piece, and where each begins.
    #[inline]
    fn walk(&self, place: u64, length: usize, mut piece: impl FnMut(usize, &[u8])) {
        let mut at = 0;
        match self {
            Pattern::Keyed(seed) => {
                let key = mix(seed.wrapping_add(STEP));
                let mut index = place / 8;
                let skipped = (place % 8) as usize;
                if skipped > 0 {
                    let head = (8 - skipped).min(length);
                    piece(0, &word(key, index)[skipped..skipped + head]);
                    (at, index) = (head, index + 1);
                }
                while length - at >= 8 {
                    piece(at, &word(key, index));
                    (at, index) = (at + 8, index + 1);
                }
                if at < length {
                    piece(at, &word(key, index)[..length - at]);
                }
            }
            Pattern::Repeating(period, table) => {
                while at < length {
                    let phase = ((place + at as u64) % *period as u64) as usize;
                    let due = &table[phase..][..TABLE.min(length - at)];
                    piece(at, due);
                    at += due.len();
                }
            }
        }
    }
}

fn word(key: u64, index: u64) -> [u8; 8] {
    let z = index.wrapping_mul(STEP).wrapping_add(key);
    (z ^ (z >> 32)).to_le_bytes()
}

/// The finaliser of splitmix64: seeds that differ little give keys that have nothing in common.
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl FromStr for Pattern {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("pattern", seed)) => Ok(Pattern::Keyed(seed.parse().with_context(|| format!("seed `{seed}`"))?)),
            Some(("ncdevmem", period)) => Pattern::ncdevmem(period.parse().with_context(|| format!("`{period}`"))?),
            _ => bail!("`{text}` is no pattern; there are pattern:SEED and ncdevmem:PERIOD"),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Keyed(seed) => write!(f, "pattern:{seed}"),
            Pattern::Repeating(period, _) => write!(f, "ncdevmem:{period}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Pattern; 3] {
        [Pattern::Keyed(7), Pattern::ncdevmem(7).unwrap(), Pattern::ncdevmem(2).unwrap()]
    }

    #[test]
    fn pieces_are_the_whole() {
        for pattern in all() {
            let mut whole = vec![0; 20_000];
            pattern.fill(3, &mut whole);
            for lengths in [&[1, 2, 3, 5, 7, 8, 9, 4095, 4097][..], &[1448], &[13_000]] {
                let mut pieces = Vec::new();
                for length in lengths.iter().cycle() {
                    let mut piece = vec![0; *length];
                    pattern.fill(3 + pieces.len() as u64, &mut piece);
                    assert_eq!(pattern.compare(3 + pieces.len() as u64, &piece), Wrong::default());
                    pieces.extend(piece);
                    if pieces.len() >= whole.len() {
                        break;
                    }
                }
                assert_eq!(pieces[..whole.len()], whole, "{pattern}");
            }
        }
    }

    #[test]
    fn every_changed_byte_is_found_at_its_place() {
        for pattern in all() {
            let mut bytes = vec![0; 9001];
            pattern.fill(1 << 33, &mut bytes);
            for at in [0, 1, 6, 7, 8, 4095, 4096, 8999, 9000] {
                let mut changed = bytes.clone();
                changed[at] ^= 0x80;
                let due = Wrong { bytes: 1, first: Some((1 << 33) + at as u64) };
                assert_eq!(pattern.compare(1 << 33, &changed), due, "{pattern}, byte {at}");
            }
        }
    }

    #[test]
    fn the_keyed_pattern_is_other_data_elsewhere_and_with_another_seed() {
        let pattern = Pattern::Keyed(1);
        let mut bytes = vec![0; 4096];
        pattern.fill(0, &mut bytes);
        for place in [1, 7, 8, 64, 1448, 4096, 1 << 20, 1 << 32] {
            assert!(pattern.compare(place, &bytes).bytes > 3900, "{place}");
        }
        assert!(Pattern::Keyed(2).compare(0, &bytes).bytes > 3900);
    }

    #[test]
    fn ncdevmems_own_lines() {
        let mut bytes = vec![0; 15];
        "ncdevmem:7".parse::<Pattern>().unwrap().fill(0, &mut bytes);
        assert_eq!(bytes, b"\x01\x02\x03\x04\x05\x06\n\x01\x02\x03\x04\x05\x06\n\x01");
        for wrong in ["ncdevmem:1", "ncdevmem:257", "ncdevmem:x", "pattern:", "pattern", "file:/x"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
        }
    }
}
