//! The kernel's own file systems.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// What every later step needs. They are moved along when the root changes.
pub fn first(faults: &mut Vec<String>) {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    one(faults, "proc", "/proc", plain, "");
    one(faults, "sysfs", "/sys", plain, "");
    one(faults, "devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755");
}

/// Where the kernel keeps the path of the program that loads modules for it.
const MODPROBE: &str = "/proc/sys/kernel/modprobe";

/// Keeps the kernel from running modprobe until [`resume_module_loading`]. It would for almost everything asked of it
/// for the first time (a bpffs wants `bpf_preload`, kernel/bpf/inode.c), find nothing in the initramfs, and under
/// emulation each attempt costs as much as the mount itself.
pub fn stop_module_loading() -> Option<String> {
    let usual = fs::read_to_string(MODPROBE).ok()?;
    fs::write(MODPROBE, "\n").ok()?;
    Some(usual)
}

/// Lets the kernel load modules as it did before.
pub fn resume_module_loading(usual: Option<String>) {
    if let Some(usual) = usual {
        let _ = fs::write(MODPROBE, usual);
    }
}

/// Everything else under `/sys` and `/dev`. It is moved along with them when the root changes.
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

/// Where the initramfs lists what [`static_nodes`] makes.
const NODES: &str = "/nodes";

/// Makes the device nodes of modules that are loaded when somebody opens them, for instance `/dev/net/tun`; depmod lists
/// them (devtmpfs knows only what is loaded).
pub fn static_nodes(faults: &mut Vec<String>) {
    for (name, kind, device) in fs::read_to_string(NODES).unwrap_or_default().lines().filter_map(static_node) {
        let path = Path::new("/dev").join(name);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        let made = made.and_then(|()| Ok(mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), device)?));
        if let Err(error) = made.or_else(|error| if path.exists() { Ok(()) } else { Err(error) }) {
            faults.push(format!("making {}: {error}", path.display()));
        }
    }
}

/// A line such as `tun net/tun c10:200`.
fn static_node(line: &str) -> Option<(&str, FileType, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (name, device) = (fields.next()?, fields.next()?);
    let kind = match device.chars().next()? {
        'c' => FileType::CharacterDevice,
        'b' => FileType::BlockDevice,
        _ => return None,
    };
    let (major, minor) = device[1..].split_once(':')?;
    // A name that leads out of /dev is not for us to follow.
    let inside = !name.starts_with('/') && !name.split('/').any(|part| part == "..");
    inside.then_some(())?;
    Some((name, kind, makedev(major.parse().ok()?, minor.parse().ok()?)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_from_depmod_s_list() {
        assert_eq!(static_node("tun net/tun c10:200"), Some(("net/tun", FileType::CharacterDevice, makedev(10, 200))));
        assert_eq!(static_node("loop loop-control b7:0"), Some(("loop-control", FileType::BlockDevice, makedev(7, 0))));
        for line in ["# Device nodes to trigger on-demand module loading.", "", "x ../y c1:1", "x y p1:1", "x y c1"] {
            assert_eq!(static_node(line), None, "{line}");
        }
    }
}
