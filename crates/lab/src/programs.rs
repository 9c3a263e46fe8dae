//! Programs that run in guests, built by the host's cargo and linked by the toolroot's compiler and C library.
//!
//! In: the sources in this checkout. Out: a folder of the cache with the binary. The host's linker and C library never
//! touch them, so the same sources give the same guest on every host. Paths of the host are mapped away.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use artifacts::{Key, Kind, Recipe};
use progress::Progress;
use rustix::process::{Pid, Signal};
use toolroot::Toolroot;

use crate::exclusive;
use crate::plan::Plan;

/// How often a running cargo is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The one target guests have.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A program of this workspace that runs in guests.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its step.
    pub id: &'static str,
    /// A phrase for people.
    pub title: &'static str,
    /// The package and its binary.
    pub name: &'static str,
    /// Folders of its sources and of the workspace's crates it uses.
    pub sources: &'static [&'static str],
    /// Whether the C library is linked in. What loads libraries of the image cannot have it so.
    pub fixed: bool,
}

/// The agent, the guest's first process.
pub const AGENT: Program = Program {
    id: "agent",
    title: "guest agent",
    name: "guest-agent",
    sources: &["guest-agent", "crates/protocol"],
    fixed: true,
};

/// The test of verbs, which loads the image's libibverbs.
const VERBS: Program = Program {
    id: "verbs",
    title: "test program for verbs",
    name: "lab-verbs",
    sources: &["guest-tools/verbs"],
    fixed: false,
};

/// What sends malformed RoCEv2 frames.
const FRAMES: Program = Program {
    id: "frames",
    title: "sender of malformed frames",
    name: "lab-frames",
    sources: &["guest-tools/frames"],
    fixed: true,
};

/// What sends and receives device-memory TCP in bulk.
const DEVMEM: Program = Program {
    id: "devmem",
    title: "tool for device-memory TCP",
    name: "lab-devmem",
    sources: &["guest-tools/devmem"],
    fixed: true,
};

/// What sends and receives through AF_XDP sockets.
const XSK: Program =
    Program { id: "xsk", title: "tool for AF_XDP", name: "lab-xsk", sources: &["guest-tools/xsk"], fixed: true };

/// What is laid into every guest.
pub const TOOLS: [Program; 4] = [VERBS, FRAMES, DEVMEM, XSK];

/// The emulated NIC, which runs beside QEMU on the host.
pub const GVNIC: Program = Program {
    id: "gvnic",
    title: "emulated gVNIC",
    name: "gvnic",
    sources: &["crates/gvnic", "crates/vfio-user", "crates/fabric"],
    fixed: true,
};

impl Program {
    /// Where it is in guests: their PATH ends there.
    pub fn inside(&self) -> String {
        format!("/usr/bin/{}", self.name)
    }

    /// What it is made from: its sources, its dependencies, the compiler, and the C library it is linked with.
    ///
    /// # Errors
    /// When a source file cannot be read.
    pub fn recipe(&self, project: &Path, build_root: &Key) -> Result<Recipe> {
        let mut recipe = Recipe::new(self.id);
        for source in self.sources {
            let label = source.rsplit('/').next().unwrap_or(source);
            recipe = recipe.tree(label, &project.join(source))?;
        }
        recipe
            .file("Cargo.lock", &project.join("Cargo.lock"))?
            .file("Cargo.toml", &project.join("Cargo.toml"))
            .map(|r| r.value("rustc", env!("LAB_RUSTC_VERSION")).key_of("build root", build_root))
    }

    /// Builds it, or finds it; returns the path of the binary.
    ///
    /// # Errors
    /// With the compiler's last words.
    pub fn build(&self, plan: &Plan, build_root: &Toolroot, progress: &Progress) -> Result<PathBuf> {
        let project = &plan.lab.root;
        let built = plan.cache.get_or_build(Kind::Bin, &plan.find(self.id)?.recipe, |dir| {
            let step = progress.step(self.id, format!("build the {}", self.title));
            let target_dir = project.join("target/guest");
            // Until the binary is copied: the cargo of another lab of this checkout may be about to write it anew.
            fs::create_dir_all(&target_dir).with_context(|| format!("cannot make {}", target_dir.display()))?;
            let waiting = "waiting for another lab of this checkout, which builds programs for guests";
            let _held = exclusive::hold(&target_dir.join(".held"), waiting, progress)?;
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut command = Command::new(&cargo);
            command
                .current_dir(project)
                .args(["build", "--locked", "--profile", "guest", "--package", self.name])
                .args(["--target", TARGET, "--target-dir"])
                .arg(&target_dir)
                .env_remove("RUSTC_WRAPPER")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            build_root.linker_shim(&target_dir)?.configure(&mut command, TARGET, self.fixed);
            map_paths(&mut command, project);
            let said = run(&mut command, self.title, &step)?;
            let binary = target_dir.join(TARGET).join("guest").join(self.name);
            fs::copy(&binary, dir.join(self.name))
                .with_context(|| format!("cannot copy {}; cargo said:\n{said}", binary.display()))?;
            step.done();
            Ok(())
        })?;
        Ok(built.path.join(self.name))
    }
}

/// Runs cargo with its words as lines of the step; returns them. When cancelled, cargo and its compilers are ended.
fn run(command: &mut Command, title: &str, step: &progress::Step) -> Result<String> {
    use std::os::unix::process::CommandExt;
    // A process group of its own, so that its compilers can be ended with it.
    let mut child = command
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {}", Path::new(command.get_program()).display()))?;
    let said = Mutex::new(Vec::new());
    let stderr = child.stderr.take();
    let status = std::thread::scope(|scope| -> Result<_> {
        scope.spawn(|| {
            for line in stderr.into_iter().flat_map(|s| BufReader::new(s).lines()).map_while(Result::ok) {
                step.line(line.clone());
                said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if let Err(cancelled) = step.progress().check_cancelled() {
                let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::TERM);
                child.wait()?;
                return Err(cancelled.into());
            }
            std::thread::sleep(LOOK);
        }
    })?;
    let said = said.into_inner().unwrap_or_else(PoisonError::into_inner).join("\n");
    if !status.success() {
        bail!("cargo could not build the {title} ({status}):\n{said}");
    }
    Ok(said)
}

/// Keeps the host's paths out of the program, so that the same sources give the same bytes wherever they are.
fn map_paths(command: &mut Command, project: &Path) {
    const FLAGS: &str = "CARGO_ENCODED_RUSTFLAGS";
    let mut flags = command
        .get_envs()
        .find(|(name, _)| *name == FLAGS)
        .and_then(|(_, v)| v.map(OsString::from))
        .unwrap_or_default();
    for (from, to) in [(Some(project.to_path_buf()), "lab"), (home(), "cargo")] {
        if let Some(from) = from {
            flags.push("\x1f--remap-path-prefix=");
            flags.push(from);
            flags.push("=");
            flags.push(to);
        }
    }
    command.env(FLAGS, flags);
}

fn home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(".cargo")))
}
