//! RXE's provider for libibverbs, with the patches of `images/patches/rdma-core`.
//!
//! In: the source of rdma-core that the lock pins, the patches and the script beside them. Out: a folder of the cache
//! with one library, which the kit lays over the one of the distribution; the base image keeps its packages as they are.
//! libibverbs and its providers share structures that no version number guards, so the source must be of the very
//! version of the packages: a lock where they differ is refused when the plan is made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use artifacts::{Key, Kind, Lock, Recipe, Source};
use progress::Progress;

use crate::plan::Plan;
use crate::workshop::Workshop;

/// Its step.
pub const ID: &str = "provider";
/// Patches and script, in the project.
const PATCHES: &str = "images/patches/rdma-core";
/// The package of each root whose version the source must have.
const PACKAGES: [(&str, &str); 2] = [("build", "libibverbs-dev"), ("guest", "libibverbs1")];
/// The library's file name. 34 is the version of the interface between libibverbs and providers.
pub const LIBRARY: &str = "librxe-rdmav34.so";
/// Where libibverbs looks for it, and where the distribution's is.
pub const INSIDE: &str = "/usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav34.so";

/// What the library is made from.
///
/// # Errors
/// When the lock has no source for it, or not that of its packages.
pub fn recipe(project: &Path, lock: &Lock, build_root: &Key) -> Result<Recipe> {
    let mut recipe = Recipe::new(ID).tree("patches", &project.join(PATCHES))?.key_of("build root", build_root);
    for alternative in &source(lock)?.alternatives {
        recipe = recipe.value(&format!("source {}", alternative.name), &alternative.sha256);
    }
    Ok(recipe)
}

/// The lock's source of rdma-core, if it is that of the packages.
fn source(lock: &Lock) -> Result<&Source> {
    let source = lock.sources.iter().find(|source| source.name.starts_with("rdma-core-"));
    let source = source.context("lab.lock has no source rdma-core-…, which images/roots.toml asks for")?;
    for (root, name) in PACKAGES {
        let root = lock.root(root)?;
        let Some(deb) = root.debs.iter().find(|deb| deb.name == name) else { continue };
        let upstream = deb.version.rsplit_once('-').map_or(deb.version.as_str(), |(upstream, _)| upstream);
        if upstream != source.version {
            bail!(
                "{name} is {} in lab.lock, but the source of RXE's provider is {}: ask for the same version in \
                 images/roots.toml and run `cargo xtask lock --update`",
                deb.version,
                source.version
            );
        }
    }
    Ok(source)
}

/// Builds the library, or finds it; returns its path.
///
/// # Errors
/// With the compiler's last words.
pub fn build(plan: &Plan, workshop: &Workshop<'_>, progress: &Progress) -> Result<PathBuf> {
    let built = plan.cache.get_or_build(Kind::Bin, &plan.find(ID)?.recipe, |dir| {
        let archive = workshop.fetcher().source(source(&plan.lock)?)?.path;
        let step = progress.step(ID, "build RXE's provider for libibverbs");
        let work = plan.cache.work("provider")?;
        workshop
            .root("build")?
            .sandbox("sh")
            .args(["/build/patches/build.sh", "/build/source.tar", "/build/patches"])
            .arg(format!("/build/out/{LIBRARY}"))
            .bind_ro(plan.lab.root.join(PATCHES), "/build/patches")
            .bind_ro(&archive, "/build/source.tar")
            .bind_rw(dir, "/build/out")
            .cwd("/tmp")
            .progress(progress)
            .run_logged(&step, &work.path().join("log"))?;
        step.done();
        Ok(())
    })?;
    Ok(built.path.join(LIBRARY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        Lock::parse(include_str!("../../../lab.lock"), Path::new("lab.lock")).unwrap()
    }

    #[test]
    fn the_source_has_to_be_that_of_the_packages() {
        let mut lock = lock();
        let version = source(&lock).unwrap().version.clone();
        lock.sources.iter_mut().filter(|s| s.name.starts_with("rdma-core-")).for_each(|s| s.version = "1.0".into());
        let error = source(&lock).unwrap_err().to_string();
        assert!(error.contains(&version) && error.contains("the source of RXE's provider is 1.0"), "{error}");
        lock.sources.retain(|s| !s.name.starts_with("rdma-core-"));
        assert!(source(&lock).unwrap_err().to_string().contains("no source rdma-core"));
    }
}
