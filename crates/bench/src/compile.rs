//! What a kernel costs to compile: the lab's lean configuration beside `vng --kconfig`'s, of the same tree, with the
//! same compilers, from clean object directories. CPU time, so that a busy machine matters little.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail};
use artifacts::{Cache, Kind};
use kernel::{KernelPlan, Origin};
use lab::workshop::Workshop;
use toolroot::Sandbox;

use crate::cpu::children;
use crate::ratio::{Bound, Ratio};
use crate::samples::Samples;
use crate::virtme::Virtme;
use crate::{Bench, Outcome};

/// Ours over theirs.
const BOUND: f64 = 0.6;
/// Where the peer's things are inside the sandbox.
const SOURCE: &str = "/build/linux";
const SITE: &str = "/build/site";

/// Runs the benchmark. Once: it takes the better part of an hour on two processors.
pub(crate) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let virtme = match Virtme::find() {
        Ok(virtme) => virtme,
        Err(missing) => return Ok(Outcome::Skipped(missing)),
    };
    let site = virtme.site()?;
    let plan = bench.plan;
    let scratch = bench.scratch()?;
    let dir = scratch.path("cache");
    let cache = sharing(&plan.cache, &dir)?;
    let workshop = Workshop::open(&plan.lab, &plan.lock, &cache, plan.options.offline, bench.progress)?;
    let tools = workshop.root("build")?;
    let kernel = without_selftests(bench)?;

    let before = children()?;
    let built = workshop.with_kernel_ctx(|ctx| kernel::build(&kernel, ctx))?;
    let ours = children()? - before;

    // The tree just laid, with the series in it; the build kept its objects elsewhere, so it is clean.
    let tree = laid(&dir)?;
    let virtme_config =
        |sandbox: Sandbox| sandbox.bind_rw(&tree, SOURCE).bind_ro(&site, SITE).cwd(SOURCE).progress(bench.progress);
    let step = bench.progress.step("bench:kernel:peer", "compile the same tree as vng --kconfig configures it");
    let before = children()?;
    let configure = "import sys; from virtme.commands import configkernel; sys.exit(configkernel.main())";
    virtme_config(tools.sandbox("python3"))
        .args(["-c", configure, "--defconfig"])
        .env("PYTHONPATH", SITE)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .run_logged(&step, &scratch.path("configure.log"))?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    virtme_config(tools.sandbox("make"))
        .arg(format!("-j{jobs}"))
        .args(["bzImage", "modules"])
        .run_logged(&step, &scratch.path("make.log"))?;
    let peer = children()? - before;
    step.done();

    let options = |config: &Path| -> Result<usize> {
        let text = fs::read_to_string(config).with_context(|| format!("cannot read {}", config.display()))?;
        Ok(text.lines().filter(|line| line.ends_with("=y") || line.ends_with("=m")).count())
    };
    let notes = vec![
        format!(
            "options on: ours {}, theirs {}; selftests left out",
            options(&built.artifacts.config)?,
            options(&tree.join(".config"))?
        ),
        "CPU time of everything started, from configuring to modules; ours also installs them and runs depmod".into(),
    ];
    drop(built);
    artifacts::remove_tree(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    Ok(Outcome::Measured(vec![Ratio {
        name: "kernel".into(),
        what: format!("compiling {}", kernel.summary()),
        unit: "CPU s",
        ours_is: format!("the configuration of kernel `{}`", kernel.name),
        ours: Samples(vec![ours]),
        peer_is: format!("virtme-configkernel --defconfig of {}", virtme.version),
        peer: Samples(vec![peer]),
        bound: Bound::Ratio(BOUND),
        notes: notes.into_iter().chain(virtme.remark()).collect(),
    }]))
}

/// A new cache in `dir` that has the downloads and package roots of `cache`, and no kernel.
fn sharing(cache: &Cache, dir: &Path) -> Result<Cache> {
    let new = Cache::at(dir)?;
    for kind in [Kind::Deb, Kind::Src, Kind::Root] {
        let place = dir.join(kind.dir());
        fs::remove_dir(&place)
            .and_then(|()| symlink(cache.root().join(kind.dir()), &place))
            .with_context(|| format!("cannot share {kind} with {}", dir.display()))?;
    }
    Ok(new)
}

/// The kernel of the lab's first guest, without its selftests.
fn without_selftests(bench: &Bench<'_>) -> Result<KernelPlan> {
    let (lab, lock) = (&bench.plan.lab, &bench.plan.lock);
    let mut request = lab::plan::kernel_request(lab, &lab.guests[0].kernel, None)?;
    if !matches!(request.origin, Origin::Source(_)) {
        bail!("kernel `{}` is not built from source; name another with --kernel", request.name);
    }
    request.selftests = Vec::new();
    Ok(kernel::plan(&request, &lab.root, lock)?)
}

/// The one kernel tree in a cache.
fn laid(cache: &Path) -> Result<std::path::PathBuf> {
    let work = cache.join("work");
    let entries = fs::read_dir(&work).with_context(|| format!("cannot read {}", work.display()))?;
    let trees: Vec<_> = entries.flatten().map(|entry| entry.path().join("linux")).filter(|dir| dir.is_dir()).collect();
    match &trees[..] {
        [tree] => Ok(tree.clone()),
        others => bail!("expected one kernel tree in {}, found {}", work.display(), others.len()),
    }
}
