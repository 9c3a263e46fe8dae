//! Renewing `lab.lock`.

use std::path::Path;

use anyhow::Result;
use artifacts::{Cache, Lock, Mirrors};
use lab_config::Lab;
use progress::Progress;
use toolroot::resolve::{self, RootsSpec};

use crate::workshop::Workshop;

/// Resolves `images/roots.toml` against the distribution as it is now and writes `lab.lock`; returns what changed, a line
/// each. The package manager that resolves is the one the present lock pins.
///
/// # Errors
/// When no mirror has all indices, or a package is nowhere.
pub fn update(project: &Path, progress: &Progress) -> Result<String> {
    let lab = Lab::load(&project.join("lab.toml"), None)?;
    let path = project.join("lab.lock");
    let old = Lock::load(&path)?;
    let cache = Cache::open()?.with_progress(progress);
    let root = Workshop::open(&lab, &old, &cache, false, progress)?.root("build")?;
    let spec = RootsSpec::load(&project.join("images/roots.toml"))?;
    let mirrors = Mirrors::discover(Path::new("/"), &old).prefer(&lab.mirrors.debian);
    let new = resolve::update(&spec, &root, &mirrors, Some(&old), &cache, progress)?;
    new.save(&path)?;
    let changes = resolve::changes(&old, &new)?;
    if changes.is_empty() {
        return Ok("nothing changed\n".into());
    }
    Ok(changes.iter().map(|change| format!("{change}\n")).collect())
}
