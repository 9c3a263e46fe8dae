//! A key: the SHA-256 that names an entry of the cache, be it of a file's bytes or of a step's inputs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A SHA-256 as 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// Text that is no [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a SHA-256: 64 hexadecimal digits are expected")]
pub struct BadKey(pub String);

impl Key {
    /// The key with these 32 bytes.
    pub fn from_digest(digest: &[u8]) -> Self {
        debug_assert_eq!(digest.len(), 32);
        let mut hex = String::with_capacity(64);
        for byte in digest {
            for nibble in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        Key(hex)
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits: enough to tell entries apart on a terminal.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl FromStr for Key {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Key(text.to_ascii_lowercase()))
        } else {
            Err(BadKey(text.to_string()))
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.short())
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sixty_four_hexadecimal_digits_are_a_key() {
        let upper = "AB".repeat(32);
        assert_eq!(upper.parse::<Key>().unwrap().as_str(), "ab".repeat(32));
        for bad in ["", "ab", &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(bad.parse::<Key>(), Err(BadKey(bad.to_string())));
        }
    }

    #[test]
    fn digest_bytes_become_digits_in_order() {
        let mut digest = [0u8; 32];
        digest[0] = 0x1f;
        digest[31] = 0xa0;
        let key = Key::from_digest(&digest);
        assert!(key.as_str().starts_with("1f00") && key.as_str().ends_with("00a0"));
        assert_eq!(key.short(), "1f0000000000");
    }
}
