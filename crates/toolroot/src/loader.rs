//! Runs a toolroot's program with no namespace at all, through the toolroot's own dynamic loader and libraries.
//!
//! In: a program's name. Out: the command line that starts it on any host of the same architecture, whatever libc that
//! has. This suits programs that open what they are told by path and start nothing else of the toolroot: QEMU (with `-L`
//! for its data), mkfs.erofs, a linker. For the others there is the sandbox.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where programs are looked for, below the toolroot.
const PROGRAMS: [&str; 2] = ["usr/bin", "usr/sbin"];

/// The parts of a toolroot that depend on its architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// The dynamic loader.
    pub(crate) loader: &'static str,
    /// Debian's directory name for it, also the prefix of its tools.
    pub(crate) triplet: &'static str,
}

/// What this program was compiled for, since that is what it can run.
pub(crate) const ARCHITECTURE: Option<Architecture> = if cfg!(target_arch = "x86_64") {
    Some(Architecture { loader: "usr/lib64/ld-linux-x86-64.so.2", triplet: "x86_64-linux-gnu" })
} else if cfg!(target_arch = "aarch64") {
    Some(Architecture { loader: "usr/lib/ld-linux-aarch64.so.1", triplet: "aarch64-linux-gnu" })
} else {
    None
};

/// Why a program cannot be run this way.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// Nothing is known about this architecture.
    #[error("no Debian loader is known for {}", std::env::consts::ARCH)]
    Architecture,
    /// The toolroot lacks a file.
    #[error("the toolroot {} has no {what}; does its package list in images/roots.toml have it?", root.display())]
    Missing {
        /// The toolroot.
        root: PathBuf,
        /// What is not there.
        what: String,
    },
}

/// The words that start `program` of the toolroot in `root`; its arguments follow.
pub(crate) fn argv(root: &Path, program: &str) -> Result<Vec<OsString>, LoaderError> {
    let missing = |what: &str| LoaderError::Missing { root: root.to_owned(), what: what.to_owned() };
    let architecture = ARCHITECTURE.ok_or(LoaderError::Architecture)?;
    let loader = root.join(architecture.loader);
    if !loader.exists() {
        return Err(missing(architecture.loader));
    }
    let path = if program.contains('/') {
        Some(root.join(program.trim_start_matches('/')))
    } else {
        PROGRAMS.iter().map(|dir| root.join(dir).join(program)).find(|path| path.exists())
    };
    let path = path.filter(|path| path.exists()).ok_or_else(|| missing(program))?;
    Ok(vec![
        loader.into(),
        "--argv0".into(),
        program.into(),
        "--library-path".into(),
        library_path(root, architecture),
        path.into(),
    ])
}

/// The directories of the toolroot's libraries.
fn library_path(root: &Path, architecture: Architecture) -> OsString {
    let mut path = root.join("usr/lib").join(architecture.triplet).into_os_string();
    path.push(":");
    path.push(root.join("usr/lib"));
    path
}

/// The same as a command.
pub(crate) fn command(root: &Path, program: &str) -> Result<Command, LoaderError> {
    let words = argv(root, program)?;
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    Ok(command)
}
