//! The Toeplitz hash, by tables: each half byte of the input selects a word, and the hash is their exclusive or.
//!
//! Half bytes and not bytes, because the tables for IPv4 with ports are then 1.5 KiB rather than 12 and stay in the
//! first-level cache beside the frame.

/// Longest input, in bytes: two IPv6 addresses and two ports.
pub const INPUT_MAX: usize = 36;
const NIBBLES: usize = INPUT_MAX * 2;

/// A key, spread out.
#[derive(Clone, PartialEq, Eq)]
pub struct Toeplitz {
    words: Box<[[u32; 16]; NIBBLES]>,
}

impl Toeplitz {
    /// Spreads a key out.
    pub fn new(key: &[u8; 40]) -> Toeplitz {
        // The 32 bits of the key from a bit on. There are 36 x 8 + 32 = 320 of them: the key has not one too few.
        let window = |bit: usize| {
            (0..32).fold(0u32, |word, n| {
                let at = bit + n;
                let byte = key.get(at / 8).copied().unwrap_or(0);
                word << 1 | u32::from(byte >> (7 - at % 8) & 1)
            })
        };
        let mut words = Box::new([[0; 16]; NIBBLES]);
        for (nibble, row) in words.iter_mut().enumerate() {
            let bits: [u32; 4] = std::array::from_fn(|n| window(nibble * 4 + n));
            for (value, word) in row.iter_mut().enumerate() {
                let set = |n: &usize| value >> (3 - n) & 1 == 1;
                *word = (0..4).filter(set).fold(0, |word, n| word ^ bits[n]);
            }
        }
        Toeplitz { words }
    }

    /// The hash of some fields one after another; what is behind the 36th byte does not count.
    pub fn hash(&self, fields: &[&[u8]]) -> u32 {
        let bytes = fields.iter().flat_map(|field| field.iter().copied());
        // Two rows a byte, so that no index is left to check but that of a half byte in 16.
        let (rows, _) = self.words.as_chunks::<2>();
        rows.iter()
            .zip(bytes)
            .fold(0, |hash, ([high, low], byte)| hash ^ high[usize::from(byte >> 4)] ^ low[usize::from(byte & 15)])
    }
}

impl std::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Toeplitz")
    }
}
