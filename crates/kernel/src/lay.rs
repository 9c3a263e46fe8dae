//! Brings a plan's source onto the disk: base, the user's changes, and the series on top.
//!
//! In: a plan. Out: a locked [`WorkTree`] whose files are exactly what is to be compiled, and the names of what it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use artifacts::{Alternative, Source, sha256_bytes};
use toolroot::Toolroot;

use crate::apply::{Applied, apply};
use crate::build::Ctx;
use crate::plan::{KernelPlan, Kind};
use crate::source;
use crate::tree::{Content, Stamp, UserTree};
use crate::worktree::{Change, WorkTree, read, tree_id};

/// A tree ready to be compiled.
#[derive(Debug)]
pub struct Laid {
    /// The tree; other builds of the same base wait until it is dropped.
    pub tree: WorkTree,
    /// Names its exact content.
    pub id: String,
    /// Which series were applied.
    pub applied: Applied,
    /// The form of the source that was used.
    pub source_used: String,
    /// Every path that differs from the base with a digest, or (a user's own tree) every path with its stamp.
    pub differs: BTreeMap<String, String>,
}

/// Lays the source of `plan`, which is one that is compiled whole.
pub fn lay(plan: &KernelPlan, ctx: &Ctx, toolroot: &Toolroot) -> Result<Laid> {
    match &plan.kind {
        Kind::Source { source, .. } => {
            let tree = open(source, |_| true, &plan.name, ctx)?;
            finish(tree, Content::Files(BTreeMap::new()), None, plan, toolroot)
        }
        Kind::Tree { tree: user, .. } => match &user.content {
            Content::Derived(descent, _) => {
                let source = ctx.lock.source(&descent.source)?;
                let tree =
                    open(source, |a| identity(source, a) == descent.base, &plan.name, ctx).with_context(|| {
                        format!(
                            "{} was made from {}; make it anew with `cargo xtask kernel tree`",
                            user.dir.display(),
                            descent.base
                        )
                    })?;
                finish(tree, user.content.clone(), Some(user), plan, toolroot)
            }
            Content::Files(files) => {
                let tree = follow(user, files, plan, ctx)?;
                finish(tree, user.content.clone(), Some(user), plan, toolroot)
            }
        },
        Kind::Package { .. } | Kind::Rebuild { .. } => anyhow::bail!("kernel `{}` is not compiled whole", plan.name),
    }
}

fn finish(
    mut tree: WorkTree,
    content: Content,
    user: Option<&UserTree>,
    plan: &KernelPlan,
    root: &Toolroot,
) -> Result<Laid> {
    let mut series = plan.series.clone();
    let mut present = Vec::new();
    let (below, stamps) = match content {
        Content::Derived(descent, overlay) => {
            // Its commits are what is worked on: they need not look like the saved patches any more.
            present.extend(series.extract_if(.., |s| descent.has(&s.name)).map(|s| s.name));
            (overlay, BTreeMap::new())
        }
        Content::Files(files) => (BTreeMap::new(), files),
    };
    let lookup = |path: &str| match below.get(path) {
        Some(Change::Gone) => Ok(None),
        Some(change) => Ok(Some(change.clone())),
        None => tree.base_file(path),
    };
    let mut applied = apply(&series, &lookup, &tree.dir("scratch")?, root)?;
    applied.present.splice(0..0, present);
    let mut overlay = below;
    overlay.extend(applied.overlay.clone());
    tree.lay(&overlay)?;
    let base = match user {
        // Names and times tell such a tree's states apart on this host; they are all there is.
        Some(user) if !stamps.is_empty() => user.digest.clone(),
        _ => tree.base().to_string(),
    };
    let mut differs: BTreeMap<String, String> =
        stamps.into_iter().map(|(path, stamp)| (path, format!("{stamp:?}"))).collect();
    for (path, change) in &overlay {
        differs.insert(path.clone(), tree_id("", &[(path.clone(), change.clone())].into()));
    }
    let source_used = match user {
        Some(user) => {
            let commit = user.commit.as_ref().map_or(String::new(), |commit| format!(" at {commit}"));
            format!("{}{commit}", user.dir.display())
        }
        None => tree.base().to_string(),
    };
    Ok(Laid { id: tree_id(&base, &overlay), tree, applied, source_used, differs })
}

/// What an unpacked alternative of a source is called.
pub fn identity(source: &Source, alternative: &Alternative) -> String {
    format!("{} {} sha256:{}", source.name, alternative.name, alternative.sha256)
}

/// Opens the work tree of a source, for the kernel `who`; whichever accepted alternative is there already serves.
pub fn open(source: &Source, accepts: impl Fn(&Alternative) -> bool, who: &str, ctx: &Ctx) -> Result<WorkTree> {
    let mut wanted = source.clone();
    wanted.alternatives.retain(&accepts);
    anyhow::ensure!(!wanted.alternatives.is_empty(), "lab.lock no longer has that form of {}", source.name);
    let fits = |base: &str| wanted.alternatives.iter().any(|a| identity(source, a) == base);
    WorkTree::open(ctx.cache.work(&format!("kernel-{}", source.name))?, fits, |dir| {
        let fetched = ctx.fetcher.source(&wanted)?;
        let step = ctx.progress.step(format!("kernel:{who}:source"), format!("unpack {}", source.name));
        source::unpack(&fetched, dir, &step, |_| true)?;
        step.done();
        Ok(identity(source, &fetched.alternative))
    })
}

/// Opens the work tree that follows a user's own tree, and takes over what changed there.
fn follow(user: &UserTree, files: &BTreeMap<String, Stamp>, plan: &KernelPlan, ctx: &Ctx) -> Result<WorkTree> {
    let name = format!("kernel-tree-{}", sha256_bytes(user.dir.as_os_str().as_encoded_bytes()).short());
    let base = format!("tree {}", user.dir.display());
    let work = ctx.cache.work(&name)?;
    let known_file = work.path().join("followed.json");
    let mut tree = WorkTree::open(
        work,
        |found| found == base,
        |_| {
            // A new work tree follows nothing yet, whatever an old one did.
            let _ = fs::remove_file(&known_file);
            Ok(base.clone())
        },
    )?;
    let known: BTreeMap<String, Stamp> = match fs::read(&known_file) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("parse {}", known_file.display()))?,
        Err(_) => BTreeMap::new(),
    };
    let changed: Vec<&String> =
        files.iter().filter(|(path, stamp)| known.get(*path) != Some(stamp)).map(|(p, _)| p).collect();
    let gone: Vec<&String> = known.keys().filter(|path| !files.contains_key(*path)).collect();
    if changed.is_empty() && gone.is_empty() {
        return Ok(tree);
    }
    let step = ctx.progress.step(format!("kernel:{}:source", plan.name), format!("take over {}", user.dir.display()));
    step.total((changed.len() + gone.len()) as u64, progress::Unit::Items);
    for path in gone {
        tree.set_base(path, &Change::Gone)?;
        step.inc(1);
    }
    for path in changed {
        ctx.progress.check_cancelled()?;
        let change = read(&user.dir.join(path))?.unwrap_or(Change::Gone);
        tree.set_base(path, &change)?;
        step.inc(1);
    }
    save(&known_file, files)?;
    step.done();
    Ok(tree)
}

fn save(path: &Path, files: &BTreeMap<String, Stamp>) -> Result<()> {
    let fresh = path.with_extension("unfinished");
    let text = serde_json::to_vec(files).context("describe the followed tree")?;
    fs::write(&fresh, text).with_context(|| format!("write {}", fresh.display()))?;
    fs::rename(&fresh, path).with_context(|| format!("rename {}", fresh.display()))
}
