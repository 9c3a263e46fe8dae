//! A tree of the user's own, as it stands: what is in it now, commits and uncommitted changes alike.
//!
//! In: a directory. Out: a [`UserTree`] from which a build can be keyed and laid into a work tree; the user's directory
//! is only ever read. Two cases:
//! a checkout made by `kernel tree` knows the pristine source it came from, so the files that differ are all there is to
//! know, and it shares the work tree and the objects of the lab's own kernels;
//! any other tree is known by names, sizes and times of its files, and gets a work tree that follows it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use artifacts::sha256_bytes;
use serde::{Deserialize, Serialize};
use toolroot::Toolroot;

use crate::git::{self, Git};
use crate::worktree::{Change, Overlay, read, tree_id};

/// What `kernel tree` writes into the git directory of the checkouts it makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descent {
    /// Source of the lock: `linux-7.3.4`.
    pub source: String,
    /// Identity of the alternative that was unpacked.
    pub base: String,
    /// The commit that holds the pristine source.
    pub commit: String,
    /// The series that is worked on.
    pub series: String,
    /// The commit its patches go on top of.
    pub onto: String,
    /// Series that were committed below it.
    pub below: Vec<String>,
}

impl Descent {
    /// Whether the tree has this series as commits, whatever became of them there.
    pub fn has(&self, series: &str) -> bool {
        self.series == series || self.below.iter().any(|below| below == series)
    }
}

/// Name of the [`Descent`] file in a git directory.
pub const DESCENT: &str = "devmem-lab.json";

/// Size, modification time in nanoseconds and mode of a file.
pub type Stamp = (u64, i64, u32);

/// What is in a user's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A known source and the files that differ from it.
    Derived(Descent, Overlay),
    /// Every file that belongs to the tree.
    Files(BTreeMap<String, Stamp>),
}

/// A tree of the user's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserTree {
    /// Where it is.
    pub dir: PathBuf,
    /// The version its Makefile says: `7.4.0-rc1`.
    pub version: String,
    /// The commit that is checked out, if it is a git tree.
    pub commit: Option<String>,
    /// Changes whenever the content does.
    pub digest: String,
    /// What is in it.
    #[serde(skip)]
    pub content: Content,
}

impl UserTree {
    /// Looks at the tree in `dir`.
    pub fn scan(dir: &Path, toolroot: &Toolroot) -> Result<Self> {
        let dir = fs::canonicalize(dir).with_context(|| format!("find the kernel tree {}", dir.display()))?;
        let version = version(&dir)?;
        let git = Git::find(&dir)?;
        let commit = match &git {
            // A repository without a commit yet is still a tree.
            Some(git) => {
                git.read(toolroot, &["rev-parse", "-q", "--verify", "HEAD"]).ok().map(|c| c.trim().to_string())
            }
            None => None,
        };
        let content = match (&git, descent(&dir)?) {
            (Some(git), Some(descent)) => {
                let overlay = differing(git, &descent.commit, toolroot)?;
                Content::Derived(descent, overlay)
            }
            (Some(git), None) => Content::Files(stamps(&dir, listed(git, toolroot)?)?),
            (None, _) => Content::Files(stamps(&dir, walked(&dir)?)?),
        };
        let digest = match &content {
            Content::Derived(descent, overlay) => {
                // Which series count as part of it decides what a build still applies.
                let below = descent.below.join(" ");
                tree_id(&format!("{} with {below} and {}", descent.base, descent.series), overlay)
            }
            Content::Files(files) => {
                let mut text = format!("{}\n", dir.display());
                for (path, (size, time, mode)) in files {
                    text.push_str(&format!("{size} {time} {mode:o} {path}\n"));
                }
                sha256_bytes(text.as_bytes()).to_string()
            }
        };
        Ok(UserTree { dir, version, commit, digest, content })
    }
}

/// What `kernel tree` left in the checkout at `dir`; `None` if that made it not.
pub fn descent(dir: &Path) -> Result<Option<Descent>> {
    let path = dir.join(".git").join(DESCENT);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| format!("parse {}", path.display())),
        Err(_) => Ok(None),
    }
}

/// The version in a tree's Makefile.
fn version(dir: &Path) -> Result<String> {
    let path = dir.join("Makefile");
    let text =
        fs::read_to_string(&path).with_context(|| format!("{} is no kernel tree: no Makefile", dir.display()))?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
        line.map(str::trim)
    };
    match (value("VERSION"), value("PATCHLEVEL"), value("SUBLEVEL"), value("EXTRAVERSION")) {
        (Some(version), Some(patchlevel), Some(sublevel), extra) => {
            Ok(format!("{version}.{patchlevel}.{sublevel}{}", extra.unwrap_or_default()))
        }
        _ => bail!("{} is no kernel tree: its Makefile has no VERSION, PATCHLEVEL and SUBLEVEL", dir.display()),
    }
}

/// Files that differ from `commit`, committed or not, new ones included.
fn differing(git: &Git, commit: &str, toolroot: &Toolroot) -> Result<Overlay> {
    let changed = git.read(toolroot, &["diff", "--name-only", "--no-renames", "-z", commit, "--"])?;
    let new = git.read(toolroot, &["ls-files", "-z", "--others", "--exclude-standard"])?;
    let mut overlay = Overlay::new();
    for path in git::names(&changed).chain(git::names(&new)) {
        overlay.insert(path.into(), read(&git.dir().join(path))?.unwrap_or(Change::Gone));
    }
    Ok(overlay)
}

/// Tracked files and new ones that are not ignored: an in-tree build's objects stay out.
fn listed(git: &Git, toolroot: &Toolroot) -> Result<Vec<String>> {
    let list = git.read(toolroot, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    Ok(git::names(&list).map(str::to_string).collect())
}

/// Every file below `dir`, for a tree without git.
fn walked(dir: &Path) -> Result<Vec<String>> {
    if dir.join("include/config").exists() || dir.join(".config").exists() {
        bail!(
            "{} was configured or built in place, and without git its sources cannot be told from its objects; run \
             `make mrproper` there",
            dir.display()
        );
    }
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).with_context(|| format!("list {}", at.display()))? {
            let entry = entry.with_context(|| format!("list {}", at.display()))?;
            let path = entry.path();
            if entry.file_type().with_context(|| format!("look at {}", path.display()))?.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).unwrap_or(&path).to_str();
            found.push(name.with_context(|| format!("{} is no UTF-8", path.display()))?.to_string());
        }
    }
    Ok(found)
}

fn stamps(dir: &Path, names: Vec<String>) -> Result<BTreeMap<String, Stamp>> {
    let mut stamps = BTreeMap::new();
    for name in names {
        let path = dir.join(&name);
        // A tracked file that was removed, or a submodule's directory.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            continue;
        }
        let time = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        stamps.insert(name, (meta.len(), time, meta.mode()));
    }
    Ok(stamps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_makefile() {
        let dir = tempfile::tempdir().unwrap();
        let error = version(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is no kernel tree: no Makefile"), "{error}");
        fs::write(dir.path().join("Makefile"), "VERSION = 7\nPATCHLEVEL = 4\nSUBLEVEL = 0\nEXTRAVERSION = -rc1\n")
            .unwrap();
        assert_eq!(version(dir.path()).unwrap(), "7.4.0-rc1");
        fs::write(dir.path().join("Makefile"), "all:\n").unwrap();
        assert!(version(dir.path()).unwrap_err().to_string().contains("no VERSION"));
    }

    #[test]
    fn a_tree_built_in_place_without_git_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("net")).unwrap();
        fs::write(dir.path().join("net/a.c"), "a").unwrap();
        assert_eq!(walked(dir.path()).unwrap(), ["net/a.c"]);
        fs::write(dir.path().join(".config"), "").unwrap();
        assert!(walked(dir.path()).unwrap_err().to_string().contains("make mrproper"));
    }
}
