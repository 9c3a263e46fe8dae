//! Writes a tree as one tar stream: sorted, with one time for everything, owners by number.
//!
//! The stream is the canonical form of an image: equal trees give equal bytes, whatever they were made from.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use progress::Step;

use crate::tree::{Content, Kind, Node, Tree};

/// Writes `tree` to `out`; every entry gets the time `epoch` (seconds since 1970). `step` advances by bytes of content.
pub fn write(tree: &Tree, epoch: u64, out: impl Write, step: &Step) -> Result<()> {
    let mut builder = tar::Builder::new(out);
    let mut first_links: HashMap<*const Vec<u8>, &str> = HashMap::new();
    for (path, node) in tree.iter() {
        step.progress().check_cancelled()?;
        let mut header = header(node, epoch);
        let blame = || format!("writing /{path} to the image");
        match &node.kind {
            Kind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, format!("{path}/"), io::empty()).with_context(blame)?;
            }
            Kind::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                // Not `append_link`: that tidies the target, which must stay as it is.
                append_symlink(&mut builder, &mut header, path, target).with_context(blame)?;
            }
            Kind::File(Content::Bytes(bytes)) => {
                if let Some(first) = first_links.get(&Arc::as_ptr(bytes)) {
                    header.set_entry_type(tar::EntryType::Link);
                    builder.append_link(&mut header, path, first).with_context(blame)?;
                    continue;
                }
                first_links.insert(Arc::as_ptr(bytes), path);
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, path, bytes.as_slice()).with_context(blame)?;
                step.inc(bytes.len() as u64);
            }
            Kind::File(Content::Outside { path: source, size }) => {
                let context = || format!("reading {} for /{path}", source.display());
                let file = File::open(source).with_context(context)?;
                let now = file.metadata().with_context(context)?.len();
                if now != *size {
                    bail!(
                        "{} changed while the image was made ({size} bytes, now {now}); build again",
                        source.display()
                    );
                }
                header.set_size(*size);
                builder.append_data(&mut header, path, file.take(*size)).with_context(blame)?;
                step.inc(*size);
            }
        }
    }
    builder.into_inner().and_then(|mut out| out.flush()).context("ending the image's tar stream")
}

fn header(node: &Node, epoch: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    // Said outright: the crate's default is the old form of a regular file, which mkfs.erofs passes over.
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(0);
    header.set_mode(node.mode);
    header.set_uid(node.uid.into());
    header.set_gid(node.gid.into());
    header.set_mtime(epoch);
    header
}

fn append_symlink(
    builder: &mut tar::Builder<impl Write>,
    header: &mut tar::Header,
    path: &str,
    target: &str,
) -> io::Result<()> {
    match header.set_link_name_literal(target) {
        Ok(()) => builder.append_data(header, path, io::empty()),
        // A target longer than the header's field goes into an extension entry, which `append_link` writes.
        Err(_) => builder.append_link(header, path, target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{self, tests as deb};
    use crate::prune::Prune;

    fn step() -> Step {
        progress::Progress::silent().step("image:test", "write")
    }

    fn bytes_of(tree: &Tree) -> Vec<u8> {
        let mut out = Vec::new();
        write(tree, 7, &mut out, &step()).unwrap();
        out
    }

    #[test]
    fn the_order_of_packages_does_not_show() {
        use deb::Member::{Dir, File, Hard, Link};
        let dir = tempfile::tempdir().unwrap();
        let long = format!("usr/lib/{}/{}", "d".repeat(90), "f".repeat(90));
        let target = format!("../{}", "t".repeat(140));
        let mut packages = vec![
            deb::write_deb(dir.path(), "base-files", &[Link("lib", "usr/lib"), Dir("tmp", 0o1777)]),
            deb::write_deb(dir.path(), "b", &[File("lib/b.so", 0o644, b"b"), File(&long, 0o644, b"long")]),
            deb::write_deb(
                dir.path(),
                "a",
                &[
                    File("usr/lib/z", 0o4755, b"set-id"),
                    Hard("usr/lib/a", "usr/lib/z"),
                    Link("usr/lib/l", &target),
                    Link("usr/lib/odd", "..//x/./y"),
                ],
            ),
        ];
        let mut make = || {
            packages.rotate_left(1);
            let mut tree = payload::unpack(&packages, &Prune::default(), &step()).unwrap().tree;
            tree.settle(&Arc::from("image")).unwrap();
            bytes_of(&tree)
        };
        let first = make();
        assert_eq!(first, make());
        assert_eq!(first, make());

        let mut archive = tar::Archive::new(first.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (7, 0, 0));
            let link = entry.link_name_bytes().map(|l| String::from_utf8(l.into_owned()).unwrap());
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            seen.push((path, header.entry_type(), header.mode().unwrap(), link));
        }
        let find = |path: &str| seen.iter().find(|(p, ..)| p == path).unwrap_or_else(|| panic!("no {path}"));
        assert!(seen.is_sorted_by_key(|(path, ..)| path.trim_end_matches('/').to_owned()));
        assert_eq!(find("tmp/").2, 0o1777);
        // The first name in order carries the content, the other is the link.
        assert_eq!((find("usr/lib/a").1, find("usr/lib/a").2), (tar::EntryType::Regular, 0o4755));
        assert_eq!(find("usr/lib/z").3.as_deref(), Some("usr/lib/a"));
        assert_eq!(find("usr/lib/odd").3.as_deref(), Some("..//x/./y"));
        assert_eq!(find("usr/lib/l").3.as_deref(), Some(target.as_str()));
        assert!(find(&long).1.is_file() && find("usr/lib/b.so").1.is_file());
    }

    #[test]
    fn a_file_that_changed_meanwhile_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345").unwrap();
        let content = Content::Outside { path: file.path().to_owned(), size: 4 };
        let mut tree = Tree::new();
        tree.put("x", Node::file(content, 0o644, &Arc::from("kernel"))).unwrap();
        let error = write(&tree, 0, io::sink(), &step()).unwrap_err().to_string();
        assert!(error.contains("changed while the image was made"), "{error}");
    }
}
