//! Makes a git tree to work in: the pristine source as one commit, series as commits on top.
//!
//! In: a source, the series to work on, those it goes on top of, and a directory that does not exist yet. Out: a tree
//! with its own git, in which the person at the keyboard commits, amends and rebases with whatever git they like. It
//! remembers where it came from ([`Descent`]), so its builds share the lab's objects and `save` finds its commits. An
//! existing tree is never touched.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use artifacts::remove_tree;
use progress::Unit;
use toolroot::Toolroot;

use crate::build::Ctx;
use crate::git::Git;
use crate::lay;
use crate::series::Series;
use crate::tree::{DESCENT, Descent, descent};
use crate::worktree::{WorkTree, put};

/// A tree somebody wants to work in.
#[derive(Debug, Clone)]
pub struct CheckoutRequest {
    /// Source of the lock: `linux-7.3.4`.
    pub source: String,
    /// Series that come before, in order; they are not saved.
    pub onto: Vec<String>,
    /// The series to work on; it may still be without patches, or not exist.
    pub series: String,
    /// Where the tree goes.
    pub dir: PathBuf,
}

/// A tree to work in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// Where it is.
    pub dir: PathBuf,
    /// Whether it was there already, and was left as it is.
    pub existed: bool,
    /// Its commits on top of the pristine source, oldest first: abbreviated hash and subject.
    pub commits: Vec<String>,
}

/// Who the pristine source is committed by, and when: the same hash for everybody.
const COMMITTER: [(&str, &str); 6] = [
    ("GIT_AUTHOR_NAME", "devmem-lab"),
    ("GIT_AUTHOR_EMAIL", "devmem-lab@localhost"),
    ("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z"),
    ("GIT_COMMITTER_NAME", "devmem-lab"),
    ("GIT_COMMITTER_EMAIL", "devmem-lab@localhost"),
    ("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z"),
];

/// Makes the tree, or finds it.
pub fn checkout(request: &CheckoutRequest, project: &Path, ctx: &Ctx) -> Result<Checkout> {
    let toolroot = (ctx.build_root)()?;
    let dir = std::path::absolute(&request.dir).context("tell the current directory")?;
    if dir.exists() {
        return existing(request, &dir, &toolroot);
    }
    let patches = project.join("kernel-patches");
    let load = |name: &String| Series::load(&patches, name);
    let below: Vec<Series> = request.onto.iter().map(load).collect::<Result<_, _>>()?;
    let known = patches.join(&request.series).join(crate::series::SERIES_FILE).exists();
    // A name that is no series yet begins a new one.
    let top = if known { Some(Series::load(&patches, &request.series)?) } else { None };
    let source = ctx.lock.source(&request.source)?;
    for series in below.iter().chain(&top) {
        series.require(&source.version)?;
    }
    let tree = lay::open(source, |_| true, &request.source, ctx)?;
    let parent = dir.parent().context("the tree's directory has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    // Made under another name, so that an interrupted attempt is never taken for a tree.
    let name = dir.file_name().context("the tree's directory has a name")?.to_string_lossy().into_owned();
    let fresh = parent.join(format!(".{name}.unfinished"));
    remove_tree(&fresh).with_context(|| format!("remove {}", fresh.display()))?;
    let fill = || -> Result<()> {
        copy_base(&tree, &fresh, ctx)?;
        let git = commit_base(&tree, request, &fresh, ctx, &toolroot)?;
        for series in &below {
            apply(&git, series, ctx, &toolroot)?;
        }
        let onto = git.read(&toolroot, &["rev-parse", "HEAD"])?.trim().to_string();
        git.write(&toolroot, &["tag", "devmem-lab/onto", &onto])?;
        remember(&git, &tree, request, onto, &toolroot)?;
        if let Some(series) = &top {
            apply(&git, series, ctx, &toolroot)?;
        }
        fs::rename(&fresh, &dir).with_context(|| format!("rename {} to {}", fresh.display(), dir.display()))
    };
    if let Err(error) = fill() {
        let _ = remove_tree(&fresh);
        return Err(error);
    }
    existing(request, &dir, &toolroot).map(|found| Checkout { existed: false, ..found })
}

/// Describes a tree that is there; refuses one that is something else than was asked for.
fn existing(request: &CheckoutRequest, dir: &Path, toolroot: &Toolroot) -> Result<Checkout> {
    let (Some(git), Some(found)) = (Git::find(dir)?, descent(dir)?) else {
        bail!("{} exists and is no tree that `kernel tree` made; name another directory", dir.display())
    };
    if found.source != request.source || found.series != request.series {
        bail!(
            "{} holds series `{}` on {}, not `{}` on {}; name another directory",
            dir.display(),
            found.series,
            found.source,
            request.series,
            request.source
        );
    }
    let range = format!("{}..HEAD", found.commit);
    let log = git.read(toolroot, &["log", "--reverse", "--abbrev=12", "--format=%h %s", &range])?;
    Ok(Checkout { dir: dir.to_path_buf(), existed: true, commits: log.lines().map(str::to_string).collect() })
}

/// Copies the pristine source, whatever is laid over the work tree just now.
fn copy_base(tree: &WorkTree, to: &Path, ctx: &Ctx) -> Result<()> {
    let step = ctx.progress.step("tree:copy", "copy the source");
    let names = tree.base_names()?;
    step.total(names.len() as u64, Unit::Items);
    for name in names {
        ctx.progress.check_cancelled()?;
        if let Some(change) = tree.base_file(&name)? {
            put(&to.join(&name), &change)?;
        }
        step.inc(1);
    }
    step.done();
    Ok(())
}

fn commit_base(tree: &WorkTree, request: &CheckoutRequest, dir: &Path, ctx: &Ctx, toolroot: &Toolroot) -> Result<Git> {
    let step = ctx.progress.step("tree:commit", "commit the source");
    let init = toolroot
        .sandbox("git")
        .args(["init", "-q", "-b", &request.series, "."])
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .bind_rw(dir, dir)
        .cwd(dir)
        .output()
        .context("run git init")?;
    if !init.status.success() {
        bail!("git init in {}: {}", dir.display(), String::from_utf8_lossy(&init.stderr).trim_end());
    }
    let git = Git::find(dir)?.context("git init left no repository")?;
    // Every file goes straight into one pack: a tenth of the files and half the time of loose objects.
    run(git.writing(toolroot, &["-c", "core.bigFileThreshold=1", "-c", "core.compression=1", "add", "-A", "-f", "."]))?;
    let message = format!("{}\n\nThe pristine source: {}\n", request.source, tree.base());
    run(git.writing(toolroot, &["commit", "-q", "-m", &message]))?;
    git.write(toolroot, &["tag", "devmem-lab/base"])?;
    step.done();
    Ok(git)
}

/// Commits a series with its authors, dates and messages.
fn apply(git: &Git, series: &Series, ctx: &Ctx, toolroot: &Toolroot) -> Result<()> {
    let step = ctx.progress.step(format!("tree:{series}"), format!("commit series {series}"));
    for patch in &series.patches {
        let inside = format!("/build/{}", patch.file);
        let args = ["am", "-q", "--keep-non-patch", "--committer-date-is-author-date", &inside];
        run(git.writing(toolroot, &args).bind_ro(&patch.path, &inside))
            .with_context(|| format!("commit {} of series `{series}`", patch.file))?;
    }
    step.done();
    Ok(())
}

fn run(sandbox: toolroot::Sandbox) -> Result<()> {
    let sandbox = COMMITTER.iter().fold(sandbox, |sandbox, (name, value)| sandbox.env(name, value));
    let output = sandbox.output().context("run git")?;
    if !output.status.success() {
        bail!("git: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

fn remember(git: &Git, tree: &WorkTree, request: &CheckoutRequest, onto: String, toolroot: &Toolroot) -> Result<()> {
    let commit = git.read(toolroot, &["rev-parse", "devmem-lab/base"])?.trim().to_string();
    let descent = Descent {
        source: request.source.clone(),
        base: tree.base().to_string(),
        commit,
        series: request.series.clone(),
        onto,
        below: request.onto.clone(),
    };
    let path = git.dir().join(".git").join(DESCENT);
    let mut text = serde_json::to_string_pretty(&descent).context("describe the tree")?;
    text.push('\n');
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
