//! Makes files below one directory and nowhere else.
//!
//! In: paths as packages name them (`./usr/bin/x`, or through links such as `lib` → `usr/lib`). Out: files, links and
//! directories. Every path is looked up by the kernel with the directory as its root (`openat2`, `RESOLVE_IN_ROOT`), so
//! neither `..` nor a link a package brought along leads outside, and no check can be raced.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

/// A lookup that raced with a rename is tried again this often (openat2(2), EAGAIN).
const TRIES: usize = 16;

/// A directory to make things in. Threads make their own from the same path.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// The last directory something was made in: archives go directory by directory.
    last: Option<(PathBuf, OwnedFd)>,
}

impl Tree {
    /// Opens the directory.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Tree { root, last: None })
    }

    /// Makes a directory and those above it. One that is there stays as it is, a link to a directory counts as one.
    pub fn dir(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let path = inside(path)?;
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let (dir, name) = self.parent(&path)?;
        // Whoever unpacks must be able to go in, whatever the package says.
        let mode = Mode::from_raw_mode(mode & 0o1777 | 0o700);
        match rustix::fs::mkdirat(dir, name, mode) {
            Ok(()) => Ok(rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?),
            Err(Errno::EXIST) => self.lookup(&path, OFlags::PATH | OFlags::DIRECTORY).map(|_| ()).map_err(Into::into),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes a file that was not there, with the permissions of `mode` less set-user-id and set-group-id, which would
    /// make a user's cache grant rights.
    pub fn file(&mut self, path: &Path, mode: u32) -> io::Result<File> {
        let path = inside(path)?;
        let (dir, name) = self.parent(&path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777 | 0o400))?;
        Ok(file.into())
    }

    /// Makes a symbolic link; where it leads is not looked at.
    pub fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let path = inside(path)?;
        let (dir, name) = self.parent(&path)?;
        Ok(rustix::fs::symlinkat(target, dir, name)?)
    }

    /// Gives the file at `target` another name.
    pub fn hard_link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let (path, target) = (inside(path)?, inside(target)?);
        let from = Tree { root: self.root.try_clone()?, last: None }.into_parent(&target)?;
        let from_name = target.file_name().unwrap_or_default();
        let (dir, name) = self.parent(&path)?;
        Ok(rustix::fs::linkat(&from, from_name, dir, name, AtFlags::empty())?)
    }

    /// Opens a file for reading; a link is followed, inside.
    pub fn read(&self, path: &Path) -> io::Result<File> {
        Ok(self.lookup(&inside(path)?, OFlags::RDONLY)?.into())
    }

    /// Names in a directory, sorted.
    pub fn names(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let dir = self.lookup(&inside(path)?, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(dir)? {
            let name = PathBuf::from(std::ffi::OsStr::from_bytes(entry?.file_name().to_bytes()));
            if name != Path::new(".") && name != Path::new("..") {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The directory that holds `path`, made if it is not there, and the last name of `path`.
    fn parent<'a>(&mut self, path: &'a Path) -> io::Result<(&OwnedFd, &'a Path)> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "the root itself is no entry");
        let name = Path::new(path.file_name().ok_or_else(none)?);
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.last.as_ref().is_none_or(|(last, _)| last != parent) {
            let dir = self.open_dir(parent)?;
            self.last = Some((parent.to_owned(), dir));
        }
        match &self.last {
            Some((_, dir)) => Ok((dir, name)),
            None => Err(none()),
        }
    }

    fn into_parent(mut self, path: &Path) -> io::Result<OwnedFd> {
        self.parent(path)?;
        self.last.map(|(_, dir)| dir).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.lookup(path, flags) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let mut dir = self.root.try_clone()?;
        let mut so_far = PathBuf::new();
        for part in path.components() {
            so_far.push(part);
            match rustix::fs::mkdirat(&dir, Path::new(&part), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            dir = self.lookup(&so_far, flags)?;
        }
        Ok(dir)
    }

    fn lookup(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }
}

/// Sets a file's time of change, in seconds since the epoch.
pub fn set_mtime(file: &File, seconds: u64) -> io::Result<()> {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })?)
}

/// `path` relative to the root, without `.`; one that says it leaves the root is refused rather than bent.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path leaves the root"));
            }
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn links_are_followed_inside() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(dir.path()).unwrap();
        tree.dir(Path::new("./usr/lib"), 0o755).unwrap();
        tree.link(Path::new("./lib"), Path::new("usr/lib")).unwrap();
        tree.link(Path::new("./absolute"), Path::new("/usr/lib")).unwrap();
        tree.dir(Path::new("./lib/"), 0o755).unwrap();
        tree.file(Path::new("./lib/a/b"), 0o4755).unwrap().write_all(b"x").unwrap();
        tree.file(Path::new("absolute/c"), 0).unwrap();
        assert!(fs::symlink_metadata(dir.path().join("lib")).unwrap().is_symlink());
        assert_eq!(fs::metadata(dir.path().join("usr/lib/a/b")).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata(dir.path().join("usr/lib/c")).unwrap().permissions().mode() & 0o7777, 0o400);
        tree.hard_link(Path::new("other"), Path::new("./lib/a/b")).unwrap();
        assert_eq!(fs::metadata(dir.path().join("other")).unwrap().nlink(), 2);
        let mut text = String::new();
        tree.read(Path::new("lib/a/b")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        assert_eq!(tree.names(Path::new("lib")).unwrap(), [Path::new("a"), Path::new("c")]);
    }

    #[test]
    fn nothing_gets_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let secret = dir.path().join("secret");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("file"), "mine").unwrap();
        let mut tree = Tree::open(&root).unwrap();
        for path in ["../x", "/x", "a/../../x", "sub/.."] {
            assert!(tree.file(Path::new(path), 0o644).is_err(), "{path}");
            assert!(tree.dir(Path::new(path), 0o755).is_err(), "{path}");
            assert!(tree.link(Path::new(path), Path::new("y")).is_err(), "{path}");
            assert!(tree.hard_link(Path::new("z"), Path::new(path)).is_err(), "{path}");
        }
        // Links that lead out are taken as if the root were /.
        symlink("../secret", root.join("up")).unwrap();
        symlink(&secret, root.join("away")).unwrap();
        symlink(secret.join("file"), root.join("file")).unwrap();
        for path in ["up/x", "away/x", "up/file"] {
            let _ = tree.file(Path::new(path), 0o644).map(|mut f| f.write_all(b"theirs"));
        }
        assert!(tree.file(Path::new("file"), 0o644).is_err());
        assert!(tree.read(Path::new("file")).is_err());
        assert!(tree.hard_link(Path::new("stolen"), Path::new("away/file")).is_err());
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(secret.join("file")).unwrap(), "mine");
    }
}
