//! The quick kernel: the distribution's, with only the modules rebuilt that a series touches.
//!
//! In: the packages, their headers, and of the source just the directories in question. Out: a kernel of the same
//! layout in which those modules are ours. A series that changes built-in code is refused by name: it needs a kernel
//! compiled whole.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use artifacts::{Deb, FetchedSource};
use toolroot::Toolroot;

use crate::apply::{Applied, apply};
use crate::artifacts::KernelArtifacts;
use crate::build::Ctx;
use crate::config::values;
use crate::install::{copy, copy_tree, depmod};
use crate::kbuild::{Affected, affected};
use crate::lay::identity;
use crate::make::{INSTALL, jobs};
use crate::plan::{KernelPlan, Kind};
use crate::worktree::{put, read, tree_id};
use crate::{package, source};

/// Selftests that need no compiler: the scripts of the driver whose modules are rebuilt.
const SCRIPTS: &str = "rdma";

/// Builds the kernel of `plan` into `out`.
pub fn rebuild(plan: &KernelPlan, ctx: &Ctx, toolroot: &Toolroot, out: &Path) -> Result<KernelArtifacts> {
    let Kind::Rebuild { release, packages, headers, source, .. } = &plan.kind else {
        bail!("kernel `{}` is not one with rebuilt modules", plan.name)
    };
    let scratch = tempfile::Builder::new().prefix(".rebuild-").tempdir_in(out).context("make a scratch directory")?;
    let tree = scratch.path().join("linux");
    // Unpacking is most of the work and done by one thread each: both at once.
    let (artifacts, fetched) = std::thread::scope(|scope| {
        let source = scope.spawn(|| -> Result<FetchedSource> {
            let fetched = ctx.fetcher.source(source)?;
            extract(plan, &fetched, &tree, ctx)?;
            Ok(fetched)
        });
        let artifacts = package::unpack(plan, release, packages, ctx, toolroot, out);
        let fetched = source.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (artifacts, fetched)
    });
    let (mut artifacts, fetched) = (artifacts?, fetched?);
    let applied = patch(plan, &tree, scratch.path(), toolroot)?;
    let affected = sort_out(plan, &applied, &tree, &out.join("config"))?;
    modules(plan, &affected, release, headers, &tree, scratch.path(), ctx, toolroot, out)?;
    install_scripts(&tree, out, toolroot)?;
    depmod(toolroot, &out.join("modules"), release, None)?;
    artifacts.selftests = Some("selftests".into());
    let base = format!("{} {}", artifacts.tree_id, identity(source, &fetched.alternative));
    artifacts.tree_id = tree_id(&base, &applied.overlay);
    artifacts.source_used =
        format!("{} with modules of {}", artifacts.source_used, identity(source, &fetched.alternative));
    artifacts.series = applied.series;
    artifacts.present = applied.present;
    Ok(artifacts)
}

/// Unpacks the directories the series touch, and what their selftests' installation needs.
fn extract(plan: &KernelPlan, fetched: &FetchedSource, tree: &Path, ctx: &Ctx) -> Result<()> {
    let mut dirs: BTreeSet<String> =
        ["tools/testing/selftests/kselftest/", "tools/testing/selftests/rdma/"].map(String::from).into();
    let mut files: BTreeSet<String> = [
        "Makefile",
        "lib.mk",
        "run_kselftest.sh",
        "kselftest_deps.sh",
        // Every program of the selftests depends on these two, whether or not it includes them.
        "kselftest.h",
        "kselftest_harness.h",
    ]
    .map(|name| format!("tools/testing/selftests/{name}"))
    .into_iter()
    .chain([
        "scripts/subarch.include".to_string(),
        "tools/scripts/Makefile.arch".into(),
        "tools/scripts/Makefile.include".into(),
    ])
    .collect();
    for patch in plan.series.iter().flat_map(|series| &series.patches) {
        files.insert(patch.present.file.clone());
        for path in &patch.touches {
            files.insert(path.clone());
            if let Some((dir, _)) = path.rsplit_once('/')
                && !path.starts_with("include/")
            {
                dirs.insert(format!("{dir}/"));
            }
        }
    }
    let step = ctx
        .progress
        .step(format!("kernel:{}:source", plan.name), format!("unpack parts of {}", fetched.alternative.name));
    source::unpack(fetched, tree, &step, |path| {
        files.contains(path) || dirs.iter().any(|dir| path.starts_with(dir.as_str()))
    })?;
    step.done();
    Ok(())
}

fn patch(plan: &KernelPlan, tree: &Path, scratch: &Path, toolroot: &Toolroot) -> Result<Applied> {
    let applied = apply(&plan.series, &|path| read(&tree.join(path)), scratch, toolroot)?;
    for (path, change) in &applied.overlay {
        put(&tree.join(path), change)?;
    }
    Ok(applied)
}

fn sort_out(plan: &KernelPlan, applied: &Applied, tree: &Path, config: &Path) -> Result<Affected> {
    let config = fs::read_to_string(config).with_context(|| format!("read {}", config.display()))?;
    let values = values(&config);
    let makefile = |dir: &str| {
        let at = tree.join(dir);
        ["Kbuild", "Makefile"].iter().find_map(|name| fs::read_to_string(at.join(name)).ok())
    };
    let option = |name: &str| values.get(name).map(|value| value.to_string());
    affected(applied.overlay.keys().map(String::as_str), makefile, option).with_context(|| {
        let series: Vec<&str> = plan.series.iter().map(|s| s.name.as_str()).collect();
        format!(
            "series {} cannot be had by rebuilding modules; use a kernel that is compiled whole (`source = …` in lab.toml)",
            series.join(", ")
        )
    })
}

/// Builds the affected modules against the packages' headers and puts them in place of the packages' own.
#[allow(clippy::too_many_arguments)]
fn modules(
    plan: &KernelPlan,
    affected: &Affected,
    release: &str,
    headers: &[Deb],
    tree: &Path,
    scratch: &Path,
    ctx: &Ctx,
    toolroot: &Toolroot,
    out: &Path,
) -> Result<()> {
    let root = scratch.join("headers");
    for path in ctx.fetcher.debs(&headers.iter().collect::<Vec<_>>())? {
        package::extract(&path, "usr", &root)?;
    }
    let kbuild = format!("/usr/src/linux-headers-{release}");
    for (dir, names) in &affected.modules {
        let step = ctx.progress.step(format!("kernel:{}:modules", plan.name), format!("rebuild the modules of {dir}"));
        let log = scratch.join("modules.log");
        let mut sandbox = toolroot
            .sandbox("make")
            // Debug information is stripped below anyway; without it the compiler is twice as fast.
            .args(["-C", &kbuild, &format!("M=/build/linux/{dir}"), &format!("-j{}", jobs())])
            // BTF is made from DWARF, and a module without either loads just as well.
            .args(["KCFLAGS=-g0", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"])
            .bind_rw(tree, "/build/linux")
            .cwd("/build/linux")
            .progress(ctx.progress);
        // Their makefiles name each other by absolute paths.
        for below in ["src", "lib"] {
            for entry in fs::read_dir(root.join(below)).with_context(|| format!("list {}", root.display()))?.flatten() {
                let inside = Path::new("/usr").join(below).join(entry.file_name());
                sandbox = sandbox.bind_ro(entry.path(), inside);
            }
        }
        sandbox.run_logged(&step, &log).with_context(|| format!("rebuild the modules of {dir}"))?;
        for name in names {
            replace(&tree.join(dir), dir, name, &out.join("modules/lib/modules").join(release), toolroot)?;
        }
        step.done();
    }
    Ok(())
}

/// Puts the module built in `built` where the packages have theirs.
fn replace(built: &Path, dir: &str, name: &str, modules: &Path, toolroot: &Toolroot) -> Result<()> {
    let module = built.join(format!("{name}.ko"));
    let place = modules.join("kernel").join(dir);
    let old: Vec<_> = ["", ".xz", ".zst", ".gz"]
        .iter()
        .map(|suffix| place.join(format!("{name}.ko{suffix}")))
        .filter(|path| path.exists())
        .collect();
    if old.is_empty() {
        bail!("the packages have no module {dir}/{name}.ko to put ours in the place of");
    }
    for path in old {
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    let output = toolroot
        .sandbox("strip")
        .args(["--strip-debug", &format!("{INSTALL}/{name}.ko")])
        .bind_rw(built, INSTALL)
        .output()
        .context("run strip")?;
    if !output.status.success() {
        bail!("strip {name}.ko: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    copy(&module, &place.join(format!("{name}.ko")))
}

/// Installs the selftest scripts of the patched tree.
fn install_scripts(tree: &Path, out: &Path, toolroot: &Toolroot) -> Result<()> {
    let target = tree.join("installed");
    let output = toolroot
        .sandbox("make")
        .args(["-C", "tools/testing/selftests", &format!("TARGETS={SCRIPTS}"), "FORCE_TARGETS=1", "install"])
        .arg("KSFT_INSTALL_PATH=/build/linux/installed")
        .bind_rw(tree, "/build/linux")
        .cwd("/build/linux")
        .output()
        .context("run make")?;
    if !output.status.success() {
        bail!("install the selftests `{SCRIPTS}`: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    copy_tree(&target, &out.join("selftests"))
}
