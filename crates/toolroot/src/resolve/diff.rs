//! What a refresh changed, for people to read before they commit it.

use std::collections::BTreeMap;
use std::fmt;

use artifacts::{Lock, LockError};

/// One difference between two locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockChange {
    /// A package is new in a root.
    Added {
        /// The root.
        root: String,
        /// The package.
        package: String,
        /// Its version.
        version: String,
    },
    /// A package is no longer in a root.
    Removed {
        /// The root.
        root: String,
        /// The package.
        package: String,
        /// The version it had.
        version: String,
    },
    /// A package of a root has another version, or another build of the same version.
    Updated {
        /// The root.
        root: String,
        /// The package.
        package: String,
        /// The version it had.
        from: String,
        /// The version it has.
        to: String,
    },
    /// A source is new, gone, or has other forms.
    Source {
        /// Its name.
        name: String,
    },
    /// The dated archive's moment moved.
    Snapshot {
        /// It was.
        from: String,
        /// It is.
        to: String,
    },
}

impl fmt::Display for LockChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockChange::Added { root, package, version } => write!(f, "{root}: + {package} {version}"),
            LockChange::Removed { root, package, version } => write!(f, "{root}: - {package} {version}"),
            LockChange::Updated { root, package, from, to } => write!(f, "{root}: {package} {from} → {to}"),
            LockChange::Source { name } => write!(f, "source {name}: other files"),
            LockChange::Snapshot { from, to } => write!(f, "snapshot {from} → {to}"),
        }
    }
}

/// The differences, root by root.
pub fn changes(old: &Lock, new: &Lock) -> Result<Vec<LockChange>, LockError> {
    let mut all = Vec::new();
    let (before, after) = (members(old)?, members(new)?);
    for (key, (version, sha256)) in &after {
        let (root, package) = (key.0.clone(), key.1.clone());
        match before.get(key) {
            None => all.push(LockChange::Added { root, package, version: version.clone() }),
            Some((from, old_sha256)) if from != version || old_sha256 != sha256 => {
                all.push(LockChange::Updated { root, package, from: from.clone(), to: version.clone() });
            }
            Some(_) => {}
        }
    }
    for (key, (version, _)) in &before {
        if !after.contains_key(key) {
            let (root, package) = (key.0.clone(), key.1.clone());
            all.push(LockChange::Removed { root, package, version: version.clone() });
        }
    }
    let names = old.sources.iter().chain(&new.sources).map(|s| s.name.clone());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    for name in names {
        let find = |lock: &Lock| lock.sources.iter().find(|s| s.name == name).cloned();
        if find(old) != find(new) {
            all.push(LockChange::Source { name });
        }
    }
    let (from, to) = (&old.distribution.snapshot, &new.distribution.snapshot);
    if from != to {
        all.push(LockChange::Snapshot { from: from.clone(), to: to.clone() });
    }
    Ok(all)
}

/// Version and hash by root and package.
type Members = BTreeMap<(String, String), (String, String)>;

fn members(lock: &Lock) -> Result<Members, LockError> {
    let mut all = Members::new();
    for root in &lock.roots {
        for deb in lock.root(&root.name)?.debs {
            all.insert((root.name.clone(), deb.name.clone()), (deb.version.clone(), deb.sha256.to_string()));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn lock() -> Lock {
        Lock::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../lab.lock"))).unwrap()
    }

    #[test]
    fn equal_locks_have_no_changes() {
        assert_eq!(changes(&lock(), &lock()).unwrap(), []);
    }

    #[test]
    fn every_kind_of_change_is_told() {
        let (old, mut new) = (lock(), lock());
        let gcc = new.debs.iter_mut().find(|deb| deb.name == "gcc-14").unwrap();
        gcc.version = "99".into();
        let vm = new.roots.iter_mut().find(|root| root.name == "vm").unwrap();
        vm.members.retain(|name| name != "seabios");
        vm.requested.retain(|name| name != "seabios");
        vm.members.push("bison".into());
        new.sources[0].alternatives.pop();
        new.distribution.snapshot = "20300101T000000Z".into();
        let text: Vec<String> = changes(&old, &new).unwrap().iter().map(ToString::to_string).collect();
        for expected in
            ["build: gcc-14 14.2.0-19 → 99", "vm: - seabios 1.", "vm: + bison ", "source linux", "snapshot "]
        {
            assert!(text.iter().any(|line| line.starts_with(expected)), "{expected}: {text:?}");
        }
        assert_eq!(text.len(), 5, "{text:?}");
    }
}
