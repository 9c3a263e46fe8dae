//! Debian's usual way to a root file system: mmdebstrap, then mkfs.erofs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use image::Filesystem;
use machine::process::{Exit, Offspring};
use progress::Progress;
use rustix::process::Signal;
use toolroot::Toolroot;

/// How often a wait looks whether it was cancelled.
const ROUND: Duration = Duration::from_millis(200);
/// How long it may take to unmount and remove what it made, once told to end.
const GRACE: Duration = Duration::from_secs(20);
/// The root file system, in the working directory.
const TAR: &str = "root.tar";

/// Compiles once more all Python that the packages' scripts compiled, wherever that is, to learn what it costs, then
/// removes all bytecode. `$1` is the new root. Writes nanoseconds of itself and of the compiler, and how many files
/// there were and are.
const HOOK: &str = r#"begun=$(date +%s%N)
had=$(find "$1" -name '*.pyc' | wc -l)
places=$(find "$1" -name __pycache__ -type d -printf '/%P\n' | sed 's,/__pycache__$,,')
find "$1" -name '*.pyc' -delete
compile=$(date +%s%N)
chroot "$1" python3 -m compileall -q -l $places >&2 || true
compiled=$(date +%s%N)
made=$(find "$1" -name '*.pyc' | wc -l)
find "$1" -name '*.pyc' -delete
echo $(($(date +%s%N) - begun)) $((compiled - compile)) $had $made > "$BENCH_TIMES"
"#;

/// The program on this host.
#[derive(Debug)]
pub struct Mmdebstrap {
    program: PathBuf,
    version: String,
}

/// What a run took, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// Without what compiling Python cost.
    pub total: f64,
    /// What compiling Python cost.
    pub bytecode: f64,
}

impl Mmdebstrap {
    /// Finds it in `PATH`; else what to do, for people.
    pub fn find() -> Result<Self, String> {
        let Some(program) = which("mmdebstrap") else {
            return Err("mmdebstrap is not in PATH; `apt-get install mmdebstrap` on Debian or Ubuntu (it also needs apt and dpkg)".into());
        };
        let output = Command::new(&program).arg("--version").output();
        match output {
            Ok(output) if output.status.success() => {
                Ok(Mmdebstrap { version: String::from_utf8_lossy(&output.stdout).trim().to_owned(), program })
            }
            Ok(output) => {
                Err(format!("{} does not run: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim()))
            }
            Err(error) => Err(format!("{} does not run: {error}", program.display())),
        }
    }

    /// For the report.
    pub fn describe(&self) -> String {
        format!("{} --variant=custom --mode={}, then mkfs.erofs", self.version, mode())
    }

    /// Makes a root file system of `packages` of the distribution's `suite` out of the repository `pool`; leaves a tar in the
    /// new directory `work`.
    ///
    /// # Errors
    /// With its last words.
    pub fn run(&self, pool: &Path, suite: &str, packages: &[&str], work: &Path, progress: &Progress) -> Result<Took> {
        fs::create_dir(work).with_context(|| format!("cannot make {}", work.display()))?;
        let (log, times) = (work.join("log"), work.join("times"));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .arg(format!("--mode={}", mode()))
            .args(["--variant=custom", "--format=tar", "--dpkgopt=force-unsafe-io"])
            .args(["--aptopt=Apt::Install-Recommends \"false\"", &format!("--include={}", packages.join(","))])
            .arg(format!("--customize-hook={HOOK}"))
            .arg(suite)
            .arg(work.join(TAR))
            .arg(format!("deb [trusted=yes] copy:{} ./", pool.display()))
            .env("TMPDIR", work)
            .env("BENCH_TIMES", &times)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let begun = Instant::now();
        let mut child = Offspring::spawn(command).with_context(|| format!("cannot run {}", self.program.display()))?;
        let exit = loop {
            if let Some(exit) = child.wait(ROUND)? {
                break exit;
            }
            if let Err(cancelled) = progress.check_cancelled() {
                child.id().signal(Signal::TERM)?;
                child.wait(GRACE)?;
                return Err(cancelled.into());
            }
        };
        let wall = begun.elapsed().as_secs_f64();
        if exit != Exit::Code(0) {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            bail!("mmdebstrap ended with {exit}:\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
        }
        let text = fs::read_to_string(&times).with_context(|| format!("cannot read {}", times.display()))?;
        let numbers: Vec<u64> = text.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [hook, compile, had, made] = numbers[..] else { bail!("mmdebstrap's hook wrote {text:?}") };
        if made < had {
            bail!("packages' scripts compiled {had} Python files and the hook only {made}, so their cost is unknown");
        }
        let (hook, bytecode) = (hook as f64 / 1e9, compile as f64 / 1e9);
        Ok(Took { total: wall - hook - bytecode, bytecode })
    }
}

/// Writes the tar in `work` as an erofs image, with the options of the lab's own.
///
/// # Errors
/// With the tool's words.
pub fn mkfs(vm: &Toolroot, filesystem: &Filesystem, work: &Path) -> Result<()> {
    let mut command = vm.loader("mkfs.erofs")?;
    command.args(image::mkfs_arguments(filesystem, &work.join("root.erofs"))).arg(work.join(TAR));
    let output = command.stdin(Stdio::null()).output().context("cannot run mkfs.erofs")?;
    if !output.status.success() {
        bail!("mkfs.erofs ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The quickest mode this user may use.
fn mode() -> &'static str {
    if rustix::process::geteuid().is_root() { "root" } else { "unshare" }
}

/// A program in `PATH`.
pub fn which(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH")?;
    let runs = |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(runs)
}
