//! Decides which of the packages' files stay out of an image.
//!
//! A rule is a path pattern that starts at the root: `*` and `?` match within one part of a path, `**` any number of
//! parts. A rule covers what it matches and everything below. Rules are looked at while packages are read, so that
//! what is pruned is never even copied.

use serde::{Deserialize, Serialize};

/// Which paths to leave out. A path that `keep` covers stays, whatever `remove` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prune {
    /// Patterns of what to leave out.
    pub remove: Vec<Pattern>,
    /// Patterns of what to keep all the same.
    pub keep: Vec<Pattern>,
}

impl Prune {
    /// Whether `path` (no leading slash) is left out.
    pub fn covers(&self, path: &str) -> bool {
        self.remove.iter().any(|p| p.covers(path)) && !self.keep.iter().any(|p| p.covers(path))
    }
}

/// A path pattern, checked when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    parts: Vec<String>,
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts: Vec<String> = match text.strip_prefix('/') {
            Some(rest) => rest.split('/').map(str::to_owned).collect(),
            None => return Err(format!("pattern {text:?} must start with a slash, as in \"/usr/share/man\"")),
        };
        if parts.iter().any(|part| matches!(part.as_str(), "" | "." | "..")) {
            return Err(format!("pattern {text:?} has an empty, \".\" or \"..\" part"));
        }
        if parts.iter().any(|part| part.contains("**") && part != "**") {
            return Err(format!("pattern {text:?}: \"**\" must stand alone between slashes"));
        }
        Ok(Pattern { parts })
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        format!("/{}", pattern.parts.join("/"))
    }
}

impl Pattern {
    /// Whether the pattern matches `path` (no leading slash) or a directory above it.
    pub fn covers(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        covers(&self.parts, &parts)
    }
}

fn covers(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, _) => true,
        (Some((first, rest)), _) if first == "**" => (0..=path.len()).any(|skip| covers(rest, &path[skip..])),
        (Some(_), None) => false,
        (Some((first, rest)), Some((part, below))) => {
            part_matches(first.as_bytes(), part.as_bytes()) && covers(rest, below)
        }
    }
}

/// Matches one part of a path; linear but for backtracking to the last `*`.
fn part_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, eaten)) => {
                    star = Some((at, eaten + 1));
                    p = at + 1;
                    t = eaten + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn patterns_cover_what_they_match_and_everything_below() {
        let table = [
            ("/usr/share/man", "usr/share/man", true),
            ("/usr/share/man", "usr/share/man/man1/ls.1.gz", true),
            ("/usr/share/man", "usr/share/manual", false),
            ("/usr/share/man", "usr/share", false),
            ("/usr/share/doc/*/copyright", "usr/share/doc/bash/copyright", true),
            ("/usr/share/doc/*/copyright", "usr/share/doc/bash/README", false),
            ("/usr/lib/python3*/**/tests", "usr/lib/python3.13/json/tests/a.py", true),
            ("/usr/lib/python3*/**/tests", "usr/lib/python3/tests", true),
            ("/usr/lib/python3*/**/tests", "usr/lib/python3/json/test", false),
            ("/usr/lib/*.a", "usr/lib/libc.a", true),
            ("/usr/lib/*.a", "usr/lib/x/libc.a", false),
            ("/etc/a?c", "etc/abc", true),
            ("/etc/a?c", "etc/ac", false),
            ("/etc/*b*b", "etc/abcb", true),
            ("/etc/*b*b", "etc/abc", false),
        ];
        for (rule, path, want) in table {
            assert_eq!(pattern(rule).covers(path), want, "{rule} on {path}");
        }
    }

    #[test]
    fn keeping_beats_removing() {
        let prune =
            Prune { remove: vec![pattern("/usr/share/doc")], keep: vec![pattern("/usr/share/doc/*/copyright")] };
        assert!(prune.covers("usr/share/doc/bash/README"));
        assert!(!prune.covers("usr/share/doc/bash/copyright"));
        assert!(!prune.covers("usr/bin/bash"));
    }

    #[test]
    fn bad_patterns_say_what_is_wrong() {
        let error = |text: &str| Pattern::try_from(text.to_owned()).unwrap_err();
        assert!(error("usr/share").contains("must start with a slash"));
        assert!(error("/usr//x").contains("empty"));
        assert!(error("/usr/**x").contains("stand alone"));
    }
}
