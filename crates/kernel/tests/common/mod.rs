//! A small project for tests: one source in the lock, its archive in the cache, and the real build root.

#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

use artifacts::{Alternative, AlternativeKind, Cache, Fetcher, Kind, Lock, Mirrors, Source, sha256_bytes};
use kernel::Ctx;
use progress::Progress;
use toolroot::{FixUps, Toolroot};

/// A project, a lock with the source `linux-7.3.4`, and a cache that has it already.
pub struct Lab {
    pub top: tempfile::TempDir,
    pub lock: Lock,
    pub cache: Cache,
}

impl Lab {
    /// A source of these files.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let top = tempfile::tempdir().unwrap();
        let tarball = tarball(files);
        let sha256 = sha256_bytes(&tarball);
        let cache = Cache::at(&top.path().join("cache")).unwrap();
        fs::write(cache.root().join(Kind::Src.dir()).join(sha256.as_str()), &tarball).unwrap();
        let alternative = Alternative {
            name: "orig".into(),
            kind: AlternativeKind::Tarball,
            url: Some("http://localhost/linux-7.3.4.tar".into()),
            path: None,
            size: tarball.len() as u64,
            sha256,
            strip: 1,
            inner: None,
        };
        let mut lock = Lock::load(&project().join("lab.lock")).unwrap();
        lock.sources =
            vec![Source { name: "linux-7.3.4".into(), version: "7.3.4".into(), alternatives: vec![alternative] }];
        fs::create_dir_all(top.path().join("project/templates/kernel")).unwrap();
        Lab { top, lock, cache }
    }

    pub fn project(&self) -> PathBuf {
        self.top.path().join("project")
    }

    /// Writes a series of one patch.
    pub fn series(&self, name: &str, file: &str, patch: &str, present: &str) -> PathBuf {
        let dir = self.project().join("kernel-patches").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(file), patch).unwrap();
        let text = format!(
            "# A comment that stays.\npurpose = \"p\"\nkernels = [\"7.3\"]\n\n[[patch]]\nfile = \"{file}\"\npresent = \
             {present}\n"
        );
        fs::write(dir.join("series.toml"), text).unwrap();
        dir
    }

    pub fn with<T>(&self, work: impl FnOnce(&Ctx) -> T) -> T {
        self.with_progress(&Progress::silent(), work)
    }

    pub fn with_progress<T>(&self, progress: &Progress, work: impl FnOnce(&Ctx) -> T) -> T {
        let fetcher = Fetcher::new(&self.cache, Mirrors::only([""; 0]), true, progress);
        work(&Ctx { cache: &self.cache, lock: &self.lock, fetcher: &fetcher, build_root: &build_root, progress })
    }
}

/// The project's real build root.
pub fn build_root() -> anyhow::Result<Toolroot> {
    let lock = Lock::load(&project().join("lab.lock"))?;
    let cache = Cache::open()?;
    let progress = Progress::silent();
    let fetcher = Fetcher::new(&cache, Mirrors::discover(Path::new("/"), &lock), false, &progress);
    let fixups = FixUps::load(&project().join("images/toolroot.toml"))?;
    Toolroot::materialize(&cache, &lock, "build", &fetcher, &fixups, &progress)
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn tarball(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_cksum();
        tar.append_data(&mut header, Path::new("linux-7.3.4").join(name), text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A patch as `git format-patch` writes it, whose only hunk is `diff`.
pub fn patch(subject: &str, diff: &str) -> String {
    format!(
        "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\nFrom: A Developer \
         <dev@example.org>\nDate: Sun, 22 Nov 2026 15:30:00 +0000\nSubject: [PATCH] {subject}\n\nIt was never \
         so.\n\nSigned-off-by: A Developer <dev@example.org>\n---\n{diff}"
    )
}
