//! The mutable source tree that kernels of one base share, and what is laid over it.
//!
//! In: a base (an unpacked source) and an [`Overlay`] (the files a patch series or a developer's tree changes). Out: a
//! directory whose files are base plus overlay. Going from one overlay to another writes only files whose content
//! really differs, so `make` rebuilds only what depends on those: baseline and patched share one object directory.
//!
//! Before an overlay first touches a file, the base's copy goes to `pristine/`; nothing ever has to be un-patched. The
//! state file says which paths may differ from the base, and is written before the first of them changes: whoever
//! finds a half-done switch compares those paths by content and lays them again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use artifacts::{WorkDir, remove_tree, sha256_bytes};
use serde::{Deserialize, Serialize};

/// What an overlay makes of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The file has this content.
    File {
        /// Its bytes.
        bytes: Vec<u8>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// The path is a symbolic link to this.
    Link(PathBuf),
    /// There is no such file.
    Gone,
}

/// Files that differ from the base, by path in the tree.
pub type Overlay = BTreeMap<String, Change>;

/// The SHA-256 that names base plus overlay.
pub fn tree_id(base: &str, overlay: &Overlay) -> String {
    let mut text = format!("base {base}\n");
    for (path, change) in overlay {
        match change {
            Change::File { bytes, executable } => {
                text.push_str(&format!("file {} {executable} {path}\n", sha256_bytes(bytes)));
            }
            Change::Link(target) => text.push_str(&format!("link {} {path}\n", target.display())),
            Change::Gone => text.push_str(&format!("gone {path}\n")),
        }
    }
    sha256_bytes(text.as_bytes()).to_string()
}

/// What the state file says.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// The base that is unpacked, whole; empty while it is being unpacked.
    base: String,
    /// Boot of the host in which the base was unpacked; power loss after that may have left holes in it.
    boot: String,
    /// Whether the base is known to be on the disk.
    synced: bool,
    /// Paths that may differ from the base, and whether the base has them.
    touched: BTreeMap<String, bool>,
    /// The paths are being changed; any may be half-way.
    switching: bool,
}

/// A source tree with its object directories; owned until dropped.
#[derive(Debug)]
pub struct WorkTree {
    work: WorkDir,
    state: State,
}

const STATE: &str = "state.json";

impl WorkTree {
    /// Opens the work directory. If it holds no base that `accepts` says yes to, `unpack` fills an empty directory with
    /// one and names it.
    pub fn open(
        work: WorkDir,
        accepts: impl Fn(&str) -> bool,
        unpack: impl FnOnce(&Path) -> Result<String>,
    ) -> Result<Self> {
        let state = match fs::read(work.path().join(STATE)) {
            // A state that cannot be read is one that was never written whole: the tree is laid anew.
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(error).with_context(|| format!("read {}", work.path().join(STATE).display())),
        };
        let mut this = WorkTree { work, state };
        let whole = this.state.synced || this.state.boot == boot_id();
        if this.state.base.is_empty() || !accepts(&this.state.base) || !whole || !this.source().is_dir() {
            this.lay_base(unpack)?;
        }
        Ok(this)
    }

    fn lay_base(&mut self, unpack: impl FnOnce(&Path) -> Result<String>) -> Result<()> {
        self.state = State::default();
        self.save()?;
        // Objects of another base go too: its files may well be older than they are.
        for name in ["linux", "pristine", "obj", "unpacking"] {
            let path = self.work.path().join(name);
            remove_tree(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        let fresh = self.work.path().join("unpacking");
        fs::create_dir_all(&fresh).with_context(|| format!("make {}", fresh.display()))?;
        let base = unpack(&fresh).inspect_err(|_| {
            // A source that did not unpack is of no use to anybody, and large.
            let _ = remove_tree(&fresh);
        })?;
        fs::rename(&fresh, self.source()).with_context(|| format!("rename {}", fresh.display()))?;
        self.state = State { base, boot: boot_id(), ..State::default() };
        self.save()
    }

    /// What it is based on, as `unpack` named it.
    pub fn base(&self) -> &str {
        &self.state.base
    }

    /// The source tree.
    pub fn source(&self) -> PathBuf {
        self.work.path().join("linux")
    }

    /// A directory beside the tree that is the caller's own, for instance `obj/<config>`; made if not there.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.work.path().join(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// The base's content of a path, whatever is laid over it; `None` if the base has no such file.
    pub fn base_file(&self, path: &str) -> Result<Option<Change>> {
        check(path)?;
        match self.state.touched.get(path) {
            Some(false) => Ok(None),
            Some(true) => match read(&self.pristine(path))? {
                None => bail!(
                    "{} is gone; remove {} and build again",
                    self.pristine(path).display(),
                    self.work.path().display()
                ),
                found => Ok(found),
            },
            None => read(&self.source().join(path)),
        }
    }

    /// Every path of the base, sorted, whatever is laid over it.
    pub fn base_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut open = vec![self.source()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
                let entry = entry.with_context(|| format!("list {}", dir.display()))?;
                let path = entry.path();
                if entry.file_type().with_context(|| format!("look at {}", path.display()))?.is_dir() {
                    open.push(path);
                    continue;
                }
                let name = path.strip_prefix(self.source()).unwrap_or(&path).to_str();
                let name = name.with_context(|| format!("{} is no UTF-8", path.display()))?;
                if !self.state.touched.contains_key(name) {
                    names.push(name.to_string());
                }
            }
        }
        names.extend(self.state.touched.iter().filter(|(_, there)| **there).map(|(path, _)| path.clone()));
        names.sort();
        Ok(names)
    }

    /// Changes the base itself: `path` is now `change`. What is laid over the path stays until the next [`Self::lay`].
    pub fn set_base(&mut self, path: &str, change: &Change) -> Result<()> {
        if self.base_file(path)?.unwrap_or(Change::Gone) == *change {
            return Ok(());
        }
        let there = *change != Change::Gone;
        match self.state.touched.get(path) {
            Some(_) => {
                put(&self.pristine(path), change)?;
                self.state.touched.insert(path.into(), there);
                self.save()
            }
            None => put(&self.source().join(path), change),
        }
    }

    /// Makes the tree base plus `overlay`. Returns the paths whose content changed.
    pub fn lay(&mut self, overlay: &Overlay) -> Result<Vec<String>> {
        let paths: BTreeSet<String> = self.state.touched.keys().chain(overlay.keys()).cloned().collect();
        let mut different = Vec::new();
        for path in &paths {
            let wanted = match overlay.get(path) {
                Some(change) => change.clone(),
                None => self.base_file(path)?.unwrap_or(Change::Gone),
            };
            let now = read(&self.source().join(path))?.unwrap_or(Change::Gone);
            if now != wanted {
                different.push((path.clone(), wanted));
            }
        }
        if !different.is_empty() || self.state.switching {
            for path in overlay.keys().filter(|path| !self.state.touched.contains_key(*path)).collect::<Vec<_>>() {
                let base = read(&self.source().join(path))?;
                if let Some(change) = &base {
                    put(&self.pristine(path), change)?;
                }
                self.state.touched.insert(path.clone(), base.is_some());
            }
            self.state.switching = true;
            self.save()?;
            for (path, wanted) in &different {
                put(&self.source().join(path), wanted)?;
            }
            for path in &paths {
                remove(&unfinished(&self.source().join(path)))?;
            }
        }
        self.state.touched.retain(|path, _| overlay.contains_key(path));
        self.state.switching = false;
        self.save()?;
        Ok(different.into_iter().map(|(path, _)| path).collect())
    }

    /// Makes sure the base outlives a power cut; called when the disk had the time of a build to take it in.
    pub fn sync(&mut self) -> Result<()> {
        if !self.state.synced {
            let dir = fs::File::open(self.work.path()).context("open the work directory")?;
            rustix::fs::syncfs(&dir).context("write the source tree to disk")?;
            self.state.synced = true;
            self.save()?;
        }
        Ok(())
    }

    fn pristine(&self, path: &str) -> PathBuf {
        self.work.path().join("pristine").join(path)
    }

    fn save(&self) -> Result<()> {
        let path = self.work.path().join(STATE);
        let text = serde_json::to_vec_pretty(&self.state).context("describe the work tree")?;
        write_whole(&path, &text, false)
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into()
}

fn check(path: &str) -> Result<()> {
    if Path::new(path).components().all(|c| matches!(c, std::path::Component::Normal(_))) && !path.is_empty() {
        return Ok(());
    }
    bail!("`{path}` is no path inside a kernel tree")
}

/// The state of one path; `None` if nothing is there.
pub fn read(path: &Path) -> Result<Option<Change>> {
    let context = || format!("read {}", path.display());
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(error).with_context(context),
    };
    if meta.is_symlink() {
        return Ok(Some(Change::Link(fs::read_link(path).with_context(context)?)));
    }
    if !meta.is_file() {
        bail!("{} is neither a file nor a link", path.display());
    }
    let executable = meta.permissions().mode() & 0o100 != 0;
    Ok(Some(Change::File { bytes: fs::read(path).with_context(context)?, executable }))
}

/// Makes `path` what `change` says; its modification time becomes now.
pub fn put(path: &Path, change: &Change) -> Result<()> {
    let parent = path.parent().context("a path in a tree has a parent")?;
    match change {
        Change::File { bytes, executable } => {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            write_whole(path, bytes, *executable)
        }
        Change::Link(target) => {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            remove(path)?;
            std::os::unix::fs::symlink(target, path).with_context(|| format!("link {}", path.display()))
        }
        Change::Gone => remove(path),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The name a file has while it is being written.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".unfinished");
    path.with_file_name(name)
}

fn write_whole(path: &Path, bytes: &[u8], executable: bool) -> Result<()> {
    let fresh = unfinished(path);
    fs::write(&fresh, bytes).with_context(|| format!("write {}", fresh.display()))?;
    let mode = if executable { 0o755 } else { 0o644 };
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", fresh.display()))?;
    fs::rename(&fresh, path).with_context(|| format!("rename {}", fresh.display()))
}

#[cfg(test)]
mod tests;
