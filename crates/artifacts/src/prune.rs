//! Making room: removes what was not used for a while, and what died half-made.
//!
//! An entry goes only under its exclusive lock, so nothing that is being built or held in use is touched. It is first
//! renamed away, so that nobody ever finds a half-removed entry.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use progress::Step;
use serde::{Deserialize, Serialize};

use crate::cache::{PART, TEMP, TRASH};
use crate::flock::{FileLock, Mode};
use crate::why::last_used;
use crate::{Cache, Key, Kind, fstree};

/// What a pruned thing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A published entry.
    Entry(Kind),
    /// A work directory.
    Work,
    /// A partial download.
    Partial,
    /// What a builder left that was killed.
    Leftover,
}

/// One thing that prune removed (or would) or had to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// What it is.
    pub what: What,
    /// The step that made it, or its name in the cache.
    pub name: String,
    /// Disk space it takes, in bytes.
    pub bytes: u64,
    /// Seconds since it was last used.
    pub unused_s: u64,
}

/// What a prune did, or with `dry_run` would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneReport {
    /// Gone (or to go), in the order found.
    pub removed: Vec<Pruned>,
    /// Old enough, but in use.
    pub in_use: Vec<Pruned>,
    /// Disk space of `removed`, in bytes.
    pub bytes: u64,
}

struct Prune<'a> {
    cache: &'a Cache,
    /// `None` spares everything but leftovers.
    older_than: Option<Duration>,
    dry_run: bool,
    step: Option<&'a Step>,
    report: PruneReport,
}

impl Cache {
    /// Removes entries, work directories and partial downloads not used for `older_than`, and what killed builders
    /// left, however new. With `dry_run` nothing is removed, only reported.
    pub fn prune(&self, older_than: Duration, dry_run: bool) -> Result<PruneReport> {
        let step = self.progress.step("cache:prune", "prune the cache");
        let report = self.run_prune(Some(older_than), dry_run, Some(&step))?;
        step.done();
        Ok(report)
    }

    /// Removes only what killed builders left. Takes a few stats if there is nothing: every command may begin with it.
    pub fn sweep(&self) -> Result<PruneReport> {
        self.run_prune(None, false, None)
    }

    fn run_prune(&self, older_than: Option<Duration>, dry_run: bool, step: Option<&Step>) -> Result<PruneReport> {
        let mut prune = Prune { cache: self, older_than, dry_run, step, report: PruneReport::default() };
        let downloads = match older_than {
            Some(_) => FileLock::try_take(&self.downloads_lock_path(), Mode::Exclusive)?,
            None => None,
        };
        for kind in Kind::ALL {
            let free = !kind.is_file() || downloads.is_some();
            prune.directory(kind, free)?;
        }
        prune.work()?;
        if older_than.is_some() && !dry_run {
            prune.locks();
        }
        let mut report = prune.report;
        report.bytes = report.removed.iter().map(|p| p.bytes).sum();
        Ok(report)
    }
}

impl Prune<'_> {
    fn directory(&mut self, kind: Kind, free: bool) -> Result<()> {
        let dir = self.cache.kind_dir(kind);
        let list = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        for entry in list.flatten() {
            self.cache.progress.check_cancelled()?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let (what, rest) = match [TEMP, TRASH, PART].map(|prefix| name.strip_prefix(prefix)) {
                [Some(rest), ..] | [_, Some(rest), _] => (What::Leftover, rest),
                [.., Some(rest)] => (What::Partial, rest),
                _ => (What::Entry(kind), name.as_str()),
            };
            let Some(key) = rest.get(..64).and_then(|key| key.parse::<Key>().ok()) else { continue };
            let lock = self.cache.lock_path(kind, &key);
            let label = || match what {
                What::Entry(kind) if !kind.is_file() => match self.cache.recipe(kind, &key) {
                    Ok(recipe) => format!("{} {kind}/{}", recipe.step, key.short()),
                    Err(_) => format!("{kind}/{}", key.short()),
                },
                _ => format!("{kind}/{name}"),
            };
            let path = entry.path();
            if !self.due(&what, &path) {
                continue;
            }
            let label = label();
            let trash = self.cache.fresh(kind, TRASH, &key);
            let free = free || what == What::Leftover;
            self.consider(what, &label, &path, &lock, &trash, free)?;
        }
        Ok(())
    }

    fn work(&mut self) -> Result<()> {
        let root = self.cache.work_root();
        let Ok(list) = fs::read_dir(&root) else { return Ok(()) };
        for entry in list.flatten() {
            self.cache.progress.check_cancelled()?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let (what, owner) = match name.strip_prefix(TRASH) {
                Some(rest) => (What::Leftover, rest),
                None => (What::Work, name.as_str()),
            };
            let lock = self.cache.work_lock_path(owner);
            let trash = root.join(format!("{TRASH}{owner}"));
            self.consider(what, &format!("work/{name}"), &entry.path(), &lock, &trash, true)?;
        }
        Ok(())
    }

    /// Whether something is old enough to go.
    fn due(&self, what: &What, path: &Path) -> bool {
        *what == What::Leftover
            || self.older_than.is_some_and(|older_than| age(path).is_some_and(|age| age >= older_than))
    }

    /// Removes one thing if it is old enough and its lock can be had.
    fn consider(&mut self, what: What, name: &str, path: &Path, lock: &Path, trash: &Path, free: bool) -> Result<()> {
        if !self.due(&what, path) {
            return Ok(());
        }
        let bytes = fstree::disk_usage(path).unwrap_or_default();
        let unused_s = age(path).unwrap_or_default().as_secs();
        let pruned = Pruned { what: what.clone(), name: name.to_string(), bytes, unused_s };
        let lock = if free { FileLock::try_take(lock, Mode::Exclusive)? } else { None };
        let Some(lock) = lock else {
            // A temporary directory with a living builder is no leftover.
            if what != What::Leftover {
                self.report.in_use.push(pruned);
            }
            return Ok(());
        };
        // Somebody may have used it between the look and the lock.
        if !self.due(&what, path) {
            return Ok(());
        }
        if !self.dry_run {
            // Large trees take their time on some disks; one should see on what.
            if let Some(step) = self.step {
                step.line(format!("remove {name}"));
            }
            let remove = || {
                if path != trash {
                    // Of an earlier prune that was killed; only work directories have names that come again.
                    fstree::remove_tree(trash)?;
                    fs::rename(path, trash)?;
                }
                fstree::remove_tree(trash)
            };
            remove().with_context(|| format!("cannot remove {}", path.display()))?;
            drop(lock);
        }
        self.report.removed.push(pruned);
        Ok(())
    }

    /// Removes lock files that guard nothing any more.
    fn locks(&self) {
        let Ok(list) = fs::read_dir(self.cache.root().join("locks")) else { return };
        for entry in list.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some((kind, rest)) = name.split_once('-') else { continue };
            let guards: PathBuf = self.cache.root().join(kind).join(rest);
            if guards.exists() {
                continue;
            }
            // Takers check that the file they locked is still the one at its path, so this cannot split a lock in two.
            if let Ok(Some(lock)) = FileLock::try_take(&entry.path(), Mode::Exclusive) {
                let _ = lock.unlink();
            }
        }
    }
}

fn age(path: &Path) -> Option<Duration> {
    last_used(path).map(|used| SystemTime::now().duration_since(used).unwrap_or_default())
}
