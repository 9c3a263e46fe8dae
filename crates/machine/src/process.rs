//! Children that die with us, and processes that are never mistaken for another one.
//!
//! A child is started by one thread that lives as long as the program, because the kernel sends the parent-death
//! signal when the *thread* that forked ends (prctl(2), `PR_SET_PDEATHSIG`). A process is remembered as a pid with its
//! start time; a signal goes through a pidfd, taken before the start time is compared, so that it cannot hit whoever
//! got the pid next.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process, beyond doubt, during one boot of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: i32,
    /// When it started, in clock ticks since the host booted (field 22 of proc_pid_stat(5)).
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process that has this pid now, if there is one.
    pub fn of(pid: u32) -> io::Result<ProcessId> {
        let pid = i32::try_from(pid).map_err(|_| io::Error::other(format!("{pid} is no pid")))?;
        Ok(ProcessId { pid, start_ticks: stat(pid)?.start_ticks })
    }

    /// Whether it still runs. A zombie does not.
    pub fn alive(&self) -> bool {
        stat(self.pid).is_ok_and(|s| s.start_ticks == self.start_ticks && !matches!(s.state, 'Z' | 'X'))
    }

    /// Sends a signal; `false` when the process is gone already.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(fd) = self.pidfd()? else { return Ok(false) };
        match pidfd_send_signal(&fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends SIGKILL and waits until the process is gone; `false` when it is still there after `patience`.
    pub fn kill(&self, patience: Duration) -> io::Result<bool> {
        let Some(fd) = self.pidfd()? else { return Ok(true) };
        match pidfd_send_signal(&fd, Signal::KILL) {
            Ok(()) => wait_fd(&fd, patience),
            Err(rustix::io::Errno::SRCH) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// A descriptor that becomes readable when the process ends; `None` when it has ended.
    fn pidfd(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(self.alive().then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned a status.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match status.code() {
            Some(code) => Exit::Code(code),
            None => Exit::Signal(status.signal().unwrap_or(0)),
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "status {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// CPU time of one thread and the time it wanted a CPU and had none, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThreadTime {
    /// On a CPU.
    pub ran_ns: u64,
    /// Ready to run, waiting for a CPU of the host.
    pub waited_ns: u64,
}

impl ThreadTime {
    /// Reads `/proc/PID/task/TID/schedstat`; zero where the host keeps no such account.
    pub fn of(pid: i32, tid: i64) -> ThreadTime {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).unwrap_or_default();
        let mut fields = text.split_ascii_whitespace().map(|f| f.parse().unwrap_or(0));
        ThreadTime { ran_ns: fields.next().unwrap_or(0), waited_ns: fields.next().unwrap_or(0) }
    }
}

/// A child of ours that is killed when this program ends, however it ends.
#[derive(Debug)]
pub struct Offspring {
    child: Child,
    id: ProcessId,
    fd: OwnedFd,
    exit: Option<Exit>,
}

impl Offspring {
    /// Starts `command` in a process group of its own (a Ctrl-C at the terminal is ours to handle, not the child's).
    pub fn spawn(command: Command) -> io::Result<Offspring> {
        let child = nursery(command)?;
        let pid = Pid::from_child(&child);
        // Until it is waited for, the pid cannot be anybody else's, even if it has exited already.
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        let id = ProcessId::of(child.id())?;
        Ok(Offspring { child, id, fd, exit: None })
    }

    /// Who it is.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> io::Result<Option<Exit>> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait()?.map(Exit::from);
        }
        Ok(self.exit)
    }

    /// Waits until it ends or time is up.
    pub fn wait(&mut self, patience: Duration) -> io::Result<Option<Exit>> {
        if self.exit.is_none() {
            wait_fd(&self.fd, patience)?;
        }
        self.try_wait()
    }

    /// Ends it now.
    pub fn kill(&mut self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(exit);
            }
            match pidfd_send_signal(&self.fd, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(e) => return Err(e.into()),
            }
            self.wait(Duration::from_secs(10))?;
        }
    }
}

impl Drop for Offspring {
    fn drop(&mut self) {
        // Nothing sensible is left to do if the kernel refuses.
        let _ = self.kill();
    }
}

fn wait_fd(fd: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

struct Stat {
    state: char,
    start_ticks: u64,
}

fn stat(pid: i32) -> io::Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path)?;
    // The command name is in parentheses and may itself hold some: fields are counted from the last one.
    let fields: Vec<&str> =
        text.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().collect()).unwrap_or_default();
    let parsed = (fields.first().and_then(|s| s.chars().next()), fields.get(19).and_then(|s| s.parse().ok()));
    match parsed {
        (Some(state), Some(start_ticks)) => Ok(Stat { state, start_ticks }),
        _ => Err(io::Error::other(format!("{path} is not as proc_pid_stat(5) describes it: {text:?}"))),
    }
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Has the long-lived thread start the command.
fn nursery(command: Command) -> io::Result<Child> {
    static NURSERY: OnceLock<Mutex<Option<mpsc::Sender<Order>>>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts child processes is gone");
    let orders = {
        let mut slot = NURSERY.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(orders) => orders.clone(),
            None => {
                let (send, receive) = mpsc::channel::<Order>();
                thread::Builder::new().name("nursery".into()).spawn(move || {
                    for (command, reply) in receive {
                        // A caller that does not wait for the answer does not exist.
                        let _ = reply.send(spawn_here(command));
                    }
                })?;
                slot.insert(send).clone()
            }
        }
    };
    let (reply, answer) = mpsc::channel();
    orders.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn spawn_here(mut command: Command) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    command.process_group(0);
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the line above took effect.
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from(rustix::io::Errno::SRCH));
            }
            Ok(())
        });
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_start_time_is_never_signalled() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut child = Offspring::spawn(command).expect("sleep starts");
        let id = child.id();
        assert!(id.alive());
        let impostor = ProcessId { start_ticks: id.start_ticks + 1, ..id };
        assert!(!impostor.alive());
        assert!(!impostor.signal(Signal::KILL).expect("no error"), "nothing may be sent to another process");
        assert!(id.alive());
        assert!(id.kill(Duration::from_secs(10)).expect("kill"));
        assert_eq!(child.wait(Duration::from_secs(10)).expect("wait"), Some(Exit::Signal(9)));
        assert!(!id.alive());
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let id = Offspring::spawn(command).expect("sleep starts").id();
        assert!(!id.alive());
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let child = thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("60");
            Offspring::spawn(command).expect("sleep starts")
        });
        let mut child = child.join().expect("thread");
        assert_eq!(
            child.wait(Duration::from_millis(200)).expect("wait"),
            None,
            "the parent-death signal came too early"
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = Offspring::spawn(Command::new("/nonexistent/program")).expect_err("must fail");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
