//! A sandboxed program that runs, and how it is ended: first asked, then killed, and waited for in any case.

use std::io::{self, Read};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use progress::Progress;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{SandboxError, sys};

/// How often a waiting caller looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);
/// How long programs have to end when asked: make removes the targets it is in the middle of.
const GRACE: Duration = Duration::from_secs(3);
/// How long the kernel has to end everything inside once it was told to.
const END: Duration = Duration::from_secs(10);

/// A program in its sandbox. Dropping this kills the program and everything it started, and waits until they are gone.
#[derive(Debug)]
pub struct Running {
    program: String,
    child: Child,
    ended: Option<ExitStatus>,
    /// The program's standard input, if it was asked to be piped.
    pub stdin: Option<ChildStdin>,
    /// The program's standard output, if it was asked to be piped.
    pub stdout: Option<ChildStdout>,
    /// The program's standard error, if it was asked to be piped.
    pub stderr: Option<ChildStderr>,
}

impl Running {
    pub(super) fn new(program: String, mut child: Child) -> Self {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Running { program, child, ended: None, stdin, stdout, stderr }
    }

    /// Host process id of the sandbox's outermost process; SIGTERM to it asks everything inside to end.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end; closes standard input first. Ends the program if the work is cancelled.
    pub fn wait(mut self, progress: &Progress) -> Result<ExitStatus, SandboxError> {
        self.stdin = None;
        loop {
            if let Some(status) = self.wait_for(LOOK)? {
                return Ok(status);
            }
            if let Err(cancelled) = progress.check_cancelled() {
                self.terminate()?;
                return Err(cancelled.into());
            }
        }
    }

    /// Waits for the end and collects what the program prints to its pipes.
    pub fn wait_with_output(mut self, progress: &Progress) -> Result<Output, SandboxError> {
        let program = self.program.clone();
        let lost = |error| SandboxError::Lost { program: program.clone(), error };
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        // The pipes are closed when the last process inside has gone, so the readers end with it.
        thread::scope(|scope| {
            let out = scope.spawn(move || read_all(stdout));
            let err = scope.spawn(move || read_all(stderr));
            let status = self.wait(progress);
            let join = |reader: thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>| {
                reader.join().unwrap_or_else(|_| Err(io::Error::other("the reader of its output panicked")))
            };
            let (stdout, stderr) = (join(out), join(err));
            Ok(Output { status: status?, stdout: stdout.map_err(lost)?, stderr: stderr.map_err(lost)? })
        })
    }

    /// The status if the program has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, SandboxError> {
        self.wait_for(Duration::ZERO)
    }

    /// Asks everything inside to end, kills what has not ended after a few seconds, and waits for it.
    pub fn terminate(&mut self) -> Result<ExitStatus, SandboxError> {
        self.signal(libc::SIGTERM);
        match self.wait_for(GRACE)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    /// Kills everything inside at once and waits until it is gone.
    pub fn kill(&mut self) -> Result<ExitStatus, SandboxError> {
        self.signal(libc::SIGUSR1);
        if let Some(status) = self.wait_for(END)? {
            return Ok(status);
        }
        // Something inside hangs in the kernel; at least nothing waits for it any more.
        self.child.kill().and_then(|()| self.child.wait()).map_err(|e| self.lost(e))
    }

    fn signal(&self, signal: i32) {
        if self.ended.is_none() {
            // The id is still ours: it was not waited for.
            sys::kill(self.child.id().cast_signed(), signal);
        }
    }

    /// Waits for at most `time`.
    pub(super) fn wait_for(&mut self, time: Duration) -> Result<Option<ExitStatus>, SandboxError> {
        let deadline = Instant::now() + time;
        loop {
            if self.ended.is_none() {
                self.ended = self.child.try_wait().map_err(|e| self.lost(e))?;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.ended.is_some() || left.is_zero() {
                return Ok(self.ended);
            }
            self.sleep_until_end(left)?;
        }
    }

    fn sleep_until_end(&self, time: Duration) -> Result<(), SandboxError> {
        let wait = || -> rustix::io::Result<()> {
            let pid = Pid::from_child(&self.child);
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            let time = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
                Err(e) => Err(e),
            }
        };
        wait().map_err(|e| self.lost(e.into()))
    }

    pub(super) fn lost(&self, error: io::Error) -> SandboxError {
        SandboxError::Lost { program: self.program.clone(), error }
    }

    pub(super) fn program(&self) -> &str {
        &self.program
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Nobody is left to tell of a failure; the tree also dies with this process.
            let _ = self.kill();
        }
    }
}

fn read_all(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut all)?;
    }
    Ok(all)
}

/// A start to carry out, and where its result goes.
type Job = (Command, Sender<io::Result<Child>>);

/// Starts `command` from a thread that lives as long as this process: the kernel sends a parent-death signal when the
/// *thread* that forked ends, and a caller's thread may end before its program.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts programs is gone");
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
        let serve = move || {
            for (mut command, result) in queue {
                // A caller that went away drops the handle; the program ends with this process at the latest.
                let _ = result.send(command.spawn());
            }
        };
        // Without the thread the channel is closed, and every start says so.
        let _ = thread::Builder::new().name("sandbox-spawner".into()).spawn(serve);
        jobs
    });
    let (result, answer) = channel();
    spawner.send((command, result)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}
