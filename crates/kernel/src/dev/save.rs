//! Writes the commits of a tree back as the patches of its series.
//!
//! In: a tree made by `kernel tree`. Out: `kernel-patches/<series>/NNNN-*.patch` and `series.toml`. Nothing that git or
//! the day could vary gets into the files, so saving twice changes nothing; signs of presence that a person wrote stay
//! with their patch as long as its subject does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use toolroot::Toolroot;

use super::present::sign;
use crate::git::Git;
use crate::series::{Present, SERIES_FILE, Series, subject};
use crate::tree::{Descent, descent};

/// What saving did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// The series.
    pub series: String,
    /// Where it is.
    pub dir: PathBuf,
    /// Files that are new or have other content now.
    pub written: Vec<String>,
    /// Files that are gone.
    pub removed: Vec<String>,
    /// Changes in the tree that no commit has, and which are therefore not saved.
    pub uncommitted: Vec<String>,
}

/// Saves the tree in `dir` into the project.
pub fn save(dir: &Path, project: &Path, toolroot: &Toolroot) -> Result<Saved> {
    let (Some(git), Some(origin)) = (Git::find(dir)?, descent(dir)?) else {
        bail!("{} is no tree that `kernel tree` made", dir.display())
    };
    let merges = git.read(toolroot, &["rev-list", "--merges", &format!("{}..HEAD", origin.onto)])?;
    if !merges.is_empty() {
        bail!("{} has merge commits on top of the series' base; a series is a straight line: rebase", dir.display());
    }
    if git.read(toolroot, &["merge-base", "--is-ancestor", &origin.onto, "HEAD"]).is_err() {
        bail!(
            "{} is no longer on top of {}, which its series goes onto; rebase onto devmem-lab/onto",
            dir.display(),
            &origin.onto[..12]
        );
    }
    let patches = format(&git, &origin, toolroot)?;
    if patches.is_empty() {
        bail!("{} has no commits on top of devmem-lab/onto; there is nothing to save", dir.display());
    }
    let target = project.join("kernel-patches").join(&origin.series);
    let mut saved = Saved { series: origin.series.clone(), dir: target.clone(), ..Saved::default() };
    saved.uncommitted = git
        .read(toolroot, &["status", "--porcelain", "--untracked-files=normal"])?
        .lines()
        .map(|line| line.get(3..).unwrap_or(line).to_string())
        .collect();
    let description = describe(&git, &origin, &target, &patches, project, toolroot)?;
    fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
    for (name, text) in patches.iter().chain([(&SERIES_FILE.to_string(), &description)]) {
        let path = target.join(name);
        if fs::read_to_string(&path).is_ok_and(|old| old == *text) {
            continue;
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        saved.written.push(name.clone());
    }
    for entry in fs::read_dir(&target).with_context(|| format!("list {}", target.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".patch") && !patches.contains_key(&name) {
            fs::remove_file(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
            saved.removed.push(name);
        }
    }
    saved.removed.sort();
    // What was written has to be a series again, signatures included.
    Series::load(&project.join("kernel-patches"), &origin.series)?;
    Ok(saved)
}

/// The commits as patches, by file name.
fn format(git: &Git, origin: &Descent, toolroot: &Toolroot) -> Result<BTreeMap<String, String>> {
    let out = tempfile::tempdir().context("make a directory for the patches")?;
    let range = format!("{}..HEAD", origin.onto);
    let args = ["format-patch", "-q", "--no-numbered", "--zero-commit", "--no-signature", "--no-base", "--abbrev=12"];
    let args: Vec<&str> =
        args.into_iter().chain(["--no-renames", "--diff-algorithm=myers", "-o", "/build/out", &range]).collect();
    let output =
        git.reading(toolroot, &args).bind_rw(out.path(), "/build/out").output().context("run git format-patch")?;
    if !output.status.success() {
        bail!("git format-patch: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let mut patches = BTreeMap::new();
    for entry in fs::read_dir(out.path()).context("list the patches")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path()).with_context(|| format!("read {name}"))?;
        patches.insert(name, text);
    }
    Ok(patches)
}

/// The text of `series.toml`: its head as it was, one entry a patch.
fn describe(
    git: &Git,
    origin: &Descent,
    target: &Path,
    patches: &BTreeMap<String, String>,
    project: &Path,
    toolroot: &Toolroot,
) -> Result<String> {
    let old_text = fs::read_to_string(target.join(SERIES_FILE)).ok();
    let mut known: BTreeMap<String, Present> = BTreeMap::new();
    let quote = |text: &str| toml::Value::String(text.into()).to_string();
    let purpose = patches.values().next().and_then(|text| subject(text)).unwrap_or_default();
    let mut head = format!(
        "# SPDX-License-Identifier: GPL-2.0-only\npurpose = {}\n\nkernels = [{}]\n\n",
        quote(&purpose),
        quote(&minor(&origin.source))
    );
    if let Some(text) = &old_text {
        let series = Series::load(&project.join("kernel-patches"), &origin.series)?;
        known.extend(series.patches.into_iter().map(|p| (p.subject, p.present)));
        head = text.split("[[patch]]").next().unwrap_or_default().to_string();
    }
    let mut text = head;
    let mut unclear = BTreeSet::new();
    for (name, patch) in patches {
        let subject = subject(patch).unwrap_or_default();
        let before = |file: &str| git.read(toolroot, &["show", &format!("{}:{file}", origin.onto)]).ok();
        let Some(present) = known.get(&subject).cloned().or_else(|| sign(patch, before)) else {
            unclear.insert(name.clone());
            continue;
        };
        text.push_str(&format!(
            "[[patch]]\nfile = {}\npresent = {{ file = {}, contains = {} }}\n\n",
            quote(name),
            quote(&present.file),
            quote(&present.contains)
        ));
    }
    if !unclear.is_empty() {
        let names: Vec<String> = unclear.into_iter().collect();
        bail!(
            "no line of {} tells that a tree has it; add a [[patch]] with `present` to {SERIES_FILE} by hand",
            names.join(", ")
        );
    }
    Ok(format!("{}\n", text.trim_end()))
}

/// `7.3` of `linux-7.3.4`.
fn minor(source: &str) -> String {
    let version = source.rsplit('-').next().unwrap_or(source);
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}
