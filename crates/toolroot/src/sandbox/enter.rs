//! The child's side of a sandbox: from `fork` to `exec`.
//!
//! In: a [`Plan`] that was made before the fork. Out: the process that returns from [`enter`] runs the program; two more
//! never return. The tree is
//!
//! ```text
//! caller ─ outer: in the host's pid namespace; its exit status is the program's (128+signal if a signal ended it)
//!            └ init: pid 1 inside; reaps orphans; when it ends, the kernel ends everything left inside
//!                └ program
//! ```
//!
//! Each asks to be killed when its parent dies, so nothing outlives the caller, even a killed one. To outer, SIGTERM
//! means "ask everything inside to end" and SIGUSR1 "end it now"; when outer is gone, so is the whole tree.
//!
//! The process this runs in had other threads until it was forked, so nothing here allocates, locks or panics: it is
//! system calls on data that was laid out before. What fails is told through a pipe as a [`Fault`], since the `io::Error`
//! of `pre_exec` has room for an errno only.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::layout::Op;
use super::sys::{self, Fork};

/// Everything the child needs, laid out before the fork.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Namespaces to leave.
    pub(crate) unshare: UnshareFlags,
    /// `Some` with a user namespace: the lines for `uid_map` and `gid_map`.
    pub(crate) maps: Option<(CString, CString)>,
    /// A directory that exists; the new root is mounted over it, in the new mount namespace only.
    pub(crate) base: CString,
    /// Host trees and the steps that make the root.
    pub(crate) layout: super::layout::Layout,
    /// Where the program starts.
    pub(crate) cwd: CString,
    /// Whether to leave the caller's session, so that the terminal's Ctrl-C reaches the caller only.
    pub(crate) new_session: bool,
    /// Process id of the caller: another parent means that it died before the child could ask to die with it.
    pub(crate) parent: Option<Pid>,
    /// Where a fault is told.
    pub(crate) report: RawFd,
    /// Room for the opened sources; as long as `layout.sources`.
    pub(crate) trees: Vec<Option<OwnedFd>>,
}

/// What the child was doing when a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    Parent,
    Unshare,
    SetGroups,
    UidMap,
    GidMap,
    Private,
    OpenTree,
    ReadOnly,
    Tmpfs,
    Make,
    Attach,
    Proc,
    Pivot,
    Cwd,
    Fork,
    Privileges,
}

impl Stage {
    const ALL: [Stage; 16] = [
        Stage::Parent,
        Stage::Unshare,
        Stage::SetGroups,
        Stage::UidMap,
        Stage::GidMap,
        Stage::Private,
        Stage::OpenTree,
        Stage::ReadOnly,
        Stage::Tmpfs,
        Stage::Make,
        Stage::Attach,
        Stage::Proc,
        Stage::Pivot,
        Stage::Cwd,
        Stage::Fork,
        Stage::Privileges,
    ];
}

/// A failed call: what was being done, to which source or step of the layout, and the errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) stage: Stage,
    pub(crate) index: u16,
    pub(crate) errno: i32,
}

impl Fault {
    /// Bytes of a fault on the pipe.
    pub(crate) const SIZE: usize = 8;

    fn to_bytes(self) -> [u8; Self::SIZE] {
        let ([i0, i1], [e0, e1, e2, e3]) = (self.index.to_le_bytes(), self.errno.to_le_bytes());
        [b'F', self.stage as u8, i0, i1, e0, e1, e2, e3]
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::SIZE]) -> Option<Self> {
        let [b'F', stage, i0, i1, e0, e1, e2, e3] = bytes else { return None };
        let stage = *Stage::ALL.get(usize::from(stage))?;
        let (index, errno) = (u16::from_le_bytes([i0, i1]), i32::from_le_bytes([e0, e1, e2, e3]));
        Some(Fault { stage, index, errno })
    }
}

type Step = Result<(), Fault>;

trait At<T> {
    fn at(self, stage: Stage, index: usize) -> Result<T, Fault>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, stage: Stage, index: usize) -> Result<T, Fault> {
        self.map_err(|e| Fault { stage, index: u16::try_from(index).unwrap_or(u16::MAX), errno: e.raw_os_error() })
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, stage: Stage, index: usize) -> Result<T, Fault> {
        self.map_err(|e| Fault {
            stage,
            index: u16::try_from(index).unwrap_or(u16::MAX),
            errno: e.raw_os_error().unwrap_or(0),
        })
    }
}

/// Carries out the plan. Returns in the process that is to become the program; tells the fault and returns it if a step
/// failed (in whichever process that was, which should end then).
pub(crate) fn enter(plan: &mut Plan) -> Step {
    let done = enter_steps(plan);
    if let Err(fault) = done {
        // SAFETY: the caller keeps the pipe open until the child has ended or become the program.
        let report = unsafe { BorrowedFd::borrow_raw(plan.report) };
        // If even that fails there is still the errno that std passes on.
        let _ = rustix::io::write(report, &fault.to_bytes());
    }
    done
}

fn enter_steps(plan: &mut Plan) -> Step {
    sys::block_signals();
    if plan.new_session {
        // Fails only for a group leader, which a process that was just forked is not.
        let _ = rustix::process::setsid();
    }
    // SAFETY: of the flags used here none affects descriptors, and this process has one thread.
    unsafe { rustix::thread::unshare_unsafe(plan.unshare) }.at(Stage::Unshare, 0)?;
    if let Some((uid, gid)) = &plan.maps {
        write_file(c"/proc/self/setgroups", c"deny").at(Stage::SetGroups, 0)?;
        write_file(c"/proc/self/uid_map", uid).at(Stage::UidMap, 0)?;
        write_file(c"/proc/self/gid_map", gid).at(Stage::GidMap, 0)?;
    }
    // Only now: a change of credentials, as entering a user namespace is, clears the wish.
    die_with_parent()?;
    if rustix::process::getppid() != plan.parent {
        return Err(Errno::SRCH).at(Stage::Parent, 0);
    }

    let (alive, keep) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Stage::Fork, 0)?;
    // SAFETY: the child goes on with system calls only.
    match unsafe { sys::fork() }.at(Stage::Fork, 0)? {
        Fork::Child => drop(keep),
        Fork::Parent(init) => outer(init, keep),
    }
    die_with_parent()?;
    // Pid 1 cannot see its parent, so a pipe that only outer holds tells whether it still lives.
    let mut end = [PollFd::new(&alive, PollFlags::IN)];
    let _ = poll(&mut end, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    if !end[0].revents().is_empty() {
        return Err(Errno::SRCH).at(Stage::Parent, 0);
    }
    drop(alive);

    make_root(plan)?;
    rustix::process::chdir(plan.cwd.as_c_str()).at(Stage::Cwd, 0)?;
    // Root in name only: what it may do to its own files is enough, and with more it could undo the read-only mounts.
    // Without new privileges, exec does not give uid 0 its capabilities back (capabilities(7)).
    rustix::thread::set_no_new_privs(true).at(Stage::Privileges, 0)?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .at(Stage::Privileges, 1)?;
    sys::close_on_exec_from(3);
    // SAFETY: the child goes on to exec with system calls only.
    match unsafe { sys::fork() }.at(Stage::Fork, 1)? {
        Fork::Child => {}
        Fork::Parent(program) => init(program),
    }
    sys::unblock_signals();
    Ok(())
}

/// Builds the new root and makes it the root of this mount namespace.
fn make_root(plan: &mut Plan) -> Step {
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .at(Stage::Private, 0)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    for (index, (source, slot)) in plan.layout.sources.iter().zip(&mut plan.trees).enumerate() {
        let tree = rustix::mount::open_tree(CWD, source.path.as_c_str(), flags).at(Stage::OpenTree, index)?;
        if source.read_only {
            sys::set_read_only(tree.as_fd()).at(Stage::ReadOnly, index)?;
        }
        *slot = Some(tree);
    }
    let base = plan.base.as_c_str();
    rustix::mount::mount(c"tmpfs", base, c"tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755")
        .at(Stage::Tmpfs, 0)?;
    rustix::process::chdir(base).at(Stage::Tmpfs, 0)?;
    for (index, op) in plan.layout.ops.iter().enumerate() {
        match op {
            Op::Dir { path, mode } => {
                if there(rustix::fs::mkdir(path.as_c_str(), Mode::from_raw_mode(*mode))).at(Stage::Make, index)? {
                    // The caller's umask took bits off.
                    rustix::fs::chmod(path.as_c_str(), Mode::from_raw_mode(*mode)).at(Stage::Make, index)?;
                }
            }
            Op::File { path } => {
                let mode = Mode::from_raw_mode(0o644);
                there(rustix::fs::mknodat(CWD, path.as_c_str(), FileType::RegularFile, mode, 0))
                    .at(Stage::Make, index)?;
            }
            Op::Link { path, target } => {
                there(rustix::fs::symlink(target.as_c_str(), path.as_c_str())).at(Stage::Make, index)?;
            }
            Op::Bind { path, source } => {
                let tree = plan.trees.get_mut(*source).and_then(Option::take).ok_or(Errno::BADF);
                let tree = tree.at(Stage::Attach, index)?;
                rustix::mount::move_mount(
                    tree.as_fd(),
                    c"",
                    CWD,
                    path.as_c_str(),
                    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
                )
                .at(Stage::Attach, index)?;
            }
        }
    }
    // While the host's /proc can still be seen: in a user namespace the kernel asks for one before it gives another.
    rustix::mount::mount(
        c"proc",
        c"proc",
        c"proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None::<&CStr>,
    )
    .at(Stage::Proc, 0)?;
    // Both names the same: the old root ends up on top of the new one (pivot_root(2)) and is taken off at once.
    rustix::process::pivot_root(c".", c".").at(Stage::Pivot, 0)?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).at(Stage::Pivot, 1)?;
    rustix::process::chdir(c"/").at(Stage::Pivot, 2)
}

/// `true` if it was made now, `false` if it was there.
fn there(result: rustix::io::Result<()>) -> rustix::io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(e),
    }
}

fn die_with_parent() -> Step {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(Stage::Parent, 1)
}

fn write_file(path: &CStr, content: &CStr) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, content.to_bytes()).map(|_| ())
}

/// The process that stands for the sandbox outside; never returns.
fn outer(init: i32, keep: OwnedFd) -> ! {
    // SAFETY: this process only waits and ends; of its descriptors it needs the one that says it lives, moved to 0.
    unsafe {
        libc::dup2(keep.as_raw_fd(), 0);
        sys::close_from(1);
    }
    std::mem::forget(keep);
    let code = supervise(init, |signal| match signal {
        libc::SIGUSR1 => sys::kill(init, libc::SIGKILL),
        _ => sys::kill(init, libc::SIGTERM),
    });
    sys::exit(code)
}

/// Pid 1 inside; never returns. With it ends everything inside.
fn init(program: i32) -> ! {
    // SAFETY: this process only waits and ends; holding a pipe's end would hide from others that it is closed.
    unsafe { sys::close_from(0) };
    let code = supervise(program, |_| sys::kill(-1, libc::SIGTERM));
    sys::exit(code)
}

/// Reaps children until `main` ends, passing signals to `forward`; gives the exit status for it.
fn supervise(main: i32, forward: impl Fn(i32)) -> i32 {
    loop {
        match sys::next_signal(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1]) {
            libc::SIGCHLD => {
                while let Ok(Some((pid, status))) = rustix::process::waitpid(None, WaitOptions::NOHANG) {
                    if pid.as_raw_nonzero().get() == main {
                        let signalled = status.terminating_signal().map(|s| 128 + s);
                        return status.exit_status().or(signalled).unwrap_or(255);
                    }
                }
            }
            signal => forward(signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_survive_the_pipe() {
        for (n, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(n, stage as usize, "{stage:?} is out of order");
            let fault = Fault { stage, index: 513, errno: libc::EPERM };
            assert_eq!(Fault::from_bytes(fault.to_bytes()), Some(fault));
        }
        assert_eq!(Fault::from_bytes([b'F', 200, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Fault::from_bytes([0; 8]), None);
    }
}
