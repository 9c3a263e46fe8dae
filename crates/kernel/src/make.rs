//! Runs the kernel's own `make` in the toolroot.
//!
//! In: a source tree and an object directory. Out: built targets, or an error with the compiler's own words. Inside the
//! sandbox the two are always at the same place and time, user and host are fixed, so neither the host's paths nor the
//! hour get into what is built, and an object directory stays valid wherever the cache is moved to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use progress::{Event, Progress, Unit};
use toolroot::{Sandbox, SandboxError, Toolroot};

/// Where the source tree is inside.
pub const SOURCE: &str = "/build/linux";
/// Where the object directory is inside.
pub const OBJECTS: &str = "/build/obj";
/// Where what is installed goes inside.
pub const INSTALL: &str = "/build/install";

/// What every build says of itself, whoever builds it wherever and whenever.
const IDENTITY: [(&str, &str); 3] =
    [("KBUILD_BUILD_TIMESTAMP", "2026-01-01"), ("KBUILD_BUILD_USER", "lab"), ("KBUILD_BUILD_HOST", "devmem-lab")];

/// `make` for one source tree and object directory.
#[derive(Debug)]
pub struct Make<'a> {
    /// The root with the compiler.
    pub toolroot: &'a Toolroot,
    /// The source tree.
    pub source: &'a Path,
    /// The object directory.
    pub objects: &'a Path,
    /// `KBUILD_BUILD_VERSION`: what stands behind `#` in `uname -v`.
    pub version: &'a str,
    /// Receives what goes on.
    pub progress: &'a Progress,
}

impl Make<'_> {
    /// A program in the same surroundings; the source tree is writable since selftests write into it.
    pub fn sandbox(&self, program: &str) -> Sandbox {
        let mut sandbox = self
            .toolroot
            .sandbox(program)
            .bind_rw(self.source, SOURCE)
            .bind_rw(self.objects, OBJECTS)
            .cwd(SOURCE)
            .env("KBUILD_BUILD_VERSION", self.version)
            .progress(self.progress);
        for (name, value) in IDENTITY {
            sandbox = sandbox.env(name, value);
        }
        sandbox
    }

    /// `make O=… <args>`.
    pub fn command(&self, args: &[&str]) -> Sandbox {
        self.sandbox("make").arg(format!("O={OBJECTS}")).arg(format!("-j{}", jobs())).args(args)
    }

    /// Runs [`Make::command`] as the step `id`, with a log in the object directory. Returns the log's path.
    pub fn run(&self, id: &str, title: &str, args: &[&str]) -> Result<PathBuf> {
        let name = id.rsplit(':').next().unwrap_or(id);
        let log = self.objects.join(format!("{name}.log"));
        self.run_sandbox(id, title, self.command(args), &log)?;
        Ok(log)
    }

    /// Runs a sandbox as the step `id`, counting compiled files.
    pub fn run_sandbox(&self, id: &str, title: &str, sandbox: Sandbox, log: &Path) -> Result<()> {
        let step = self.progress.step(id, title);
        let counter = Counter::new(self, id);
        step.total(counter.expected, Unit::Items);
        let inner = counter.progress();
        // Only the lines of the inner step are of use; its own begin and end are not passed on.
        let inner_step = inner.step(id, title);
        let result = sandbox.run_logged(&inner_step, log);
        match result {
            Ok(()) => {
                counter.remember()?;
                step.done();
                Ok(())
            }
            Err(SandboxError::Failed { .. }) => bail!("{title}: {}", explain(log)?),
            Err(error) => Err(error).with_context(|| format!("run make for: {title}")),
        }
    }
}

/// How many compilers run at a time.
pub fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Counts objects as kbuild names them, against the number of the last whole build.
struct Counter {
    file: PathBuf,
    expected: u64,
    seen: Arc<AtomicU64>,
    outer: Progress,
    id: String,
}

/// Compiled files per option that is on, for a first build (measured: 1,909 files for 905 options).
const FILES_PER_OPTION: f64 = 2.11;

impl Counter {
    fn new(make: &Make, id: &str) -> Self {
        let name = id.rsplit(':').next().unwrap_or(id);
        let file = make.objects.join(format!(".{name}.count"));
        let remembered = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        let guess = || {
            let config = fs::read_to_string(make.objects.join(".config")).unwrap_or_default();
            let on = config.lines().filter(|line| line.ends_with("=y") || line.ends_with("=m")).count();
            (on as f64 * FILES_PER_OPTION) as u64
        };
        let expected = remembered.unwrap_or_else(guess);
        Counter { file, expected, seen: Arc::default(), outer: make.progress.clone(), id: id.into() }
    }

    fn progress(&self) -> Progress {
        let (seen, outer, id) = (Arc::clone(&self.seen), self.outer.clone(), self.id.clone());
        Progress::new(self.outer.cancel().clone(), move |event| {
            let Event::Line { line, .. } = event else { return };
            if is_object(&line) {
                let done = seen.fetch_add(1, Ordering::Relaxed) + 1;
                outer.emit(Event::Advanced { step: id.clone(), done });
            }
            outer.emit(Event::Line { step: id.clone(), line });
        })
    }

    /// Keeps the largest number seen: that of a whole build.
    fn remember(&self) -> Result<()> {
        let seen = self.seen.load(Ordering::Relaxed);
        if seen > self.expected || !self.file.exists() {
            fs::write(&self.file, format!("{seen}\n")).with_context(|| format!("write {}", self.file.display()))?;
        }
        Ok(())
    }
}

/// Whether kbuild's line says that a file was compiled or assembled.
fn is_object(line: &str) -> bool {
    let mut words = line.split_whitespace();
    line.starts_with("  ") && matches!(words.next(), Some("CC" | "AS" | "BPF_PROG" | "GEN_OBJ"))
}

/// The lines of a log that say what went wrong: with parallel jobs they stand far above its end.
fn explain(log: &Path) -> Result<String> {
    let text = fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let tells = |line: &&str| {
        [": error:", ": fatal error:", "undefined reference", "ERROR: modpost", "*** ", "Killed", "No space left"]
            .iter()
            .any(|sign| line.contains(sign))
    };
    let mut lines: Vec<&str> = text.lines().filter(tells).take(20).collect();
    if lines.is_empty() {
        lines = text.lines().rev().take(20).collect();
        lines.reverse();
    }
    Ok(format!("make failed:\n{}\nthe whole log is in {}", lines.join("\n"), log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_told_from_other_lines() {
        for (line, object) in [
            ("  CC      init/main.o", true),
            ("  CC [M]  drivers/infiniband/sw/rxe/rxe_net.o", true),
            ("  AS      arch/x86/entry/entry_64.o", true),
            ("  AR      init/built-in.a", false),
            ("  LD [M]  drivers/infiniband/sw/rxe/rdma_rxe.ko", false),
            ("make[1]: Entering directory '/build/obj'", false),
        ] {
            assert_eq!(is_object(line), object, "{line}");
        }
    }

    #[test]
    fn an_early_error_is_found_in_a_long_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut text = "x.c:3:1: error: expected ';'\n".to_string();
        text.push_str(&"  CC      y.o\n".repeat(100));
        text.push_str("make[2]: *** [x.o] Error 1\n");
        fs::write(&log, text).unwrap();
        let said = explain(&log).unwrap();
        assert!(said.contains("x.c:3:1: error") && said.contains("*** [x.o]") && !said.contains("y.o"), "{said}");
        fs::write(&log, "something\nodd\n").unwrap();
        assert!(explain(&log).unwrap().contains("something\nodd"));
    }
}
