//! Whether this host lets us make the namespaces a sandbox needs: found out by making them.
//!
//! No file of /proc tells: some distributions let `unshare` succeed and refuse the write to `uid_map`, containers hide
//! parts of /proc, seccomp filters forbid `mount`. So a child goes all the way into an empty sandbox and says where it
//! got stuck; from that follows what to tell the user.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::sandbox::{self, Fault, Fork, Layout, Plan, Stage};

/// Namespaces of every sandbox, beside the user's and the network's.
pub(crate) const ALWAYS: UnshareFlags =
    UnshareFlags::NEWNS.union(UnshareFlags::NEWPID).union(UnshareFlags::NEWIPC).union(UnshareFlags::NEWUTS);

/// What this host allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceSupport {
    /// User namespaces: a sandbox needs no privileges.
    User,
    /// No user namespaces, but this process is root and makes the others without.
    RootOnly {
        /// What was refused.
        why: String,
    },
    /// Nothing; toolroots can be unpacked and programs run through the loader, but nothing can be built inside.
    Forbidden {
        /// What was refused.
        why: String,
        /// One line: what the machine's owner can do.
        remedy: String,
    },
}

impl NamespaceSupport {
    /// Whether a sandbox can be made at all.
    pub fn usable(&self) -> bool {
        !matches!(self, NamespaceSupport::Forbidden { .. })
    }
}

/// Tries it now.
pub fn probe_namespaces() -> NamespaceSupport {
    let Err(user) = attempt(true) else { return NamespaceSupport::User };
    let why = user.to_string();
    if !rustix::process::geteuid().is_root() {
        return NamespaceSupport::Forbidden { why, remedy: remedy(&user) };
    }
    match attempt(false) {
        Ok(()) => NamespaceSupport::RootOnly { why },
        Err(root) => NamespaceSupport::Forbidden {
            why: format!("{why}; without a user namespace: {root}"),
            remedy: remedy(&root),
        },
    }
}

/// What [`probe_namespaces`] found the first time; it does not change while a process lives.
pub(crate) fn support() -> &'static NamespaceSupport {
    static SUPPORT: OnceLock<NamespaceSupport> = OnceLock::new();
    SUPPORT.get_or_init(probe_namespaces)
}

/// The lines that make the caller root inside (user_namespaces(7)): `uid_map`, `gid_map`.
pub(crate) fn maps() -> (CString, CString) {
    let line = |id: u32| CString::new(format!("0 {id} 1\n")).unwrap_or_default();
    (line(rustix::process::geteuid().as_raw()), line(rustix::process::getegid().as_raw()))
}

/// Where an attempt got stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stuck {
    stage: Stage,
    errno: Errno,
}

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = std::io::Error::from(self.errno);
        write!(f, "{} failed: {error}", sandbox::phrase(self.stage))
    }
}

/// Goes into an empty sandbox and out again.
fn attempt(user: bool) -> Result<(), Stuck> {
    let failed = |errno| Stuck { stage: Stage::Fork, errno };
    let (told, report) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let layout = Layout::new(None, &[]).unwrap_or_default();
    let trees = layout.sources.iter().map(|_| None).collect();
    let mut plan = Plan {
        unshare: ALWAYS | UnshareFlags::NEWNET | if user { UnshareFlags::NEWUSER } else { UnshareFlags::empty() },
        maps: user.then(maps),
        base: CString::new(std::env::temp_dir().as_os_str().as_bytes()).unwrap_or_else(|_| c"/tmp".into()),
        layout,
        cwd: c"/".into(),
        new_session: true,
        parent: Some(rustix::process::getpid()),
        report: report.as_raw_fd(),
        trees,
    };
    // SAFETY: the child makes system calls only, on memory laid out above, and ends with one.
    match unsafe { sandbox::fork() }.map_err(|e| failed(Errno::from_io_error(&e).unwrap_or(Errno::AGAIN)))? {
        Fork::Child => sandbox::exit(i32::from(sandbox::enter(&mut plan).is_err())),
        Fork::Parent(child) => {
            drop(report);
            let status = loop {
                match rustix::process::waitpid(Pid::from_raw(child), WaitOptions::empty()) {
                    Err(Errno::INTR) => {}
                    other => break other.map_err(failed)?,
                }
            };
            match (sandbox::read_fault(&told), status.and_then(|(_, status)| status.exit_status())) {
                (Some(Fault { stage, errno, .. }), _) => Err(Stuck { stage, errno: Errno::from_raw_os_error(errno) }),
                (None, Some(0)) => Ok(()),
                // Killed, for instance by a seccomp filter.
                (None, _) => Err(failed(Errno::PERM)),
            }
        }
    }
}

/// What helps, by where it got stuck and what the host says about itself.
fn remedy(stuck: &Stuck) -> String {
    let sysctl = |name: &str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok())
    };
    remedy_for(stuck, &sysctl)
}

fn remedy_for(stuck: &Stuck, sysctl: &dyn Fn(&str) -> Option<u64>) -> String {
    let set = |name: &str, value: u32| format!("run `sudo sysctl -w {name}={value}` (in /etc/sysctl.d to keep it)");
    if sysctl("kernel.apparmor_restrict_unprivileged_userns") == Some(1) {
        return set("kernel.apparmor_restrict_unprivileged_userns", 0);
    }
    if sysctl("kernel.unprivileged_userns_clone") == Some(0) {
        return set("kernel.unprivileged_userns_clone", 1);
    }
    for name in ["user.max_user_namespaces", "user.max_mnt_namespaces", "user.max_pid_namespaces"] {
        if sysctl(name) == Some(0) {
            return set(name, 15000);
        }
    }
    match (stuck.stage, stuck.errno) {
        (Stage::Unshare, Errno::NOSYS | Errno::INVAL) => {
            "use a kernel built with CONFIG_USER_NS, CONFIG_PID_NS and CONFIG_NET_NS".into()
        }
        (Stage::Unshare, Errno::NOSPC) => "close sandboxes, or raise the limits in /proc/sys/user/".into(),
        (Stage::OpenTree | Stage::ReadOnly | Stage::Attach, Errno::NOSYS) => "use Linux 5.12 or newer".into(),
        (Stage::Proc, _) => {
            "this looks like a container that masks /proc: start it with `--security-opt systempaths=unconfined`".into()
        }
        (Stage::UidMap | Stage::GidMap, _) => {
            "a security module refuses it: allow user namespaces for this program, or run as root".into()
        }
        _ => "inside a container, start that with `--security-opt seccomp=unconfined --security-opt \
              apparmor=unconfined`; else run as root"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuck(stage: Stage, errno: Errno) -> Stuck {
        Stuck { stage, errno }
    }

    #[test]
    fn remedies_follow_what_the_host_says() {
        let cases: [(&str, u64, Stuck, &str); 4] = [
            (
                "kernel.apparmor_restrict_unprivileged_userns",
                1,
                stuck(Stage::UidMap, Errno::PERM),
                "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (
                "kernel.unprivileged_userns_clone",
                0,
                stuck(Stage::Unshare, Errno::PERM),
                "sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            ("user.max_user_namespaces", 0, stuck(Stage::Unshare, Errno::NOSPC), "sysctl -w user.max_user_namespaces="),
            ("none.such", 0, stuck(Stage::Proc, Errno::PERM), "masks /proc"),
        ];
        for (name, value, stuck, expected) in cases {
            let text = remedy_for(&stuck, &|asked| (asked == name).then_some(value));
            assert!(text.contains(expected), "{name}: {text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn the_probe_agrees_with_itself() {
        let first = probe_namespaces();
        assert_eq!(first, probe_namespaces());
        if rustix::process::geteuid().is_root() && !first.usable() {
            panic!("root without any sandbox: {first:?}");
        }
    }
}
