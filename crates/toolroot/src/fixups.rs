//! The few things a package's maintainer script would do and a program needs: declared as data, a set for each root.
//!
//! In: `images/toolroot.toml`, and a tree of unpacked packages. Out: the same tree with links, copies and small files
//! added. A fix-up whose subject is missing, or that is already there, is an error: the list stays as short as it is
//! needed.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::tree::{self, Tree};

/// Fix-ups of all roots, by the root's name in `lab.lock`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FixUps {
    roots: BTreeMap<String, FixUpSet>,
}

/// What is added to one root. Paths are relative to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixUpSet {
    /// Symbolic links.
    #[serde(default)]
    pub link: Vec<Link>,
    /// Copies of files the packages brought.
    #[serde(default)]
    pub copy: Vec<Copy>,
    /// Files made of the text given.
    #[serde(default)]
    pub write: Vec<Text>,
    /// Files made by joining all files of a directory, in the order of their names.
    #[serde(default)]
    pub join: Vec<Join>,
}

/// `path` → `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The link.
    pub path: PathBuf,
    /// What it says; has to lead to something that is there.
    pub to: PathBuf,
}

/// A copy of `from` at `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// The new file.
    pub path: PathBuf,
    /// The old one.
    pub from: PathBuf,
}

/// `text` at `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The new file.
    pub path: PathBuf,
    /// All of its content.
    pub text: String,
}

/// All files of the directory `from` at `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The new file.
    pub path: PathBuf,
    /// The directory.
    pub from: PathBuf,
}

impl FixUps {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{}: not a list of fix-ups", path.display()))
    }

    /// The fix-ups of a root; most have none.
    pub fn of(&self, root: &str) -> FixUpSet {
        self.roots.get(root).cloned().unwrap_or_default()
    }
}

impl FixUpSet {
    /// The same set as text that changes exactly when the set does: an input of the root's key.
    pub fn fingerprint(&self) -> String {
        // Strings and lists of them: nothing TOML could not hold.
        toml::to_string(self).unwrap_or_else(|e| unreachable!("fix-ups are plain TOML: {e}"))
    }

    /// Adds all of it to the tree at `root`.
    pub fn apply(&self, root: &Path) -> Result<()> {
        let mut tree = Tree::open(root).with_context(|| format!("cannot open {}", root.display()))?;
        for Link { path, to } in &self.link {
            let target = path.parent().unwrap_or(Path::new("")).join(to);
            if let Err(e) = tree.read(&target) {
                bail!("fix-up: the link {} leads to {}, which is not there: {e}", path.display(), target.display());
            }
            tree.link(path, to).with_context(|| format!("fix-up: cannot make the link {}", path.display()))?;
        }
        for Copy { path, from } in &self.copy {
            let mut content = Vec::new();
            read(&tree, from, &mut content)?;
            write(&mut tree, path, &content)?;
        }
        for Text { path, text } in &self.write {
            write(&mut tree, path, text.as_bytes())?;
        }
        for Join { path, from } in &self.join {
            let mut content = Vec::new();
            let names = tree.names(from).with_context(|| format!("fix-up: cannot list {}", from.display()))?;
            for name in names {
                read(&tree, &from.join(name), &mut content)?;
            }
            write(&mut tree, path, &content)?;
        }
        Ok(())
    }
}

fn read(tree: &Tree, path: &Path, content: &mut Vec<u8>) -> Result<()> {
    tree.read(path)
        .and_then(|mut file| file.read_to_end(content))
        .with_context(|| format!("fix-up: cannot read {}", path.display()))?;
    Ok(())
}

fn write(tree: &mut Tree, path: &Path, content: &[u8]) -> Result<()> {
    let mut make = || -> io::Result<()> {
        let mut file = tree.file(path, 0o644)?;
        file.write_all(content)?;
        tree::set_mtime(&file, 0)
    };
    make().with_context(|| format!("fix-up: cannot make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn set(text: &str) -> FixUpSet {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn every_kind_is_applied() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        fs::create_dir_all(dir.path().join("certs")).unwrap();
        fs::write(dir.path().join("usr/bin/gawk"), "program").unwrap();
        fs::write(dir.path().join("certs/b"), "second\n").unwrap();
        fs::write(dir.path().join("certs/a"), "first\n").unwrap();
        let set = set(r#"
            link = [{ path = "usr/bin/awk", to = "gawk" }]
            copy = [{ path = "etc/tool", from = "usr/bin/gawk" }]
            write = [{ path = "etc/hosts", text = "127.0.0.1 localhost\n" }]
            join = [{ path = "etc/all", from = "certs" }]
        "#);
        set.apply(dir.path()).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(read("usr/bin/awk"), "program");
        assert_eq!(read("etc/tool"), "program");
        assert_eq!(read("etc/hosts"), "127.0.0.1 localhost\n");
        assert_eq!(read("etc/all"), "first\nsecond\n");
        // Once more is too often.
        assert!(set.apply(dir.path()).unwrap_err().to_string().contains("usr/bin/awk"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (text, expected) in [
            (r#"link = [{ path = "usr/bin/awk", to = "gawk" }]"#, "usr/bin/gawk"),
            (r#"copy = [{ path = "a", from = "no/such" }]"#, "no/such"),
            (r#"join = [{ path = "a", from = "no/dir" }]"#, "no/dir"),
            (r#"write = [{ path = "../out", text = "" }]"#, "../out"),
        ] {
            let error = set(text).apply(dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(toml::from_str::<FixUps>("[build]\nlnik = []").unwrap_err().to_string().contains("lnik"));
    }
}
