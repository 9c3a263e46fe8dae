//! Holds series against what maintainers ask for, before anything is sent.
//!
//! In: series, and (to compile each step) a kernel of `lab.toml`. Out: a [`CheckReport`]: `checkpatch --strict` on every
//! patch, that new files have a maintainer, that there is a selftest, that every step applies on every kernel the series
//! is kept for and is recognised by its sign, and with `build` that every step compiles, without a new warning
//! of W=1. Findings are results, not errors: all of them are wanted at once.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use artifacts::Source;
use toolroot::Toolroot;

use super::diffstat::diffstat;
use super::findings::{CheckReport, KernelReport, PatchReport, SeriesReport};
use super::steps;
use crate::apply::{apply, is_present};
use crate::build::Ctx;
use crate::lay;
use crate::plan::KernelRequest;
use crate::series::{Patch, Series, names};
use crate::worktree::{Change, WorkTree};

/// What to check.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Series; all of the project if empty.
    pub series: Vec<String>,
    /// Compile each step with the configuration of this kernel.
    pub build: Option<KernelRequest>,
}

/// Findings of checkpatch that a tree without its history cannot decide: whether a commit exists. The other, whether a
/// new file needs an entry in MAINTAINERS, is decided here instead, by asking who maintains it.
const IGNORED: &str = "UNKNOWN_COMMIT_ID,FILE_PATH_CHANGES";

/// Checks series.
pub fn check(options: &CheckOptions, project: &Path, ctx: &Ctx) -> Result<CheckReport> {
    let patches = project.join("kernel-patches");
    let wanted = if options.series.is_empty() { names(&patches) } else { options.series.clone() };
    let toolroot = (ctx.build_root)()?;
    let mut report = CheckReport { series: Vec::new() };
    for name in wanted {
        let series = Series::load(&patches, &name)?;
        report.series.push(check_series(&series, options, project, ctx, &toolroot)?);
    }
    Ok(report)
}

fn check_series(
    series: &Series,
    options: &CheckOptions,
    project: &Path,
    ctx: &Ctx,
    toolroot: &Toolroot,
) -> Result<SeriesReport> {
    let mut report =
        SeriesReport { name: series.name.clone(), findings: Vec::new(), patches: Vec::new(), kernels: Vec::new() };
    if !series.touches().iter().any(|path| path.starts_with("tools/testing/selftests/")) {
        report.findings.push("no patch touches tools/testing/selftests: the series has no test".into());
    }
    let fitting: Vec<&Source> =
        ctx.lock.sources.iter().filter(|s| s.name.starts_with("linux-") && series.is_for(&s.version)).collect();
    for kernel in series.kernels.iter().filter(|k| !fitting.iter().any(|s| is_of(s, k))) {
        report.findings.push(format!("lab.lock has no source of Linux {kernel} to try the series on"));
    }
    for (n, source) in fitting.iter().enumerate() {
        let tree = lay::open(source, |_| true, &source.name, ctx)?;
        if n == 0 {
            let step = ctx.progress.step(format!("check:{series}:checkpatch"), format!("checkpatch {series}"));
            for patch in &series.patches {
                report.patches.push(checkpatch(patch, &tree, toolroot)?);
            }
            step.done();
        }
        let mut findings = apply_steps(series, &tree, toolroot)?;
        let base = tree.base().to_string();
        drop(tree);
        let mut built = false;
        if let Some(request) = options.build.as_ref().filter(|_| findings.is_empty()) {
            findings = steps::build(series, source, request, project, ctx, toolroot)?;
            built = true;
        }
        report.kernels.push(KernelReport { source: source.name.clone(), base, findings, built });
    }
    Ok(report)
}

fn is_of(source: &Source, kernel: &str) -> bool {
    source.version == kernel || source.version.starts_with(&format!("{kernel}."))
}

/// `checkpatch --strict`, and who maintains the new files.
fn checkpatch(patch: &Patch, tree: &WorkTree, toolroot: &Toolroot) -> Result<PatchReport> {
    let inside = format!("/build/{}", patch.file);
    let sandbox = |script: &str| {
        toolroot
            .sandbox("perl")
            .arg(script)
            .bind_ro(tree.source(), "/build/linux")
            .bind_ro(&patch.path, &inside)
            .cwd("/build/linux")
    };
    let output = sandbox("scripts/checkpatch.pl")
        .args(["--strict", "--terse", "--show-types", "--no-summary", "--ignore", IGNORED, &inside])
        .output()
        .context("run checkpatch.pl")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut findings: Vec<String> =
        said.lines().filter(|line| !line.is_empty()).map(|line| line.replace(&format!("{inside}:"), "line ")).collect();
    if !output.status.success() && findings.is_empty() {
        findings.push(format!("checkpatch failed: {}", String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    for path in &patch.touches {
        if tree.base_file(path)?.is_some() {
            continue;
        }
        // Asked for a file by its name, the script insists that it is there; a patch may be about one that is not.
        let asked = tree.dir("scratch")?.join("new-file.patch");
        fs::write(&asked, format!("diff --git a/{path} b/{path}\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+\n"))
            .with_context(|| format!("write {}", asked.display()))?;
        let output = sandbox("scripts/get_maintainer.pl")
            .bind_ro(&asked, "/build/new-file.patch")
            .args(["--nogit", "--nogit-fallback", "--no-rolestats", "--no-tree", "/build/new-file.patch"])
            .output()
            .context("run get_maintainer.pl")?;
        let who = String::from_utf8_lossy(&output.stdout);
        if !who.lines().any(|line| !line.trim().is_empty() && !line.contains("linux-kernel@vger.kernel.org")) {
            findings.push(format!("{path} is new and nobody maintains it; give it an entry in MAINTAINERS"));
        }
    }
    let text = std::fs::read_to_string(&patch.path).with_context(|| format!("read {}", patch.path.display()))?;
    let files = diffstat(&text);
    Ok(PatchReport { file: patch.file.clone(), subject: patch.subject.clone(), files, checkpatch: findings })
}

/// Applies the series patch by patch, and looks for each patch's sign before and after.
fn apply_steps(series: &Series, tree: &WorkTree, toolroot: &Toolroot) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let base = |path: &str| tree.base_file(path);
    let scratch = tree.dir("scratch")?;
    for (n, patch) in series.patches.iter().enumerate() {
        if is_present(patch, &base)? {
            findings
                .push(format!("{}: this kernel shows its sign already; is it there, or is the sign poor?", patch.file));
            continue;
        }
        let part = Series { patches: series.patches[..=n].to_vec(), ..series.clone() };
        match apply(&[part], &base, &scratch, toolroot) {
            Ok(applied) => {
                let after = |path: &str| match applied.overlay.get(path) {
                    Some(Change::Gone) => Ok(None),
                    Some(change) => Ok(Some(change.clone())),
                    None => tree.base_file(path),
                };
                if !is_present(patch, &after)? {
                    let sign = &patch.present;
                    findings
                        .push(format!("{}: after it {} does not contain `{}`", patch.file, sign.file, sign.contains));
                }
            }
            Err(error) => {
                findings.push(format!("{error:#}"));
                break;
            }
        }
    }
    Ok(findings)
}
