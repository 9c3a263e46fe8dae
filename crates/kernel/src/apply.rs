//! From patch series to an overlay.
//!
//! In: the series of a plan and a way to read the tree below them. Out: the files they change, and which of them the
//! tree had already. Only the touched files are copied aside and patched (by `git apply`: exact context, no fuzz);
//! the big tree is not involved, so a patch that does not apply leaves no trace.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use toolroot::Toolroot;

use crate::series::{Patch, Series};
use crate::worktree::{Change, Overlay, put, read};

/// Reads a path of the tree below the series; `None` if there is no such file.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Result<Option<Change>>;

/// What applying series came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The files that differ.
    pub overlay: Overlay,
    /// Series of which at least one patch was applied, in order.
    pub series: Vec<String>,
    /// What was left out because the tree has it: `series`, or `series/patch` when only part of it is there.
    pub present: Vec<String>,
}

/// Applies every patch of every series that `lookup`'s tree does not have yet.
pub fn apply(series: &[Series], lookup: Lookup, scratch: &Path, toolroot: &Toolroot) -> Result<Applied> {
    let dir = tempfile::tempdir_in(scratch).with_context(|| format!("make a directory in {}", scratch.display()))?;
    let mut applied = Applied::default();
    for path in series.iter().flat_map(Series::touches) {
        if let Some(change) = lookup(path)? {
            put(&dir.path().join(path), &change)?;
        }
    }
    for series in series {
        let mut present = Vec::new();
        for patch in &series.patches {
            if is_present(patch, lookup)? {
                present.push(format!("{series}/{}", patch.file));
                continue;
            }
            apply_one(series, patch, dir.path(), toolroot)?;
        }
        if present.len() < series.patches.len() {
            applied.series.push(series.name.clone());
            applied.present.extend(present);
        } else {
            applied.present.push(series.name.clone());
        }
    }
    for path in series.iter().flat_map(Series::touches) {
        let now = read(&dir.path().join(path))?;
        if now != lookup(path)? {
            applied.overlay.insert(path.into(), now.unwrap_or(Change::Gone));
        }
    }
    Ok(applied)
}

/// Whether the tree shows the sign of having this patch.
pub fn is_present(patch: &Patch, lookup: Lookup) -> Result<bool> {
    Ok(match lookup(&patch.present.file)? {
        Some(Change::File { bytes, .. }) => String::from_utf8_lossy(&bytes).contains(&patch.present.contains),
        _ => false,
    })
}

fn apply_one(series: &Series, patch: &Patch, dir: &Path, toolroot: &Toolroot) -> Result<()> {
    let output = toolroot
        .sandbox("git")
        .args(["apply", "--whitespace=nowarn", "/build/one.patch"])
        .bind_rw(dir, "/build/tree")
        .bind_ro(&patch.path, "/build/one.patch")
        .cwd("/build/tree")
        .output()
        .with_context(|| format!("run git to apply {}", patch.path.display()))?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{} of series `{series}` does not apply:\n{}\nport the patch to this tree (`cargo xtask kernel tree`, `save`), \
         or leave the series out",
        patch.file,
        String::from_utf8_lossy(&output.stderr).trim_end()
    )
}
