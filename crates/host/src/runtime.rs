//! The directory for sockets: `$XDG_RUNTIME_DIR`, or one of this user's below the temporary directory.
//!
//! The path of a unix socket has at most 107 bytes (`sun_path`, unix(7)), and whoever can open the sockets controls the
//! guests, so the directory must be short and private.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::Finding;

const SUN_PATH: usize = 107;
/// What comes after the directory: the lab's own, ten digits, and the longest name of a socket.
const TAIL: &str = "devmem-lab/0123456789/guest-with-a-long-name.agent";

/// What the choice depends on.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    /// `XDG_RUNTIME_DIR`.
    pub variable: Option<PathBuf>,
    /// The directory for temporary files.
    pub temporary: PathBuf,
    /// Who runs this.
    pub uid: u32,
}

pub(crate) fn finding(runtime: &Runtime) -> Finding {
    let name = "runtime-dir";
    match &runtime.variable {
        Some(dir) if dir.is_dir() => match usable(dir, runtime.uid) {
            Ok(()) => Finding::ok(name, format!("{} takes sockets", dir.display())),
            Err((problem, remedy)) => Finding::missing(name, format!("XDG_RUNTIME_DIR: {problem}"), remedy),
        },
        other => {
            let dir = &runtime.temporary;
            let why = match other {
                Some(dir) => format!("XDG_RUNTIME_DIR names {}, which is no directory", dir.display()),
                None => "XDG_RUNTIME_DIR is not set".to_string(),
            };
            // Below a shared directory the lab makes its own; only its length and sockets matter here.
            let sub = dir.join(format!("run-{}", runtime.uid));
            match fits(&sub).and_then(|()| takes_sockets(dir)) {
                Ok(()) => Finding::ok(name, format!("{why}; {} serves", sub.display())),
                Err((problem, remedy)) => Finding::missing(name, format!("{why}, and {problem}"), remedy),
            }
        }
    }
}

type Problem = (String, String);

fn usable(dir: &Path, uid: u32) -> Result<(), Problem> {
    let shown = dir.display();
    fits(dir)?;
    let meta = fs::metadata(dir).map_err(|e| (format!("{shown} cannot be looked at: {e}"), unset()))?;
    if meta.uid() != uid {
        return Err((format!("{shown} belongs to another user (uid {})", meta.uid()), unset()));
    }
    if meta.permissions().mode() & 0o022 != 0 {
        return Err((format!("others may write to {shown}"), format!("chmod 0700 {shown}")));
    }
    takes_sockets(dir)
}

fn unset() -> String {
    "unset XDG_RUNTIME_DIR, or set it to a directory of your own with mode 0700".to_string()
}

fn fits(dir: &Path) -> Result<(), Problem> {
    let longest = dir.join(TAIL).as_os_str().as_bytes().len();
    if longest <= SUN_PATH {
        return Ok(());
    }
    let room = SUN_PATH - 1 - TAIL.len();
    let problem = format!("{} is too long: with the names of sockets {longest} bytes, {SUN_PATH} fit", dir.display());
    Err((problem, format!("set XDG_RUNTIME_DIR to a directory with a path of at most {room} bytes")))
}

fn takes_sockets(dir: &Path) -> Result<(), Problem> {
    let path = dir.join(format!(".devmem-lab-{}", std::process::id()));
    let outcome = UnixListener::bind(&path);
    // Binding leaves the name behind; a failure leaves none.
    let _ = fs::remove_file(&path);
    outcome.map(drop).map_err(|e: io::Error| (format!("{} takes no sockets: {e}", dir.display()), unset()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    fn of(variable: Option<&Path>, temporary: &Path) -> Finding {
        let uid = rustix::process::geteuid().as_raw();
        finding(&Runtime { variable: variable.map(Path::to_path_buf), temporary: temporary.to_path_buf(), uid })
    }

    #[test]
    fn a_private_short_directory_is_good_and_left_clean() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(of(Some(dir.path()), Path::new("/nonexistent")).status, Status::Ok);
        for variable in [None, Some(Path::new("/nonexistent"))] {
            assert_eq!(of(variable, dir.path()).status, Status::Ok);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(of(None, Path::new("/nonexistent")).status, Status::Missing);
    }

    #[test]
    fn long_open_and_foreign_directories_are_not() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let long = dir.path().join("x".repeat(60));
        fs::create_dir(&long).unwrap();
        let found = of(Some(&long), Path::new("/tmp"));
        assert_eq!(found.status, Status::Missing);
        assert_eq!(found.remedy.as_deref(), Some("set XDG_RUNTIME_DIR to a directory with a path of at most 56 bytes"));

        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let found = of(Some(dir.path()), Path::new("/tmp"));
        assert_eq!(found.remedy, Some(format!("chmod 0700 {}", dir.path().display())));

        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let uid = rustix::process::geteuid().as_raw() + 1;
        let variable = Some(dir.path().to_path_buf());
        let found = finding(&Runtime { variable, temporary: "/tmp".into(), uid });
        assert_eq!(found.status, Status::Missing);
        assert!(found.detail.contains("belongs to another user"), "{}", found.detail);
    }
}
