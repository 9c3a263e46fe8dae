//! The distribution's own kernel: image and modules as its packages have them.
//!
//! In: verified packages. Out: the same layout as a compiled kernel's, with depmod's data (the packages leave that to
//! their maintainer scripts). There is no `vmlinux`, and `System.map` is what the package ships in its place.

use std::fs;
use std::path::{Component, Path};

use anyhow::{Context as _, Result, bail};
use artifacts::{Deb, sha256_bytes};
use toolroot::Toolroot;

use crate::artifacts::KernelArtifacts;
use crate::build::Ctx;
use crate::install::depmod;
use crate::plan::KernelPlan;

/// Unpacks the packages of `plan` into `out`.
pub fn unpack(
    plan: &KernelPlan,
    release: &str,
    packages: &[Deb],
    ctx: &Ctx,
    toolroot: &Toolroot,
    out: &Path,
) -> Result<KernelArtifacts> {
    let step = ctx.progress.step(format!("kernel:{}:unpack", plan.name), format!("unpack {release}"));
    let paths = ctx.fetcher.debs(&packages.iter().collect::<Vec<_>>())?;
    let below = format!("lib/modules/{release}");
    let modules = out.join("modules").join(&below);
    for path in &paths {
        ctx.progress.check_cancelled()?;
        extract(path, &format!("usr/{below}"), &modules)?;
    }
    for (from, to) in [("vmlinuz", "bzImage"), ("System.map", "System.map"), ("config", "config")] {
        let from = modules.join(from);
        fs::rename(&from, out.join(to))
            .with_context(|| format!("the packages of {release} have no {}", from.display()))?;
    }
    depmod(toolroot, &out.join("modules"), release, None)?;
    step.done();
    let ids: String = packages.iter().map(|deb| format!("{} {}\n", deb.id(), deb.sha256)).collect();
    Ok(KernelArtifacts {
        name: plan.name.clone(),
        release: release.into(),
        image: "bzImage".into(),
        modules: "modules".into(),
        vmlinux: None,
        system_map: "System.map".into(),
        config: "config".into(),
        selftests: None,
        tree_id: sha256_bytes(ids.as_bytes()).to_string(),
        series: Vec::new(),
        present: Vec::new(),
        source_used: packages.first().map(|deb| format!("Debian {}", deb.version)).unwrap_or_default(),
        dir: out.to_path_buf(),
    })
}

/// Unpacks what a package has below `from` into `to`.
pub fn extract(deb: &Path, from: &str, to: &Path) -> Result<()> {
    let context = || format!("unpack {}", deb.display());
    let mut members = toolroot::deb::data(deb)?;
    for member in members.entries().with_context(context)? {
        let mut member = member.with_context(context)?;
        let path = member.path().with_context(context)?.into_owned();
        let path = path.strip_prefix("./").unwrap_or(&path);
        let Ok(rest) = path.strip_prefix(from) else { continue };
        if rest.components().any(|c| !matches!(c, Component::Normal(_))) {
            bail!("{} has a path that leads out of it: {}", deb.display(), path.display());
        }
        let target = to.join(rest);
        if member.header().entry_type().is_dir() {
            fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        member.unpack(&target).with_context(|| format!("unpack {} of {}", path.display(), deb.display()))?;
    }
    Ok(())
}
