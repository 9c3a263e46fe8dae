//! Processors, memory, and memory that may be locked.

use rustix::process::{Resource, getrlimit};

use crate::Finding;
use crate::cgroup;
use crate::tree::Tree;

const GIB: u64 = 1 << 30;
/// Two guests of 1 GiB with QEMU's own needs, and a linker beside them.
const MEMORY_GOOD: u64 = 4 * GIB;
/// One small guest, or a compile job at a time.
const MEMORY_LEAST: u64 = 3 * GIB / 2;

/// How many processors this process may run on.
pub(crate) fn affinity() -> usize {
    // Not `available_parallelism`, which folds the control group's quota in: a user should see both.
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize)
}

pub(crate) fn cpus(tree: &Tree, affinity: usize) -> Finding {
    let name = "cpus";
    let quota = cgroup::cpu_quota(tree).filter(|quota| *quota < affinity as f64);
    let (count, detail) = match quota {
        Some(quota) => (quota, format!("{affinity}, of which the control group grants {quota:.1}")),
        None => (affinity as f64, affinity.to_string()),
    };
    if count >= 2.0 {
        return Finding::ok(name, detail);
    }
    let detail = format!("{detail}: guests share it with each other and their devices, timing tests will be noisy");
    Finding::limited(name, detail, "give this host (or its control group) at least two processors")
}

pub(crate) fn memory(tree: &Tree) -> Finding {
    let name = "memory";
    let meminfo = tree.read("proc/meminfo").unwrap_or_default();
    let field = |field: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some(value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    let (Some(total), Some(available)) = (field("MemTotal"), field("MemAvailable")) else {
        return Finding::limited(name, "/proc/meminfo does not say how much there is", "mount /proc");
    };
    let limit = cgroup::memory_limit(tree).filter(|limit| *limit < total);
    let usable = limit.map_or(available, |limit| limit.min(available));
    let mut detail = format!("{} available of {}", gib(available), gib(total));
    if let Some(limit) = limit {
        detail += &format!(", the control group grants {}", gib(limit));
    }
    if usable >= MEMORY_GOOD {
        Finding::ok(name, detail)
    } else if usable >= MEMORY_LEAST {
        let detail = format!("{detail}; a lab of two guests and a kernel build want {}", gib(MEMORY_GOOD));
        Finding::limited(name, detail, "set a smaller `memory` for guests in lab.toml, or close other programs")
    } else {
        let detail = format!("{detail}; a lab wants at least {}", gib(MEMORY_LEAST));
        Finding::missing(name, detail, "close other programs, add memory, or raise the control group's limit")
    }
}

/// `RLIMIT_MEMLOCK` in bytes; `None` is no limit.
pub(crate) fn memlock_limit() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// Only passthrough needs it: VFIO pins all of a guest's memory.
pub(crate) fn memlock(limit: Option<u64>, is_root: bool) -> Finding {
    let name = "memlock";
    match limit {
        None => Finding::ok(name, "unlimited"),
        Some(limit) if limit >= 2 * GIB => Finding::ok(name, gib(limit)),
        Some(limit) if is_root => Finding::ok(name, format!("{}, which does not bind root", gib(limit))),
        Some(limit) => Finding::limited(
            name,
            format!(
                "{} may be locked: enough for emulated devices; passing a PCI device to a guest locks all of its memory",
                gib(limit)
            ),
            "echo \"$USER - memlock unlimited\" | sudo tee /etc/security/limits.d/devmem-lab.conf, then log in again",
        ),
    }
}

pub(crate) fn gib(bytes: u64) -> String {
    if bytes < GIB / 10 {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    } else {
        format!("{:.1} GiB", bytes as f64 / GIB as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    #[test]
    fn memory_by_host() {
        let cases = [
            ("workstation", Status::Ok, "27.3 GiB available of 31.2 GiB"),
            (
                "cloud-guest",
                Status::Limited,
                "3.3 GiB available of 3.8 GiB; a lab of two guests and a kernel build want 4.0 GiB",
            ),
            (
                "container",
                Status::Missing,
                "58.3 GiB available of 62.7 GiB, the control group grants 1.0 GiB; a lab wants at least 1.5 GiB",
            ),
            (
                "container-v1",
                Status::Limited,
                "58.3 GiB available of 62.7 GiB, the control group grants 2.0 GiB; a lab of two guests and a kernel build want 4.0 GiB",
            ),
        ];
        for (sample, status, detail) in cases {
            let found = memory(&Tree::sample(sample));
            assert_eq!((found.status, found.detail.as_str()), (status, detail), "{sample}");
            assert_eq!(found.remedy.is_none(), status == Status::Ok);
        }
    }

    #[test]
    fn processors_by_host() {
        let cases = [
            ("workstation", 8, Status::Ok, "8"),
            ("cloud-guest", 1, Status::Limited, "1: "),
            ("container", 16, Status::Limited, "16, of which the control group grants 1.5: "),
            ("container-v1", 16, Status::Ok, "16, of which the control group grants 4.0"),
            ("container", 1, Status::Limited, "1: "),
        ];
        for (sample, affinity, status, detail) in cases {
            let found = cpus(&Tree::sample(sample), affinity);
            assert_eq!(found.status, status, "{sample}");
            assert!(found.detail.starts_with(detail), "{sample}: {}", found.detail);
        }
    }

    #[test]
    fn locked_memory_matters_to_ordinary_users_only() {
        assert_eq!(memlock(None, false).status, Status::Ok);
        assert_eq!(memlock(Some(8 << 20), true).status, Status::Ok);
        let found = memlock(Some(8 << 20), false);
        assert_eq!(found.status, Status::Limited);
        assert!(found.detail.starts_with("8.0 MiB may be locked"), "{}", found.detail);
    }
}
