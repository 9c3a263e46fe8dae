//! What this host can do for a lab, found out by trying and not by guessing from version numbers.
//!
//! In: the host's `/proc`, `/sys` and `/dev` (or sample trees in tests) and the place of the cache. Out: a [`Finding`]
//! for each ability, with the one-line remedy where something is amiss. Whether user namespaces work is not decided
//! here: that is found out by whoever makes them; here are only the settings that explain it.

mod cgroup;
mod devices;
mod disk;
mod finding;
pub mod kvm;
mod resources;
mod runtime;
mod tree;
mod userns;

use std::env;
use std::path::{Path, PathBuf};

pub use finding::{Finding, Status};
use runtime::Runtime;
use tree::Tree;

/// Looks at everything. `cache` is the directory of the cache; it need not exist yet.
pub fn examine(cache: &Path) -> Vec<Finding> {
    let tree = Tree::host();
    let is_root = rustix::process::geteuid().is_root();
    vec![
        kvm::finding(&kvm::probe(), &tree.cpu_flags()),
        resources::cpus(&tree, resources::affinity()),
        resources::memory(&tree),
        resources::memlock(resources::memlock_limit(), is_root),
        disk::finding(cache),
        runtime::finding(&Runtime {
            variable: env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            temporary: env::temp_dir(),
            uid: rustix::process::geteuid().as_raw(),
        }),
        userns::finding(&tree, is_root),
        devices::tun(&tree),
        devices::iommu(&tree),
    ]
}
