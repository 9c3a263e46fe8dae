//! `images/roots.toml`: what a refresh of the lock asks the archive for.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use artifacts::Key;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootsSpec {
    /// Where packages come from.
    pub distribution: DistributionSpec,
    /// Packages that come from another suite than the first.
    #[serde(default)]
    pub pin: Vec<Pin>,
    /// Sets of packages, by name.
    pub root: BTreeMap<String, RootRequest>,
    /// Sources, by name.
    #[serde(default)]
    pub source: BTreeMap<String, SourceRequest>,
}

/// The distribution.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistributionSpec {
    /// Suites of the archive; the first is the one packages come from unless a pin says otherwise.
    pub suites: Vec<String>,
    /// Components, for instance `main`.
    pub components: Vec<String>,
    /// Debian's name of the architecture, for instance `amd64`.
    pub arch: String,
}

/// A preference for a suite.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The suite.
    pub suite: String,
    /// Names of packages, globs allowed.
    pub packages: Vec<String>,
}

/// A set of packages.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootRequest {
    /// What it is for, in words.
    pub purpose: String,
    /// Names as apt takes them; a trailing `-` keeps a package out.
    pub packages: Vec<String>,
    /// Whether what they depend on follows.
    #[serde(default = "yes")]
    pub dependencies: bool,
}

fn yes() -> bool {
    true
}

/// A source in one or more forms.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRequest {
    /// The upstream version all forms have.
    pub version: String,
    /// The forms, in order of preference.
    pub alternatives: Vec<AlternativeRequest>,
}

/// One form of a source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AlternativeRequest {
    /// A file of a Debian source package; size and hash come from the signed index.
    Source {
        /// What results call it.
        name: String,
        /// The source package.
        package: String,
        /// The suite whose index has it.
        suite: String,
        /// The file's name.
        file: String,
        /// Leading path components to drop.
        strip: u32,
    },
    /// A tarball inside a Debian package; size and hash (of the package) come from the signed index.
    Package {
        /// What results call it.
        name: String,
        /// The package.
        package: String,
        /// Path of the tarball in the package.
        inner: String,
        /// Leading path components to drop.
        strip: u32,
    },
    /// A file anywhere, whose size and hash somebody checked and wrote down.
    Url {
        /// What results call it.
        name: String,
        /// The address.
        url: String,
        /// Bytes.
        size: u64,
        /// Of the file.
        sha256: Key,
        /// Leading path components to drop.
        strip: u32,
    },
}

impl RootsSpec {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}: not a list of package roots", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let spec: RootsSpec = toml::from_str(text)?;
        let suites = &spec.distribution.suites;
        ensure!(!suites.is_empty(), "distribution.suites names no suite");
        let known = |suite: &String| suites.contains(suite);
        for pin in &spec.pin {
            ensure!(known(&pin.suite), "a pin names the suite `{}`, distribution.suites does not", pin.suite);
        }
        for (name, source) in &spec.source {
            for alternative in &source.alternatives {
                if let AlternativeRequest::Source { suite, .. } = alternative {
                    ensure!(known(suite), "source {name} names the suite `{suite}`, distribution.suites does not");
                }
            }
        }
        // They become lines of apt's configuration.
        let distribution = spec.distribution.suites.iter().chain(&spec.distribution.components);
        let pinned = spec.pin.iter().flat_map(|pin| &pin.packages);
        let asked = spec.root.values().flat_map(|root| &root.packages);
        for word in distribution.chain([&spec.distribution.arch]).chain(pinned).chain(asked) {
            let plain = |c: char| c.is_ascii_alphanumeric() || "+-.*?_:~".contains(c);
            ensure!(
                !word.is_empty() && word.chars().all(plain),
                "`{word}` is no name of a package, suite or component"
            );
            ensure!(!word.starts_with('-'), "`{word}` would be read as an option");
        }
        Ok(spec)
    }

    /// Suites whose index of source packages is needed.
    pub(super) fn source_suites(&self) -> Vec<&str> {
        let mut suites: Vec<&str> = self
            .source
            .values()
            .flat_map(|source| &source.alternatives)
            .filter_map(|alternative| match alternative {
                AlternativeRequest::Source { suite, .. } => Some(suite.as_str()),
                _ => None,
            })
            .collect();
        suites.sort_unstable();
        suites.dedup();
        suites
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../../../images/roots.toml");

    #[test]
    fn the_projects_own_file_is_good() {
        let spec = RootsSpec::parse(GOOD).unwrap();
        for root in ["build", "vm", "guest", "stock"] {
            assert!(spec.root.contains_key(root), "{root}");
        }
        assert!(!spec.root["stock"].dependencies);
    }

    #[test]
    fn bad_files_are_refused() {
        for (from, to, expected) in [
            ("suite = \"trixie-backports\"\npackages", "suite = \"sid\"\npackages", "`sid`"),
            ("\"erofs-utils\"", "\"--allow-x\"", "`--allow-x`"),
            ("\"erofs-utils\"", "\"a\\nb\"", "is no name"),
            ("\ndependencies", "\ndependancies", "dependancies"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = RootsSpec::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
