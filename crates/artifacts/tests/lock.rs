//! lab.lock: what is written is read back, in one order only; what makes no sense is refused by name.
//!
//! Every `tests/data/lock/NAME.lock` is refused with exactly the message in `NAME.txt`.

use std::fs;
use std::path::Path;

use artifacts::{Lock, LockError};

fn data() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lock")
}

fn good() -> Lock {
    Lock::load(&data().join("good.toml")).unwrap()
}

#[test]
fn every_bad_lock_is_refused_with_its_message() {
    let mut cases = 0;
    for entry in fs::read_dir(data()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "lock") {
            let text = fs::read_to_string(&path).unwrap();
            let error = Lock::parse(&text, Path::new("lab.lock")).expect_err(path.to_str().unwrap()).to_string();
            let expected = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
            assert_eq!(error.trim_end(), expected.trim_end(), "{}", path.display());
            cases += 1;
        }
    }
    assert!(cases >= 15, "only {cases} cases were found");
}

#[test]
fn the_text_is_sorted_stable_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lab.lock");
    let lock = good();
    let mut shuffled = lock.clone();
    shuffled.debs.reverse();
    shuffled.roots.reverse();
    shuffled.roots.iter_mut().for_each(|root| root.members.reverse());
    assert_ne!(lock, shuffled);
    shuffled.save(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), fs::read_to_string(data().join("good.toml")).unwrap());
    assert_eq!(Lock::load(&path).unwrap(), lock);
    assert_eq!(lock.hash(), shuffled.hash());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");

    let mut other = lock.clone();
    other.debs[0].size += 1;
    assert_ne!(lock.hash(), other.hash());
}

#[test]
fn a_lock_that_makes_no_sense_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lab.lock");
    let mut lock = good();
    lock.debs[0].size = 0;
    let error = lock.save(&path).unwrap_err().to_string();
    assert_eq!(error, "lab.lock: deb gcc-14 14.2.0-19 amd64: its size is 0");
    assert!(!path.exists());
    let nowhere = dir.path().join("no/such/lab.lock");
    assert!(matches!(good().save(&nowhere), Err(LockError::Io { doing: "write", .. })));
}

#[test]
fn roots_and_sources_are_found_by_name() {
    let lock = good();
    let root = lock.root("guest").unwrap();
    let ids: Vec<String> = root.debs.iter().map(|d| d.id()).collect();
    assert_eq!(ids, ["libc6=2.41-12", "libibverbs1=56.1-1"]);
    assert_eq!(root.requested, ["libibverbs1/trixie", "systemd-"]);
    assert_eq!(lock.source("linux-7.3.4").unwrap().alternatives[1].inner.as_deref(), Some("usr/src/l.tar.xz"));
    assert_eq!(lock.deb("gcc-14").map(|d| d.size), Some(100));
    assert_eq!(lock.deb("libc6"), None, "the lock has two");
    let error = lock.root("guests").unwrap_err().to_string();
    let expected = "lab.lock has no root `guests` (it has build, guest); refresh it with `cargo xtask lock --update`";
    assert_eq!(error, expected);
    let missing = Lock::load(Path::new("/no/such/lab.lock")).unwrap_err().to_string();
    assert_eq!(missing, "/no/such/lab.lock is not there; make it with `cargo xtask lock --update`");
}
