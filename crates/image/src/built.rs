//! A finished image in the cache, and the last step that makes one out of a tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use artifacts::{Built, Cache, Fetcher, Hold, Key, sha256_file};
use progress::Progress;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toolroot::Toolroot;

use crate::definition::Filesystem;
use crate::erofs;
use crate::manifest::Manifest;
use crate::tree::Tree;

/// What building an image takes besides its plan.
#[derive(Debug, Clone, Copy)]
pub struct Ctx<'a> {
    /// Where images are published.
    pub cache: &'a Cache,
    /// Brings packages.
    pub fetcher: &'a Fetcher,
    /// The root that has `mkfs.erofs`.
    pub vm: &'a Toolroot,
    /// Listens.
    pub progress: &'a Progress,
}

/// A file system image in the cache. While it (or a clone) lives, prune leaves it alone.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// The image: a disk for the guest.
    pub path: PathBuf,
    /// Hash of its bytes.
    pub sha256: Key,
    /// How many bytes it has.
    pub size: u64,
    /// The directory that holds image and manifest; see [`Manifest::load`].
    pub dir: PathBuf,
    /// Key of the recipe it was made from.
    pub key: Key,
    /// Whether it was there already.
    pub cached: bool,
    hold: Arc<Hold>,
}

/// What is said about an image beside it, so that nothing has to be hashed again.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    file: String,
    sha256: Key,
    size: u64,
}

const DESCRIPTION: &str = "image.json";

impl BuiltImage {
    pub(crate) fn open(built: Built) -> Result<Self> {
        let description: Description = load_json(&built.path.join(DESCRIPTION))?;
        Ok(BuiltImage {
            path: built.path.join(description.file),
            sha256: description.sha256,
            size: description.size,
            dir: built.path,
            key: built.key,
            cached: built.cached,
            hold: Arc::new(built.hold),
        })
    }

    /// What is in it.
    pub fn manifest(&self) -> Result<Manifest> {
        Manifest::load(&self.dir)
    }

    /// What keeps prune away, to be moved to where only the path is needed.
    pub fn hold(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }
}

/// Writes `tree` as the image `file` into `dir`, with manifest and description beside it.
pub(crate) fn publish(
    tree: &Tree,
    filesystem: &Filesystem,
    manifest: &Manifest,
    dir: &Path,
    file: &str,
    ctx: &Ctx<'_>,
) -> Result<()> {
    let path = dir.join(file);
    let step = ctx.progress.step(format!("write:{file}"), format!("write {file}"));
    erofs::write(ctx.vm.loader("mkfs.erofs")?, filesystem, tree, &path, &step)?;
    manifest.save(dir)?;
    let size = fs::metadata(&path).with_context(|| format!("mkfs.erofs made no {}", path.display()))?.len();
    save_json(&dir.join(DESCRIPTION), &Description { file: file.to_owned(), sha256: sha256_file(&path)?, size })?;
    step.done();
    Ok(())
}

pub(crate) fn load_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot make sense of {}", path.display()))
}

pub(crate) fn save_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).with_context(|| format!("describing {}", path.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
