//! Running the project's command line as a user does, in projects of its own.
//!
//! A [`Project`] is a folder with its own `lab.toml` and suites; everything else is linked from this checkout. The cache is
//! the user's own, so that what one test built the next one finds. When a project is dropped its labs are taken down.

pub mod labs;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What of this checkout a project needs besides `lab.toml` and `suites`.
const LINKED: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "crates",
    "e2e",
    "guest-agent",
    "guest-tools",
    "images",
    "kernel-patches",
    "lab.lock",
    "templates",
    "xtask",
];

/// The checkout these tests belong to.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The command line under test: the one that runs the tests, or the last one built.
pub fn xtask() -> PathBuf {
    match std::env::var_os("DEVMEM_LAB_XTASK") {
        Some(path) => PathBuf::from(path),
        None => checkout().join("target/debug/xtask"),
    }
}

/// A project of its own.
#[derive(Debug)]
pub struct Project {
    dir: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Wall-clock time.
    pub took: Duration,
}

impl Ran {
    /// Both outputs, for messages.
    pub fn all(&self) -> String {
        format!("exit {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }

    /// Fails the test unless the exit code is this.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.all());
        self
    }

    /// Fails the test unless either output holds the text.
    ///
    /// # Panics
    /// When neither does.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "`{text}` is nowhere in:\n{}", self.all());
        self
    }
}

impl Project {
    /// A project with this `lab.toml` and these suites (file name, text).
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(lab_toml: &str, suites: &[(&str, &str)]) -> Result<Self> {
        let base = checkout().join("target/e2e");
        fs::create_dir_all(&base)?;
        let dir = tempfile::Builder::new().prefix("p").tempdir_in(&base)?;
        let from = checkout();
        for name in LINKED {
            symlink(from.join(name), dir.path().join(name)).with_context(|| format!("link {name}"))?;
        }
        fs::write(dir.path().join("lab.toml"), lab_toml)?;
        fs::create_dir(dir.path().join("suites"))?;
        for (name, text) in suites {
            fs::write(dir.path().join("suites").join(name), text)?;
        }
        Ok(Project { dir })
    }

    /// A project with the checkout's own `lab.toml` and suites.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn of_checkout() -> Result<Self> {
        let from = checkout();
        let project = Project::new(&fs::read_to_string(from.join("lab.toml"))?, &[])?;
        fs::remove_dir(project.path().join("suites"))?;
        symlink(from.join("suites"), project.path().join("suites"))?;
        Ok(project)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces a linked file by a changed copy of it.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn edit(&self, name: &str, change: impl FnOnce(String) -> String) -> Result<()> {
        let path = self.path().join(name);
        let text = fs::read_to_string(&path)?;
        fs::remove_file(&path)?;
        fs::write(&path, change(text))?;
        Ok(())
    }

    /// `cargo xtask ARGS…`, not started yet.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(xtask());
        command.current_dir(self.path()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs `cargo xtask ARGS…` to its end.
    ///
    /// # Panics
    /// When the program cannot be run at all.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        let begun = Instant::now();
        let output = self.command(args).output().unwrap_or_else(|e| panic!("cannot run {}: {e}", xtask().display()));
        ran(&output, begun)
    }

    /// Starts `cargo xtask ARGS…` with its outputs piped.
    ///
    /// # Errors
    /// When the program cannot be run at all.
    pub fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Child> {
        Ok(self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// The last run's `results.json`.
    ///
    /// # Errors
    /// When there is none.
    pub fn results(&self) -> Result<serde_json::Value> {
        let path = self.path().join("target/lab/lab/results/latest/results.json");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Status of a test in the last run.
    ///
    /// # Errors
    /// When it did not run.
    pub fn status_of(&self, test: &str) -> Result<String> {
        let results = self.results()?;
        let records = results["records"].as_array().context("no records")?;
        let record = records.iter().find(|r| r["test"] == test).with_context(|| format!("no record of {test}"))?;
        Ok(record["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Processes that run out of this project's folder or carry it in their arguments.
    pub fn processes(&self) -> Vec<String> {
        let needle = self.path().as_os_str().as_encoded_bytes().to_vec();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            if pid == std::process::id() {
                continue;
            }
            let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
            if line.windows(needle.len().max(1)).any(|w| w == needle) {
                found.push(format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// Waits until none of [`Project::processes`] is left.
    ///
    /// # Panics
    /// When some are left after `patience`.
    #[track_caller]
    pub fn no_process_left(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still running:\n{}", left.join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // Best effort: the test itself may have taken the lab down already.
        let _ = self.command(["-q", "lab", "down", "--all"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn ran(output: &Output, begun: Instant) -> Ran {
    use std::os::unix::process::ExitStatusExt;
    Ran {
        code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: begun.elapsed(),
    }
}

/// Waits for a child with its outputs; kills it and fails when it takes longer than `patience`.
///
/// # Errors
/// When it took too long.
pub fn finish(mut child: Child, patience: Duration) -> Result<Ran> {
    let begun = Instant::now();
    let read = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut text);
            }
            text
        })
    };
    let stdout = read(child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let stderr = read(child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > patience {
            let _ = child.kill();
            let _ = child.wait();
            bail!("did not end within {} s", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let output =
        Output { status, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() };
    Ok(ran(&output, begun))
}
