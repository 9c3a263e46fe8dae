//! What can go wrong with a download, told so that a user knows which file, where it was tried, and what to do.

use std::fmt;
use std::path::PathBuf;

use crate::Key;
use crate::space::human;

/// Why one attempt at one address did not bring the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The server has no such file (404 or 410).
    NotFound,
    /// Another status than 200 or 206.
    Status(u16),
    /// The name of the host leads nowhere.
    Dns,
    /// No connection to the host.
    Connect(String),
    /// Not tried: the host could not be reached earlier in this run.
    DeadHost(String),
    /// Nothing, or next to nothing, arrived for this many seconds.
    Stalled(u64),
    /// The connection ended after this many bytes.
    Truncated(u64),
    /// The server's file has another length.
    WrongSize(u64),
    /// All bytes arrived, but they are others.
    WrongHash(Key),
    /// Something else, as the client put it.
    Other(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotFound => f.write_str("no such file (404)"),
            Refusal::Status(status) => write!(f, "status {status}"),
            Refusal::Dns => f.write_str("the host's name cannot be resolved"),
            Refusal::Connect(why) => write!(f, "no connection: {why}"),
            Refusal::DeadHost(why) => write!(f, "not tried again: {why}"),
            Refusal::Stalled(seconds) => write!(f, "stalled: nothing to speak of for {seconds} s"),
            Refusal::Truncated(bytes) => write!(f, "the connection ended after {bytes} bytes"),
            Refusal::WrongSize(bytes) => write!(f, "it has {bytes} bytes there"),
            Refusal::WrongHash(key) => write!(f, "it has SHA-256 {key} there"),
            Refusal::Other(why) => f.write_str(why),
        }
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The address.
    pub url: String,
    /// Why it brought nothing.
    pub refusal: Refusal,
}

/// A file that could not be had anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it is, for instance `deb gcc-14 14.2.0-19`.
    pub what: String,
    /// Bytes according to the lock.
    pub size: u64,
    /// SHA-256 according to the lock.
    pub sha256: Key,
    /// Everything that was tried, in order.
    pub attempts: Vec<Attempt>,
}

impl Failure {
    /// Whether every mirror that answered said that it has no such file, and one did.
    pub fn is_gone(&self) -> bool {
        let answered = |r: &Refusal| !matches!(r, Refusal::Dns | Refusal::Connect(_) | Refusal::DeadHost(_));
        let mut answers = self.attempts.iter().map(|a| &a.refusal).filter(|r| answered(r)).peekable();
        answers.peek().is_some() && answers.all(|r| *r == Refusal::NotFound)
    }

    /// Whether somebody serves a file of that name with other bytes.
    pub fn is_wrong(&self) -> bool {
        self.attempts.iter().any(|a| matches!(a.refusal, Refusal::WrongHash(_) | Refusal::WrongSize(_)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if self.is_wrong() {
            write!(f, " (lab.lock: {} bytes, SHA-256 {})", self.size, self.sha256)?;
        }
        for attempt in &self.attempts {
            write!(f, "\n    {}: {}", without_password(&attempt.url), attempt.refusal)?;
        }
        if self.attempts.is_empty() {
            f.write_str("\n    no mirror carries its part of the archive")?;
        }
        Ok(())
    }
}

/// The address without `user:password@`: messages end up in logs.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.to_string(),
    }
}

/// Why a fetch did not bring everything.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// `--offline`, and something is missing.
    #[error("offline, and the cache lacks {} of {}:{}\nrun once without --offline to fetch them", count(missing.len()),
        human(*bytes), list(missing))]
    Offline {
        /// What is missing.
        missing: Vec<String>,
        /// Bytes in all.
        bytes: u64,
    },
    /// Some files could not be had from any mirror.
    #[error("{}:{}\n{}", headline(failures), list(failures), advice(failures))]
    Failed {
        /// Each with its attempts.
        failures: Vec<Failure>,
    },
    /// The disk is too small or became full.
    #[error("{text}")]
    NoSpace {
        /// What was to be written where.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// The whole sentence.
        text: String,
    },
    /// Ctrl-C.
    #[error(transparent)]
    Cancelled(#[from] progress::Cancelled),
    /// The cache itself, or the HTTP client.
    #[error("{0:#}")]
    Local(anyhow::Error),
}

fn count(n: usize) -> String {
    if n == 1 { "1 file".into() } else { format!("{n} files") }
}

/// At most this many entries are listed in a message.
const LISTED: usize = 8;

fn list<T: fmt::Display>(items: &[T]) -> String {
    let mut text = String::new();
    for item in items.iter().take(LISTED) {
        text += &format!("\n  {item}");
    }
    if items.len() > LISTED {
        text += &format!("\n  and {} more", items.len() - LISTED);
    }
    text
}

fn headline(failures: &[Failure]) -> String {
    let n = count(failures.len());
    let one = failures.len() == 1;
    if failures.iter().all(Failure::is_gone) {
        format!("{n} of lab.lock {} on no mirror any more", if one { "is" } else { "are" })
    } else if failures.iter().all(Failure::is_wrong) {
        format!("{n} {} not what lab.lock says, wherever found", if one { "is" } else { "are" })
    } else {
        format!("{n} could not be downloaded")
    }
}

fn advice(failures: &[Failure]) -> &'static str {
    if failures.iter().any(Failure::is_gone) {
        "mirrors drop old versions: refresh the lock with `cargo xtask lock --update`, or name a mirror that has them \
         (`[mirrors]` in lab.toml, or DEVMEM_LAB_MIRROR)"
    } else if failures.iter().any(Failure::is_wrong) {
        "if lab.lock was edited, restore it; otherwise refresh it with `cargo xtask lock --update`"
    } else {
        "check the network and proxy settings, or name a mirror that can be reached (`[mirrors]` in lab.toml, or \
         DEVMEM_LAB_MIRROR); what was downloaded is kept"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_messages() {
        assert_eq!(without_password("https://me:pa@ss@h.example:80/a@b"), "https://h.example:80/a@b");
        assert_eq!(without_password("https://h.example/a@b"), "https://h.example/a@b");
    }

    #[test]
    fn long_lists_are_cut() {
        let missing: Vec<String> = (0..12).map(|n| format!("deb lib{n} 1")).collect();
        let text = FetchError::Offline { missing, bytes: 1_500_000 }.to_string();
        assert!(text.contains("12 files of 1.5 MB") && text.contains("lib7 1\n  and 4 more\n"), "{text}");
    }
}
