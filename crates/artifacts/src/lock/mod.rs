//! `lab.lock`: every byte a lab is made of, pinned by size and SHA-256.
//!
//! Packages are named by their path in the Debian pool, not by the address of a mirror, so any mirror serves them. The
//! file is written sorted, one field a line, so that a refresh reads as a small diff.

mod check;
mod error;
mod file;

use serde::{Deserialize, Serialize};

use crate::{Key, Kind};

pub use error::LockError;

/// The version of the file's format.
pub const LOCK_VERSION: u32 = 1;

/// The distribution the packages come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// The suites in order, for instance `trixie`, `trixie-backports`.
    pub suites: Vec<String>,
    /// The moment of the dated archive that has all of it, for instance `20251122T150000Z`.
    pub snapshot: String,
}

/// A mirror the project itself names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorEntry {
    /// The address `pool/…` is appended to.
    pub url: String,
}

/// One Debian package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deb {
    /// The package's name.
    pub name: String,
    /// Its full version.
    pub version: String,
    /// `amd64` or `all`.
    pub arch: String,
    /// Path below the mirror's address, `pool/…`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Of the .deb; also its key in the cache.
    pub sha256: Key,
}

impl Deb {
    /// How a root names this package when several versions are locked: `name=version`.
    pub fn id(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// A set of packages that is unpacked together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootSpec {
    /// Its name: `build`, `vm`, `guest`, `stock`.
    pub name: String,
    /// What was asked for, in apt's words (`name-` is to stay out); the rest of the members are dependencies.
    pub requested: Vec<String>,
    /// All packages: `name`, or `name=version` where the lock has several of that name.
    pub members: Vec<String>,
}

/// A root with its packages looked up.
#[derive(Debug, Clone)]
pub struct RootLock<'a> {
    /// Its name.
    pub name: &'a str,
    /// What was asked for.
    pub requested: &'a [String],
    /// All packages, sorted by name and version.
    pub debs: Vec<&'a Deb>,
}

/// A source that may be had in several forms, in order of preference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name, for instance `linux-7.3.4`.
    pub name: String,
    /// The version.
    pub version: String,
    /// Where it may come from; the first that can be had is used, and the result says which.
    #[serde(rename = "alternative")]
    pub alternatives: Vec<Alternative>,
}

/// What kind of file an alternative is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlternativeKind {
    /// A tar archive, compressed or not.
    Tarball,
    /// A Debian package that holds the archive named by `inner`.
    Deb,
}

/// One form of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// A name for results, for instance `kernel.org`, `orig`, `debian-patched`.
    pub name: String,
    /// What the file is.
    pub kind: AlternativeKind,
    /// Its full address …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// … or its path on the Debian mirrors, `pool/…`. Exactly one of the two is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Of the file; also its key in the cache.
    pub sha256: Key,
    /// Leading path components to drop on unpacking.
    #[serde(default)]
    pub strip: u32,
    /// For a package: the archive inside it, for instance `usr/src/linux-source-7.3.tar.xz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<String>,
}

impl Alternative {
    /// The part of the cache its file goes to.
    pub fn cache_kind(&self) -> Kind {
        match self.kind {
            AlternativeKind::Deb => Kind::Deb,
            AlternativeKind::Tarball => Kind::Src,
        }
    }
}

/// One Python wheel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    /// The distribution's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// Its full address.
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// Of the wheel; also its key in the cache.
    pub sha256: Key,
}

/// The whole of `lab.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// [`LOCK_VERSION`].
    pub version: u32,
    /// Where packages come from.
    pub distribution: Distribution,
    /// Mirrors the project itself names, before the built-in ones.
    #[serde(default, rename = "mirror", skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<MirrorEntry>,
    /// Package sets.
    #[serde(default, rename = "root", skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<RootSpec>,
    /// Sources.
    #[serde(default, rename = "source", skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Wheels.
    #[serde(default, rename = "wheel", skip_serializing_if = "Vec::is_empty")]
    pub wheels: Vec<Wheel>,
    /// Packages.
    #[serde(default, rename = "deb", skip_serializing_if = "Vec::is_empty")]
    pub debs: Vec<Deb>,
}
