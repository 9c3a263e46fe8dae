//! Reading small files of `/proc` and `/sys`, of this host or of a sample tree.

use std::fs;
use std::path::{Path, PathBuf};

/// A host's root directory.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// This host.
    pub(crate) fn host() -> Self {
        Tree { root: PathBuf::from("/") }
    }

    /// A sample below `tests/data`.
    #[cfg(test)]
    pub(crate) fn sample(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        assert!(root.is_dir(), "no sample {name}");
        Tree { root }
    }

    /// A tree a test has made.
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Tree { root: root.to_path_buf() }
    }

    /// The place of a path without its leading slash.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// A file's text; `None` if it cannot be read, which for these files means that the kernel has no such thing.
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    /// A file that holds one number.
    pub(crate) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.read(path)?.trim().parse().ok()
    }

    /// The names in a directory, sorted; none if there is none.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let list = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = list.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The `flags` line of `/proc/cpuinfo`.
    pub(crate) fn cpu_flags(&self) -> String {
        let cpuinfo = self.read("proc/cpuinfo").unwrap_or_default();
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
        flags.and_then(|line| line.split_once(':')).map(|(_, flags)| flags.trim().to_string()).unwrap_or_default()
    }
}
