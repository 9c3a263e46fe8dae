//! SHA-256 of bytes, files and directory trees.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::Key;

/// Large enough that reading, not the number of system calls, is what takes time.
pub(crate) const CHUNK: usize = 256 * 1024;

/// The SHA-256 of some bytes.
pub fn sha256_bytes(bytes: &[u8]) -> Key {
    Key::from_digest(&Sha256::digest(bytes))
}

/// The SHA-256 of a file's content.
pub fn sha256_file(path: &Path) -> Result<Key> {
    let file = File::open(path).with_context(|| format!("cannot open {} to hash it", path.display()))?;
    let mut hasher = Sha256::new();
    hash_reader(file, &mut hasher).with_context(|| format!("cannot read {} to hash it", path.display()))?;
    Ok(Key::from_digest(&hasher.finalize()))
}

/// Feeds all of `reader` to `hasher`; returns the number of bytes.
pub(crate) fn hash_reader(mut reader: impl Read, hasher: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                total += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The SHA-256 of a directory: relative names in byte order, types, execute bits, link targets and contents. Times,
/// owners and the other mode bits differ between checkouts of the same tree and are left out.
pub(crate) fn sha256_tree(root: &Path) -> Result<Key> {
    let mut hasher = Sha256::new();
    hash_dir(root, root, &mut hasher)?;
    Ok(Key::from_digest(&hasher.finalize()))
}

fn hash_dir(root: &Path, dir: &Path, hasher: &mut Sha256) -> Result<()> {
    let mut entries = fs::read_dir(dir)
        .and_then(|entries| entries.collect::<io::Result<Vec<_>>>())
        .with_context(|| format!("cannot list {} to hash it", dir.display()))?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let path = entry.path();
        let context = || format!("cannot read {} to hash it", path.display());
        let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes();
        let meta = fs::symlink_metadata(&path).with_context(context)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            field(hasher, b"dir", name);
            hash_dir(root, &path, hasher)?;
        } else if kind.is_symlink() {
            field(hasher, b"link", name);
            field(hasher, b"to", fs::read_link(&path).with_context(context)?.as_os_str().as_bytes());
        } else if kind.is_file() {
            let executable = meta.permissions().mode() & 0o111 != 0;
            field(hasher, if executable { b"program" } else { b"file" }, name);
            field(hasher, b"is", sha256_file(&path)?.as_str().as_bytes());
        } else {
            bail!("{} is neither file, directory nor link; a build input cannot hold it", path.display());
        }
    }
    Ok(())
}

/// Feeds a tag and a value, each behind its length, so that no two lists of fields look alike.
pub(crate) fn field(hasher: &mut Sha256, tag: &[u8], value: &[u8]) {
    for bytes in [tag, value] {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_bytes(b"").as_str(), empty);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_file(&path).unwrap().as_str(), abc);
    }

    #[test]
    fn a_tree_hash_sees_names_contents_links_and_execute_bits_only() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/a"), "one").unwrap();
        std::os::unix::fs::symlink("sub/a", at("link")).unwrap();
        let before = sha256_tree(dir.path()).unwrap();

        fs::set_permissions(at("sub/a"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(sha256_tree(dir.path()).unwrap(), before, "read bits do not count");

        let mut seen = vec![before];
        let changes: [&dyn Fn(); 4] = [
            &|| fs::set_permissions(at("sub/a"), fs::Permissions::from_mode(0o755)).unwrap(),
            &|| fs::write(at("sub/a"), "two").unwrap(),
            &|| fs::rename(at("sub/a"), at("sub/b")).unwrap(),
            &|| fs::create_dir(at("empty")).unwrap(),
        ];
        for change in changes {
            change();
            let now = sha256_tree(dir.path()).unwrap();
            assert!(!seen.contains(&now));
            seen.push(now);
        }
    }
}
