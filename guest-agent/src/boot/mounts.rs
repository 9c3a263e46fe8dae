//! The kernel's own file systems.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// What every later step needs. They are moved along when the root changes.
pub fn first(faults: &mut Vec<String>) {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    one(faults, "proc", "/proc", plain, "");
    one(faults, "sysfs", "/sys", plain, "");
    one(faults, "devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755");
}

/// Everything else under `/sys` and `/dev`. This comes before the root changes, and not only because it can then be
/// done while the disks are: mounting a bpffs has the kernel ask for a module `bpf_preload` (kernel/bpf/inode.c), and in
/// the image that would run modprobe, which under emulation takes longer than the rest of the boot.
pub fn below(faults: &mut Vec<String>) {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let memory = MountFlags::NOSUID | MountFlags::NODEV;
    one(faults, "devpts", "/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0620,ptmxmode=0666");
    one(faults, "tmpfs", "/dev/shm", memory, "mode=1777");
    one(faults, "cgroup2", "/sys/fs/cgroup", plain, "");
    // A kernel built without one of these is no fault: tests that need it ask for it by name.
    let mut absent = Vec::new();
    one(&mut absent, "bpf", "/sys/fs/bpf", plain, "mode=0700");
    one(&mut absent, "debugfs", "/sys/kernel/debug", plain, "");
    one(&mut absent, "tracefs", "/sys/kernel/tracing", plain, "");
    one(&mut absent, "configfs", "/sys/kernel/config", plain, "");
    one(&mut absent, "mqueue", "/dev/mqueue", plain, "");
    one(&mut absent, "hugetlbfs", "/dev/hugepages", memory, "");
    // Bash's process substitution wants the first; one that exists already is as good.
    let links = [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")];
    for (name, descriptor) in links {
        let _ = symlink(format!("/proc/self/fd{descriptor}"), Path::new("/dev").join(name));
    }
}

/// Folders in memory, in whatever root there is by now.
pub fn memory(faults: &mut Vec<String>) {
    let memory = MountFlags::NOSUID | MountFlags::NODEV;
    one(faults, "tmpfs", "/run", memory, "mode=0755");
    one(faults, "tmpfs", "/tmp", memory, "mode=1777");
    // For locks and for `ip netns`.
    for folder in ["/run/lock", "/run/netns"] {
        let _ = fs::create_dir(folder);
    }
}

/// Mounts a file system that lives in the kernel, making the folder if it can be made.
fn one(faults: &mut Vec<String>, kind: &str, path: &str, flags: MountFlags, data: &str) {
    if !Path::new(path).exists() {
        if let Err(error) = fs::create_dir_all(path) {
            return faults.push(format!("making the mount point {path}: {error}"));
        }
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    }
    let data = std::ffi::CString::new(data).unwrap_or_default();
    match mount(kind, path, kind, flags, Some(data.as_c_str())) {
        // Busy means that it is mounted there already.
        Ok(()) | Err(Errno::BUSY) => {}
        Err(error) => faults.push(format!("mounting {kind} on {path}: {}", io::Error::from(error))),
    }
}
