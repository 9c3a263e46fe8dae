//! How much room a file system has, and a full disk told in words a user can act on.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The room on the file system that holds a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes an ordinary user may still write.
    pub available: u64,
    /// Bytes in all.
    pub total: u64,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its type and device, for instance `ext4 on /dev/sda1`.
    pub device: String,
}

/// Looks up the file system that holds `path` (or its nearest ancestor that exists).
pub fn free_space(path: &Path) -> anyhow::Result<FreeSpace> {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let existing = existing.canonicalize().unwrap_or_else(|_| existing.to_path_buf());
    let stat = rustix::fs::statvfs(&existing)
        .with_context(|| format!("cannot ask for the free space of {}", existing.display()))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let (mount_point, device) = mount_of(&mounts, &existing);
    Ok(FreeSpace {
        available: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        mount_point,
        device,
    })
}

/// The mount point and `TYPE on DEVICE` of `path`, from the text of `/proc/self/mountinfo` (proc(5)).
fn mount_of(mountinfo: &str, path: &Path) -> (PathBuf, String) {
    let mut best = (PathBuf::from("/"), "the root file system".to_string());
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let (Some(mount), mut after) = (before.split(' ').nth(4), after.split(' ')) else { continue };
        let (Some(kind), Some(device)) = (after.next(), after.next()) else { continue };
        let mount = PathBuf::from(mount.replace("\\040", " "));
        // Equal length: a later mount hides an earlier one at the same place.
        if path.starts_with(&mount) && mount.as_os_str().len() >= best.0.as_os_str().len() {
            best = (mount, format!("{kind} on {device}"));
        }
    }
    best
}

/// Whether a write failed for want of room: a full disk, a quota, or a limit on file sizes.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// The sentence for a write to `path` that failed for want of room; `needed` is what it takes in all, when known.
pub(crate) fn no_space(path: &Path, needed: Option<u64>) -> String {
    let place = match free_space(path) {
        Ok(space) => format!(
            "{} ({}) has {} free of {}",
            space.mount_point.display(),
            space.device,
            human(space.available),
            human(space.total)
        ),
        Err(_) => format!("the file system of {} is full", path.display()),
    };
    let needed = needed.map(|n| format!(", {} are needed", human(n))).unwrap_or_default();
    format!(
        "no room to write {}: {place}{needed}; free some, run `cargo xtask cache prune`, or set XDG_CACHE_HOME to a \
         larger disk (check quotas and `ulimit -f` if it is not full)",
        path.display()
    )
}

/// Explains an error whose cause was a full disk; any other is left as it is.
pub(crate) fn explain(error: anyhow::Error, path: &Path) -> anyhow::Error {
    let full = error.chain().filter_map(|e| e.downcast_ref::<io::Error>()).any(is_no_space);
    if full { error.context(no_space(path, None)) } else { error }
}

/// Bytes as people read them: three digits and a decimal unit.
pub(crate) fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_wins() {
        let info = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                    30 22 0:26 / /home/a\\040b rw - tmpfs tmpfs rw\n\
                    31 22 0:27 / /home rw shared:1 master:2 - btrfs /dev/sdb rw\n";
        let of = |path: &str| mount_of(info, Path::new(path));
        assert_eq!(of("/home/a b/c"), (PathBuf::from("/home/a b"), "tmpfs on tmpfs".into()));
        assert_eq!(of("/home/x"), (PathBuf::from("/home"), "btrfs on /dev/sdb".into()));
        assert_eq!(of("/homes"), (PathBuf::from("/"), "ext4 on /dev/vda".into()));
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(999), "999 B");
        assert_eq!(human(232_000_000), "232.0 MB");
        assert_eq!(human(1_000_000_000), "1.0 GB");
    }

    #[test]
    fn a_full_disk_deep_in_an_error_is_found() {
        let full = anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull)).context("write x");
        assert!(format!("{:#}", explain(full, Path::new("/"))).starts_with("no room to write /: "));
        let other = anyhow::Error::from(io::Error::from(io::ErrorKind::NotFound));
        assert!(!format!("{:#}", explain(other, Path::new("/"))).contains("no room"));
    }
}
