//! Reading and writing the file.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::Deserialize;

use super::{LOCK_VERSION, Lock, LockError};
use crate::{Key, digest};

const HEAD: &str =
    "# Every byte the lab is made of. Written by `cargo xtask lock --update`; changes by hand are lost.\n\n";

impl Lock {
    /// Reads a lock and checks it.
    pub fn load(path: &Path) -> Result<Self, LockError> {
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => LockError::Missing { path: path.to_path_buf() },
            _ => LockError::Io { doing: "read", path: path.to_path_buf(), error },
        })?;
        Self::parse(&text, path)
    }

    /// Reads a lock from text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, LockError> {
        #[derive(Deserialize)]
        struct Version {
            version: Option<u32>,
        }
        let syntax = |error| LockError::Syntax { path: path.to_path_buf(), error: Box::new(error) };
        let lock = match toml::from_str::<Lock>(text) {
            Ok(lock) if lock.version == LOCK_VERSION => lock,
            outcome => {
                // A file of another version may well not parse; then its version, not its syntax, is the matter.
                if let Ok(Version { version: Some(found) }) = toml::from_str(text)
                    && found != LOCK_VERSION
                {
                    return Err(LockError::Version { path: path.to_path_buf(), found });
                }
                outcome.map_err(syntax)?
            }
        };
        lock.check()?;
        Ok(lock)
    }

    /// Sorts everything whose order carries no meaning: equal content always makes equal text. The order of a source's
    /// alternatives, of suites and of mirrors is meant and stays.
    pub fn sort(&mut self) {
        self.debs.sort_by(|a, b| (&a.name, &a.version, &a.arch).cmp(&(&b.name, &b.version, &b.arch)));
        self.roots.sort_by(|a, b| a.name.cmp(&b.name));
        self.sources.sort_by(|a, b| a.name.cmp(&b.name));
        self.wheels.sort_by(|a, b| a.name.cmp(&b.name));
        for root in &mut self.roots {
            root.requested.sort();
            root.members.sort();
        }
    }

    /// The file's text, sorted.
    pub fn to_text(&self) -> String {
        let mut sorted = self.clone();
        sorted.sort();
        // Strings, numbers and lists of them: nothing TOML could not hold.
        HEAD.to_string()
            + &toml::to_string_pretty(&sorted).unwrap_or_else(|e| unreachable!("a lock is plain TOML: {e}"))
    }

    /// Checks the lock and writes it, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), LockError> {
        self.check()?;
        let temp = path.with_extension(format!("lock.{}.tmp", std::process::id()));
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&temp)?;
            file.write_all(self.to_text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&temp, path)
        };
        write().map_err(|error| {
            // The error that matters is the one of writing.
            let _ = fs::remove_file(&temp);
            LockError::Io { doing: "write", path: path.to_path_buf(), error }
        })
    }

    /// The SHA-256 of the sorted text: what results name to say which bytes they were made from.
    pub fn hash(&self) -> Key {
        digest::sha256_bytes(self.to_text().as_bytes())
    }
}
