//! The few system calls that need `unsafe`, each behind a safe function.
//!
//! Why not rustix alone: it has no `wait4`, so no resource usage of a child; its signals are named ones only; and
//! `Command` runs code between fork and exec only through an unsafe hook.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// What a child used up, with the children it waited for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub sys_us: u64,
    /// Largest resident set, KiB.
    pub max_rss_kib: u64,
}

/// Time since the kernel started. By the C library, which has found the vDSO already; rustix would look for it again.
pub fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours. It cannot fail: every kernel this runs on has the clock.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Waits until some child has ended and returns its pid without reaping it. No child at all is `ECHILD`.
pub fn wait_any() -> io::Result<u32> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the pointer is to a siginfo_t of ours, which the call fills in.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed is a valid siginfo_t, and after success si_pid is the field that was set.
    Ok(unsafe { info.assume_init().si_pid() } as u32)
}

/// Reaps a child that has ended: its raw wait status and what it used. `None` if it still runs.
pub fn reap(pid: u32) -> io::Result<Option<(i32, Usage)>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to variables of ours of the types the call fills in.
    let result = unsafe { libc::wait4(pid as libc::pid_t, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match result {
        0 => Ok(None),
        reaped if reaped > 0 => {
            // SAFETY: the call succeeded, so the structure is filled in.
            let usage = unsafe { usage.assume_init() };
            let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
            let (user_us, sys_us) = (micros(usage.ru_utime), micros(usage.ru_stime));
            Ok(Some((status, Usage { user_us, sys_us, max_rss_kib: usage.ru_maxrss as u64 })))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a signal to a process, or with `group` to the process group it leads. Number 0 only checks.
pub fn kill(pid: u32, group: bool, signal: i32) -> io::Result<()> {
    // 0 and 1 would address our own group or everybody.
    let target = i32::try_from(pid).ok().filter(|pid| *pid > 1).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: takes plain numbers.
    match unsafe { libc::kill(if group { -target } else { target }, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the command's process the leader of a session of its own, with its standard input as controlling terminal if
/// that is asked for, and puts it into the control group whose `cgroup.procs` is given. Every signal has its default
/// effect in it, whatever this process was started with.
pub fn isolate(command: &mut Command, terminal: bool, cgroup: Option<OwnedFd>) {
    let hook = move || {
        rustix::process::setsid()?;
        for signal in 1..=31 {
            // SAFETY: SIG_DFL is a valid handler for every signal; those that cannot be changed are errors of no matter.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        if terminal {
            // SAFETY: standard input was set up by the caller of exec and stays open throughout the hook.
            rustix::process::ioctl_tiocsctty(unsafe { BorrowedFd::borrow_raw(0) })?;
        }
        if let Some(procs) = &cgroup {
            rustix::io::write(procs, b"0")?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the hook makes system calls only: no allocation, no locks.
    unsafe { command.pre_exec(hook) };
}

/// Has a write to a pipe nobody reads be an error rather than the end of the program, as Rust's own start does.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is a valid handler for SIGPIPE, and no other thread runs yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// A request about an interface with nothing but its name filled in.
fn interface_request(interface: &str) -> io::Result<libc::ifreq> {
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Calls ethtool's ioctl on an interface with a buffer that begins with the command, as in
/// include/uapi/linux/ethtool.h. The caller makes the buffer as large as the command asks for.
pub fn ethtool(socket: &OwnedFd, interface: &str, buffer: &mut [u64]) -> io::Result<()> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    let mut request = interface_request(interface)?;
    request.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
    // SAFETY: ifru_data points to a buffer of ours that outlives the call and is as large as its command needs.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the kernel say of every refused netlink request what it did not like (include/uapi/linux/netlink.h).
pub fn explain_refusals(socket: &OwnedFd) -> io::Result<()> {
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        let size = size_of_val(&on) as libc::socklen_t;
        // SAFETY: the kernel reads the number, which outlives the call.
        let result =
            unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), size) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Calls bpf(2) with `union bpf_attr` as the words given; what they point to has to outlive the call, which the callers in
/// [`crate::kernel::bpf`] see to. Returns what the call returns: a descriptor for commands that make something.
///
/// # Safety
/// Every word that the command takes for an address is that of memory valid for what the command does with it.
pub unsafe fn bpf(command: libc::c_int, attributes: &[u64]) -> io::Result<libc::c_long> {
    let size = size_of_val(attributes);
    // SAFETY: the kernel reads `size` bytes of the words; what these point to is the caller's promise.
    match unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size) } {
        result @ 0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct blkpg_ioctl_arg` (include/uapi/linux/blkpg.h).
#[repr(C)]
struct BlkpgArg {
    op: libc::c_int,
    flags: libc::c_int,
    datalen: libc::c_int,
    data: *mut BlkpgPartition,
}

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    pno: libc::c_int,
    devname: [u8; 64],
    volname: [u8; 64],
}

/// Makes partition `number` (from 1) of a disk out of `length` bytes at byte `start`, both whole sectors. Nothing is
/// written; no partition table is needed.
pub fn add_partition(disk: &File, number: i32, start: u64, length: u64) -> io::Result<()> {
    const BLKPG: libc::Ioctl = 0x1269;
    const BLKPG_ADD_PARTITION: libc::c_int = 1;
    let plain =
        |bytes: u64| libc::c_longlong::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (start, length) = (plain(start)?, plain(length)?);
    let mut partition = BlkpgPartition { start, length, pno: number, devname: [0; 64], volname: [0; 64] };
    let datalen = size_of::<BlkpgPartition>() as libc::c_int;
    let arg = BlkpgArg { op: BLKPG_ADD_PARTITION, flags: 0, datalen, data: &raw mut partition };
    // SAFETY: the kernel reads the two structures, which are laid out as it has them and outlive the call.
    match unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &raw const arg) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Brings an interface up that has no other flags of interest. By ioctl, whose way through the kernel is shorter than
/// rtnetlink's: this is on the path of every boot.
pub fn bring_up(socket: &OwnedFd, interface: &str) -> io::Result<()> {
    let mut request = interface_request(interface)?;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads the name and the flags of a request of ours.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives the calling thread a network namespace of its own, which goes when the thread does.
pub fn fresh_netns() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET concerns this thread's namespace only; no file descriptors or memory are unshared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.map_err(Into::into)
}

/// Takes over a file descriptor whose number was handed to the program.
pub fn adopt(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on any number is harmless; a closed one is an error.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and by the contract of the command line it is handed to us alone.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) })
}
