//! virtme-ng on this host, the peer of two benchmarks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::mmdebstrap::which;

/// The version that the bounds speak of.
const VERSION: &str = "1.42";

/// An installed virtme-ng.
#[derive(Debug)]
pub struct Virtme {
    /// `vng`.
    pub program: PathBuf,
    /// What `vng --version` says.
    pub version: String,
}

impl Virtme {
    /// Finds it in `PATH`; else what to do, for people.
    pub fn find() -> Result<Self, String> {
        let Some(program) = which("vng") else {
            return Err(format!(
                "vng is not in PATH; `python3 -m venv DIR && DIR/bin/pip install virtme-ng=={VERSION}`, then put DIR/bin into PATH"
            ));
        };
        let output = Command::new(&program).arg("--version").output();
        match output {
            Ok(output) if output.status.success() => {
                Ok(Virtme { version: String::from_utf8_lossy(&output.stdout).trim().to_owned(), program })
            }
            Ok(output) => {
                Err(format!("{} does not run: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim()))
            }
            Err(error) => Err(format!("{} does not run: {error}", program.display())),
        }
    }

    /// What to say when it is another version than the one the bounds were set for.
    pub fn remark(&self) -> Option<String> {
        (!self.version.ends_with(VERSION))
            .then(|| format!("the bound is for virtme-ng {VERSION}, this is {}", self.version))
    }

    /// Where its Python packages are.
    ///
    /// # Errors
    /// When its interpreter cannot import it.
    pub fn site(&self) -> Result<PathBuf> {
        let script = std::fs::read_to_string(&self.program)
            .with_context(|| format!("{} is no script", self.program.display()))?;
        let interpreter = script.lines().next().and_then(|line| line.strip_prefix("#!")).map_or("python3", str::trim);
        let mut words = interpreter.split(' ');
        let output = Command::new(words.next().unwrap_or("python3"))
            .args(words)
            .args(["-c", "import virtme; print(virtme.__path__[0])"])
            .output()
            .with_context(|| format!("cannot run {interpreter}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        match Path::new(said.trim()).parent() {
            Some(site) if output.status.success() => Ok(site.to_path_buf()),
            _ => bail!("{interpreter} cannot import virtme: {}", String::from_utf8_lossy(&output.stderr).trim()),
        }
    }
}
