//! The few system calls the sandbox needs that neither `std` nor `rustix` offers.
//!
//! Everything here may run between `fork` and `exec` in a process that had other threads: no allocation, no locks, no
//! panics, only the system call and its result. All of this crate's `unsafe` is in this file and in the one `pre_exec`.

use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{BorrowedFd, RawFd};

/// Lets [`mount_setattr`] act on the descriptor itself; linux/fcntl.h.
const AT_EMPTY_PATH: libc::c_uint = 0x1000;
/// Whole trees of mounts; linux/fcntl.h.
const AT_RECURSIVE: libc::c_uint = 0x8000;
/// linux/mount.h.
const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// linux/close_range.h.
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;

/// `struct mount_attr`, linux/mount.h.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn result(n: libc::c_long) -> io::Result<libc::c_long> {
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n) }
}

/// Which side of [`fork`] this is.
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's id.
    Parent(i32),
}

/// Splits this process in two, without libc's fork handlers, which may wait for locks nobody will release.
///
/// # Safety
/// The child may only do what is async-signal-safe until it calls `exec` or [`exit`].
pub unsafe fn fork() -> io::Result<Fork> {
    // SAFETY: clone with no flags but the exit signal and no stack is fork(2); it touches no memory of ours.
    let pid = result(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD as libc::c_long, 0, 0, 0, 0) })?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent(pid as i32) })
}

/// Ends this process at once: no destructors, no exit handlers.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Makes a detached tree of mounts read-only, all of it.
pub fn set_read_only(tree: BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let path: &CStr = c"";
    // SAFETY: the path is a C string, the structure has the size that is passed with it, both outlive the call.
    result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            path.as_ptr(),
            AT_EMPTY_PATH | AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Closes every descriptor from `first` on.
///
/// # Safety
/// Nothing in this process may use such a descriptor afterwards, owners included.
pub unsafe fn close_from(first: RawFd) {
    // SAFETY: the caller gave up those descriptors. A kernel that lacks the call was refused earlier (mount_setattr is
    // younger), so the result is of no interest.
    unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, 0) };
}

/// Has every descriptor from `first` on closed at the next `exec`.
pub fn close_on_exec_from(first: RawFd) {
    // SAFETY: changes only the close-on-exec flag of descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
}

/// Sends a signal; `pid` as in kill(2), so -1 is everybody this process may signal.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: kill(2) touches no memory. Whoever has gone in the meantime needs no signal.
    unsafe { libc::kill(pid, signal) };
}

/// Blocks all signals and gives SIGCHLD its default action, so that children can be waited for and signals be taken
/// one by one with [`next_signal`].
pub fn block_signals() {
    // SAFETY: the set is initialised by sigfillset before it is read; a null old set is allowed; SIG_DFL is a valid
    // action.
    unsafe {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}

/// Blocks nothing, as a program expects to be started.
pub fn unblock_signals() {
    // SAFETY: the set is initialised by sigemptyset before it is read; a null old set is allowed.
    unsafe {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Waits for one of the (blocked) `signals` and says which came.
pub fn next_signal(signals: &[i32]) -> i32 {
    loop {
        // SAFETY: the set is initialised by sigemptyset before use; a null info pointer is allowed.
        let got = unsafe {
            let mut set = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), *signal);
            }
            libc::sigwaitinfo(set.as_ptr(), std::ptr::null_mut())
        };
        if got > 0 {
            return got;
        }
    }
}
