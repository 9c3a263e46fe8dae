//! Compiles a series step by step: every prefix of it has to be a kernel that builds, without new warnings.
//!
//! Each step is an ordinary incremental build in the lab's own objects. What W=1 says about the touched directories is
//! compared with what it says without the series, in objects of their own (W=1 changes every command).
//! Sparse is left out: the distribution's (0.6.4) does not know `__typeof_unqual__`, so the kernel refuses to use it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use artifacts::{Source, remove_tree};
use progress::Progress;
use toolroot::Toolroot;

use crate::build::Ctx;
use crate::compile::{configure, object_dir};
use crate::lay::lay;
use crate::make::Make;
use crate::plan::{KernelPlan, KernelRequest, Kind, Origin, plan};
use crate::series::Series;

/// Builds every prefix of `series` on `source` with the configuration of `request`.
pub fn build(
    series: &Series,
    source: &Source,
    request: &KernelRequest,
    project: &Path,
    ctx: &Ctx,
    toolroot: &Toolroot,
) -> Result<Vec<String>> {
    let whole = KernelRequest {
        name: format!("check-{series}"),
        origin: Origin::Source(source.name.clone()),
        series: vec![series.name.clone()],
        ..request.clone()
    };
    let whole = plan(&whole, project, ctx.lock)?;
    let dirs = directories(series);
    let mut findings = Vec::new();
    let mut before: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for count in 0..=series.patches.len() {
        ctx.progress.check_cancelled()?;
        let mut step = whole.clone();
        step.series = vec![Series { patches: series.patches[..count].to_vec(), ..series.clone() }];
        let title = match count.checked_sub(1) {
            None => format!("{} without {series}", source.name),
            Some(last) => format!("{}: {}", source.name, series.patches[last].file),
        };
        match one(&step, count, &title, &dirs, ctx, toolroot) {
            Ok(said) if count == 0 => before = said,
            Ok(said) => {
                for (dir, lines) in said {
                    let known = before.get(&dir);
                    for line in lines.iter().filter(|line| !known.is_some_and(|known| known.contains(*line))) {
                        findings.push(format!("{title}: new with W=1: {line}"));
                    }
                }
            }
            Err(error) => {
                findings.push(format!("{title}: {error:#}"));
                break;
            }
        }
    }
    Ok(findings)
}

/// Builds one step whole, then its directories with all warnings on; returns those by directory.
fn one(
    step: &KernelPlan,
    count: usize,
    title: &str,
    dirs: &BTreeSet<String>,
    ctx: &Ctx,
    toolroot: &Toolroot,
) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let Kind::Source { build, .. } = &step.kind else { anyhow::bail!("a series is checked on a source of the lock") };
    let laid = lay(step, ctx, toolroot)?;
    let names: Vec<&str> = build.fragments.iter().map(|f| f.name.trim_end_matches(".config")).collect();
    let source = laid.tree.source();
    let objects = laid.tree.dir(&format!("obj/{}", object_dir(&names)))?;
    let make = |objects, progress| Make { toolroot, source: &source, objects, version: "check", progress };
    let plain = make(objects.as_path(), ctx.progress);
    configure(step, build, &laid, &plain)?;
    plain.run(&format!("check:{count}:compile"), &format!("compile {title}"), &["bzImage", "modules"])?;

    let strict_objects = laid.tree.dir(&format!("obj/{}+checks", object_dir(&names)))?;
    let quiet = Progress::new(ctx.progress.cancel().clone(), |_| {});
    let strict = make(strict_objects.as_path(), &quiet);
    configure(step, build, &laid, &strict)?;
    let mut said = BTreeMap::new();
    for dir in dirs {
        let made = strict_objects.join(dir);
        // Only files that are compiled are warned about.
        remove_tree(&made).with_context(|| format!("remove {}", made.display()))?;
        let log = strict.run("check:warnings", &format!("W=1 {dir}"), &["W=1", &format!("{dir}/")])?;
        let text = std::fs::read(&log).with_context(|| format!("read {}", log.display()))?;
        said.insert(dir.clone(), warnings(&String::from_utf8_lossy(&text), dir));
    }
    Ok(said)
}

/// Directories of the kernel proper that the series touches.
fn directories(series: &Series) -> BTreeSet<String> {
    let compiled = |path: &&str| path.ends_with(".c") && !path.starts_with("tools/") && !path.starts_with("samples/");
    series
        .touches()
        .into_iter()
        .filter(compiled)
        .filter_map(|p| p.rsplit_once('/'))
        .map(|(dir, _)| dir.into())
        .collect()
}

/// Warnings and errors about files in `dir`, without line numbers, which any patch moves.
fn warnings(log: &str, dir: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in log.lines().filter(|line| line.contains("warning:") || line.contains("error:")) {
        let line = line.trim_start_matches("../").trim_start_matches("/build/linux/");
        if line.starts_with(dir) {
            let mut parts = line.split(':');
            let file = parts.next().unwrap_or_default();
            let rest: Vec<&str> = parts.skip_while(|part| part.trim().parse::<u32>().is_ok()).collect();
            found.insert(format!("{file}:{}", rest.join(":")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_compared_without_their_lines() {
        let log = "  CC [M]  drivers/x/a.o\n/build/linux/drivers/x/a.c:12:3: warning: unused variable 'y'\n\
                   ../drivers/x/a.c:90:7: error: undefined identifier\ninclude/linux/b.h:1:1: warning: elsewhere\n";
        let found: Vec<String> = warnings(log, "drivers/x").into_iter().collect();
        assert_eq!(
            found,
            ["drivers/x/a.c: error: undefined identifier", "drivers/x/a.c: warning: unused variable 'y'"]
        );
    }
}
