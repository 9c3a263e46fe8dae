//! Takes the files out of binary packages: paths of `.deb` files come in, one tree comes out.
//!
//! Packages are read on several threads, the largest first, and merged in the order of their names once all are
//! there, so that neither the threads nor the order of the list shows in the result. Pruned files are skipped while
//! they stream by.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, bail};
use progress::{Step, Unit};

use crate::prune::Prune;
use crate::tree::{Content, Kind, Node, Tree};

/// A binary package in the cache.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The `.deb`.
    pub path: PathBuf,
}

/// What was left out of a package.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many files and links.
    pub files: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// The files of many packages.
#[derive(Debug)]
pub struct Payload {
    /// Everything that was not pruned, merged; not yet settled.
    pub tree: Tree,
    /// What was pruned, by package.
    pub pruned: BTreeMap<String, Pruned>,
}

/// The nodes of one package, in the order they came.
struct Unpacked {
    nodes: Vec<(String, Node)>,
    pruned: Pruned,
}

/// Most threads that unpack at once; decompression is bound by the processor and its memory.
const MAX_THREADS: usize = 8;

/// Unpacks `packages`, minus what `prune` covers.
pub fn unpack(packages: &[Package], prune: &Prune, step: &Step) -> Result<Payload> {
    step.total(packages.len() as u64, Unit::Items);
    let mut order: Vec<(u64, &Package)> = packages
        .iter()
        .map(|package| {
            let size = std::fs::metadata(&package.path).with_context(|| format!("package {}", package.name))?.len();
            Ok((size, package))
        })
        .collect::<Result<_>>()?;
    order.sort_by_key(|(size, package)| (std::cmp::Reverse(*size), &package.name));

    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS).min(order.len().max(1));
    let next = AtomicUsize::new(0);
    let finished: Mutex<Vec<(&Package, Result<Unpacked>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((_, package)) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result =
                        step.progress().check_cancelled().map_err(Into::into).and_then(|()| read(package, prune));
                    let failed = result.is_err();
                    finished.lock().unwrap_or_else(|e| e.into_inner()).push((package, result));
                    step.inc(1);
                    if failed {
                        next.store(order.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });

    let mut finished = finished.into_inner().unwrap_or_else(|e| e.into_inner());
    finished.sort_by(|(a, _), (b, _)| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    let mut payload = Payload { tree: Tree::new(), pruned: BTreeMap::new() };
    for (package, unpacked) in finished {
        let unpacked = unpacked?;
        for (path, node) in unpacked.nodes {
            payload.tree.merge(&path, node)?;
        }
        payload.pruned.insert(package.name.clone(), unpacked.pruned);
    }
    Ok(payload)
}

/// Reads one package.
fn read(package: &Package, prune: &Prune) -> Result<Unpacked> {
    let origin: Arc<str> = Arc::from(package.name.as_str());
    let mut members = toolroot::deb::data(&package.path)?;
    let mut nodes: Vec<(String, Node)> = Vec::new();
    let mut pruned = Pruned::default();
    let blame = || format!("cannot read package {} ({})", package.name, package.path.display());
    for entry in members.entries().with_context(blame)? {
        let mut entry = entry.with_context(blame)?;
        let path = plain_path(&entry.path_bytes()).with_context(blame)?;
        if path.is_empty() {
            continue;
        }
        let kind = entry.header().entry_type();
        if prune.covers(&path) {
            if !kind.is_dir() {
                pruned.files += 1;
                pruned.bytes += entry.size();
            }
            continue;
        }
        let header = entry.header();
        let attribute = |value: std::io::Result<u64>| -> Result<u32> { Ok(u32::try_from(value?)?) };
        let (uid, gid) = (attribute(header.uid()), attribute(header.gid()));
        let (mut uid, mut gid) = (uid.with_context(blame)?, gid.with_context(blame)?);
        let mut mode = header.mode().with_context(blame)? & 0o7777;
        let kind = match kind {
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let mut bytes = Vec::with_capacity(usize::try_from(entry.size())?.min(1 << 30));
                entry.read_to_end(&mut bytes).with_context(blame)?;
                Kind::File(Content::new(bytes))
            }
            tar::EntryType::Symlink => Kind::Symlink(link_target(&entry).with_context(blame)?),
            tar::EntryType::Link => {
                let target = plain_path(link_target(&entry).with_context(blame)?.as_bytes())?;
                match nodes.iter().rev().find(|(path, _)| *path == target) {
                    Some((_, Node { kind: Kind::File(content), mode: m, uid: u, gid: g, .. })) => {
                        // One inode has one set of attributes.
                        (mode, uid, gid) = (*m, *u, *g);
                        Kind::File(content.clone())
                    }
                    _ if prune.covers(&target) => {
                        bail!("{}: /{path} is a hard link to /{target}, which is pruned; keep it", package.name)
                    }
                    _ => bail!("{}: /{path} is a hard link to /{target}, which is no file before it", package.name),
                }
            }
            other => bail!("{}: /{path} is a {other:?}; images hold files, directories and links", package.name),
        };
        nodes.push((path, Node { kind, mode, uid, gid, origin: Arc::clone(&origin) }));
    }
    Ok(Unpacked { nodes, pruned })
}

/// `./usr/bin/` → `usr/bin`; the root itself becomes the empty path.
fn plain_path(raw: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(raw).map_err(|_| anyhow!("path {:?} is not UTF-8", String::from_utf8_lossy(raw)))?;
    let text = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
    Ok(if text == "." { String::new() } else { text.trim_start_matches('/').to_owned() })
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String> {
    let raw = entry.link_name_bytes().ok_or_else(|| anyhow!("a link without a target"))?;
    String::from_utf8(raw.into_owned()).map_err(|_| anyhow!("a link's target is not UTF-8"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;
    use std::path::Path;

    /// One member of a package made for a test: path, mode, and content or link target.
    pub(crate) enum Member<'a> {
        Dir(&'a str, u32),
        File(&'a str, u32, &'a [u8]),
        Link(&'a str, &'a str),
        Hard(&'a str, &'a str),
    }

    /// Writes a real `.deb` with the given members.
    pub(crate) fn write_deb(dir: &Path, name: &str, members: &[Member<'_>]) -> Package {
        let mut data = tar::Builder::new(Vec::new());
        for member in members {
            let mut header = tar::Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1_234_567);
            header.set_size(0);
            header.set_mode(0o777);
            match member {
                Member::Dir(path, mode) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    data.append_data(&mut header, format!("./{path}/"), &[][..]).unwrap();
                }
                Member::File(path, mode, content) => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    data.append_data(&mut header, format!("./{path}"), *content).unwrap();
                }
                Member::Link(path, target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    match header.set_link_name_literal(target) {
                        Ok(()) => data.append_data(&mut header, format!("./{path}"), &[][..]).unwrap(),
                        Err(_) => data.append_link(&mut header, format!("./{path}"), target).unwrap(),
                    }
                }
                Member::Hard(path, target) => {
                    header.set_entry_type(tar::EntryType::Link);
                    data.append_link(&mut header, format!("./{path}"), format!("./{target}")).unwrap();
                }
            }
        }
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&data.into_inner().unwrap()).unwrap();
        let data = xz.finish().unwrap();
        let mut deb = b"!<arch>\n".to_vec();
        for (member, content) in [("debian-binary", b"2.0\n".to_vec()), ("data.tar.xz", data)] {
            writeln!(deb, "{member:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, content.len()).unwrap();
            deb.extend_from_slice(&content);
            if content.len() % 2 == 1 {
                deb.push(b'\n');
            }
        }
        let path = dir.join(format!("{name}.deb"));
        std::fs::write(&path, deb).unwrap();
        Package { name: name.to_owned(), version: "1".into(), path }
    }

    fn step() -> Step {
        progress::Progress::silent().step("image:base", "unpack")
    }

    #[test]
    fn packages_become_one_tree_and_pruned_files_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let packages = [
            write_deb(
                dir.path(),
                "a",
                &[
                    Member::Dir("", 0o755),
                    Member::Dir("usr/bin", 0o755),
                    Member::File("usr/bin/su", 0o4755, b"elf"),
                    Member::Hard("usr/bin/zu", "usr/bin/su"),
                    Member::File("usr/share/man/su.1", 0o644, b"manual"),
                ],
            ),
            write_deb(dir.path(), "b", &[Member::Link("usr/bin/sh", "dash")]),
        ];
        let prune = Prune { remove: vec![String::from("/usr/share/man").try_into().unwrap()], keep: vec![] };
        let payload = unpack(&packages, &prune, &step()).unwrap();
        let paths: Vec<&str> = payload.tree.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["usr/bin", "usr/bin/sh", "usr/bin/su", "usr/bin/zu"]);
        assert_eq!(payload.tree.get("usr/bin/su").unwrap().mode, 0o4755);
        assert_eq!(payload.pruned["a"], Pruned { files: 1, bytes: 6 });
        let shared = |path| match &payload.tree.get(path).unwrap().kind {
            Kind::File(Content::Bytes(bytes)) => Arc::clone(bytes),
            other => panic!("{other:?}"),
        };
        assert!(Arc::ptr_eq(&shared("usr/bin/su"), &shared("usr/bin/zu")));
    }

    #[test]
    fn a_damaged_package_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let package = write_deb(dir.path(), "broken", &[Member::File("usr/bin/x", 0o755, &[7; 4096])]);
        let mut bytes = std::fs::read(&package.path).unwrap();
        let middle = bytes.len() - 60;
        bytes[middle] ^= 0xff;
        std::fs::write(&package.path, bytes).unwrap();
        let error = format!("{:#}", unpack(&[package], &Prune::default(), &step()).unwrap_err());
        assert!(error.contains("cannot read package broken"), "{error}");
    }

    #[test]
    fn a_hard_link_to_a_pruned_file_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let package = write_deb(dir.path(), "p", &[Member::File("a", 0o644, b"x"), Member::Hard("b", "a")]);
        let prune = Prune { remove: vec![String::from("/a").try_into().unwrap()], keep: vec![] };
        let error = unpack(&[package], &prune, &step()).unwrap_err().to_string();
        assert!(error.contains("/b is a hard link to /a, which is pruned"), "{error}");
    }
}
