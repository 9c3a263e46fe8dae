//! The initramfs: the agent and the modules a kernel needs to reach its disks, nothing else.
//!
//! It is the same for every kernel in shape: `/init` is the agent, `/modules/NN-name.ko` are loaded in the order of
//! their names. It is not compressed: a guest would spend longer unpacking than QEMU does copying.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use artifacts::{Cache, Hold, Key, Kind, Recipe};
use kernel::KernelArtifacts;
use progress::Progress;
use serde::{Deserialize, Serialize};

use crate::built::{load_json, save_json};
use crate::cpio::{Entry, Writer};
use crate::modules::{self, ModuleTables};

/// Raised whenever the same inputs would give another archive.
const FORMAT: u32 = 3;
/// The archive's file name.
pub const FILE: &str = "initramfs.cpio";
const DESCRIPTION: &str = "initramfs.json";
/// What a guest needs before it has its root: bus, disks, the agent's channel, the two file systems.
pub const NEEDED: [&str; 5] = ["virtio_pci", "virtio_blk", "virtio_console", "erofs", "overlay"];

/// What an initramfs is made of.
#[derive(Debug, Clone)]
pub struct InitramfsPlan {
    /// Name of the kernel in `lab.toml`.
    pub kernel: String,
    /// The agent's program, static.
    pub agent: PathBuf,
    recipe: Recipe,
}

/// Plans the initramfs of a kernel. Neither that nor the agent need be built yet: `kernel_key` and `agent_key` are those
/// of their recipes, `agent` is where the program will be.
pub fn initramfs_plan(kernel: &str, kernel_key: &Key, agent: &Path, agent_key: &Key) -> InitramfsPlan {
    let recipe = Recipe::new(&format!("initramfs:{kernel}"))
        .value("format", FORMAT)
        .value("modules", NEEDED.join(" "))
        .key_of("kernel", kernel_key)
        .key_of("agent", agent_key);
    InitramfsPlan { kernel: kernel.to_owned(), agent: agent.to_owned(), recipe }
}

impl InitramfsPlan {
    /// The recipe, for [`artifacts::Cache::why`].
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The key of the archive.
    pub fn key(&self) -> Key {
        self.recipe.key()
    }
}

/// An initramfs in the cache. While it (or a clone) lives, prune leaves it alone.
#[derive(Debug, Clone)]
pub struct Initramfs {
    /// The archive.
    pub path: PathBuf,
    /// Modules in it, in the order they are loaded.
    pub modules: Vec<String>,
    /// Bytes of the archive.
    pub size: u64,
    /// Whether it was there already.
    pub cached: bool,
    hold: Arc<Hold>,
}

impl Initramfs {
    /// What keeps prune away, to be moved to where only the path is needed.
    pub fn hold(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    modules: Vec<String>,
    size: u64,
}

/// Has the initramfs in the cache: looks it up, or writes it.
pub fn build_initramfs(
    plan: &InitramfsPlan,
    kernel: &KernelArtifacts,
    cache: &Cache,
    progress: &Progress,
) -> Result<Initramfs> {
    let step = progress.step(format!("initramfs:{}", plan.kernel), format!("initramfs of kernel {}", plan.kernel));
    let built = cache.with_progress(progress).get_or_build(Kind::Image, &plan.recipe, |dir| {
        let path = dir.join(FILE);
        let context = || format!("cannot write {}", path.display());
        let out = BufWriter::new(File::create(&path).with_context(context)?);
        let modules = write(&kernel.modules_dir(), &plan.agent, out)?;
        let size = fs::metadata(&path).with_context(context)?.len();
        save_json(&dir.join(DESCRIPTION), &Description { modules, size })
    })?;
    if built.cached {
        step.cached();
    } else {
        step.done();
    }
    let description: Description = load_json(&built.path.join(DESCRIPTION))?;
    Ok(Initramfs {
        path: built.path.join(FILE),
        modules: description.modules,
        size: description.size,
        cached: built.cached,
        hold: Arc::new(built.hold),
    })
}

/// Writes the archive for the kernel whose `lib/modules/<release>` is `modules_dir`; returns the modules in it.
pub fn write(modules_dir: &Path, agent: &Path, out: impl Write) -> Result<Vec<String>> {
    let order = ModuleTables::load(modules_dir)?.load_order(&NEEDED)?;
    let init = fs::read(agent).with_context(|| format!("cannot read the agent {}", agent.display()))?;
    if !init.starts_with(b"\x7fELF") {
        bail!("the agent {} is no program", agent.display());
    }
    let mut cpio = Writer::new(out);
    let mut put = |path: &str, mode, entry: Entry<'_>| {
        cpio.append(path, mode, entry).with_context(|| format!("cannot write /{path} to the initramfs"))
    };
    for dir in ["dev", "proc", "run", "sys"] {
        put(dir, 0o755, Entry::Directory)?;
    }
    // The kernel opens it for the first process before devtmpfs is mounted (init/main.c, console_on_rootfs).
    put("dev/console", 0o600, Entry::CharDevice(5, 1))?;
    put("init", 0o755, Entry::File(&init))?;
    if !order.is_empty() {
        put("modules", 0o755, Entry::Directory)?;
    }
    for (number, module) in order.iter().enumerate() {
        let content = modules::read(&module.file)?;
        put(&format!("modules/{number:02}-{}.ko", module.name), 0o644, Entry::File(&content))?;
    }
    cpio.finish().context("cannot end the initramfs")?;
    Ok(order.into_iter().map(|module| module.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(dep: &str, builtin: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("modules.dep"), dep).unwrap();
        fs::write(dir.path().join("modules.builtin"), builtin).unwrap();
        fs::write(dir.path().join("erofs.ko"), "\x7fELF erofs").unwrap();
        fs::write(dir.path().join("netfs.ko"), "\x7fELF netfs").unwrap();
        fs::write(dir.path().join("agent"), "\x7fELF agent").unwrap();
        dir
    }

    const BUILTIN: &str = "a/virtio_pci.ko\na/virtio_blk.ko\na/virtio_console.ko\na/overlay.ko\n";

    /// Entries of the archive, read back as the format has them: name, mode, content.
    fn entries(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let field =
                |n: usize| u32::from_str_radix(std::str::from_utf8(&archive[6 + 8 * n..14 + 8 * n]).unwrap(), 16);
            let (mode, size, name_size) = (field(1).unwrap(), field(6).unwrap() as usize, field(11).unwrap() as usize);
            let name = String::from_utf8(archive[110..110 + name_size - 1].to_vec()).unwrap();
            if name == "TRAILER!!!" {
                return entries;
            }
            let start = (110 + name_size).next_multiple_of(4);
            entries.push((name, mode, archive[start..start + size].to_vec()));
            archive = &archive[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn the_agent_and_only_the_modules_that_are_not_built_in() {
        let dir = modules("erofs.ko: netfs.ko\nnetfs.ko:\n", BUILTIN);
        let mut archive = Vec::new();
        assert_eq!(write(dir.path(), &dir.path().join("agent"), &mut archive).unwrap(), ["netfs", "erofs"]);
        let entries = entries(&archive);
        let names: Vec<&str> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        let want = [
            "dev",
            "proc",
            "run",
            "sys",
            "dev/console",
            "init",
            "modules",
            "modules/00-netfs.ko",
            "modules/01-erofs.ko",
        ];
        assert_eq!(names, want);
        assert_eq!((entries[5].1, entries[5].2.as_slice()), (0o100_755, &b"\x7fELF agent"[..]));
        assert_eq!(entries[8].2, b"\x7fELF erofs");
    }

    #[test]
    fn what_no_guest_could_boot_with_is_refused() {
        let dir = modules("netfs.ko:\n", BUILTIN);
        let agent = dir.path().join("agent");
        let error = format!("{:#}", write(dir.path(), &agent, Vec::new()).unwrap_err());
        assert!(error.contains("has erofs neither built in nor as a module"), "{error}");
        fs::write(&agent, "#!/bin/sh\n").unwrap();
        let sound = modules("erofs.ko:\n", BUILTIN);
        let error = format!("{:#}", write(sound.path(), &agent, Vec::new()).unwrap_err());
        assert!(error.ends_with("is no program"), "{error}");
    }
}
