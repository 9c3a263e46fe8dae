//! `cargo xtask kernel …`: the kernel developer's loop.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use artifacts::{Cache, Lock};
use lab::config::{KernelOrigin, Lab};
use lab::kernel::dev::{CheckOptions, CheckoutRequest};
use lab::kernel::{UserTree, dev};
use lab::plan::{kernel_plan, kernel_request};
use lab::workshop::Workshop;
use progress::Progress;

use crate::flags::Kernel;
use crate::state;

/// Dispatches a `kernel` command.
pub fn run(command: Kernel, progress: &Progress) -> Result<ExitCode> {
    let project = state::project()?;
    let lab = Lab::load(&project.join("lab.toml"), None)?;
    let lock = Lock::load(&project.join("lab.lock"))?;
    let cache = Cache::open()?.with_progress(progress);
    let workshop = Workshop::open(&lab, &lock, &cache, false, progress)?;
    match command {
        Kernel::Tree { kernel, dir } => tree(&lab, &workshop, &kernel, dir),
        Kernel::Build { kernel, kernel_tree } => {
            let tree = match kernel_tree {
                Some(dir) => Some(UserTree::scan(&dir, &workshop.root("build")?)?),
                None => None,
            };
            let plan = kernel_plan(&lab, &kernel, tree.as_ref(), &lock)?;
            let built = workshop.with_kernel_ctx(|ctx| lab::kernel::build(&plan, ctx))?;
            println!("{} {}", built.artifacts.release, built.artifacts.dir.display());
            Ok(ExitCode::SUCCESS)
        }
        Kernel::Save { series, dir } => save(&lab, &workshop, &series, dir),
        Kernel::Check { series, build, report } => {
            let build = if build { Some(kernel_request(&lab, &lab.default_kernel, None)?) } else { None };
            let options = CheckOptions { series: series.into_iter().collect(), build };
            let checked = workshop.with_kernel_ctx(|ctx| dev::check(&options, &project, ctx))?;
            match report {
                true => print!("{}", lab::mail::report(&checked, (&lab, &lock, &cache))?),
                false => print!("{}", checked.to_markdown()),
            }
            Ok(ExitCode::from(u8::from(!checked.is_clean())))
        }
    }
}

/// Where the tree of a kernel is unless the user says otherwise.
fn default_dir(lab: &Lab, kernel: &str) -> PathBuf {
    lab.root.join("target/kernel").join(kernel)
}

fn tree(lab: &Lab, workshop: &Workshop<'_>, kernel: &str, dir: Option<PathBuf>) -> Result<ExitCode> {
    let request = kernel_request(lab, kernel, None)?;
    let Some(KernelOrigin::Source { source, .. }) = lab.kernels.get(kernel).map(|k| &k.origin) else {
        bail!("kernel `{kernel}` is not built from source, so there is no tree to work in");
    };
    let (series, onto) =
        request.series.split_last().with_context(|| format!("kernel `{kernel}` has no series to work on"))?;
    let request = CheckoutRequest {
        source: source.clone(),
        onto: onto.to_vec(),
        series: series.clone(),
        dir: dir.unwrap_or_else(|| default_dir(lab, kernel)),
    };
    let made = workshop.with_kernel_ctx(|ctx| dev::checkout(&request, &lab.root, ctx))?;
    println!("{}{}", made.dir.display(), if made.existed { " (was there, left as it is)" } else { "" });
    for commit in &made.commits {
        println!("  {commit}");
    }
    let shown = relative(&made.dir);
    eprintln!(
        "build it: cargo xtask kernel build {kernel} --kernel-tree {shown}\nsave its commits: cargo xtask kernel save {series} --dir {shown}"
    );
    Ok(ExitCode::SUCCESS)
}

fn relative(dir: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    dir.strip_prefix(&here).unwrap_or(dir).display().to_string()
}

fn save(lab: &Lab, workshop: &Workshop<'_>, series: &str, dir: Option<PathBuf>) -> Result<ExitCode> {
    let dir = dir.unwrap_or_else(|| default_dir(lab, &lab.default_kernel));
    let saved = dev::save(&dir, &lab.root, &workshop.root("build")?)?;
    if saved.series != series {
        bail!("the tree {} holds series `{}`, not `{series}`", dir.display(), saved.series);
    }
    for file in &saved.written {
        println!("wrote {}", saved.dir.join(file).display());
    }
    for file in &saved.removed {
        println!("removed {}", saved.dir.join(file).display());
    }
    if saved.written.is_empty() && saved.removed.is_empty() {
        println!("nothing changed in {}", saved.dir.display());
    }
    for change in &saved.uncommitted {
        eprintln!("warning: not committed, so not saved: {change}");
    }
    Ok(ExitCode::SUCCESS)
}
