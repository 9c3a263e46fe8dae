//! Where things come from: kernel sources, Debian kernels, files of the project, mirrors.

use std::path::PathBuf;
use std::str::FromStr;

use crate::model::BadValue;

use super::scalar::{Scalar, scalar};

/// A kernel source of `lab.lock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceName(pub(crate) String);

/// A release of a Debian binary kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Release(pub(crate) String);

/// An image definition's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefinitionPath(pub(crate) PathBuf);

/// A mirror's address, without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url(pub(crate) String);

scalar!(SourceName);
scalar!(Release);
scalar!(DefinitionPath);
scalar!(Url);

impl Scalar for SourceName {
    const FORMAT: &'static str = "kernel-source";
    const PATTERN: &'static str = "^linux-[0-9]+\\.[0-9]+(\\.[0-9]+)?(-rc[0-9]+)?$";
    const ALLOWED: &'static str = "linux- and a version, for instance \"linux-7.3.4\" or \"linux-7.4-rc2\"";
}

impl FromStr for SourceName {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text.strip_prefix("linux-").is_some_and(is_version) {
            return Ok(SourceName(text.into()));
        }
        let version = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        let meant = is_version(version).then(|| format!("linux-{version}"));
        Err(Self::bad(format!("`{text}` is not a kernel source"), meant))
    }
}

/// `7.3`, `7.3.4`, `7.4-rc2`.
fn is_version(text: &str) -> bool {
    let (numbers, rc) = text.split_once("-rc").map_or((text, None), |(n, rc)| (n, Some(rc)));
    let number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    matches!(numbers.split('.').count(), 2 | 3) && numbers.split('.').all(number) && rc.is_none_or(number)
}

impl Scalar for Release {
    const FORMAT: &'static str = "kernel-release";
    const PATTERN: &'static str = "^[0-9]+\\.[0-9]+[a-z0-9.+~-]*-(amd64|cloud-amd64|rt-amd64)$";
    const ALLOWED: &'static str = "the release of a Debian kernel for amd64, for instance \"7.3.4+deb13-amd64\"";
}

impl FromStr for Release {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bare = ["linux-image-", "linux-binary-", "linux-headers-", "linux-modules-"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix))
            .unwrap_or(text);
        let version = bare.strip_suffix("-amd64").unwrap_or("");
        let number = version.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or("");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".+~-".contains(c);
        let fits = is_version(number) && version.chars().all(plain);
        match (fits, bare == text) {
            (true, true) => Ok(Release(text.into())),
            (true, false) => Err(Self::bad(format!("`{text}` is the name of a package"), Some(bare.into()))),
            (false, _) => Err(Self::bad(format!("`{text}` is not the release of a kernel"), None)),
        }
    }
}

impl Scalar for DefinitionPath {
    const FORMAT: &'static str = "project-path";
    const PATTERN: &'static str = "^[^/].*\\.toml$";
    const ALLOWED: &'static str =
        "the path of a .toml file below the folder of lab.toml, for instance \"images/lab.toml\"";
}

impl FromStr for DefinitionPath {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let problem = if text.is_empty() {
            "a path is empty".into()
        } else if text.starts_with('/') {
            format!("`{text}` is an absolute path, which holds on one machine only")
        } else if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            format!("`{text}` has a part that is empty, `.` or `..`")
        } else if !text.ends_with(".toml") {
            format!("`{text}` does not end in .toml")
        } else {
            return Ok(DefinitionPath(text.into()));
        };
        Err(Self::bad(problem, None))
    }
}

impl Scalar for Url {
    const FORMAT: &'static str = "mirror-address";
    const PATTERN: &'static str = "^https?://[^\\s?#]+$";
    const ALLOWED: &'static str = "an http or https address, for instance \"https://mirror.example.org/debian\"";
}

impl FromStr for Url {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let Some((scheme, rest)) = text.split_once("://") else {
            let host = text.split('/').next().unwrap_or("");
            let meant = host.contains('.').then(|| format!("https://{text}"));
            return Err(Self::bad(format!("`{text}` does not begin with http:// or https://"), meant));
        };
        let host = rest.split(['/', ':']).next().unwrap_or("");
        let problem = if !matches!(scheme, "http" | "https") {
            format!("`{text}` is neither http nor https")
        } else if host.is_empty() || text.contains(char::is_whitespace) {
            format!("`{text}` names no host")
        } else if rest.contains(['?', '#', '@']) {
            format!("`{text}` is not the plain address of a folder")
        } else {
            return Ok(Url(text.trim_end_matches('/').into()));
        };
        Err(Self::bad(problem, None))
    }
}
