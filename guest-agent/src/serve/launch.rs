//! Starts a program: pipes or a terminal, environment, folder, control group, session.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use protocol::{Exec, Failure, FailureKind, WinSize};
use rustix::event::{EventfdFlags, eventfd as new_eventfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::Winsize;

use super::answer::{failed, failure};
use super::exec::set_nonblocking;
use crate::children::children;
use crate::{scope, sys};

/// Environment of every program unless the request says otherwise.
const ENVIRONMENT: [(&str, &str); 2] = [("PATH", PATH), ("HOME", "/root")];
/// The C library's UTF-8 locale; an image without it gets plain C, or bash complains at every start.
const UTF8_LOCALE: &str = "/usr/lib/locale/C.utf8";
/// Where programs are looked up.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that runs, and our ends of what it is tied to.
pub struct Launched {
    pub pid: u32,
    pub output: Option<OwnedFd>,
    pub errors: Option<OwnedFd>,
    pub input: Option<OwnedFd>,
    /// `output` and `input` are one pseudo-terminal.
    pub terminal: bool,
}

/// A new eventfd that never blocks.
pub fn eventfd() -> Result<OwnedFd, Failure> {
    new_eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
        .map_err(|error| failed("making an eventfd", &error.into()))
}

/// The kernel's shape of a window size.
pub fn winsize(size: &WinSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Starts the program; `wake` is written when it ends.
pub fn launch(exec: &Exec, wake: &Arc<OwnedFd>) -> Result<Launched, Failure> {
    let command = command(exec)?;
    let notify = wake.try_clone().map_err(|error| failed("sharing an eventfd", &error))?;
    match &exec.pty {
        Some(size) => on_terminal(exec, command, size, notify),
        None => on_pipes(exec, command, notify),
    }
}

pub fn command(exec: &Exec) -> Result<Command, Failure> {
    let invalid = |message: &str| failure(FailureKind::Invalid, message.to_string());
    let (program, arguments) = exec.argv.split_first().ok_or_else(|| invalid("the program's argv is empty"))?;
    if program.is_empty() {
        return Err(invalid("the program's name is empty"));
    }
    let strings = exec.argv.iter().chain(exec.env.iter().flat_map(|(name, value)| [name, value]));
    if strings.chain(&exec.cwd).any(|text| text.contains('\0')) {
        return Err(invalid("an argument, variable or path holds a zero byte, which no program can be given"));
    }
    if let Some((name, _)) = exec.env.iter().find(|(name, _)| name.is_empty() || name.contains('=')) {
        return Err(invalid(&format!("{name:?} is no name for an environment variable")));
    }
    let cwd = exec.cwd.as_deref().unwrap_or("/");
    if !Path::new(cwd).is_dir() {
        return Err(failure(FailureKind::NotFound, format!("the working folder {cwd} of {program} does not exist")));
    }
    let mut command = Command::new(program);
    command.args(arguments).current_dir(cwd).env_clear().envs(ENVIRONMENT);
    command.env("LANG", if Path::new(UTF8_LOCALE).exists() { "C.UTF-8" } else { "C" });
    if let Some(size) = exec.pty.as_ref().filter(|size| !size.term.is_empty()) {
        command.env("TERM", &size.term);
    }
    command.envs(exec.env.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// The open `cgroup.procs` of the program's scope.
fn scope_of(exec: &Exec) -> Result<Option<OwnedFd>, Failure> {
    exec.scope.as_deref().map(scope::enter).transpose()
}

fn on_pipes(exec: &Exec, mut command: Command, notify: OwnedFd) -> Result<Launched, Failure> {
    sys::isolate(&mut command, false, scope_of(exec)?);
    command
        .stdin(if exec.stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = children().spawn(&mut command, notify).map_err(|error| not_started(exec, &error))?;
    let launched = Launched {
        pid: child.id(),
        output: child.stdout.take().map(OwnedFd::from),
        errors: child.stderr.take().map(OwnedFd::from),
        input: child.stdin.take().map(OwnedFd::from),
        terminal: false,
    };
    for fd in [&launched.output, &launched.errors, &launched.input].into_iter().flatten() {
        set_nonblocking(fd).map_err(|error| failed("setting up a pipe", &error))?;
    }
    Ok(launched)
}

fn on_terminal(exec: &Exec, mut command: Command, size: &WinSize, notify: OwnedFd) -> Result<Launched, Failure> {
    let terminal = |error: io::Error| failed("opening a pseudo-terminal (is devpts mounted at /dev/pts?)", &error);
    let (ours, theirs) = open_terminal(size).map_err(terminal)?;
    sys::isolate(&mut command, true, scope_of(exec)?);
    let share = || theirs.try_clone().map(Stdio::from).map_err(terminal);
    command.stdin(share()?).stdout(share()?).stderr(share()?);
    let input = ours.try_clone().map_err(terminal)?;
    let child = children().spawn(&mut command, notify).map_err(|error| not_started(exec, &error))?;
    // The command still holds the program's side; while it does, the terminal never reports that all have gone.
    drop((command, theirs));
    Ok(Launched { pid: child.id(), output: Some(ours), errors: None, input: Some(input), terminal: true })
}

fn open_terminal(size: &WinSize) -> io::Result<(OwnedFd, File)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let theirs = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty())?;
    rustix::termios::tcsetwinsize(&ours, winsize(size))?;
    set_nonblocking(&ours)?;
    Ok((ours, File::from(theirs)))
}

pub fn not_started(exec: &Exec, error: &io::Error) -> Failure {
    let program = &exec.argv[0];
    let hint = match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') && Path::new(program).exists() => {
            ": the file exists, so the interpreter or dynamic loader it names is missing"
        }
        io::ErrorKind::NotFound if !program.contains('/') => ": not in the PATH; is its package in the image?",
        io::ErrorKind::PermissionDenied => ": not executable, or a folder",
        _ => "",
    };
    failed(&format!("starting {program}{hint}"), error)
}
