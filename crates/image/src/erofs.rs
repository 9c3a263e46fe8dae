//! Turns a tree into an erofs file system with `mkfs.erofs`.
//!
//! The tree streams into the tool as a tar, so nothing is unpacked on the host and owners need no privilege. The tool
//! comes as a command from whoever knows where it is (normally a toolroot's loader), not yet with arguments.

use std::io::{BufWriter, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use progress::{Step, Unit};

use crate::definition::Filesystem;
use crate::tarball;
use crate::tree::{Content, Kind, Tree};

/// Compression threads. Fixed: the number decides how large files are cut up, and so what the image's bytes are.
const WORKERS: u32 = 2;
/// How much tar goes to the tool at once; a pipe's usual size.
const PIPE: usize = 64 * 1024;
/// Where the superblock starts, and its magic (fs/erofs/erofs_fs.h).
const SUPERBLOCK: usize = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;

/// The arguments that make `image` from a tar on standard input.
pub fn arguments(filesystem: &Filesystem, image: &Path) -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<std::ffi::OsString> = vec![
        "--quiet".into(),
        "--tar=f".into(),
        format!("-U{}", filesystem.uuid).into(),
        format!("-T{}", filesystem.epoch).into(),
        format!("-z{}", filesystem.compression).into(),
        format!("-C{}", filesystem.cluster).into(),
        format!("--workers={WORKERS}").into(),
    ];
    arguments.push(image.into());
    arguments
}

/// Writes `tree` to `image` with `mkfs`. `step` counts bytes of content.
pub fn write(mut mkfs: Command, filesystem: &Filesystem, tree: &Tree, image: &Path, step: &Step) -> Result<()> {
    step.total(tree.iter().map(|(_, node)| node.size()).sum(), Unit::Bytes);
    mkfs.args(arguments(filesystem, image)).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = mkfs.spawn().with_context(|| format!("cannot start mkfs.erofs: {:?}", mkfs.get_program()))?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    // What the tool says is read aside, or it would wait for us while we wait for it.
    let words = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.map(|mut pipe| pipe.read_to_string(&mut text));
        text
    });
    let written = match stdin {
        Some(pipe) => tarball::write(tree, filesystem.epoch, BufWriter::with_capacity(PIPE, pipe), step),
        None => Err(anyhow::anyhow!("mkfs.erofs has no standard input")),
    };
    if written.is_err() {
        // It may be waiting for the rest; an error here means that it is gone already.
        let _ = child.kill();
    }
    let status = child.wait().context("waiting for mkfs.erofs")?;
    let words = words.join().unwrap_or_default();
    for line in words.lines() {
        step.line(line);
    }
    // When the tool died, the broken pipe is its consequence and not worth telling.
    let broken_pipe = |e: &anyhow::Error| {
        let io = e.downcast_ref::<std::io::Error>().or_else(|| e.root_cause().downcast_ref());
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    };
    match written {
        Err(error) if !broken_pipe(&error) => Err(error),
        _ if status.success() => check_inodes(tree, image),
        _ => bail!("mkfs.erofs for {} ended with {status}: {}", image.display(), last_words(&words)),
    }
}

/// Compares the number of inodes in the superblock with the tree's: the tool skips what it does not understand.
fn check_inodes(tree: &Tree, image: &Path) -> Result<()> {
    let mut start = [0; SUPERBLOCK + 24];
    std::fs::File::open(image)
        .and_then(|mut file| file.read_exact(&mut start))
        .with_context(|| format!("cannot read back {}", image.display()))?;
    let field = |at: usize| start[SUPERBLOCK + at..].iter().take(8).rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
    if field(0) & 0xffff_ffff != u64::from(MAGIC) {
        bail!("mkfs.erofs left no erofs file system in {}", image.display());
    }
    // Every path but a second name of the same content is an inode, and the root is one.
    let mut contents = std::collections::HashSet::new();
    let mut is_inode = |kind: &Kind| match kind {
        Kind::File(Content::Bytes(bytes)) => contents.insert(Arc::as_ptr(bytes)),
        _ => true,
    };
    let (found, want) =
        (field(16), 1 + tree.iter().map(|(_, node)| &node.kind).filter(|kind| is_inode(kind)).count() as u64);
    if found != want {
        bail!("mkfs.erofs put {found} inodes into {} where there should be {want}", image.display());
    }
    Ok(())
}

fn last_words(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() { "it said nothing".into() } else { lines[lines.len().saturating_sub(5)..].join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    fn filesystem() -> Filesystem {
        Filesystem {
            uuid: "6c61622d-6261-4365-8000-000000000001".into(),
            epoch: 1,
            compression: "lz4".into(),
            cluster: 65536,
        }
    }

    fn large() -> Tree {
        let mut tree = Tree::new();
        tree.put("big", Node::file(Content::new(vec![1; 4 << 20]), 0o644, &Arc::from("x"))).unwrap();
        tree
    }

    #[test]
    fn arguments_fix_everything_that_could_vary() {
        let words: Vec<String> =
            arguments(&filesystem(), Path::new("/x/base.erofs")).iter().map(|a| a.to_string_lossy().into()).collect();
        let want = "--quiet --tar=f -U6c61622d-6261-4365-8000-000000000001 -T1 -zlz4 -C65536 --workers=2 /x/base.erofs";
        assert_eq!(words.join(" "), want);
    }

    #[test]
    fn a_tool_that_dies_is_quoted() {
        let mut tool = Command::new("sh");
        tool.args(["-c", "echo '<E> erofs: no space left' >&2; exit 28"]);
        let step = progress::Progress::silent().step("image:test", "write");
        let error = write(tool, &filesystem(), &large(), Path::new("/x/base.erofs"), &step).unwrap_err().to_string();
        assert!(error.contains("/x/base.erofs") && error.contains("exit status: 28"), "{error}");
        assert!(error.contains("<E> erofs: no space left"), "{error}");
    }

    /// The failure this guards against was real: a tar whose regular files had the old type gave an image without any.
    #[test]
    fn an_image_that_lacks_files_is_refused() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0; 4096];
        bytes[1024..1028].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[1040] = 2;
        std::fs::write(image.path(), &bytes).unwrap();
        check_inodes(&large(), image.path()).unwrap();
        bytes[1040] = 1;
        std::fs::write(image.path(), &bytes).unwrap();
        let error = check_inodes(&large(), image.path()).unwrap_err().to_string();
        assert!(error.starts_with("mkfs.erofs put 1 inodes into") && error.contains("be 2"), "{error}");
        std::fs::write(image.path(), [0; 4096]).unwrap();
        assert!(check_inodes(&large(), image.path()).unwrap_err().to_string().contains("no erofs file system"));
    }

    #[test]
    fn cancelling_ends_the_tool() {
        let progress = progress::Progress::silent();
        progress.cancel().cancel();
        let mut tool = Command::new("sh");
        tool.args(["-c", "exec sleep 1000"]);
        let begun = std::time::Instant::now();
        let step = progress.step("image:test", "write");
        let error = write(tool, &filesystem(), &large(), Path::new("/x"), &step).unwrap_err().to_string();
        assert_eq!(error, "interrupted");
        assert!(begun.elapsed().as_secs() < 100);
    }
}
