//! Work trees under switches, broken-off switches and changes of base.

use super::*;
use std::time::SystemTime;

use artifacts::Cache;

fn unpack(dir: &Path, base: &str) -> Result<String> {
    fs::create_dir_all(dir.join("net"))?;
    fs::write(dir.join("net/a.c"), "a")?;
    fs::write(dir.join("net/b.c"), "b")?;
    std::os::unix::fs::symlink("a.c", dir.join("net/link.c"))?;
    Ok(base.into())
}

fn file(text: &str) -> Change {
    Change::File { bytes: text.into(), executable: false }
}

fn open(cache: &Cache, base: &str) -> WorkTree {
    WorkTree::open(cache.work("kernel-test").unwrap(), |b| b == base, |dir| unpack(dir, base)).unwrap()
}

fn mtime(tree: &WorkTree, path: &str) -> SystemTime {
    fs::metadata(tree.source().join(path)).unwrap().modified().unwrap()
}

/// Every file of a tree with its content.
fn content(tree: &WorkTree) -> Overlay {
    fn walk(dir: &Path, top: &Path, all: &mut Overlay) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, top, all);
            } else {
                let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_string();
                all.insert(name, read(&path).unwrap().unwrap());
            }
        }
    }
    let mut all = Overlay::new();
    walk(&tree.source(), &tree.source(), &mut all);
    all
}

fn patched() -> Overlay {
    let script = Change::File { bytes: b"#!/bin/sh\n".to_vec(), executable: true };
    Overlay::from([("net/a.c".into(), file("A")), ("net/new/c.sh".into(), script), ("net/link.c".into(), Change::Gone)])
}

#[test]
fn laying_writes_only_what_differs_and_goes_back_to_the_base() {
    let top = tempfile::tempdir().unwrap();
    let cache = Cache::at(top.path()).unwrap();
    let mut tree = open(&cache, "base");
    let plain = content(&tree);
    let before = (mtime(&tree, "net/a.c"), mtime(&tree, "net/b.c"));
    assert_eq!(tree.lay(&patched()).unwrap(), ["net/a.c", "net/link.c", "net/new/c.sh"]);
    assert_eq!(mtime(&tree, "net/b.c"), before.1);
    assert!(mtime(&tree, "net/a.c") > before.0);
    let after = mtime(&tree, "net/a.c");
    assert_eq!(tree.lay(&patched()).unwrap(), [""; 0]);
    assert_eq!(mtime(&tree, "net/a.c"), after);
    assert_eq!(tree.base_file("net/a.c").unwrap(), Some(file("a")));
    assert_eq!(tree.base_file("net/new/c.sh").unwrap(), None);
    drop(tree);
    let mut tree = open(&cache, "base");
    assert_eq!(content(&tree)["net/a.c"], file("A"), "what is laid survives");
    assert_eq!(tree.lay(&Overlay::new()).unwrap().len(), 3);
    assert_eq!(content(&tree), plain);
}

#[test]
fn the_base_can_move_below_an_overlay() {
    let top = tempfile::tempdir().unwrap();
    let cache = Cache::at(top.path()).unwrap();
    let mut tree = open(&cache, "base");
    tree.lay(&patched()).unwrap();
    tree.set_base("net/a.c", &file("a2")).unwrap();
    tree.set_base("net/b.c", &file("b2")).unwrap();
    tree.set_base("net/d.c", &file("d")).unwrap();
    assert_eq!(content(&tree)["net/a.c"], file("A"), "the overlay hides it");
    assert_eq!(tree.lay(&patched()).unwrap(), [""; 0]);
    tree.set_base("net/link.c", &Change::Gone).unwrap();
    tree.lay(&Overlay::new()).unwrap();
    let expected = [("net/a.c", "a2"), ("net/b.c", "b2"), ("net/d.c", "d")];
    assert_eq!(content(&tree), expected.map(|(p, t)| (p.to_string(), file(t))).into());
}

#[test]
fn a_broken_off_switch_is_laid_again() {
    let top = tempfile::tempdir().unwrap();
    let cache = Cache::at(top.path()).unwrap();
    let mut tree = open(&cache, "base");
    let plain = content(&tree);
    // What a killed switch leaves: the state is written, one file is changed, another half-written.
    for path in ["net/a.c", "net/b.c"] {
        put(&tree.pristine(path), &file(&path[4..5])).unwrap();
        tree.state.touched.insert(path.into(), true);
    }
    tree.state.switching = true;
    tree.save().unwrap();
    fs::write(tree.source().join("net/a.c"), "A").unwrap();
    fs::write(tree.source().join("net/b.c.unfinished"), "B").unwrap();
    drop(tree);
    let mut tree = open(&cache, "base");
    tree.lay(&Overlay::from([("net/b.c".into(), file("B"))])).unwrap();
    tree.lay(&Overlay::new()).unwrap();
    assert_eq!(content(&tree), plain);
}

#[test]
fn another_base_or_a_torn_state_unpacks_anew() {
    let top = tempfile::tempdir().unwrap();
    let cache = Cache::at(top.path()).unwrap();
    let mut tree = open(&cache, "base");
    tree.lay(&patched()).unwrap();
    tree.dir("obj/x").unwrap();
    drop(tree);
    let mut tree = open(&cache, "other");
    assert!(!tree.work.path().join("obj").exists(), "objects of another base are of no use");
    assert_eq!(content(&tree)["net/a.c"], file("a"));
    tree.lay(&patched()).unwrap();
    let state = tree.work.path().join(STATE);
    drop(tree);
    fs::write(&state, "{").unwrap();
    assert_eq!(content(&open(&cache, "other"))["net/a.c"], file("a"));
}

#[test]
fn a_failed_unpacking_leaves_nothing() {
    let top = tempfile::tempdir().unwrap();
    let cache = Cache::at(top.path()).unwrap();
    let work = cache.work("kernel-test").unwrap();
    let path = work.path().to_path_buf();
    let error = WorkTree::open(
        work,
        |_| true,
        |dir| {
            fs::write(dir.join("half"), "")?;
            bail!("the archive is torn")
        },
    );
    assert!(error.unwrap_err().to_string().contains("torn"));
    assert!(!path.join("unpacking").exists() && !path.join("linux").exists());
    open(&cache, "base");
}

#[test]
fn the_tree_id_tells_contents_apart() {
    let id = tree_id("base", &patched());
    assert_eq!(id, tree_id("base", &patched()));
    assert_ne!(id, tree_id("other", &patched()));
    assert_ne!(id, tree_id("base", &Overlay::new()));
    let mut plain = patched();
    plain.insert("net/new/c.sh".into(), file("#!/bin/sh\n"));
    assert_ne!(id, tree_id("base", &plain), "the execute bit counts");
}
