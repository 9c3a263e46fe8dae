//! The Debian mirrors a host's own apt uses.
//!
//! In: a host's root directory. Out: addresses of Debian archives in the order apt has them, nothing if the host is no
//! Debian. Formats: sources.list(5), one line a source and deb822; `mirror+file:` lists (apt-transport-mirror(1)).
//! Hosts have sources of many vendors, some with `debian` in their address; only what is recognisably Debian's own
//! archive counts, and a wrong guess costs one 404, since every file is checked against the lock.

use std::fs;
use std::path::{Path, PathBuf};

use super::Archive;

/// One source as apt reads it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

/// Releases of Debian, past and coming, and the names that move between them (the archive's `dists/`).
const SUITES: [&str; 16] = [
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "experimental",
    "sid",
    "rc-buggy",
    "stretch",
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "jessie",
];

/// Addresses, what they carry and the file that names them.
pub(super) fn host_mirrors(root: &Path) -> Vec<(String, Archive, String)> {
    if !is_debian(root) {
        return Vec::new();
    }
    let mut found: Vec<(String, Archive, String)> = Vec::new();
    for file in source_files(root) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let sources = if file.extension().is_some_and(|e| e == "sources") { deb822(&text) } else { one_line(&text) };
        let shown = format!("/{}", file.strip_prefix(root).unwrap_or(&file).display());
        for source in sources {
            for uri in source.uris.iter().flat_map(|uri| resolve(root, uri)) {
                let uri = uri.trim_end_matches('/');
                if let Some(archive) = debian_archive(&source, uri)
                    && !found.iter().any(|(known, ..)| known == uri)
                {
                    found.push((uri.to_string(), archive, shown.clone()));
                }
            }
        }
    }
    found
}

fn is_debian(root: &Path) -> bool {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let text = read("etc/os-release").or_else(|| read("usr/lib/os-release")).unwrap_or_default();
    text.lines().any(|line| line.strip_prefix("ID=").is_some_and(|id| id.trim_matches(['"', '\'']) == "debian"))
}

/// `sources.list`, then `sources.list.d/*.list` and `*.sources` by name, as apt reads them.
fn source_files(root: &Path) -> Vec<PathBuf> {
    let apt = root.join("etc/apt");
    let mut parts: Vec<PathBuf> = fs::read_dir(apt.join("sources.list.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    parts.retain(|path| path.extension().is_some_and(|e| e == "list" || e == "sources"));
    parts.sort();
    parts.insert(0, apt.join("sources.list"));
    parts
}

/// `deb [options] uri suite component…`, one a line.
fn one_line(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t'])) else { continue };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace().map(str::to_string);
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        let signed_by = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")).map(str::to_string);
        sources.push(Source { uris: vec![uri], suites: vec![suite], components: words.collect(), signed_by });
    }
    sources
}

/// Stanzas of `Field: value` with continuation lines, apart by empty lines.
fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza(&std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_string()));
        }
    }
    sources
}

fn stanza(fields: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let words = |name: &str| field(name).unwrap_or_default().split_whitespace().map(str::to_string).collect();
    let enabled =
        !matches!(field("enabled").map(str::to_ascii_lowercase).as_deref(), Some("no" | "false" | "0" | "off"));
    let types: Vec<String> = words("types");
    (enabled && types.iter().any(|t| t == "deb")).then(|| Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").map(str::to_string),
    })
}

/// The http addresses a URI stands for: itself, or those in the file of a `mirror+file:` (Debian's cloud images).
fn resolve(root: &Path, uri: &str) -> Vec<String> {
    if let Some(list) = uri.strip_prefix("mirror+file:").or_else(|| uri.strip_prefix("mirror:file:")) {
        let text = fs::read_to_string(root.join(list.trim_start_matches('/'))).unwrap_or_default();
        let first_words = text.lines().filter_map(|line| line.split('#').next()?.split_whitespace().next());
        return first_words.filter(|uri| is_http(uri)).map(str::to_string).collect();
    }
    if is_http(uri) { vec![uri.to_string()] } else { Vec::new() }
}

fn is_http(uri: &str) -> bool {
    uri.starts_with("http://") || uri.starts_with("https://")
}

/// Which of Debian's archives this is, if it is one.
fn debian_archive(source: &Source, uri: &str) -> Option<Archive> {
    let is_suite = |suite: &String| {
        let base = suite.split(['-', '/']).next().unwrap_or_default();
        SUITES.contains(&base)
    };
    if !source.suites.iter().any(is_suite) || !source.components.iter().any(|c| c == "main") {
        return None;
    }
    let signed_by_debian = source.signed_by.as_deref().map(|keys| keys.contains("debian-archive"));
    let last = uri.rsplit('/').next().unwrap_or_default();
    let security = last == "debian-security" || source.suites.iter().all(|s| s.ends_with("-security"));
    // Any place the archive's own keyring vouches for (a company's proxy); without a keyring named, by its address.
    let ours = signed_by_debian.unwrap_or_else(|| matches!(last, "debian" | "debian-security") || is_dated(uri));
    ours.then_some(if security { Archive::Security } else { Archive::Main })
}

fn is_dated(uri: &str) -> bool {
    uri.contains("snapshot.debian.org/archive/debian")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sample: &str) -> Vec<(String, Archive, String)> {
        host_mirrors(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/apt").join(sample))
    }

    fn found(url: &str, archive: Archive, file: &str) -> (String, Archive, String) {
        (url.into(), archive, file.into())
    }

    #[test]
    fn one_line_sources_among_those_of_other_vendors() {
        let list = "/etc/apt/sources.list";
        let expected = [
            found("http://ftp.us.debian.org/debian", Archive::Main, list),
            found("https://security.debian.org/debian-security", Archive::Security, list),
            found(
                "https://artifacts.example.com/repository/apt-bookworm",
                Archive::Main,
                "/etc/apt/sources.list.d/company.list",
            ),
        ];
        assert_eq!(of("one-line"), expected);
    }

    #[test]
    fn deb822_stanzas_with_continuations_comments_and_disabled_ones() {
        let file = "/etc/apt/sources.list.d/debian.sources";
        let expected = [
            found("http://ftp.de.debian.org/debian", Archive::Main, file),
            found("http://security.debian.org/debian-security", Archive::Security, file),
        ];
        assert_eq!(of("deb822"), expected);
    }

    #[test]
    fn mirror_lists_of_cloud_images() {
        let file = "/etc/apt/sources.list.d/debian.sources";
        let expected = [
            found("https://cdn-aws.example.org/debian", Archive::Main, file),
            found("https://ftp.fr.debian.org/debian", Archive::Main, file),
            found("https://cdn-aws.example.org/debian-security", Archive::Security, file),
        ];
        assert_eq!(of("cloud"), expected);
    }

    #[test]
    fn no_debian_no_mirrors() {
        assert_eq!(of("ubuntu"), []);
        assert_eq!(of("nothing-here"), []);
    }
}
