//! Compiles the image's Python sources ahead, with the image's own Python.
//!
//! The interpreter, its libraries and the sources are laid out in a scratch directory and run through the image's own
//! dynamic loader: no namespace, nothing of the host's. Bytecode is of the `unchecked-hash` kind (PEP 552), since the
//! file times it would otherwise hold mean nothing in an image. The sources are split into a fixed number of shards,
//! one interpreter each: what `marshal` writes depends on what the same process compiled before, so shards must not
//! depend on how many processors there are.
//!
//! This is the longest part of making an image, and what goes in seldom changes: the bytecode is a step of its own,
//! keyed by interpreter and sources, and a change of the definition or of another package finds it in the cache.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use artifacts::{Cache, Kind as CacheKind, Recipe, sha256_bytes};
use progress::{Progress, Step, Unit};

use crate::definition::{Python, inside};
use crate::tree::{Content, Kind, Node, Tree};

/// Raised whenever the same sources would give other bytecode.
const FORMAT: u32 = 1;
/// How many interpreters share the work; part of what the result is.
const SHARDS: usize = 4;
/// The loader of x86-64 programs (System V ABI, AMD64 supplement).
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
/// Where Debian keeps shared libraries for that loader.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Where the interpreter works, in the directory of the bytecode under construction.
const SCRATCH: &str = ".scratch";

/// Adds the bytecode of the sources that `python` names to `tree`, beside their sources and for the same packages.
/// `name` is the image's.
pub fn compile(name: &str, python: &Python, tree: &mut Tree, cache: &Cache, progress: &Progress) -> Result<()> {
    let Some(interpreter) = &python.interpreter else { return Ok(()) };
    let sources = sources(python, tree)?;
    if sources.is_empty() {
        bail!("no Python source lies below {}; correct [python] compile", python.compile.join(", "));
    }
    if let Some((path, node)) = tree.iter().find(|(path, _)| path.ends_with(".pyc")) {
        bail!("{} ships the bytecode /{path} already; prune it", node.origin);
    }
    let step = progress.step(format!("bytecode:{name}"), format!("compile Python for image {name}"));
    let recipe = recipe(name, interpreter, &sources, tree)?;
    let built = cache.with_progress(progress).get_or_build(CacheKind::Image, &recipe, |dir| {
        let scratch = dir.join(SCRATCH);
        fs::create_dir(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        run(interpreter, &sources, tree, &scratch, &step)?;
        for path in bytecode_in(&scratch)? {
            let place = dir.join(&path);
            let parent = place.parent().unwrap_or(dir);
            fs::create_dir_all(parent)
                .and_then(|()| fs::rename(scratch.join(&path), &place))
                .with_context(|| format!("cannot move bytecode to {}", place.display()))?;
        }
        fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))
    })?;
    let made = bytecode_in(&built.path)?;
    if made.len() != sources.len() {
        bail!("{} Python sources gave {} files of bytecode; see the messages of compileall", sources.len(), made.len());
    }
    for path in made {
        let source = source_of(&path).and_then(|source| tree.get(&source));
        let origin = source.map(|node| Arc::clone(&node.origin)).with_context(|| format!("/{path} has no source"))?;
        let place = built.path.join(&path);
        let bytes = fs::read(&place).with_context(|| format!("cannot read {}", place.display()))?;
        tree.put(&path, Node::file(Content::new(bytes), 0o644, &origin))?;
    }
    tree.settle(&Arc::from(crate::fixups::ORIGIN))?;
    if built.cached {
        step.cached();
    } else {
        step.done();
    }
    Ok(())
}

/// What the bytecode depends on.
fn recipe(name: &str, interpreter: &str, sources: &[String], tree: &Tree) -> Result<Recipe> {
    let digest = |path: &str| match tree.follow(path).map(|(_, node)| &node.kind) {
        Some(Kind::File(Content::Bytes(bytes))) => Ok(sha256_bytes(bytes)),
        _ => bail!("/{path} is no file of a package"),
    };
    let program = digest(inside(interpreter)?)
        .with_context(|| format!("[python] interpreter {interpreter:?} is not in the image"))?;
    let mut list = String::new();
    for source in sources {
        list += &format!("{source} {}\n", digest(source)?);
    }
    Ok(Recipe::new(&format!("bytecode:{name}"))
        .value("format", FORMAT)
        .value("shards", SHARDS)
        .key_of("interpreter", &program)
        .key_of("sources", &sha256_bytes(list.as_bytes())))
}

/// Lays everything out in `scratch` and compiles there.
fn run(interpreter: &str, sources: &[String], tree: &Tree, scratch: &Path, step: &Step) -> Result<()> {
    step.total(sources.len() as u64, Unit::Items);
    let program = lay_out(interpreter, tree, scratch)?;
    let mut running: Vec<(Child, u64)> = Vec::new();
    let parallel = std::thread::available_parallelism().map_or(1, usize::from).min(SHARDS);
    let mut outcome = Ok(());
    for (index, shard) in sources.chunks(sources.len().div_ceil(SHARDS)).enumerate() {
        outcome = outcome.and_then(|()| {
            if running.len() >= parallel {
                let (child, count) = running.remove(0);
                finish(child, count, step)?;
            }
            step.progress().check_cancelled()?;
            let list = scratch.join(format!("sources-{index}"));
            fs::write(&list, shard.join("\n") + "\n").with_context(|| format!("writing {}", list.display()))?;
            running.push((start(&program, scratch, &list)?, shard.len() as u64));
            Ok(())
        });
    }
    // Every child is waited for, also after an error, so that none outlives this call.
    for (child, count) in running {
        outcome = outcome.and(finish(child, count, step));
    }
    outcome
}

/// Paths of every Python source to compile, sorted.
fn sources(python: &Python, tree: &Tree) -> Result<Vec<String>> {
    let below: Vec<String> =
        python.compile.iter().map(|dir| inside(dir).map(|d| format!("{d}/"))).collect::<Result<_>>()?;
    let wanted = |path: &str, node: &Node| {
        path.ends_with(".py") && matches!(node.kind, Kind::File(_)) && below.iter().any(|dir| path.starts_with(dir))
    };
    Ok(tree.iter().filter(|(path, node)| wanted(path, node)).map(|(path, _)| path.to_owned()).collect())
}

/// Writes what the interpreter needs to run into `scratch`; returns the interpreter's path inside it.
fn lay_out(interpreter: &str, tree: &Tree, scratch: &Path) -> Result<String> {
    let (program, node) = tree
        .follow(inside(interpreter)?)
        .filter(|(_, node)| matches!(node.kind, Kind::File(_)))
        .with_context(|| format!("[python] interpreter {interpreter:?} is not in the image"))?;
    write_node(scratch, &program, node)?;
    let (_, loader) = tree.follow(LOADER).with_context(|| format!("/{LOADER} is not in the image: add libc6"))?;
    write_node(scratch, LOADER, loader)?;
    for (path, node) in tree.iter() {
        let library = path.strip_prefix(LIBRARIES).and_then(|rest| rest.strip_prefix('/'));
        let library = library.is_some_and(|name| !name.contains('/') && name.contains(".so"));
        if !library && !path.starts_with("usr/lib/python3") {
            continue;
        }
        match &node.kind {
            // A link is written as what it leads to: absolute targets would lead out of the scratch directory.
            Kind::Symlink(_) => {
                if let Some((_, target @ Node { kind: Kind::File(_), .. })) = tree.follow(path) {
                    write_node(scratch, path, target)?;
                }
            }
            Kind::File(_) => write_node(scratch, path, node)?,
            Kind::Directory => {}
        }
    }
    Ok(program)
}

fn write_node(scratch: &Path, path: &str, node: &Node) -> Result<()> {
    let Kind::File(Content::Bytes(bytes)) = &node.kind else { bail!("/{path} is no file of a package") };
    let target = scratch.join(path);
    let write = || -> std::io::Result<()> {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, bytes.as_slice())?;
        fs::set_permissions(&target, fs::Permissions::from_mode(node.mode & 0o755 | 0o200))
    };
    write().with_context(|| format!("writing {} to compile with the image's Python", target.display()))
}

fn start(program: &str, scratch: &Path, list: &Path) -> Result<Child> {
    let root = scratch.to_str().with_context(|| format!("{} is not UTF-8", scratch.display()))?;
    let mut command = Command::new(scratch.join(LOADER));
    command
        .env_clear()
        // Sets and dictionaries must come out in the same order every time.
        .env("PYTHONHASHSEED", "0")
        .current_dir(scratch)
        // Python finds its library from the name it was called by.
        .arg("--argv0")
        .arg(scratch.join(program))
        .arg("--library-path")
        .arg(scratch.join(LIBRARIES))
        .arg(scratch.join(program))
        .args(["-s", "-S", "-B", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"])
        // Tracebacks and `co_filename` name the path in the guest.
        .args(["-s", root, "-p", "/", "-i"])
        .arg(list)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().with_context(|| format!("cannot start the image's own Python, /{program}"))
}

fn finish(child: Child, count: u64, step: &Step) -> Result<()> {
    let output = child.wait_with_output().context("waiting for the image's own Python")?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for line in words.lines() {
        step.line(line);
    }
    if !output.status.success() {
        let lines: Vec<&str> = words.lines().collect();
        let tail = lines[lines.len().saturating_sub(8)..].join("\n");
        bail!("compiling the image's Python sources ended with {}:\n{tail}", output.status);
    }
    step.inc(count);
    Ok(())
}

/// Every `.pyc` below `dir`, relative to it.
fn bytecode_in(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        let context = || format!("reading {}", at.display());
        for entry in fs::read_dir(&at).with_context(context)? {
            let entry = entry.with_context(context)?;
            let path = entry.path();
            if entry.file_type().with_context(context)?.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "pyc") {
                let name = path.strip_prefix(dir).ok().and_then(Path::to_str).context("a path that is not UTF-8")?;
                found.push(name.to_owned());
            }
        }
    }
    Ok(found)
}

/// `a/__pycache__/b.cpython-313.pyc` → `a/b.py` (PEP 3147).
fn source_of(bytecode: &str) -> Option<String> {
    let (dir, name) = bytecode.rsplit_once('/')?;
    let (stem, _) = name.strip_suffix(".pyc")?.rsplit_once('.')?;
    Some(format!("{}/{stem}.py", dir.strip_suffix("/__pycache__")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytecode_knows_its_source() {
        let source = source_of("usr/lib/python3.13/json/__pycache__/decoder.cpython-313.pyc");
        assert_eq!(source.as_deref(), Some("usr/lib/python3.13/json/decoder.py"));
        assert_eq!(source_of("usr/lib/x.pyc"), None);
    }

    #[test]
    fn an_image_without_its_interpreter_is_told() {
        let mut tree = Tree::new();
        tree.put("usr/lib/python3/a.py", Node::file(Content::new("x = 1"), 0o644, &Arc::from("p"))).unwrap();
        let python = Python { interpreter: Some("/usr/bin/python3".into()), compile: vec!["/usr/lib/python3".into()] };
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let error = format!("{:#}", compile("lab", &python, &mut tree, &cache, &Progress::silent()).unwrap_err());
        assert!(error.contains("interpreter \"/usr/bin/python3\" is not in the image"), "{error}");
    }
}
