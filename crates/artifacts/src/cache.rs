//! The content-addressed cache: `$XDG_CACHE_HOME/devmem-lab/{deb,src,root,kernel,image,bin}/<key>`.
//!
//! A step's entry is a directory with `recipe.json` (its inputs, for [`Cache::why`]) and `content/` (what the step
//! made); a download is a plain file. Either is filled under a temporary name in the same directory, made durable,
//! sealed read-only and renamed, so an entry is there whole or not at all. One `flock` per key, held exclusively while
//! building and shared while in use, keeps two builders from doing the same work twice and prune from removing what
//! somebody uses. An entry's modification time is its last-used stamp: a lookup is one `utimensat`, which finds the
//! entry and stamps it.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use progress::Progress;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::flock::{FileLock, Mode};
use crate::{Key, Recipe, fstree, space};

/// A part of the cache, by what its entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Debian packages: files, keyed by their own SHA-256.
    Deb,
    /// Source archives and wheels: files, keyed by their own SHA-256.
    Src,
    /// Unpacked package roots.
    Root,
    /// Built kernels.
    Kernel,
    /// Guest images and initramfs.
    Image,
    /// Programs built for guests.
    Bin,
}

impl Kind {
    /// Every part.
    pub const ALL: [Kind; 6] = [Kind::Deb, Kind::Src, Kind::Root, Kind::Kernel, Kind::Image, Kind::Bin];

    /// The name of its directory.
    pub fn dir(self) -> &'static str {
        match self {
            Kind::Deb => "deb",
            Kind::Src => "src",
            Kind::Root => "root",
            Kind::Kernel => "kernel",
            Kind::Image => "image",
            Kind::Bin => "bin",
        }
    }

    /// Whether its entries are plain files (downloads) and not directories (built by steps).
    pub fn is_file(self) -> bool {
        matches!(self, Kind::Deb | Kind::Src)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dir())
    }
}

/// The cache; clone it freely.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    pub(crate) progress: Progress,
}

/// While this lives, prune leaves the entry alone.
#[derive(Debug)]
pub struct Hold {
    _lock: FileLock,
}

/// What [`Cache::get_or_build`] gives back.
#[derive(Debug)]
pub struct Built {
    /// The directory the step filled; read-only now.
    pub path: PathBuf,
    /// The key of its recipe.
    pub key: Key,
    /// Whether it was there already (or another process made it while this one waited).
    pub cached: bool,
    /// Keeps prune away; move it to where the path is used.
    pub hold: Hold,
}

/// Prefix of what is being made; never a valid key.
pub(crate) const TEMP: &str = ".tmp-";
/// Prefix of what is being removed.
pub(crate) const TRASH: &str = ".trash-";
/// Prefix of a download that can be resumed.
pub(crate) const PART: &str = ".part-";

const RECIPE: &str = "recipe.json";
const CONTENT: &str = "content";
const POLL: Duration = Duration::from_millis(50);

impl Cache {
    /// The user's cache: `devmem-lab` in `$XDG_CACHE_HOME`, else in `~/.cache`.
    pub fn open() -> Result<Self> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        let base =
            base.context("no place for the cache: neither XDG_CACHE_HOME nor HOME is an absolute path; set one")?;
        Self::at(&base.join("devmem-lab"))
    }

    /// A cache in this directory, which is made if it is not there.
    pub fn at(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).context("cannot tell the current directory")?;
        let make = || -> io::Result<()> {
            for kind in Kind::ALL {
                fs::create_dir_all(root.join(kind.dir()))?;
            }
            let tag = root.join("CACHEDIR.TAG");
            if !tag.exists() {
                // https://bford.info/cachedir/: backup programs skip such a directory.
                fs::write(tag, "Signature: 8a477f597d28d172789f06886806bc55\n# made by devmem-lab\n")?;
            }
            Ok(())
        };
        make().with_context(|| format!("cannot make the cache in {}", root.display()))?;
        Ok(Cache { root, progress: Progress::silent() })
    }

    /// The same cache, telling `progress` when it waits and stopping when that is cancelled.
    pub fn with_progress(&self, progress: &Progress) -> Self {
        Cache { root: self.root.clone(), progress: progress.clone() }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of an entry if it is there, stamped as used now: the file of a download, the content of a step.
    pub fn lookup(&self, kind: Kind, key: &Key) -> Option<PathBuf> {
        let entry = self.entry(kind, key);
        stamp(&entry).then(|| if kind.is_file() { entry } else { entry.join(CONTENT) })
    }

    /// Keeps prune away from an entry as long as the result lives; `None` if the entry is not there.
    pub fn hold(&self, kind: Kind, key: &Key) -> Result<Option<Hold>> {
        while self.lookup(kind, key).is_some() {
            if let Some(lock) = FileLock::try_take(&self.lock_path(kind, key), Mode::Shared)? {
                return Ok(self.lookup(kind, key).map(|_| Hold { _lock: lock }));
            }
            self.progress.check_cancelled()?;
            thread::sleep(POLL);
        }
        Ok(None)
    }

    /// The recipe an entry was made from.
    pub fn recipe(&self, kind: Kind, key: &Key) -> Result<Recipe> {
        let path = self.entry(kind, key).join(RECIPE);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no recipe", path.display()))
    }

    /// Finds the entry of `recipe`, or has `build` fill a fresh temporary directory and publishes that.
    ///
    /// If another process is building the same, this one waits and uses its result. When `build` fails or the process
    /// dies, nothing is published; what was half-made goes at once, or with the next build of that key, or with prune.
    pub fn get_or_build(&self, kind: Kind, recipe: &Recipe, build: impl FnOnce(&Path) -> Result<()>) -> Result<Built> {
        if kind.is_file() {
            bail!("step {}: `{kind}` holds downloads, nothing is built there", recipe.step);
        }
        let key = recipe.key();
        let lock_path = self.lock_path(kind, &key);
        let mut told = false;
        let mut lock = loop {
            if let Some(hold) = self.hold(kind, &key)? {
                return Ok(Built { path: self.entry(kind, &key).join(CONTENT), key, cached: true, hold });
            }
            if let Some(lock) = FileLock::try_take(&lock_path, Mode::Exclusive)? {
                // Another process may have published between the look and the lock.
                if self.lookup(kind, &key).is_none() {
                    break lock;
                }
                continue;
            }
            if !told {
                told = true;
                self.progress.info(format!("{}: waiting for another process that is making it", recipe.step));
            }
            self.progress.check_cancelled()?;
            thread::sleep(POLL);
        };
        lock.sign()?;
        self.sweep_key(kind, &key);
        self.build_locked(kind, recipe, &key, build).with_context(|| format!("step {}", recipe.step))?;
        lock.share()?;
        let path = self
            .lookup(kind, &key)
            .with_context(|| format!("{kind}/{key} was removed as soon as it was made; is a prune at work?"))?;
        Ok(Built { path, key, cached: false, hold: Hold { _lock: lock } })
    }

    fn build_locked(
        &self,
        kind: Kind,
        recipe: &Recipe,
        key: &Key,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let temp = Temp(self.fresh(kind, TEMP, key));
        let content = temp.0.join(CONTENT);
        let explain = |e: anyhow::Error| space::explain(e, &self.root);
        fs::create_dir_all(&content)
            .with_context(|| format!("cannot make {}", content.display()))
            .and_then(|()| build(&content))
            .map_err(explain)?;
        self.progress.check_cancelled()?;
        let publish = || -> Result<()> {
            let path = temp.0.join(RECIPE);
            let text = serde_json::to_vec_pretty(recipe)?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            fstree::seal(&temp.0)?;
            self.publish(&temp.0, kind, key)
        };
        publish().map_err(explain)
    }

    /// Renames a finished temporary entry to its key, durably.
    pub(crate) fn publish(&self, temp: &Path, kind: Kind, key: &Key) -> Result<()> {
        let entry = self.entry(kind, key);
        fs::rename(temp, &entry).with_context(|| format!("cannot publish {}", entry.display()))?;
        fstree::sync_dir(&self.kind_dir(kind))
    }

    /// Removes what dead builders left for this key; only for whoever holds its lock exclusively.
    fn sweep_key(&self, kind: Kind, key: &Key) {
        let Ok(entries) = fs::read_dir(self.kind_dir(kind)) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let rest = name.strip_prefix(TEMP).or_else(|| name.strip_prefix(TRASH));
            if rest.is_some_and(|rest| rest.starts_with(key.as_str())) {
                // A leftover that cannot go now does no harm: its name is never reused.
                let _ = fstree::remove_tree(&entry.path());
            }
        }
    }

    /// A name in the kind's directory that was never used before.
    pub(crate) fn fresh(&self, kind: Kind, prefix: &str, key: &Key) -> PathBuf {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        self.kind_dir(kind).join(format!("{prefix}{key}-{}-{:x}-{n}", std::process::id(), now.as_nanos()))
    }

    pub(crate) fn kind_dir(&self, kind: Kind) -> PathBuf {
        self.root.join(kind.dir())
    }

    /// The file or directory that makes up an entry.
    pub(crate) fn entry(&self, kind: Kind, key: &Key) -> PathBuf {
        self.kind_dir(kind).join(key.as_str())
    }

    /// The partial download of a key.
    pub(crate) fn part(&self, kind: Kind, key: &Key) -> PathBuf {
        self.kind_dir(kind).join(format!("{PART}{key}"))
    }

    /// Held shared by every fetcher, exclusively by prune while it removes downloads.
    pub(crate) fn downloads_lock_path(&self) -> PathBuf {
        self.root.join("locks").join("downloads")
    }

    pub(crate) fn lock_path(&self, kind: Kind, key: &Key) -> PathBuf {
        self.root.join("locks").join(format!("{kind}-{key}"))
    }
}

/// A half-made entry that goes when dropped, unless it was renamed away.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        // Nothing more can be done here; the next builder of the key or prune tries again.
        let _ = fstree::remove_tree(&self.0);
    }
}

/// Sets the last-used stamp; `false` if there is no such entry.
pub(crate) fn stamp(path: &Path) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    match utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => true,
        // Another user's cache or a read-only one serves as well; only its stamps stay as they are.
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => fs::symlink_metadata(path).is_ok(),
        Err(_) => false,
    }
}
