//! Why a sandboxed program did not start, or did not end well, in words that name the input to blame.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::enter::{Fault, Stage};
use super::layout::{Layout, LayoutError, Op};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The root cannot be laid out.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// This host lets nobody make the namespaces.
    #[error("this host allows no sandbox: {why}; {remedy}")]
    Forbidden {
        /// What was refused.
        why: String,
        /// What the machine's owner can do.
        remedy: String,
    },
    /// A step on the way into the sandbox failed.
    #[error("cannot start `{program}` in its sandbox: {doing}: {error}")]
    Enter {
        /// The program.
        program: String,
        /// What was being done, and to what.
        doing: String,
        /// What the system said.
        error: io::Error,
    },
    /// The program is not there, or the process could not be made.
    #[error("cannot start `{program}`: {error}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        error: io::Error,
    },
    /// Talking to the running program failed.
    #[error("lost touch with `{program}`: {error}")]
    Lost {
        /// The program.
        program: String,
        /// What the system said.
        error: io::Error,
    },
    /// The log cannot be written.
    #[error("cannot write the log {} of `{program}`: {error}", log.display())]
    Log {
        /// The program.
        program: String,
        /// The log.
        log: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The program ended with another status than 0.
    #[error("`{program}` ended with status {code}{}; the whole log is {}", last_lines(tail), log.display())]
    Failed {
        /// The program.
        program: String,
        /// Its exit code, or 128 + the signal that ended it.
        code: i32,
        /// Its last lines.
        tail: Vec<String>,
        /// Everything it printed.
        log: PathBuf,
    },
    /// Somebody asked to stop.
    #[error(transparent)]
    Cancelled(#[from] progress::Cancelled),
}

fn last_lines(tail: &[String]) -> String {
    if tail.is_empty() {
        ", saying nothing".to_owned()
    } else {
        format!(", last saying:\n    {}\n", tail.join("\n    "))
    }
}

/// What a plan was made from, kept outside the child to put its faults in words.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) layout: Layout,
    pub(super) cwd: PathBuf,
    pub(super) root: PathBuf,
}

impl Described {
    /// The error for a start that failed with `error`; the child may have told more through `told`.
    pub(super) fn error(&self, program: String, error: io::Error, told: &OwnedFd) -> SandboxError {
        match read_fault(told) {
            None if error.kind() == io::ErrorKind::NotFound => SandboxError::Start {
                error: io::Error::new(
                    error.kind(),
                    format!("the toolroot {} has no such program (or not its interpreter)", self.root.display()),
                ),
                program,
            },
            None => SandboxError::Start { program, error },
            Some(fault) => SandboxError::Enter {
                program,
                doing: self.doing(fault),
                error: io::Error::from_raw_os_error(fault.errno),
            },
        }
    }

    fn doing(&self, fault: Fault) -> String {
        let index = usize::from(fault.index);
        let source =
            |index: usize| self.layout.sources.get(index).map_or_else(|| "?".into(), |source| text(&source.path));
        match fault.stage {
            Stage::OpenTree => format!("showing {} inside", source(index)),
            Stage::ReadOnly => format!("making {} read-only inside (needs Linux 5.12)", source(index)),
            Stage::Make | Stage::Attach => match self.layout.ops.get(index) {
                Some(Op::Dir { path, .. }) => format!("making the directory /{}", text(path)),
                Some(Op::File { path }) => format!("making the mount point /{}", text(path)),
                Some(Op::Link { path, .. }) => format!("making the link /{}", text(path)),
                Some(Op::Bind { path, source: from }) => {
                    format!("binding {} to /{}", source(*from), text(path))
                }
                None => "making the root".into(),
            },
            Stage::Cwd => format!("entering its working directory {}", self.cwd.display()),
            stage => phrase(stage).into(),
        }
    }
}

/// What a stage does, for those that have no object.
pub(crate) fn phrase(stage: Stage) -> &'static str {
    match stage {
        Stage::Parent => "staying tied to the caller",
        Stage::Unshare => "making namespaces (unshare)",
        Stage::SetGroups => "writing /proc/self/setgroups",
        Stage::UidMap => "writing /proc/self/uid_map",
        Stage::GidMap => "writing /proc/self/gid_map",
        Stage::Private => "making / private",
        Stage::OpenTree => "opening a host directory (open_tree)",
        Stage::ReadOnly => "making a mount read-only (mount_setattr)",
        Stage::Tmpfs => "mounting a tmpfs",
        Stage::Make => "making the new root's directories",
        Stage::Attach => "binding (move_mount)",
        Stage::Proc => "mounting /proc",
        Stage::Pivot => "changing the root (pivot_root)",
        Stage::Cwd => "entering the working directory",
        Stage::Fork => "making a process",
        Stage::Privileges => "giving up new privileges",
    }
}

/// The fault a child told, if it told one. All writers have gone, so this does not wait.
pub(crate) fn read_fault(told: &OwnedFd) -> Option<Fault> {
    let mut bytes = [0; Fault::SIZE];
    match rustix::io::read(told, &mut bytes) {
        Ok(Fault::SIZE) => Fault::from_bytes(bytes),
        _ => None,
    }
}

fn text(path: &CStr) -> String {
    path.to_string_lossy().into_owned()
}
