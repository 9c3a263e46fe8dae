//! What is done to whole directory trees on their way into and out of the cache: making them durable, sealing them
//! against writing, and removing them although they are sealed.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Up to this many files are fsynced one by one; beyond, one `syncfs` is quicker although it also writes out what
/// others have dirty.
const SYNC_EACH: usize = 64;

/// Takes the write bits off every file and directory below `root` and off itself, then makes all of it durable.
pub(crate) fn seal(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    let mut dirs = Vec::new();
    walk(root, &mut |path, meta| {
        if meta.is_dir() {
            dirs.push((path.to_path_buf(), meta.permissions()));
        } else if meta.is_file() {
            without_write(path, &meta.permissions())?;
            files.push(path.to_path_buf());
        }
        Ok(())
    })
    .with_context(|| format!("cannot seal {}", root.display()))?;
    let sync = || -> io::Result<()> {
        if files.len() > SYNC_EACH {
            return Ok(rustix::fs::syncfs(File::open(root)?)?);
        }
        for path in files.iter().chain(dirs.iter().map(|(path, _)| path)) {
            match File::open(path) {
                Ok(file) => file.sync_all()?,
                // A file its own owner may not read, as some packages have them.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Ok(rustix::fs::syncfs(File::open(root)?)?);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    };
    sync().with_context(|| format!("cannot write {} out to the disk", root.display()))?;
    // Directories last and deepest first: a sealed one would keep an ordinary user out of nothing it still needs.
    for (path, permissions) in dirs.iter().rev() {
        without_write(path, permissions).with_context(|| format!("cannot seal {}", path.display()))?;
    }
    Ok(())
}

fn without_write(path: &Path, permissions: &Permissions) -> io::Result<()> {
    let mode = permissions.mode() & 0o7777;
    if mode & 0o222 == 0 { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(mode & !0o222)) }
}

/// Makes a rename within `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("cannot write {} out to the disk", dir.display()))
}

/// Removes a file, link or directory tree, sealed or not; links are not followed, and nothing there is no error.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if !meta.is_dir() {
        return fs::remove_file(path);
    }
    walk(path, &mut |path, meta| {
        if meta.is_dir() && meta.permissions().mode() & 0o700 != 0o700 {
            fs::set_permissions(path, Permissions::from_mode(0o700))?;
        }
        Ok(())
    })?;
    fs::remove_dir_all(path)
}

/// Disk space a tree takes, in bytes (blocks, not lengths).
pub(crate) fn disk_usage(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    walk(path, &mut |_, meta| {
        total += meta.blocks() * 512;
        Ok(())
    })?;
    Ok(total)
}

/// Visits `root` and everything below it, a directory before what is in it; links are not followed.
fn walk(root: &Path, visit: &mut impl FnMut(&Path, &Metadata) -> io::Result<()>) -> io::Result<()> {
    let mut pending: Vec<PathBuf> = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path)?;
        visit(&path, &meta)?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_tree_cannot_be_written_yet_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("t");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/f"), "x").unwrap();
        fs::set_permissions(root.join("a/b/f"), Permissions::from_mode(0o4755)).unwrap();
        fs::write(root.join("a/secret"), "x").unwrap();
        fs::set_permissions(root.join("a/secret"), Permissions::from_mode(0o000)).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.join("link")).unwrap();
        seal(&root).unwrap();
        for (path, mode) in [("", 0o555), ("a", 0o555), ("a/b", 0o555), ("a/b/f", 0o4555)] {
            let meta = fs::metadata(root.join(path)).unwrap();
            assert_eq!(meta.permissions().mode() & 0o7777, mode, "{path}");
        }
        assert!(disk_usage(&root).unwrap() > 0);
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        remove_tree(&root).unwrap();
    }
}
