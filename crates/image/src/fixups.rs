//! Applies a definition's fix-ups to the unpacked packages: what maintainer scripts would have done, as data.
//!
//! Each entry is checked against the tree: a copy needs its original, a relative link its target, and nothing a
//! package ships is replaced in silence. So a package that renames a file breaks the build with a sentence, not a guest.

use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::definition::{Definition, inside};
use crate::tree::{Kind, Node, Tree};

/// Who owns the nodes a definition makes.
pub const ORIGIN: &str = "definition";

/// Applies links, copies, directories and files of `definition` to `tree`, which must be settled.
pub fn apply(definition: &Definition, tree: &mut Tree) -> Result<()> {
    let origin: Arc<str> = Arc::from(ORIGIN);
    for (path, original) in &definition.copies {
        copy(tree, path, original, &origin).with_context(|| format!("[copies] {path:?}"))?;
    }
    for (path, directory) in &definition.directories {
        put(tree, path, Node::directory(directory.mode.0, &origin))
            .with_context(|| format!("[directories] {path:?}"))?;
    }
    for (path, file) in &definition.files {
        let mode = file.mode.map_or(0o644, |mode| mode.0);
        let node = Node::file(crate::tree::Content::new(file.content.as_bytes()), mode, &origin);
        put(tree, path, node).with_context(|| format!("[files] {path:?}"))?;
    }
    for (path, target) in &definition.links {
        put(tree, path, Node::symlink(target, &origin)).with_context(|| format!("[links] {path:?}"))?;
    }
    tree.settle(&origin)?;
    for (path, target) in &definition.links {
        // What lies in /proc, /sys or /run is there only once the guest runs.
        let (_, real) = real_path(tree, path)?;
        if !target.contains("proc/") && !target.starts_with("/run") && tree.follow(&real).is_none() {
            bail!("[links] {path:?} points to {target:?}, which is not in the image; correct it or take it out");
        }
    }
    Ok(())
}

fn copy(tree: &mut Tree, path: &str, original: &str, origin: &Arc<str>) -> Result<()> {
    let found = tree.follow(inside(original)?).map(|(_, node)| node.clone());
    match found {
        Some(node @ Node { kind: Kind::File(_), .. }) => {
            // A copy, not a hard link: a guest may write to one of them.
            let kind = match node.kind {
                Kind::File(crate::tree::Content::Bytes(bytes)) => {
                    Kind::File(crate::tree::Content::new(bytes.as_ref().clone()))
                }
                other => other,
            };
            put(tree, path, Node { kind, origin: Arc::clone(origin), ..node })
        }
        Some(_) => bail!("the original {original:?} is no file"),
        None => bail!("the original {original:?} is not in the image: no package ships it, or it is pruned"),
    }
}

/// Puts a node where nothing is, or in place of an empty directory; a directory may be given other attributes.
fn put(tree: &mut Tree, path: &str, node: Node) -> Result<()> {
    let (parent, real) = real_path(tree, path)?;
    if let Some(parent) = parent
        && let Some(above) = tree.get(&parent)
        && !matches!(above.kind, Kind::Directory)
    {
        bail!("/{parent} is no directory but comes from {}", above.origin);
    }
    if let Some(old) = tree.get(&real) {
        let below = format!("{real}/");
        let occupied = tree.iter().find(|(other, _)| other.starts_with(&below)).map(|(other, _)| other.to_owned());
        match (&old.kind, &node.kind, occupied) {
            (Kind::Directory, Kind::Directory, _) | (Kind::Directory, Kind::Symlink(_), None) => {}
            (Kind::Directory, _, Some(other)) => bail!("it would replace a directory that holds /{other}"),
            _ => bail!("{} ships it already; prune it there first, or leave it out here", old.origin),
        }
    }
    Ok(tree.put(&real, node)?)
}

/// Parent and path with symbolic links among the ancestors followed.
fn real_path(tree: &Tree, path: &str) -> Result<(Option<String>, String)> {
    let plain = inside(path)?;
    let real = tree.resolve(plain).with_context(|| format!("the directory of {path:?} cannot be found"))?;
    Ok((real.rsplit_once('/').map(|(parent, _)| parent.to_owned()), real))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Content;

    fn base() -> Tree {
        let who: Arc<str> = Arc::from("p");
        let mut tree = Tree::new();
        for (path, node) in [
            ("bin", Node::symlink("usr/bin", &who)),
            ("usr/bin/gawk", Node::file(Content::new("elf"), 0o755, &who)),
            ("usr/share/passwd.master", Node::file(Content::new("root"), 0o644, &who)),
            ("var/run", Node::directory(0o755, &who)),
            ("var/spool/x", Node::file(Content::new(""), 0o600, &who)),
        ] {
            tree.merge(path, node).unwrap();
        }
        tree.settle(&who).unwrap();
        tree
    }

    fn applied(text: &str) -> Result<Tree> {
        let head = "root = \"guest\"\n[filesystem]\nuuid = \"6c61622d-6261-4365-8000-000000000001\"\nepoch = 1\n\
                    compression = \"lz4\"\ncluster = 65536\n";
        let mut tree = base();
        apply(&Definition::parse(&format!("{head}{text}"))?, &mut tree)?;
        Ok(tree)
    }

    #[test]
    fn fixups_land_where_links_lead() {
        let tree = applied(
            "[links]\n\"/bin/awk\" = \"gawk\"\n\"/var/run\" = \"/run\"\n[copies]\n\"/etc/passwd\" = \
             \"/usr/share/passwd.master\"\n[directories]\n\"/mnt\" = {}\n\"/srv\" = { mode = \"0700\" }\n\
             [files.\"/etc/hosts\"]\ncontent = \"x\"\n",
        )
        .unwrap();
        assert!(matches!(&tree.get("usr/bin/awk").unwrap().kind, Kind::Symlink(to) if to == "gawk"));
        assert!(matches!(&tree.get("var/run").unwrap().kind, Kind::Symlink(to) if to == "/run"));
        assert_eq!(tree.get("etc/passwd").unwrap().size(), 4);
        assert_eq!((tree.get("mnt").unwrap().mode, tree.get("srv").unwrap().mode), (0o755, 0o700));
        assert_eq!(&*tree.get("etc/hosts").unwrap().origin, ORIGIN);
    }

    #[test]
    fn what_does_not_fit_the_packages_is_an_error_that_names_the_entry() {
        let table = [
            ("[links]\n\"/usr/bin/nc\" = \"nc.openbsd\"\n", "[links] \"/usr/bin/nc\" points to \"nc.openbsd\""),
            ("[links]\n\"/usr/bin/gawk\" = \"awk\"\n", "p ships it already"),
            ("[links]\n\"/var/spool\" = \"/run\"\n", "replace a directory that holds /var/spool/x"),
            ("[copies]\n\"/etc/x\" = \"/usr/share/none\"\n", "\"/usr/share/none\" is not in the image"),
            ("[files.\"/usr/bin/gawk/x\"]\ncontent = \"\"\n", "/usr/bin/gawk is no directory"),
        ];
        for (text, want) in table {
            let error = format!("{:#}", applied(text).unwrap_err());
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
