//! Patch series: `kernel-patches/<name>/series.toml` and the `git format-patch` files beside it.
//!
//! In: the directory. Out: a [`Series`] with every patch read, in the order of application, together with the paths it
//! touches and the sign by which a tree is known to have the change already. A series is kept for some kernels and says
//! so; anything that does not fit together is an error that names the file.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use artifacts::sha256_bytes;
use serde::{Deserialize, Serialize};

/// What is wrong with a series.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    /// There is no such series.
    #[error("there is no series `{name}`: {} does not exist; there are: {}", path.display(), known.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The file that would describe it.
        path: PathBuf,
        /// The series there are.
        known: Vec<String>,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// `series.toml` is not what it should be.
    #[error("{}: {error}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's message, with line and column.
        error: Box<toml::de::Error>,
    },
    /// A rule of the directory is broken.
    #[error("{}: {problem}", path.display())]
    Rule {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The series is not kept for this kernel.
    #[error("series `{series}` is not kept for Linux {version}, only for {}; port it and add the version to `kernels` \
             in its series.toml", kernels.join(", "))]
    Version {
        /// The series.
        series: String,
        /// The kernel's version.
        version: String,
        /// The versions it is kept for.
        kernels: Vec<String>,
    },
}

/// How to see that a tree already has a change: a file that holds a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Present {
    /// Path in the kernel tree.
    pub file: String,
    /// Text that is in it only with the change.
    pub contains: String,
}

/// One patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Patch {
    /// Its file name, `NNNN-title.patch`.
    pub file: String,
    /// Where it is.
    #[serde(skip)]
    pub path: PathBuf,
    /// SHA-256 of its content.
    pub sha256: String,
    /// The mail's subject without `[PATCH …]`.
    pub subject: String,
    /// Paths in the kernel tree it changes, adds or removes.
    pub touches: BTreeSet<String>,
    /// The sign that a tree has it already.
    pub present: Present,
}

/// A series of patches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Series {
    /// Its name, that of its directory.
    pub name: String,
    /// What it is for, in one sentence.
    pub purpose: String,
    /// Beginnings of the kernel versions it is kept for: `7.3` stands for 7.3 and 7.3.4, not for 7.30.
    pub kernels: Vec<String>,
    /// The patches in order.
    pub patches: Vec<Patch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    purpose: String,
    kernels: Vec<String>,
    #[serde(rename = "patch")]
    patches: Vec<FilePatch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePatch {
    file: String,
    present: Present,
}

/// Name of the description in a series' directory.
pub const SERIES_FILE: &str = "series.toml";

impl Series {
    /// Reads `<patches>/<name>`.
    pub fn load(patches: &Path, name: &str) -> Result<Self, SeriesError> {
        let dir = patches.join(name);
        let path = dir.join(SERIES_FILE);
        if !path.exists() {
            return Err(SeriesError::Unknown { name: name.into(), path, known: names(patches) });
        }
        let file: File = toml::from_str(&read(&path)?)
            .map_err(|error| SeriesError::Syntax { path: path.clone(), error: Box::new(error) })?;
        let rule = |problem: String| SeriesError::Rule { path: path.clone(), problem };
        if file.kernels.is_empty() {
            return Err(rule("`kernels` is empty; name the versions the series is kept for".into()));
        }
        let listed: Vec<&String> = file.patches.iter().map(|p| &p.file).collect();
        if let Some(twice) = listed.windows(2).find(|w| w[0] >= w[1]) {
            let problem =
                format!("`{}` comes after `{}`; patches stand in the order of their numbers", twice[1], twice[0]);
            return Err(rule(problem));
        }
        if let Some(stray) = patch_files(&dir)?.into_iter().find(|found| !listed.contains(&found)) {
            return Err(rule(format!("{stray} lies here but no [[patch]] names it; add it or remove the file")));
        }
        let patches = file.patches.iter().map(|p| Patch::load(&dir, p)).collect::<Result<_, _>>()?;
        Ok(Series { name: name.into(), purpose: file.purpose, kernels: file.kernels, patches })
    }

    /// Whether the series is kept for this version.
    pub fn is_for(&self, version: &str) -> bool {
        self.kernels.iter().any(|kept| begins_with(version, kept))
    }

    /// [`SeriesError::Version`] unless the series is kept for this version.
    pub fn require(&self, version: &str) -> Result<(), SeriesError> {
        if self.is_for(version) {
            return Ok(());
        }
        Err(SeriesError::Version { series: self.name.clone(), version: version.into(), kernels: self.kernels.clone() })
    }

    /// Every path its patches touch.
    pub fn touches(&self) -> BTreeSet<&str> {
        self.patches.iter().flat_map(|p| p.touches.iter().map(String::as_str)).collect()
    }
}

impl Patch {
    fn load(dir: &Path, entry: &FilePatch) -> Result<Self, SeriesError> {
        let path = dir.join(&entry.file);
        let text = read(&path)?;
        let rule = |problem: &str| SeriesError::Rule { path: path.clone(), problem: problem.into() };
        let subject =
            subject(&text).ok_or_else(|| rule("no `Subject:` line; it has to come from `git format-patch`"))?;
        if !text.lines().any(|line| line.starts_with("Signed-off-by: ")) {
            return Err(rule("no Signed-off-by line; commit with `git commit -s`"));
        }
        let touches = touched(&text);
        if touches.is_empty() {
            return Err(rule("it changes no file"));
        }
        let sha256 = sha256_bytes(text.as_bytes()).to_string();
        Ok(Patch { file: entry.file.clone(), sha256, subject, touches, present: entry.present.clone(), path })
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether the dotted `version` begins with the dotted `start`.
fn begins_with(version: &str, start: &str) -> bool {
    version.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '+']))
}

/// The series there are.
pub fn names(patches: &Path) -> Vec<String> {
    let entries = fs::read_dir(patches).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|e| e.path().join(SERIES_FILE).exists())
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn patch_files(dir: &Path) -> Result<Vec<String>, SeriesError> {
    let entries = fs::read_dir(dir).map_err(|error| SeriesError::Read { path: dir.into(), error })?;
    let mut found: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    found.retain(|name| name.ends_with(".patch"));
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String, SeriesError> {
    fs::read_to_string(path).map_err(|error| SeriesError::Read { path: path.into(), error })
}

/// The mail's subject, unfolded, without the tag in brackets.
pub fn subject(text: &str) -> Option<String> {
    let mut lines = text.lines().take_while(|line| !line.is_empty());
    let mut subject = lines.find_map(|line| line.strip_prefix("Subject: "))?.to_string();
    for folded in lines.map_while(|line| line.strip_prefix(' ')) {
        subject.push(' ');
        subject.push_str(folded.trim_start());
    }
    if subject.starts_with('[')
        && let Some((_, rest)) = subject.split_once("] ")
    {
        subject = rest.into();
    }
    Some(subject)
}

/// Paths in the `diff --git a/X b/Y` lines.
fn touched(text: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("diff --git a/")
            && let Some((old, new)) = rest.split_once(" b/")
        {
            paths.insert(old.to_string());
            paths.insert(new.to_string());
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project_patches() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel-patches")
    }

    const PATCH: &str = "From 0\nFrom: A <a@example>\nSubject: [PATCH 1/2] RDMA/rxe: A subject that goes on\n for two \
                         lines\n\nBody.\n\nSigned-off-by: A <a@example>\n---\ndiff --git a/x/old.c b/x/new.c\n--- \
                         a/x/old.c\n+++ b/x/new.c\n@@ -1 +1 @@\n-a\n+b\n";

    fn dir(series: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("s")).unwrap();
        fs::write(top.path().join("s").join(SERIES_FILE), series).unwrap();
        for (name, text) in files {
            fs::write(top.path().join("s").join(name), text).unwrap();
        }
        top
    }

    const ONE: &str = "purpose = 'p'\nkernels = ['7.3']\n[[patch]]\nfile = '0001-a.patch'\npresent = { file = 'f', \
                       contains = 't' }\n";

    #[test]
    fn every_series_of_the_project_is_sound() {
        let names = names(&project_patches());
        assert!(names.contains(&"rxe".to_string()), "{names:?}");
        for name in names {
            let series = Series::load(&project_patches(), &name).unwrap();
            assert!(!series.patches.is_empty());
        }
    }

    #[test]
    fn a_patch_is_read_with_its_subject_and_paths() {
        let top = dir(ONE, &[("0001-a.patch", PATCH)]);
        let series = Series::load(top.path(), "s").unwrap();
        assert_eq!(series.patches[0].subject, "RDMA/rxe: A subject that goes on for two lines");
        assert_eq!(series.touches().into_iter().collect::<Vec<_>>(), ["x/new.c", "x/old.c"]);
    }

    #[test]
    fn versions_are_compared_by_component() {
        let top = dir(ONE, &[("0001-a.patch", PATCH)]);
        let series = Series::load(top.path(), "s").unwrap();
        for (version, fits) in [("7.3", true), ("7.3.4", true), ("7.3-rc1", true), ("7.30", false), ("7.1.13", false)] {
            assert_eq!(series.is_for(version), fits, "{version}");
        }
        let error = series.require("7.1.13").unwrap_err().to_string();
        assert!(error.contains("not kept for Linux 7.1.13, only for 7.3"), "{error}");
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let unsigned = PATCH.replace("Signed-off-by", "Acked-by");
        let two = format!("{ONE}[[patch]]\nfile = '0000-b.patch'\npresent = {{ file = 'f', contains = 't' }}\n");
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case; 6] = [
            (ONE, &[], "cannot read"),
            (ONE, &[("0001-a.patch", PATCH), ("0002-b.patch", PATCH)], "0002-b.patch lies here but no [[patch]]"),
            (ONE, &[("0001-a.patch", &unsigned)], "no Signed-off-by line"),
            (ONE, &[("0001-a.patch", "Subject: x\n\nSigned-off-by: a\n")], "it changes no file"),
            (&two, &[("0001-a.patch", PATCH), ("0000-b.patch", PATCH)], "in the order of their numbers"),
            ("purpose = 'p'\nkernel = ['7.3']\n", &[], "unknown field `kernel`"),
        ];
        for (series, files, expected) in cases {
            let top = dir(series, files);
            let error = Series::load(top.path(), "s").unwrap_err().to_string();
            assert!(error.contains(expected), "expected `{expected}` in: {error}");
        }
        let top = dir(ONE, &[]);
        let error = Series::load(top.path(), "t").unwrap_err().to_string();
        assert!(error.contains("no series `t`") && error.ends_with("there are: s"), "{error}");
    }
}
