//! What every step is made with: lock, cache, downloads and package roots of one lab.

use std::path::Path;

use anyhow::Result;
use artifacts::{Cache, Fetcher, Lock, Mirrors};
use lab_config::Lab;
use progress::Progress;
use toolroot::{FixUps, Toolroot};

/// The means to make things. Opening it touches nothing but small files of the project.
#[derive(Debug)]
pub struct Workshop<'a> {
    lock: &'a Lock,
    cache: &'a Cache,
    fetcher: Fetcher,
    fix_ups: FixUps,
    progress: &'a Progress,
}

/// The declared fix-ups of package roots.
///
/// # Errors
/// When `images/toolroot.toml` is wrong or missing.
pub fn fix_ups(project: &Path) -> Result<FixUps> {
    FixUps::load(&project.join("images/toolroot.toml"))
}

impl<'a> Workshop<'a> {
    /// The workshop of a lab. Mirrors are the user's own, then the host's, then the built-in ones.
    ///
    /// # Errors
    /// When the declared fix-ups are wrong.
    pub fn open(lab: &Lab, lock: &'a Lock, cache: &'a Cache, offline: bool, progress: &'a Progress) -> Result<Self> {
        let user = &lab.mirrors;
        let own = user.debian.iter().chain(&user.snapshot).chain(&user.kernel);
        let mirrors = Mirrors::discover(Path::new("/"), lock).prefer(own);
        let fetcher = Fetcher::new(cache, mirrors, offline, progress);
        Ok(Workshop { lock, cache, fetcher, fix_ups: fix_ups(&lab.root)?, progress })
    }

    /// What downloads.
    pub fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// A package root, fetched and unpacked if need be.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn root(&self, name: &str) -> Result<Toolroot> {
        Toolroot::materialize(self.cache, self.lock, name, &self.fetcher, &self.fix_ups, self.progress)
    }

    /// Does `work` with what kernels are built with.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn with_kernel_ctx<T>(&self, work: impl FnOnce(&kernel::Ctx<'_>) -> Result<T>) -> Result<T> {
        let build_root = || self.root("build");
        work(&kernel::Ctx {
            cache: self.cache,
            lock: self.lock,
            fetcher: &self.fetcher,
            build_root: &build_root,
            progress: self.progress,
        })
    }
}
