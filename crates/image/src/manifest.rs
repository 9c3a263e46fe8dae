//! The manifest of an image: every path, whom it comes from and how large it is; and questions one asks of it.
//!
//! It is written beside the image when that is built, so that nothing has to be unpacked to look inside.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::payload::{Package, Pruned};
use crate::prune::Pattern;
use crate::tree::{Kind, Tree};

/// Name of the manifest beside an image.
pub const FILE: &str = "manifest.json";

/// What an image holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Whom the files come from, by name.
    pub origins: Vec<Origin>,
    /// Every path, sorted.
    pub entries: Vec<Entry>,
}

/// A package or another giver of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Package name, or `definition`, `kernel`, `selftests`…
    pub name: String,
    /// The package's version; empty for what is no package.
    pub version: String,
    /// Files and links in the image.
    pub files: u64,
    /// Bytes of their content, uncompressed.
    pub bytes: u64,
    /// Files and links left out.
    pub pruned_files: u64,
    /// Bytes left out.
    pub pruned_bytes: u64,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path, with its leading slash.
    pub path: String,
    /// `d`, `f` or `l`, as `find -type` has them.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content, uncompressed.
    pub size: u64,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whom it comes from.
    pub origin: String,
}

impl Manifest {
    /// Describes `tree`.
    pub fn of(tree: &Tree, packages: &[Package], pruned: &BTreeMap<String, Pruned>) -> Self {
        let mut origins: BTreeMap<&str, Origin> = BTreeMap::new();
        for package in packages {
            let left_out = pruned.get(&package.name).copied().unwrap_or_default();
            let origin = origins.entry(&package.name).or_default();
            origin.version.clone_from(&package.version);
            (origin.pruned_files, origin.pruned_bytes) = (left_out.files, left_out.bytes);
        }
        let mut entries = Vec::with_capacity(tree.len());
        for (path, node) in tree.iter() {
            let origin = origins.entry(&node.origin).or_default();
            let (kind, target) = match &node.kind {
                Kind::Directory => ('d', None),
                Kind::File(_) => ('f', None),
                Kind::Symlink(target) => ('l', Some(target.clone())),
            };
            if kind != 'd' {
                origin.files += 1;
                origin.bytes += node.size();
            }
            entries.push(Entry {
                path: format!("/{path}"),
                kind,
                mode: node.mode,
                uid: node.uid,
                gid: node.gid,
                size: node.size(),
                target,
                origin: node.origin.to_string(),
            });
        }
        let origins = origins.into_iter().map(|(name, origin)| Origin { name: name.to_owned(), ..origin }).collect();
        Manifest { origins, entries }
    }

    /// Reads the manifest in an image's directory.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = fs::read(&path).with_context(|| format!("cannot read the manifest {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no image manifest", path.display()))
    }

    /// Writes it into an image's directory.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let text = serde_json::to_vec(self).context("describing the image")?;
        fs::write(&path, text).with_context(|| format!("cannot write the manifest {}", path.display()))
    }

    /// Bytes of content, uncompressed.
    pub fn bytes(&self) -> u64 {
        self.origins.iter().map(|origin| origin.bytes).sum()
    }

    /// Packages and other givers, the largest first.
    pub fn by_size(&self) -> Vec<&Origin> {
        let mut origins: Vec<&Origin> = self.origins.iter().collect();
        origins.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        origins
    }

    /// Entries that `filter` lets through, the largest first.
    pub fn find(&self, filter: &Filter) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().filter(|entry| filter.takes(entry)).collect();
        entries.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
        entries
    }
}

/// Which entries are of interest.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this package's (or other giver's).
    pub origin: Option<String>,
    /// Only what this pattern covers.
    pub path: Option<Pattern>,
    /// Directories as well.
    pub directories: bool,
}

impl Filter {
    fn takes(&self, entry: &Entry) -> bool {
        (self.directories || entry.kind != 'd')
            && self.origin.as_ref().is_none_or(|origin| *origin == entry.origin)
            && self.path.as_ref().is_none_or(|pattern| pattern.covers(entry.path.trim_start_matches('/')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Node};
    use std::sync::Arc;

    #[test]
    fn sums_and_questions() {
        let (a, b): (Arc<str>, Arc<str>) = (Arc::from("a"), Arc::from("b"));
        let mut tree = Tree::new();
        tree.put("usr", Node::directory(0o755, &a)).unwrap();
        tree.put("usr/x", Node::file(Content::new("12345"), 0o644, &a)).unwrap();
        tree.put("usr/y", Node::file(Content::new("1234567"), 0o755, &b)).unwrap();
        tree.put("usr/z", Node::symlink("x", &a)).unwrap();
        let package = Package { name: "a".into(), version: "1-2".into(), path: "a.deb".into() };
        let pruned = BTreeMap::from([("a".to_owned(), Pruned { files: 3, bytes: 99 })]);
        let manifest = Manifest::of(&tree, &[package], &pruned);

        let dir = tempfile::tempdir().unwrap();
        manifest.save(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), manifest);

        assert_eq!(manifest.bytes(), 12);
        let names: Vec<&str> = manifest.by_size().iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        let of_a =
            Origin { name: "a".into(), version: "1-2".into(), files: 2, bytes: 5, pruned_files: 3, pruned_bytes: 99 };
        assert_eq!(manifest.origins[0], of_a);
        let paths = |filter: Filter| manifest.find(&filter).iter().map(|e| e.path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(Filter::default()), ["/usr/y", "/usr/x", "/usr/z"]);
        assert_eq!(paths(Filter { origin: Some("a".into()), ..Filter::default() }), ["/usr/x", "/usr/z"]);
        let pattern = Pattern::try_from("/usr/x".to_owned()).unwrap();
        assert_eq!(paths(Filter { path: Some(pattern), ..Filter::default() }), ["/usr/x"]);
    }
}
