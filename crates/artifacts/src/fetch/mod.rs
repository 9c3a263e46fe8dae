//! Bringing what the lock names into the cache: several files at a time, each from the first mirror that has it.
//!
//! In: entries of the lock. Out: paths in the cache, every byte of which was checked. Files are published one by one,
//! so an interrupted fetch goes on where it was. Workers are plain threads that are not joined on Ctrl-C: a read that
//! hangs in the network must not keep the user waiting, and what such a worker leaves is a partial file that the next
//! fetch continues.

mod client;
mod error;
mod hosts;
mod item;
mod pool;
mod transfer;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::anyhow;
use progress::{Cancelled, Progress, Step, Unit};

pub use error::{Attempt, Failure, FetchError, Refusal};
use hosts::Hosts;
use item::{Item, Shared};

use crate::flock::{FileLock, Mode};
use crate::{Alternative, Cache, Deb, Key, Kind, Mirrors, Source, Wheel, free_space, space};

/// How patient a fetcher is and how much it does at once.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Downloads at a time.
    pub parallel: usize,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long a transfer may bring nothing.
    pub stall_timeout: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        FetchOptions { parallel: 6, connect_timeout: Duration::from_secs(10), stall_timeout: Duration::from_secs(30) }
    }
}

/// Which form of a source was used, and where it is.
#[derive(Debug, Clone)]
pub struct FetchedSource {
    /// The file.
    pub path: PathBuf,
    /// The form.
    pub alternative: Alternative,
}

/// Brings files into the cache. While it lives, prune leaves downloads alone.
#[derive(Clone)]
pub struct Fetcher {
    cache: Cache,
    mirrors: Mirrors,
    offline: bool,
    progress: Progress,
    options: FetchOptions,
    label: String,
    /// Made when first needed: a fetch that finds everything must not pay for an HTTP client.
    shared: Arc<OnceLock<Arc<Shared>>>,
    hold: Arc<OnceLock<FileLock>>,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher")
            .field("mirrors", &self.mirrors)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A fetcher into `cache`; `offline` makes everything that is missing an error.
    pub fn new(cache: &Cache, mirrors: Mirrors, offline: bool, progress: &Progress) -> Self {
        Fetcher {
            cache: cache.with_progress(progress),
            mirrors,
            offline,
            progress: progress.clone(),
            options: FetchOptions::default(),
            label: "packages".to_string(),
            shared: Arc::default(),
            hold: Arc::default(),
        }
    }

    /// The same with other patience.
    pub fn with_options(mut self, options: FetchOptions) -> Self {
        self.options = options;
        self.shared = Arc::default();
        self
    }

    /// The same under another name in progress events: the step is `fetch:LABEL`.
    pub fn labelled(&self, label: &str) -> Self {
        Fetcher { label: label.to_string(), ..self.clone() }
    }

    /// The mirrors it uses.
    pub fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    /// Whether it may not download.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Which of the packages are not in the cache yet.
    pub fn missing<'a>(&self, debs: &[&'a Deb]) -> Vec<&'a Deb> {
        debs.iter().filter(|deb| self.cache.lookup(Kind::Deb, &deb.sha256).is_none()).copied().collect()
    }

    /// Has all packages in the cache; the paths are in the order of `debs`.
    pub fn debs(&self, debs: &[&Deb]) -> Result<Vec<PathBuf>, FetchError> {
        let items = debs.iter().map(|deb| self.deb_item(deb)).collect();
        self.fetch(&format!("fetch:{}", self.label), &format!("fetch {}", self.label), items)
    }

    /// Has a wheel in the cache.
    pub fn wheel(&self, wheel: &Wheel) -> Result<PathBuf, FetchError> {
        let item = Item {
            what: format!("wheel {} {}", wheel.name, wheel.version),
            kind: Kind::Src,
            key: wheel.sha256.clone(),
            size: wheel.size,
            urls: vec![wheel.url.clone()],
        };
        self.one(item)
    }

    /// The form of a source that is in the cache, if one is: the first in order. Needs no network.
    pub fn cached_source(&self, source: &Source) -> Option<FetchedSource> {
        source.alternatives.iter().find_map(|alternative| {
            let path = self.cache.lookup(alternative.cache_kind(), &alternative.sha256)?;
            Some(FetchedSource { path, alternative: alternative.clone() })
        })
    }

    /// Has a source in the cache. A form that is there already is used, so that a second run uses what the first did;
    /// otherwise the forms are tried in order.
    pub fn source(&self, source: &Source) -> Result<FetchedSource, FetchError> {
        self.hold_downloads()?;
        if let Some(found) = self.cached_source(source) {
            return Ok(found);
        }
        if self.offline {
            let first = source.alternatives.first();
            let what = format!("source {}, in any of its forms", source.name);
            return Err(FetchError::Offline { missing: vec![what], bytes: first.map_or(0, |a| a.size) });
        }
        // One step for all forms: that the first cannot be had is no failure as long as another can.
        let step = self.progress.step(format!("fetch:{}", source.name), format!("source {}", source.name));
        let mut failures = Vec::new();
        for alternative in &source.alternatives {
            let item = self.alternative_item(source, alternative);
            match self.download(&step, vec![item]) {
                Ok(found) => {
                    let (_, path) = found.into_iter().next().ok_or_else(|| lost(&source.name))?;
                    step.done();
                    return Ok(FetchedSource { path, alternative: alternative.clone() });
                }
                Err(FetchError::Failed { failures: more }) => {
                    let why = more.iter().flat_map(|f| &f.attempts).next().map(|a| format!(": {}", a.refusal));
                    step.line(format!("`{}` cannot be had{}", alternative.name, why.unwrap_or_default()));
                    failures.extend(more);
                }
                Err(other) => return Err(other),
            }
        }
        Err(FetchError::Failed { failures })
    }

    fn deb_item(&self, deb: &Deb) -> Item {
        Item {
            what: format!("deb {} {}", deb.name, deb.version),
            kind: Kind::Deb,
            key: deb.sha256.clone(),
            size: deb.size,
            urls: self.mirrors.urls(&deb.path),
        }
    }

    fn alternative_item(&self, source: &Source, alternative: &Alternative) -> Item {
        let urls = match (&alternative.url, &alternative.path) {
            (Some(url), _) => vec![url.clone()],
            (None, Some(path)) => self.mirrors.urls(path),
            (None, None) => Vec::new(),
        };
        Item {
            what: format!("source {} ({})", source.name, alternative.name),
            kind: alternative.cache_kind(),
            key: alternative.sha256.clone(),
            size: alternative.size,
            urls,
        }
    }

    fn one(&self, item: Item) -> Result<PathBuf, FetchError> {
        let title = item.what.clone();
        let mut paths = self.fetch(&format!("fetch:{title}"), &title, vec![item])?;
        paths.pop().ok_or_else(|| lost(&title))
    }

    /// Has all items in the cache, in their order.
    fn fetch(&self, id: &str, title: &str, items: Vec<Item>) -> Result<Vec<PathBuf>, FetchError> {
        self.hold_downloads()?;
        let step = self.progress.step(id, title);
        let mut paths: BTreeMap<Key, PathBuf> = BTreeMap::new();
        let mut missing: BTreeMap<Key, Item> = BTreeMap::new();
        for item in &items {
            if let Some(path) = self.cache.lookup(item.kind, &item.key) {
                paths.insert(item.key.clone(), path);
            } else {
                missing.insert(item.key.clone(), item.clone());
            }
        }
        if missing.is_empty() {
            step.cached();
        } else {
            paths.extend(self.download(&step, missing.into_values().collect())?);
            step.done();
        }
        let path_of = |item: &Item| paths.get(&item.key).cloned().ok_or_else(|| lost(&item.what));
        items.iter().map(path_of).collect()
    }

    fn download(&self, step: &Step, missing: Vec<Item>) -> Result<Vec<(Key, PathBuf)>, FetchError> {
        let bytes = missing.iter().map(|item| item.size).sum();
        if self.offline {
            let missing = missing.into_iter().map(|item| item.what).collect();
            return Err(FetchError::Offline { missing, bytes });
        }
        self.check_space(&missing, bytes)?;
        step.total(bytes, Unit::Bytes);
        pool::run(&self.shared()?, missing, self.options.parallel, step, &self.progress)
    }

    /// Says at once, and not after minutes, that the disk is too small.
    fn check_space(&self, missing: &[Item], bytes: u64) -> Result<(), FetchError> {
        let part_of = |item: &Item| fs::metadata(self.cache.part(item.kind, &item.key)).map_or(0, |meta| meta.len());
        let needed = bytes.saturating_sub(missing.iter().map(part_of).sum());
        let path = self.cache.root();
        // If the question cannot be answered, writing will tell.
        match free_space(path) {
            Ok(free) if free.available < needed => {
                let text = space::no_space(path, Some(needed));
                Err(FetchError::NoSpace { path: path.to_path_buf(), needed, text })
            }
            _ => Ok(()),
        }
    }

    fn shared(&self) -> Result<Arc<Shared>, FetchError> {
        if let Some(shared) = self.shared.get() {
            return Ok(Arc::clone(shared));
        }
        let client = client::new(&self.options, &self.progress).map_err(FetchError::Local)?;
        let stall = self.options.stall_timeout;
        let shared = Shared { cache: self.cache.clone(), client, hosts: Hosts::default(), stall };
        Ok(Arc::clone(self.shared.get_or_init(|| Arc::new(shared))))
    }

    /// Keeps prune away from downloads as long as this fetcher lives: one lock for all of them, since a lock for each
    /// of hundreds of packages would use up file descriptors.
    fn hold_downloads(&self) -> Result<(), FetchError> {
        if self.hold.get().is_some() {
            return Ok(());
        }
        let path = self.cache.downloads_lock_path();
        let lock = FileLock::take(&path, Mode::Shared, "the cache's downloads", &self.progress);
        let lock = lock.map_err(|e| match e.downcast::<Cancelled>() {
            Ok(cancelled) => FetchError::Cancelled(cancelled),
            Err(other) => FetchError::Local(other),
        })?;
        // Lost only to another clone that took it as well.
        let _ = self.hold.set(lock);
        Ok(())
    }
}

fn lost(what: &str) -> FetchError {
    FetchError::Local(anyhow!("{what}: it was fetched, but its path got lost"))
}
