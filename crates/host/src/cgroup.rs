//! Limits of the control groups this process is in (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/).
//!
//! In a container `/proc/meminfo` and the processor count are those of the whole machine; what counts is here.

use std::path::{Path, PathBuf};

use crate::tree::Tree;

/// The smallest memory limit on the way from this process's group to the root, in bytes.
pub(crate) fn memory_limit(tree: &Tree) -> Option<u64> {
    let unified = groups(tree, "").into_iter().filter_map(|dir| tree.number(dir.join("memory.max")));
    let legacy = groups(tree, "memory").into_iter().filter_map(|dir| tree.number(dir.join("memory.limit_in_bytes")));
    // Version 1 writes "no limit" as a number near 2^63.
    unified.chain(legacy).filter(|limit| *limit < 1 << 60).min()
}

/// The smallest processor quota on the way, in processors.
pub(crate) fn cpu_quota(tree: &Tree) -> Option<f64> {
    let unified = groups(tree, "").into_iter().filter_map(|dir| {
        let text = tree.read(dir.join("cpu.max"))?;
        let (quota, period) = text.trim().split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    });
    let legacy = groups(tree, "cpu").into_iter().filter_map(|dir| {
        // -1 means none and does not parse as an unsigned number.
        let quota = tree.number(dir.join("cpu.cfs_quota_us"))?;
        Some(quota as f64 / tree.number(dir.join("cpu.cfs_period_us"))? as f64)
    });
    unified.chain(legacy).filter(|quota| *quota > 0.0).min_by(f64::total_cmp)
}

/// The group's directory and those above it, for a controller of version 1 or, with an empty name, version 2.
fn groups(tree: &Tree, controller: &str) -> Vec<PathBuf> {
    let Some(text) = tree.read("proc/self/cgroup") else { return Vec::new() };
    // `ID:CONTROLLERS:PATH` (cgroups(7)).
    let mine = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        controllers.split(',').any(|c| c == controller).then(|| path.trim_start_matches('/').to_string())
    });
    let Some(mine) = mine else { return Vec::new() };
    let mount = Path::new("sys/fs/cgroup").join(controller);
    // Inside a container the path may be the host's and not be there; the mount's root then is the container's group.
    Path::new(&mine).ancestors().map(|path| mount.join(path)).collect()
}
