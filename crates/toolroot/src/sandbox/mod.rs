//! Runs a toolroot's program as if the toolroot were the machine: its own root, processes, network and environment,
//! with only those host directories that were bound in. No privileges are needed where user namespaces are allowed.
//!
//! In: a program, its arguments, environment, binds and standard streams. Out: its exit status, its output, or a
//! [`Running`] handle. [`layout`] works out what the root looks like (pure), [`enter`] carries that out between `fork`
//! and `exec`; the work happens there and not in a helper program so that any binary, a test's included, can use it.

mod enter;
mod error;
mod layout;
mod logged;
mod running;
mod sys;

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use progress::Progress;
use rustix::thread::UnshareFlags;

pub use error::SandboxError;
pub use layout::{Bind, LayoutError};
pub use running::Running;

pub(crate) use enter::{Fault, Plan, Stage, enter};
pub(crate) use error::{phrase, read_fault};
pub(crate) use layout::Layout;
pub(crate) use sys::{Fork, exit, fork};

use crate::namespaces::{self, NamespaceSupport};

/// What a program finds in its environment unless the caller says otherwise; nothing of the host's gets in.
const ENVIRONMENT: [(&str, &str); 3] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/tmp"), ("LC_ALL", "C.UTF-8")];

/// A program to run inside a toolroot.
///
/// Inside, the caller is root (uid 0) and nobody else exists: files keep their owner, and programs that change owners
/// fail. The toolroot is read-only; `/tmp`, `/var/tmp` and `/run` are empty, writable and gone afterwards.
#[derive(Debug)]
#[must_use = "nothing runs until `status`, `output`, `run_logged` or `spawn` is called"]
pub struct Sandbox {
    root: PathBuf,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: PathBuf,
    binds: Vec<Bind>,
    network: bool,
    keep_session: bool,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    progress: Progress,
}

impl Sandbox {
    /// `program` (looked up in the toolroot's `PATH` if it has no slash) in the toolroot at `root`.
    pub fn new(root: &Path, program: impl AsRef<OsStr>) -> Self {
        let env = ENVIRONMENT.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Sandbox {
            root: root.to_owned(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env,
            cwd: PathBuf::from("/"),
            binds: Vec::new(),
            network: false,
            keep_session: false,
            stdin: None,
            stdout: None,
            stderr: None,
            progress: Progress::silent(),
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.retain(|(n, _)| n != name.as_ref());
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Where the program starts, as seen inside; `/` unless given.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = dir.as_ref().to_owned();
        self
    }

    /// Shows a host file or directory inside, read-only.
    pub fn bind_ro(self, host: impl AsRef<Path>, inside: impl AsRef<Path>) -> Self {
        self.bind(host.as_ref(), inside.as_ref(), false)
    }

    /// Shows a host file or directory inside, writable.
    pub fn bind_rw(self, host: impl AsRef<Path>, inside: impl AsRef<Path>) -> Self {
        self.bind(host.as_ref(), inside.as_ref(), true)
    }

    fn bind(mut self, host: &Path, inside: &Path, writable: bool) -> Self {
        self.binds.push(Bind { host: host.to_owned(), inside: inside.to_owned(), writable });
        self
    }

    /// Lets the program use the host's network; without it there is none at all, not even a loopback that is up.
    pub fn network(mut self, allowed: bool) -> Self {
        self.network = allowed;
        self
    }

    /// Stays in the caller's session, so that the terminal belongs to the program too: for what a person drives.
    pub fn keep_session(mut self) -> Self {
        self.keep_session = true;
        self
    }

    /// Standard input; nothing unless given.
    pub fn stdin(mut self, stdio: impl Into<Stdio>) -> Self {
        self.stdin = Some(stdio.into());
        self
    }

    /// Standard output; the caller's unless given ([`Sandbox::output`] and [`Sandbox::run_logged`] take it themselves).
    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdio.into());
        self
    }

    /// Standard error; as with [`Sandbox::stdout`].
    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Self {
        self.stderr = Some(stdio.into());
        self
    }

    /// Has [`Sandbox::status`] and [`Sandbox::output`] end the program when this work is cancelled.
    pub fn progress(mut self, progress: &Progress) -> Self {
        self.progress = progress.clone();
        self
    }

    /// Runs the program to its end. The status is its exit code, or 128 + the signal that ended it.
    pub fn status(self) -> Result<ExitStatus, SandboxError> {
        let progress = self.progress.clone();
        self.spawn()?.wait(&progress)
    }

    /// Runs the program to its end and collects what it prints.
    pub fn output(mut self) -> Result<Output, SandboxError> {
        self.stdout = Some(Stdio::piped());
        self.stderr = Some(Stdio::piped());
        let progress = self.progress.clone();
        self.spawn()?.wait_with_output(&progress)
    }

    /// Runs the program, sending each line it prints to `step` and everything to the file `log`.
    ///
    /// An exit status other than 0 is an error that has the last lines; a cancelled step ends the program.
    pub fn run_logged(self, step: &progress::Step, log: &Path) -> Result<(), SandboxError> {
        logged::run(self, step, log)
    }

    /// Starts the program. Dropping the handle kills it and everything it started.
    pub fn spawn(mut self) -> Result<Running, SandboxError> {
        let name = self.program.to_string_lossy().into_owned();
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env.iter().map(|(n, v)| (n, v)));
        command.stdin(self.stdin.take().unwrap_or_else(Stdio::null));
        if let Some(stdout) = self.stdout.take() {
            command.stdout(stdout);
        }
        if let Some(stderr) = self.stderr.take() {
            command.stderr(stderr);
        }
        let (told, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| SandboxError::Start { program: name.clone(), error: e.into() })?;
        let (mut plan, described) = self.plan(report.as_raw_fd())?;
        let enter = move || enter(&mut plan).map_err(|fault| io::Error::from_raw_os_error(fault.errno));
        // SAFETY: `enter` makes only system calls, on memory that was laid out before the fork (see its module).
        unsafe { command.pre_exec(enter) };
        match running::spawn(command) {
            Ok(child) => Ok(Running::new(name, child)),
            Err(error) => {
                drop(report);
                Err(described.error(name, error, &told))
            }
        }
    }

    /// What the child will do, and the same in words for errors.
    fn plan(&self, report: i32) -> Result<(Plan, error::Described), SandboxError> {
        let (unshare, maps) = match namespaces::support() {
            NamespaceSupport::User => (UnshareFlags::NEWUSER, Some(namespaces::maps())),
            NamespaceSupport::RootOnly { .. } => (UnshareFlags::empty(), None),
            NamespaceSupport::Forbidden { why, remedy } => {
                return Err(SandboxError::Forbidden { why: why.clone(), remedy: remedy.clone() });
            }
        };
        let mut binds = self.binds.clone();
        if self.network {
            // Names are looked up as on the host; a host without these files does it some other way.
            for file in ["/etc/resolv.conf", "/etc/hosts"].map(PathBuf::from) {
                if file.exists() && !binds.iter().any(|b| b.inside == file) {
                    binds.push(Bind { host: file.clone(), inside: file, writable: false });
                }
            }
        }
        let layout = Layout::new(Some(&self.root), &binds)?;
        let c = |path: &Path| {
            CString::new(path.as_os_str().as_bytes()).map_err(|_| LayoutError::Inside { path: path.to_owned() })
        };
        let mut unshare = unshare | namespaces::ALWAYS;
        unshare.set(UnshareFlags::NEWNET, !self.network);
        let described = error::Described { layout: layout.clone(), cwd: self.cwd.clone(), root: self.root.clone() };
        let trees = layout.sources.iter().map(|_| None).collect();
        let plan = Plan {
            unshare,
            maps,
            base: c(&self.root)?,
            layout,
            cwd: c(&self.cwd)?,
            new_session: !self.keep_session,
            parent: Some(rustix::process::getpid()),
            report,
            trees,
        };
        Ok((plan, described))
    }
}
