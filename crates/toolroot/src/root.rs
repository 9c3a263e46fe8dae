//! A toolroot: a set of packages of `lab.lock`, unpacked and fixed up, in the cache.
//!
//! In: the lock, the root's name, fix-ups. Out: a directory, read-only and shared by all who use it, and ways to run
//! what is in it: [`Toolroot::sandbox`] with namespaces, [`Toolroot::loader`] without.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use artifacts::{Cache, Fetcher, Hold, Key, Kind, Lock, Recipe};
use progress::Progress;

use crate::fixups::FixUps;
use crate::loader::{self, LoaderError};
use crate::sandbox::Sandbox;
use crate::unpack::{Package, unpack};

/// Raised whenever the same packages would be unpacked differently.
const FORMAT: u32 = 1;

/// Unpacked packages. While it (or a clone) lives, prune leaves the directory alone.
#[derive(Debug, Clone)]
pub struct Toolroot {
    name: String,
    dir: PathBuf,
    key: Key,
    hold: Option<Arc<Hold>>,
}

impl Toolroot {
    /// What the root is made from: every package by its hash, and its fix-ups.
    pub fn plan(lock: &Lock, name: &str, fixups: &FixUps) -> Result<Recipe> {
        let root = lock.root(name)?;
        let mut recipe = Recipe::new(&format!("root:{name}")).value("format", FORMAT);
        for deb in &root.debs {
            recipe = recipe.key_of(&deb.id(), &deb.sha256);
        }
        Ok(recipe.value("fix-ups", fixups.of(name).fingerprint()))
    }

    /// Has the root in the cache: looks it up, or fetches its packages and unpacks them.
    pub fn materialize(
        cache: &Cache,
        lock: &Lock,
        name: &str,
        fetcher: &Fetcher,
        fixups: &FixUps,
        progress: &Progress,
    ) -> Result<Toolroot> {
        let recipe = Self::plan(lock, name, fixups)?;
        let root = lock.root(name)?;
        let built = cache.with_progress(progress).get_or_build(Kind::Root, &recipe, |dir| {
            let paths = fetcher.labelled(name).debs(&root.debs)?;
            let packages: Vec<Package> =
                root.debs.iter().zip(paths).map(|(deb, path)| Package { name: deb.name.clone(), path }).collect();
            let step = progress.step(format!("root:{name}"), format!("unpack {name}"));
            unpack(&packages, dir, &step)?;
            fixups.of(name).apply(dir).with_context(|| format!("root {name}"))?;
            step.done();
            Ok(())
        })?;
        if built.cached {
            progress.step(format!("root:{name}"), format!("unpack {name}")).cached();
        }
        Ok(Toolroot { name: name.to_owned(), dir: built.path, key: built.key, hold: Some(Arc::new(built.hold)) })
    }

    /// A directory that somebody else unpacked; `key` stands for its content in the keys of what is built with it.
    pub fn foreign(name: &str, dir: &Path, key: Key) -> Result<Toolroot> {
        ensure!(dir.join("usr").is_dir(), "{} is no toolroot: it has no directory `usr`", dir.display());
        Ok(Toolroot { name: name.to_owned(), dir: dir.canonicalize()?, key, hold: None })
    }

    /// Its name in the lock.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What stands for it in the keys of other steps.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// A program run as if this were the machine.
    pub fn sandbox(&self, program: impl AsRef<OsStr>) -> Sandbox {
        Sandbox::new(&self.dir, program)
    }

    /// A program run with the toolroot's loader and libraries but no namespace; see [`Toolroot::loader_argv`].
    pub fn loader(&self, program: &str) -> Result<Command, LoaderError> {
        loader::command(&self.dir, program)
    }

    /// The words such a command line starts with: loader, its options, the program. `program` is a name looked up in
    /// `usr/bin` and `usr/sbin`, or a path below the toolroot.
    pub fn loader_argv(&self, program: &str) -> Result<Vec<OsString>, LoaderError> {
        loader::argv(&self.dir, program)
    }

    /// Whether the cache keeps this directory for us (a foreign one it does not).
    pub fn is_held(&self) -> bool {
        self.hold.is_some()
    }
}
