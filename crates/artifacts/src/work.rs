//! Directories that change: a kernel's work tree, its object directory. They live in the cache's `work/`, are never
//! published, and belong to one process at a time.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::Cache;
use crate::cache::stamp;
use crate::flock::{FileLock, Mode};

/// A mutable directory, owned until dropped; what is in it stays.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    _lock: FileLock,
}

impl WorkDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Cache {
    /// Takes the work directory `name` (letters, digits, `.`, `_`, `-`, `+`), waiting while another process has it.
    pub fn work(&self, name: &str) -> Result<WorkDir> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(allowed) {
            bail!("`{name}` cannot name a work directory: letters, digits and ._-+ are allowed, not a dot in front");
        }
        let mut lock =
            FileLock::take(&self.work_lock_path(name), Mode::Exclusive, &format!("work/{name}"), &self.progress)?;
        lock.sign()?;
        let path = self.work_root().join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        stamp(&path);
        Ok(WorkDir { path, _lock: lock })
    }

    pub(crate) fn work_root(&self) -> PathBuf {
        self.root().join("work")
    }

    pub(crate) fn work_lock_path(&self, name: &str) -> PathBuf {
        self.root().join("locks").join(format!("work-{name}"))
    }
}
