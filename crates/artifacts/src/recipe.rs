//! A recipe: the ordered inputs of one build step, from which its key follows.
//!
//! Whatever can change the result has to be an input; whatever cannot (paths of the host, times, the number of jobs)
//! must not be, or nothing would ever be found in the cache.

use std::fmt::Display;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Key, digest};

/// One input: a label for people and the digest or value that stands for it.
pub type Input = (String, String);

/// What a step is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// Names the step with what it makes, for instance `kernel:patched`: [`crate::Cache::why`] compares recipes of
    /// equal steps.
    pub step: String,
    /// The inputs in order; a label occurs once.
    pub inputs: Vec<Input>,
}

impl Recipe {
    /// A recipe with no inputs yet.
    pub fn new(step: &str) -> Self {
        Recipe { step: step.to_string(), inputs: Vec::new() }
    }

    /// Adds a value as it is: an option, a version, a program's arguments.
    pub fn value(mut self, label: &str, value: impl Display) -> Self {
        debug_assert!(self.inputs.iter().all(|(l, _)| l != label), "the label `{label}` occurs twice");
        self.inputs.push((label.to_string(), value.to_string()));
        self
    }

    /// Adds a file by the SHA-256 of its content.
    pub fn file(self, label: &str, path: &Path) -> Result<Self> {
        let digest = digest::sha256_file(path)?;
        Ok(self.value(label, digest))
    }

    /// Adds a directory by its names, contents, links and execute bits.
    pub fn tree(self, label: &str, path: &Path) -> Result<Self> {
        let digest = digest::sha256_tree(path)?;
        Ok(self.value(label, digest))
    }

    /// Adds what another step made, by that step's key.
    pub fn key_of(self, label: &str, key: &Key) -> Self {
        self.value(label, key)
    }

    /// The SHA-256 of step and inputs.
    pub fn key(&self) -> Key {
        let mut hasher = Sha256::new();
        digest::field(&mut hasher, b"step", self.step.as_bytes());
        for (label, value) in &self.inputs {
            digest::field(&mut hasher, label.as_bytes(), value.as_bytes());
        }
        Key::from_digest(&hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_recipe_is_in_its_key() {
        let base = Recipe::new("s").value("a", "1").value("b", "2");
        assert_eq!(base.key(), Recipe::new("s").value("a", 1).value("b", 2).key());
        let others = [
            Recipe::new("t").value("a", "1").value("b", "2"),
            Recipe::new("s").value("a", "1"),
            Recipe::new("s").value("b", "2").value("a", "1"),
            Recipe::new("s").value("a", "1").value("b", "3"),
            Recipe::new("s").value("a", "1b").value("", "2"),
        ];
        for other in others {
            assert_ne!(base.key(), other.key(), "{other:?}");
        }
    }
}
