//! The file system of the cache: room, inodes, and what programs and locks need of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, StatVfsMountFlags, flock, statvfs};

use crate::Finding;
use crate::resources::gib;

const GIB: u64 = 1 << 30;
/// Packages, unpacked roots, a kernel's source and objects, images, with some room for a second kernel.
const GOOD: u64 = 12 * GIB;
/// The same for one kernel that is not built but downloaded.
const LEAST: u64 = 4 * GIB;
/// Files of two unpacked roots and one kernel tree with its objects.
const INODES: u64 = 300_000;

/// Looks at the file system `cache` is on, or will be.
pub(crate) fn finding(cache: &Path) -> Finding {
    let name = "disk";
    let move_it = "set XDG_CACHE_HOME to a directory on another disk";
    let dir = existing(cache);
    let stat = match statvfs(&dir) {
        Ok(stat) => stat,
        Err(e) => {
            return Finding::missing(name, format!("{} cannot be asked for its room: {e}", dir.display()), move_it);
        }
    };
    let place = cache.display();
    if stat.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        let detail = format!("{place} is on a file system mounted noexec, and unpacked tools must run from there");
        return Finding::missing(name, detail, move_it);
    }
    if let Err(problem) = try_out(&dir) {
        return Finding::missing(name, format!("{}: {problem}", dir.display()), move_it);
    }
    judge(&place.to_string(), stat.f_bavail.saturating_mul(stat.f_frsize), (stat.f_files > 0).then_some(stat.f_favail))
}

/// By room and inodes; a file system without a fixed number of inodes reports none.
fn judge(place: &str, available: u64, inodes: Option<u64>) -> Finding {
    let name = "disk";
    let detail = format!("{} free for {place}", gib(available));
    let remedy = "free some, run `cargo xtask cache prune`, or set XDG_CACHE_HOME to a directory on a larger disk";
    if available < LEAST {
        return Finding::missing(name, format!("{detail}; a lab wants at least {}", gib(LEAST)), remedy);
    }
    if let Some(inodes) = inodes.filter(|inodes| *inodes < INODES) {
        return Finding::limited(
            name,
            format!("{detail}, but only {inodes} more files fit; {INODES} are wanted"),
            remedy,
        );
    }
    if available < GOOD {
        return Finding::limited(name, format!("{detail}; building a kernel from source wants {}", gib(GOOD)), remedy);
    }
    Finding::ok(name, detail)
}

fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_path_buf()
}

/// Writes, locks, makes executable and renames a small file: network and container file systems fail at one or the
/// other.
fn try_out(dir: &Path) -> Result<(), String> {
    let names = ["a", "b"].map(|n| dir.join(format!(".devmem-lab-doctor-{}-{n}", std::process::id())));
    let steps = || -> Result<(), String> {
        let told = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
        let mut file = File::create(&names[0]).map_err(told("files cannot be made"))?;
        file.write_all(b"x").map_err(told("files cannot be written"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| format!("files cannot be locked (flock): {e}"))?;
        fs::set_permissions(&names[0], fs::Permissions::from_mode(0o555)).map_err(told("modes cannot be set"))?;
        let mode = fs::metadata(&names[0]).map_err(told("files cannot be looked at"))?.permissions().mode();
        if mode & 0o777 != 0o555 {
            return Err(format!("a file made with mode 555 has mode {:o}", mode & 0o777));
        }
        fs::rename(&names[0], &names[1]).map_err(told("files cannot be renamed"))
    };
    let outcome = steps();
    for name in &names {
        // One of the two is there, or none if the first step failed.
        let _ = fs::remove_file(name);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    #[test]
    fn room_and_inodes() {
        let cases = [
            (3 * GIB, None, Status::Missing, "3.0 GiB free for /c; a lab wants at least 4.0 GiB"),
            (
                5 * GIB,
                Some(1 << 40),
                Status::Limited,
                "5.0 GiB free for /c; building a kernel from source wants 12.0 GiB",
            ),
            (
                50 * GIB,
                Some(5000),
                Status::Limited,
                "50.0 GiB free for /c, but only 5000 more files fit; 300000 are wanted",
            ),
            (50 * GIB, None, Status::Ok, "50.0 GiB free for /c"),
        ];
        for (available, inodes, status, detail) in cases {
            let found = judge("/c", available, inodes);
            assert_eq!((found.status, found.detail.as_str()), (status, detail));
        }
    }

    #[test]
    fn a_directory_is_tried_out_and_left_clean() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(try_out(dir.path()), Ok(()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(existing(&dir.path().join("not/yet")), dir.path());
        // procfs takes no new files, from root neither.
        assert!(try_out(Path::new("/proc")).unwrap_err().starts_with("files cannot be made: "));
        assert_eq!(finding(Path::new("/proc/cache")).status, Status::Missing);
    }
}
