//! Runs the toolroot's `git` on a repository of the host.
//!
//! The repository shows inside at its own path, together with whatever else its git directory leads to (a linked
//! worktree's common directory, borrowed objects), read-only unless asked otherwise. The host's own configuration is not
//! looked at; who commits is said by the caller.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result, bail};
use toolroot::{Sandbox, Toolroot};

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Git {
    dir: PathBuf,
    places: Vec<PathBuf>,
}

impl Git {
    /// The repository whose work tree is `dir`; `None` if it is none.
    pub fn find(dir: &Path) -> Result<Option<Git>> {
        let dir = fs::canonicalize(dir).with_context(|| format!("find {}", dir.display()))?;
        let dot = dir.join(".git");
        let git_dir = match fs::symlink_metadata(&dot) {
            Err(_) => return Ok(None),
            Ok(meta) if meta.is_file() => {
                let text = fs::read_to_string(&dot).with_context(|| format!("read {}", dot.display()))?;
                let target = text.strip_prefix("gitdir: ").map(str::trim_end);
                let target = target.with_context(|| format!("{} is no git link", dot.display()))?;
                canonical(&dir.join(target))?
            }
            Ok(_) => canonical(&dot)?,
        };
        let mut places = vec![dir.clone()];
        let mut add = |place: PathBuf| {
            if !places.iter().any(|known| place.starts_with(known)) {
                places.push(place);
            }
        };
        add(git_dir.clone());
        let mut common = git_dir.clone();
        if let Ok(text) = fs::read_to_string(git_dir.join("commondir")) {
            common = canonical(&git_dir.join(text.trim_end()))?;
            add(common.clone());
        }
        if let Ok(text) = fs::read_to_string(common.join("objects/info/alternates")) {
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                add(canonical(&common.join("objects").join(line))?);
            }
        }
        Ok(Some(Git { dir, places }))
    }

    /// The work tree.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `git <args>` that only reads.
    pub fn reading(&self, toolroot: &Toolroot, args: &[&str]) -> Sandbox {
        self.places.iter().fold(self.command(toolroot, args), |sandbox, place| sandbox.bind_ro(place, place))
    }

    /// `git <args>` that may write.
    pub fn writing(&self, toolroot: &Toolroot, args: &[&str]) -> Sandbox {
        self.places.iter().fold(self.command(toolroot, args), |sandbox, place| sandbox.bind_rw(place, place))
    }

    fn command(&self, toolroot: &Toolroot, args: &[&str]) -> Sandbox {
        toolroot
            .sandbox("git")
            // The files may be another user's than the one git believes to be.
            .args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false"])
            .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"])
            .args(args)
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .cwd(&self.dir)
    }

    /// What `git <args>` prints.
    pub fn read(&self, toolroot: &Toolroot, args: &[&str]) -> Result<String> {
        let output = self.reading(toolroot, args).output().with_context(|| format!("run git {}", args.join(" ")))?;
        self.printed(args, output)
    }

    /// Like [`Git::read`] for a command that may write.
    pub fn write(&self, toolroot: &Toolroot, args: &[&str]) -> Result<String> {
        let output = self.writing(toolroot, args).output().with_context(|| format!("run git {}", args.join(" ")))?;
        self.printed(args, output)
    }

    fn printed(&self, args: &[&str], output: Output) -> Result<String> {
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("git {} in {}: {}", args.join(" "), self.dir.display(), said.trim_end());
        }
        String::from_utf8(output.stdout).with_context(|| {
            format!("git {} in {} printed a name that is no UTF-8", args.join(" "), self.dir.display())
        })
    }
}

fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("find {}, which the git repository refers to", path.display()))
}

/// The names in NUL-separated output.
pub fn names(output: &str) -> impl Iterator<Item = &str> {
    output.split('\0').filter(|name| !name.is_empty())
}
