//! What can be wrong with a lock, each error naming the entry it blames.

use std::path::PathBuf;

use super::LOCK_VERSION;

/// What is wrong with a lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be read or written.
    #[error("cannot {doing} {}: {error}", path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not there.
    #[error("{} is not there; make it with `cargo xtask lock --update`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is no lock.
    #[error("{}: {error}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        error: Box<toml::de::Error>,
    },
    /// Another version wrote it.
    #[error("{} has format {found}, this program reads {LOCK_VERSION}; refresh it with `cargo xtask lock --update`",
        path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// An entry makes no sense.
    #[error("lab.lock: {entry}: {problem}")]
    Entry {
        /// Which entry, for instance `deb gcc-14 14.2.0-19`.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something was asked for that the lock does not hold.
    #[error("lab.lock has no {what} `{name}`{}; refresh it with `cargo xtask lock --update`", known_names(known))]
    Unknown {
        /// `root`, `source` or `wheel`.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
}

fn known_names(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!(" (it has {})", known.join(", ")) }
}
