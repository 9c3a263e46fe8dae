//! From a plan to a published kernel: the cache is asked first, the rest is done only when it has nothing.

use std::path::Path;

use anyhow::{Context as _, Result};
use artifacts::{Cache, Fetcher, Hold, Kind as CacheKind, Lock};
use progress::Progress;
use toolroot::Toolroot;

use crate::artifacts::KernelArtifacts;
use crate::plan::{KernelPlan, Kind};
use crate::{compile, package, rebuild};

/// What building needs besides the plan.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    /// Where results go and work directories are.
    pub cache: &'a Cache,
    /// What everything is made of.
    pub lock: &'a Lock,
    /// Fetches packages and sources.
    pub fetcher: &'a Fetcher,
    /// Materialises the lock's root `build`; called only when there is something to do.
    pub build_root: &'a (dyn Fn() -> Result<Toolroot> + Sync),
    /// Receives what goes on.
    pub progress: &'a Progress,
}

/// A kernel in the cache.
#[derive(Debug)]
pub struct BuiltKernel {
    /// What it consists of.
    pub artifacts: KernelArtifacts,
    /// Whether it was there already.
    pub cached: bool,
    /// Keeps prune away from it.
    pub hold: Hold,
}

/// Builds the kernel of a plan, or finds it.
pub fn build(plan: &KernelPlan, ctx: &Ctx) -> Result<BuiltKernel> {
    let step = ctx.progress.step(format!("kernel:{}", plan.name), plan.summary());
    let built = ctx
        .cache
        .get_or_build(CacheKind::Kernel, &plan.recipe(), |out| make(plan, ctx, out))
        .with_context(|| format!("kernel `{}`", plan.name))?;
    let artifacts = KernelArtifacts::load(&built.path)?;
    if built.cached {
        step.cached();
    } else {
        step.done();
    }
    Ok(BuiltKernel { artifacts, cached: built.cached, hold: built.hold })
}

fn make(plan: &KernelPlan, ctx: &Ctx, out: &Path) -> Result<()> {
    let toolroot = (ctx.build_root)()?;
    let artifacts = match &plan.kind {
        Kind::Source { build, .. } | Kind::Tree { build, .. } => compile::compile(plan, build, ctx, &toolroot, out)?,
        Kind::Package { release, packages } => package::unpack(plan, release, packages, ctx, &toolroot, out)?,
        Kind::Rebuild { .. } => rebuild::rebuild(plan, ctx, &toolroot, out)?,
    };
    artifacts.save(out)
}
