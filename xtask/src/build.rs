//! Commands around what a lab is made of: image, lock, cache, schema.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use artifacts::{Cache, Lock};
use lab::plan::Plan;
use progress::Progress;

use crate::flags::{Cache as CacheCommand, Image, LockArgs};
use crate::{lab as lab_command, state, tables};

/// Builds the images of a lab, or shows what is in them.
pub fn image(command: Image, progress: &Progress) -> Result<ExitCode> {
    match command {
        Image::Build { lab } => {
            let plan = Plan::make(state::load(&lab)?, lab_command::options(&lab, false), progress)?;
            for (what, image) in lab::prepare::images(&plan, progress)? {
                println!("{}  {what}  {}", image.sha256, image.path.display());
            }
        }
        Image::Inspect { lab, files, json } => {
            let plan = Plan::make(state::load(&lab)?, lab_command::options(&lab, false), progress)?;
            for (what, built) in lab::prepare::images(&plan, progress)? {
                let manifest = built.manifest()?;
                if json {
                    println!("{}", serde_json::to_string_pretty(&manifest)?);
                } else {
                    print!("{}", tables::manifest(&what, &built, &manifest, files.as_deref()));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the lock, or resolves it anew.
pub fn lock(args: &LockArgs, progress: &Progress) -> Result<ExitCode> {
    let project = state::project()?;
    let path = project.join("lab.lock");
    if args.update {
        let summary = lab::lock::update(&project, progress)?;
        print!("{summary}");
        return Ok(ExitCode::SUCCESS);
    }
    let lock = Lock::load(&path)?;
    println!("{}: {} packages, {} sources", path.display(), lock.debs.len(), lock.sources.len());
    for root in &lock.roots {
        let debs = lock.root(&root.name)?.debs;
        let bytes: u64 = debs.iter().map(|d| d.size).sum();
        println!("  root {:8} {:4} packages, {:5.0} MB to download", root.name, debs.len(), bytes as f64 / 1e6);
    }
    println!("  hash {}", lock.hash());
    Ok(ExitCode::SUCCESS)
}

/// Looks after the cache.
pub fn cache(command: &CacheCommand) -> Result<ExitCode> {
    let cache = Cache::open()?;
    match command {
        CacheCommand::Prune { days, dry_run } => {
            let report = cache.prune(Duration::from_secs(days * 86_400), *dry_run)?;
            print!("{}", tables::pruned(&report, *dry_run));
        }
        CacheCommand::Info => println!("{}", cache.root().display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints or writes the schema of `lab.toml`.
pub fn schema(write: bool) -> Result<ExitCode> {
    let text = lab::config::json_schema();
    if write {
        std::fs::write(state::project()?.join("docs/lab.schema.json"), text)?;
    } else {
        print!("{text}");
    }
    Ok(ExitCode::SUCCESS)
}
