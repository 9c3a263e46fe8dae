//! Where a lab keeps its things.
//!
//! In: the project's root and the lab's name. Out: the folders of one lab. Logs and results are for people and live
//! under `target/lab/<name>/`; sockets need short names (`sun_path` holds 108 bytes, unix(7)) and private folders, so
//! they live in `$XDG_RUNTIME_DIR/devmem-lab/<hash>/`.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

/// The longest socket path the kernel takes, without the closing NUL (`struct sockaddr_un`).
const SUN_PATH_MAX: usize = 107;

/// The folders of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabPaths {
    /// The project's root: the folder of `lab.toml`.
    pub project: PathBuf,
    /// The lab's name.
    pub name: String,
    /// Logs, console output, results: `target/lab/<name>`.
    pub state: PathBuf,
    /// Sockets, mode 0700.
    pub runtime: PathBuf,
}

impl LabPaths {
    /// The folders of lab `name` of the project at `project`; creates nothing.
    ///
    /// # Errors
    /// When `name` is not a plain name, or the runtime folder leaves no room for a socket's name.
    pub fn new(project: &Path, name: &str) -> Result<Self> {
        ensure!(
            !name.is_empty()
                && name.len() <= 40
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && !name.starts_with('.'),
            "`{name}` cannot be a lab's name: use 1 to 40 letters, digits, `-`, `_` or `.`, not starting with a dot"
        );
        let project =
            fs::canonicalize(project).with_context(|| format!("cannot find the project at {}", project.display()))?;
        let mut hash = Sha256::new();
        hash.update(project.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(name.as_bytes());
        let short: String = hash.finalize().iter().take(5).map(|b| format!("{b:02x}")).collect();
        let runtime = runtime_base().join("devmem-lab").join(short);
        let longest = runtime.join("guest-with-a-long-name.agent");
        if longest.as_os_str().len() > SUN_PATH_MAX {
            bail!(
                "the runtime folder {} is too long for socket names ({SUN_PATH_MAX} bytes at most); set XDG_RUNTIME_DIR to a shorter path",
                runtime.display()
            );
        }
        Ok(LabPaths { state: project.join("target/lab").join(name), project, name: name.to_owned(), runtime })
    }

    /// Creates the folders; the runtime folder must belong to this user and be closed to others.
    ///
    /// # Errors
    /// When a folder cannot be made or somebody else owns the runtime folder.
    pub fn create(&self) -> Result<()> {
        for dir in [self.state.clone(), self.logs(), self.results()] {
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let parent = self.runtime.parent().unwrap_or(&self.runtime);
        for dir in [parent, &self.runtime] {
            private_dir(dir)?;
        }
        Ok(())
    }

    /// Logs of the supervisor, QEMU and the consoles.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// One folder a test run.
    pub fn results(&self) -> PathBuf {
        self.state.join("results")
    }

    /// The supervisor's control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime.join("control")
    }

    /// Who supervises this lab, written by the supervisor itself.
    pub fn journal(&self) -> PathBuf {
        self.state.join("supervisor.json")
    }

    /// What the supervisor is to run.
    pub fn launch(&self) -> PathBuf {
        self.state.join("launch.json")
    }

    /// The supervisor's own log.
    pub fn supervisor_log(&self) -> PathBuf {
        self.logs().join("supervisor.log")
    }

    /// Held (flock) by whoever changes the lab: `up`, `down`, `test`.
    pub fn lock_file(&self) -> PathBuf {
        self.state.join("lock")
    }
}

/// Every lab this project has ever had up, by the folders below `target/lab`.
///
/// # Errors
/// When the folder cannot be read.
pub fn all(project: &Path) -> Result<Vec<LabPaths>> {
    let base = project.join("target/lab");
    let entries = match fs::read_dir(&base) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", base.display())),
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names.iter().filter_map(|name| LabPaths::new(project, name).ok()).collect())
}

/// `$XDG_RUNTIME_DIR`, or a folder of this user's below the temporary directory where there is none.
fn runtime_base() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if Path::new(&dir).is_dir() => PathBuf::from(dir),
        _ => std::env::temp_dir().join(format!("run-{}", rustix::process::getuid().as_raw())),
    }
}

/// Creates `dir` with mode 0700, or checks that an existing one is ours and closed to others.
fn private_dir(dir: &Path) -> Result<()> {
    if let Some(parent) = dir.parent()
        && !parent.exists()
    {
        private_dir(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e).with_context(|| format!("cannot create {}", dir.display())),
    }
    let meta = fs::symlink_metadata(dir)?;
    ensure!(meta.is_dir(), "{} is in the way: it is not a folder", dir.display());
    ensure!(
        meta.uid() == rustix::process::getuid().as_raw() && meta.mode() & 0o077 == 0,
        "{} must belong to you and be closed to others (mode 0700), since sockets that control guests live there; remove it or set XDG_RUNTIME_DIR",
        dir.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_do_not_share_folders() {
        let dir = tempfile::tempdir().unwrap();
        let a = LabPaths::new(dir.path(), "a").unwrap();
        let b = LabPaths::new(dir.path(), "b").unwrap();
        assert_ne!(a.runtime, b.runtime);
        assert_ne!(a.state, b.state);
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "..", "a/b", ".hidden", "x y", &"n".repeat(41)] {
            assert!(
                LabPaths::new(dir.path(), bad).unwrap_err().to_string().contains("cannot be a lab's name"),
                "{bad}"
            );
        }
    }

    #[test]
    fn an_open_runtime_folder_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(private_dir(&open).unwrap_err().to_string().contains("mode 0700"));
    }
}
