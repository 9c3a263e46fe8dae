//! What a base image costs once its packages are downloaded, beside mmdebstrap and mkfs.erofs.
//!
//! Bytecode is left out of both: ours is told not to make it, and what the packages' scripts spend on it under
//! mmdebstrap is measured and taken off. Kernel modules are in neither.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use artifacts::{Cache, Deb, Kind};
use image::{Definition, Prune, Python};
use lab::workshop::Workshop;
use toolroot::Toolroot;

use crate::mmdebstrap::{self, Mmdebstrap};
use crate::ratio::{Bound, Ratio};
use crate::samples::{Samples, alternate};
use crate::{Bench, Outcome, repository};

/// Ours over mmdebstrap and mkfs.erofs.
const BOUND: f64 = 0.2;

/// Runs the benchmark.
pub(crate) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let tool = match Mmdebstrap::find() {
        Ok(tool) => tool,
        Err(missing) => return Ok(Outcome::Skipped(missing)),
    };
    let plan = bench.plan;
    let workshop = Workshop::open(&plan.lab, &plan.lock, &plan.cache, plan.options.offline, bench.progress)?;
    let vm = workshop.root("vm")?;
    let base = plan.bases.values().next().context("the lab has no image")?;
    let definition = Definition { python: Python::default(), ..base.definition.clone() };
    let whole = Definition { prune: Prune::default(), ..definition.clone() };

    let scratch = bench.scratch()?;
    let suite = plan.lock.distribution.suites.first().context("lab.lock names no suite of the distribution")?;
    let debs: Vec<&Deb> = base.debs.iter().chain(repository::extra(&plan.lock, &base.debs)?).collect();
    let files = workshop.fetcher().debs(&debs)?;
    let pool = scratch.path("repository");
    repository::make(&pool, &debs, &files)?;
    let names: Vec<&str> = debs.iter().map(|deb| deb.name.as_str()).collect();

    let mut unpruned = Samples::default();
    let mut bytecode = Samples::default();
    let (ours, peer) = alternate(
        bench.rounds(3),
        |round| {
            unpruned.0.push(build(bench, &whole, &vm, &scratch.path(&format!("whole-{round}")))?);
            build(bench, &definition, &vm, &scratch.path(&format!("pruned-{round}")))
        },
        |_| {
            let work = scratch.path("mmdebstrap");
            let took = tool.run(&pool, suite, &names, &work, bench.progress)?;
            let begun = Instant::now();
            mmdebstrap::mkfs(&vm, &definition.filesystem, &work)?;
            let mkfs = begun.elapsed().as_secs_f64();
            fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
            bytecode.0.push(took.bytecode);
            Ok(took.total + mkfs)
        },
    )?;
    let how = tool.describe();
    let notes = vec![
        format!("{} packages from a local repository; mkfs.erofs and its options are the same for both", names.len()),
        format!("taken off the peer's time for compiling Python: {:.1} s (median)", bytecode.median()),
    ];
    let ratio = |name: &str, ours_is: &str, ours, bound, notes| Ratio {
        name: name.into(),
        what: "base image from cached packages".into(),
        unit: "s",
        ours_is: ours_is.into(),
        ours,
        peer_is: how.clone(),
        peer: peer.clone(),
        bound,
        notes,
    };
    Ok(Outcome::Measured(vec![
        ratio("image", "as the lab makes it, without bytecode", ours, Bound::Ratio(BOUND), notes),
        ratio("image-unpruned", "the same with nothing pruned", unpruned, Bound::None, Vec::new()),
    ]))
}

/// Seconds for one image in a cache of its own that has the packages and nothing else.
fn build(bench: &Bench<'_>, definition: &Definition, vm: &Toolroot, dir: &Path) -> Result<f64> {
    let plan = bench.plan;
    let cache = Cache::at(dir)?;
    let debs = Kind::Deb.dir();
    fs::remove_dir(dir.join(debs))
        .and_then(|()| symlink(plan.cache.root().join(debs), dir.join(debs)))
        .with_context(|| format!("cannot share packages with {}", dir.display()))?;
    let begun = Instant::now();
    let base = image::base_plan("bench", definition.clone(), &plan.lock)?;
    let workshop = Workshop::open(&plan.lab, &plan.lock, &cache, true, bench.progress)?;
    image::build_base(&base, &image::Ctx { cache: &cache, fetcher: workshop.fetcher(), vm, progress: bench.progress })?;
    let took = begun.elapsed().as_secs_f64();
    // Entries of a cache are read-only.
    artifacts::remove_tree(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    Ok(took)
}
