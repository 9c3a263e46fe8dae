//! What the tests of this crate share.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod child;
pub mod server;

use std::fs;
use std::path::Path;

use artifacts::{Deb, sha256_bytes};

/// A temporary directory. Unlike `tempfile`'s own it also goes when it holds sealed directories and the user is not
/// root.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        Scratch(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = artifacts::remove_tree(self.0.path());
    }
}

/// Bytes that differ along the file, so that a wrong offset shows.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// The lock entry for a file with this content.
pub fn deb(name: &str, content: &[u8]) -> Deb {
    Deb {
        name: name.into(),
        version: "1.0-1".into(),
        arch: "amd64".into(),
        path: format!("pool/main/t/{name}_1.0-1_amd64.deb"),
        size: content.len() as u64,
        sha256: sha256_bytes(content),
    }
}

/// Names below a directory that are no lock files, sorted: what is there and what was left behind.
pub fn names(dir: &Path) -> Vec<String> {
    let list = match fs::read_dir(dir) {
        Ok(list) => list,
        Err(_) => return Vec::new(),
    };
    let mut names: Vec<String> = list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
