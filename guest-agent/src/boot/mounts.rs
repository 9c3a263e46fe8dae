//! The kernel's own file systems.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// File systems that hold neither programs nor devices.
const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC).union(MountFlags::NODEV);

/// What the way to the root needs.
pub fn first(faults: &mut Vec<String>) {
    one(faults, "proc", "/proc", PLAIN, "");
    one(faults, "devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755");
}

/// sysfs, for whoever needs it before [`rest`] mounts it.
pub fn sysfs(faults: &mut Vec<String>) {
    one(faults, "sysfs", "/sys", PLAIN, "");
}

/// Everything else, in whatever root there is by now, for the kernel of that release (`uname -r`).
pub fn rest(release: &str, faults: &mut Vec<String>) {
    let memory = MountFlags::NOSUID | MountFlags::NODEV;
    first(faults);
    sysfs(faults);
    one(faults, "tmpfs", "/run", memory, "mode=0755");
    one(faults, "tmpfs", "/tmp", memory, "mode=1777");
    // For locks and for `ip netns`.
    for folder in ["/run/lock", "/run/netns"] {
        let _ = fs::create_dir(folder);
    }
    static_nodes(release, faults);
    one(faults, "devpts", "/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0620,ptmxmode=0666");
    one(faults, "tmpfs", "/dev/shm", memory, "mode=1777");
    one(faults, "cgroup2", "/sys/fs/cgroup", PLAIN, "");
    // A kernel built without one of these is no fault: tests that need it ask for it by name.
    let mut absent = Vec::new();
    one(&mut absent, "bpf", "/sys/fs/bpf", PLAIN, "mode=0700");
    one(&mut absent, "debugfs", "/sys/kernel/debug", PLAIN, "");
    one(&mut absent, "tracefs", "/sys/kernel/tracing", PLAIN, "");
    one(&mut absent, "hugetlbfs", "/dev/hugepages", memory, "");
    // Bash's process substitution wants the first; one that exists already is as good.
    let links = [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")];
    for (name, descriptor) in links {
        let _ = symlink(format!("/proc/self/fd{descriptor}"), Path::new("/dev").join(name));
    }
}

/// Makes the device nodes of modules that are loaded when somebody opens them, for instance `/dev/net/tun`; depmod lists
/// them beside the modules (devtmpfs knows only what is loaded).
fn static_nodes(release: &str, faults: &mut Vec<String>) {
    let list = fs::read_to_string(format!("/lib/modules/{release}/modules.devname")).unwrap_or_default();
    for (name, kind, device) in list.lines().filter_map(static_node) {
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

/// Mounts a file system that lives in the kernel, making the folder where there is none and one can be made.
fn one(faults: &mut Vec<String>, kind: &str, path: &str, flags: MountFlags, data: &str) {
    let data = CString::new(data).unwrap_or_default();
    let attempt = || mount(kind, path, kind, flags, Some(data.as_c_str()));
    let mounted = attempt().or_else(|error| {
        if error != Errno::NOENT {
            return Err(error);
        }
        fs::create_dir_all(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o755));
        attempt()
    });
    match mounted {
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
