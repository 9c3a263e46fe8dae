//! Unpacks packages into one directory, several at a time.
//!
//! In: paths of .deb files. Out: their files, below `root` only, owned by the caller, with the packages' permissions and
//! times. base-files goes first, since it brings the links (`lib` → `usr/lib` …) that others' paths go through; after
//! that the order does not matter, because two packages that bring the same file are an error and not a race.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use progress::{Step, Unit};
use tar::EntryType;

use crate::deb::{self, DebError};
use crate::tree::{self, Tree};

/// How much of a file is copied at once.
const CHUNK: usize = 128 * 1024;
/// Unpacked before the others.
const FIRST: &str = "base-files";

/// A package to unpack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// The .deb.
    pub path: PathBuf,
}

/// Why a package could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The .deb is not readable.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// The directory to unpack into is not usable.
    #[error("cannot unpack into {}: {error}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The stream of files ends early or is damaged.
    #[error("package {package} is damaged: {error}; remove it from the cache so that it is fetched again")]
    Damaged {
        /// The package.
        package: String,
        /// What the reader said.
        error: io::Error,
    },
    /// Two packages bring the same file.
    #[error("package {package} brings {}, which another package brought before", entry.display())]
    Conflict {
        /// The package that came second.
        package: String,
        /// The file.
        entry: PathBuf,
    },
    /// A package brings something no package should.
    #[error("package {package} brings {}, {what}; nothing of it is used", entry.display())]
    Refused {
        /// The package.
        package: String,
        /// The entry.
        entry: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file could not be made.
    #[error("package {package}: cannot make {}: {error}", entry.display())]
    Make {
        /// The package.
        package: String,
        /// The entry.
        entry: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody asked to stop.
    #[error(transparent)]
    Cancelled(#[from] progress::Cancelled),
}

/// Unpacks `packages` into the directory `root`, telling `step` of each.
pub fn unpack(packages: &[Package], root: &Path, step: &Step) -> Result<(), UnpackError> {
    step.total(packages.len() as u64, Unit::Items);
    let (first, mut rest): (Vec<&Package>, Vec<&Package>) = packages.iter().partition(|p| p.name == FIRST);
    for package in first {
        unpack_one(package, root, step)?;
    }
    // Large ones first, so that no thread is left alone with one at the end.
    rest.sort_by_cached_key(|p| std::cmp::Reverse(fs::metadata(&p.path).map_or(0, |m| m.len())));
    let queue = Mutex::new(VecDeque::from(rest));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || -> Result<(), UnpackError> {
        while let Some(package) = next() {
            if let Err(e) = unpack_one(package, root, step) {
                // The others have nothing left to do either.
                queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                return Err(e);
            }
        }
        Ok(())
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(packages.len().max(1));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn unpack_one(package: &Package, root: &Path, step: &Step) -> Result<(), UnpackError> {
    let damaged = |error| UnpackError::Damaged { package: package.name.clone(), error };
    let mut tree = Tree::open(root).map_err(|error| UnpackError::Root { path: root.to_owned(), error })?;
    let mut members = deb::data(&package.path)?;
    let mut chunk = vec![0; CHUNK];
    for entry in members.entries().map_err(damaged)? {
        step.progress().check_cancelled()?;
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let make = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                UnpackError::Conflict { package: package.name.clone(), entry: path.clone() }
            }
            io::ErrorKind::InvalidInput => UnpackError::Refused {
                package: package.name.clone(),
                entry: path.clone(),
                what: "a path that leads out of the root".into(),
            },
            _ => UnpackError::Make { package: package.name.clone(), entry: path.clone(), error },
        };
        let mode = entry.header().mode().map_err(damaged)?;
        let target = entry.link_name().map_err(damaged)?.map(|t| t.into_owned()).unwrap_or_default();
        match entry.header().entry_type() {
            EntryType::Directory => tree.dir(&path, mode).map_err(make)?,
            EntryType::Symlink => tree.link(&path, &target).map_err(make)?,
            EntryType::Link => tree.hard_link(&path, &target).map_err(make)?,
            EntryType::Regular | EntryType::Continuous => {
                let mtime = entry.header().mtime().map_err(damaged)?;
                let mut file = tree.file(&path, mode).map_err(make)?;
                loop {
                    let n = entry.read(&mut chunk).map_err(damaged)?;
                    if n == 0 {
                        break;
                    }
                    file.write_all(&chunk[..n]).map_err(make)?;
                }
                tree::set_mtime(&file, mtime).map_err(make)?;
            }
            EntryType::XGlobalHeader => {}
            other => {
                let what = format!("an entry of type {other:?}");
                return Err(UnpackError::Refused { package: package.name.clone(), entry: path, what });
            }
        }
    }
    step.inc(1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use progress::{Cancel, Progress};
    use std::os::unix::fs::PermissionsExt;

    /// What a sample package brings.
    enum Bring {
        Dir(&'static str),
        File(&'static str, u32, &'static str),
        Link(&'static str, &'static str),
        Hard(&'static str, &'static str),
        Device(&'static str),
    }

    fn package(dir: &Path, name: &str, entries: &[Bring]) -> Package {
        let mut builder = tar::Builder::new(Vec::new());
        for entry in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mtime(1_700_000_000);
            header.set_mode(0o755);
            header.set_size(0);
            let (kind, path, target, content) = match entry {
                Bring::Dir(path) => (EntryType::Directory, path, None, ""),
                Bring::File(path, mode, content) => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    (EntryType::Regular, path, None, *content)
                }
                Bring::Link(path, target) => (EntryType::Symlink, path, Some(target), ""),
                Bring::Hard(path, target) => (EntryType::Link, path, Some(target), ""),
                Bring::Device(path) => (EntryType::Char, path, None, ""),
            };
            header.set_entry_type(kind);
            // Written by hand: the builder itself would refuse the bad paths.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            if let Some(target) = target {
                header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            }
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        let data = builder.into_inner().unwrap();
        let mut out = b"!<arch>\n".to_vec();
        out.extend_from_slice(
            format!("{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", "data.tar", 0, 0, 0, 644, data.len()).as_bytes(),
        );
        out.extend_from_slice(&data);
        let path = dir.join(format!("{name}.deb"));
        fs::write(&path, out).unwrap();
        Package { name: name.into(), path }
    }

    fn run(packages: &[Package], root: &Path) -> Result<(), UnpackError> {
        unpack(packages, root, &Progress::silent().step("unpack", "unpack"))
    }

    #[test]
    fn packages_meet_in_one_tree() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let packages = [
            package(
                dir.path(),
                "late",
                &[
                    Bring::Dir("./"),
                    Bring::Dir("./lib/"),
                    Bring::File("./lib/late.so", 0o644, "late"),
                    Bring::Hard("./usr/bin/same", "./lib/late.so"),
                ],
            ),
            package(
                dir.path(),
                "base-files",
                &[Bring::Dir("./usr/lib/"), Bring::Link("./lib", "usr/lib"), Bring::Dir("./usr/share/")],
            ),
            package(dir.path(), "tool", &[Bring::Dir("./usr/share/"), Bring::File("./usr/bin/tool", 0o4755, "tool")]),
        ];
        run(&packages, &root).unwrap();
        assert!(fs::symlink_metadata(root.join("lib")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(root.join("usr/lib/late.so")).unwrap(), "late");
        assert_eq!(fs::read_to_string(root.join("usr/bin/same")).unwrap(), "late");
        let tool = fs::metadata(root.join("usr/bin/tool")).unwrap();
        assert_eq!(tool.permissions().mode() & 0o7777, 0o755);
        assert_eq!(tool.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_700_000_000);
    }

    #[test]
    fn bad_packages_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let cases: [(&str, Vec<Bring>, &str); 5] = [
            ("up", vec![Bring::File("../../escape", 0o644, "x")], "leads out of the root"),
            ("rooted", vec![Bring::File("/etc/escape", 0o644, "x")], "leads out of the root"),
            ("hard", vec![Bring::Hard("./x", "../../../etc/passwd")], "leads out of the root"),
            ("node", vec![Bring::Device("./dev/null")], "an entry of type Char"),
            ("twice", vec![Bring::File("./a", 0o644, "1"), Bring::File("./a", 0o644, "2")], "another package brought"),
        ];
        for (name, entries, expected) in cases {
            let root = dir.path().join(format!("root-{name}"));
            fs::create_dir(&root).unwrap();
            let error = run(&[package(dir.path(), name, &entries)], &root).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(&format!("package {name} ")), "{name}: {error}");
        }
        assert!(!dir.path().join("escape").exists());
    }

    #[test]
    fn a_link_out_of_the_root_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let evil = package(
            dir.path(),
            "evil",
            &[Bring::Link("./out", "../"), Bring::File("./out/escaped", 0o644, "x"), Bring::Link("./abs", "/tmp")],
        );
        run(&[evil], &root).unwrap();
        assert!(!dir.path().join("escaped").exists());
        assert!(root.join("escaped").exists());
    }

    #[test]
    fn a_cut_package_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let package = package(dir.path(), "cut", &[Bring::File("./a", 0o644, ""), Bring::File("./b", 0o644, "12345")]);
        let bytes = fs::read(&package.path).unwrap();
        fs::write(&package.path, &bytes[..68 + 512 + 512 + 2]).unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let error = run(&[package], &root).unwrap_err().to_string();
        assert!(error.contains("cut is damaged"), "{error}");
    }

    #[test]
    fn cancelling_stops_it() {
        let dir = tempfile::tempdir().unwrap();
        let package = package(dir.path(), "p", &[Bring::File("./a", 0o644, "x")]);
        let cancel = Cancel::default();
        cancel.cancel();
        let step = Progress::new(cancel, |_| {}).step("unpack", "unpack");
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        assert!(matches!(unpack(&[package], &root, &step), Err(UnpackError::Cancelled(_))));
    }
}
