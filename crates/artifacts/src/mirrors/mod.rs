//! Where packages may be downloaded from: an ordered list, tried from the front.
//!
//! First what the user names (lab.toml, then `DEVMEM_LAB_MIRROR`), then what `lab.lock` names, then what a Debian
//! host's own apt uses (near, and allowed through its firewall), then mirrors.kernel.org, and at last the dated snapshot
//! archive, which is slow but keeps old versions. Trust comes from the SHA-256 in the lock, not from a mirror, so plain
//! http is as good as https.

mod apt;

use std::env;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Lock;

/// Names mirrors, separated by spaces, that are to be tried before any others but those of lab.toml.
pub const MIRROR_VARIABLE: &str = "DEVMEM_LAB_MIRROR";

/// Which of Debian's archives a mirror carries: their pools are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archive {
    /// `debian`: stable, updates, backports.
    Main,
    /// `debian-security`, with `pool/updates/…`.
    Security,
}

impl Archive {
    /// The archive a pool path belongs to.
    pub fn of(path: &str) -> Archive {
        if path.starts_with("pool/updates/") { Archive::Security } else { Archive::Main }
    }
}

/// Who named a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// lab.toml.
    Lab,
    /// The environment variable [`MIRROR_VARIABLE`].
    Environment,
    /// lab.lock.
    Lock,
    /// The host's apt configuration, with the file.
    Host(String),
    /// This program.
    BuiltIn,
    /// The dated archive.
    Snapshot,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Lab => f.write_str("lab.toml"),
            Origin::Environment => f.write_str(MIRROR_VARIABLE),
            Origin::Lock => f.write_str("lab.lock"),
            Origin::Host(file) => f.write_str(file),
            Origin::BuiltIn => f.write_str("built in"),
            Origin::Snapshot => f.write_str("snapshot archive"),
        }
    }
}

/// One mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// The address that `pool/…` follows, without a slash at its end.
    pub url: String,
    /// What it carries.
    pub archive: Archive,
    /// Who named it.
    pub origin: Origin,
}

/// The ordered list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mirrors {
    list: Vec<Mirror>,
}

impl Mirrors {
    /// Everything there is to try: the environment, the lock, the apt configuration below `host_root` (`/`, or a
    /// sample tree in tests) when that is a Debian, the built-in mirrors and the archive of the lock's date.
    pub fn discover(host_root: &Path, lock: &Lock) -> Self {
        Self::discover_with(env::var(MIRROR_VARIABLE).ok().as_deref(), host_root, lock)
    }

    fn discover_with(variable: Option<&str>, host_root: &Path, lock: &Lock) -> Self {
        let mut mirrors = Mirrors::default();
        for url in variable.unwrap_or_default().split_whitespace() {
            mirrors.push_guessed(url, Origin::Environment);
        }
        for entry in &lock.mirrors {
            mirrors.push_guessed(&entry.url, Origin::Lock);
        }
        for (url, archive, file) in apt::host_mirrors(host_root) {
            mirrors.push(&url, archive, Origin::Host(file));
        }
        mirrors.push("http://mirrors.kernel.org/debian", Archive::Main, Origin::BuiltIn);
        mirrors.push("http://security.debian.org/debian-security", Archive::Security, Origin::BuiltIn);
        let dated =
            |archive: &str| format!("http://snapshot.debian.org/archive/{archive}/{}", lock.distribution.snapshot);
        mirrors.push(&dated("debian"), Archive::Main, Origin::Snapshot);
        mirrors.push(&dated("debian-security"), Archive::Security, Origin::Snapshot);
        mirrors
    }

    /// Only these mirrors of the main archive and no others: for tests and closed networks.
    pub fn only<S: AsRef<str>>(urls: impl IntoIterator<Item = S>) -> Self {
        let mut mirrors = Mirrors::default();
        for url in urls {
            mirrors.push_guessed(url.as_ref(), Origin::Lab);
        }
        mirrors
    }

    /// Puts the mirrors of lab.toml, in their order, in front of all others.
    pub fn prefer<S: AsRef<str>>(self, urls: impl IntoIterator<Item = S>) -> Self {
        let mut mirrors = Self::only(urls);
        for mirror in self.list {
            mirrors.push(&mirror.url, mirror.archive, mirror.origin);
        }
        mirrors
    }

    /// All of them in order.
    pub fn list(&self) -> &[Mirror] {
        &self.list
    }

    /// The addresses of a file of the pool, in the order they are to be tried.
    pub fn urls(&self, path: &str) -> Vec<String> {
        let archive = Archive::of(path);
        // `+` and `~` are common in versions; some servers read a bare `+` in a path as a space, none an escaped one.
        let escaped = path.replace('%', "%25").replace('+', "%2B").replace(' ', "%20");
        self.list.iter().filter(|m| m.archive == archive).map(|m| format!("{}/{escaped}", m.url)).collect()
    }

    fn push_guessed(&mut self, url: &str, origin: Origin) {
        let archive = if url.contains("debian-security") { Archive::Security } else { Archive::Main };
        self.push(url, archive, origin);
    }

    fn push(&mut self, url: &str, archive: Archive, origin: Origin) {
        let url = url.trim_end_matches('/').to_string();
        if !url.is_empty() && !self.list.iter().any(|m| m.url == url) {
            self.list.push(Mirror { url, archive, origin });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(mirrors: &str) -> Lock {
        let text =
            format!("version = 1\n{mirrors}\n[distribution]\nsuites = [\"trixie\"]\nsnapshot = \"20260102T030405Z\"\n");
        Lock::parse(&text, Path::new("lab.lock")).unwrap()
    }

    #[test]
    fn users_mirrors_come_first_and_the_snapshot_last() {
        let host = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/apt/deb822"));
        let lock = lock("mirror = [{ url = \"http://lock.example/debian\" }]");
        let mirrors = Mirrors::discover_with(Some("http://env.example/debian/ http://two.example/d"), host, &lock)
            .prefer(["https://lab.example/debian", "http://two.example/d"]);
        let urls = mirrors.urls("pool/main/g/g++/g++_1%3a2+b1_amd64.deb");
        let expected = [
            "https://lab.example/debian",
            "http://two.example/d",
            "http://env.example/debian",
            "http://lock.example/debian",
            "http://ftp.de.debian.org/debian",
            "http://mirrors.kernel.org/debian",
            "http://snapshot.debian.org/archive/debian/20260102T030405Z",
        ];
        assert_eq!(urls, expected.map(|url| format!("{url}/pool/main/g/g%2B%2B/g%2B%2B_1%253a2%2Bb1_amd64.deb")));
    }

    #[test]
    fn security_updates_come_from_the_security_archive() {
        let mirrors = Mirrors::discover_with(None, Path::new("/nonexistent"), &lock(""));
        let expected = [
            "http://security.debian.org/debian-security/pool/updates/main/o/x.deb",
            "http://snapshot.debian.org/archive/debian-security/20260102T030405Z/pool/updates/main/o/x.deb",
        ];
        assert_eq!(mirrors.urls("pool/updates/main/o/x.deb"), expected);
    }
}
