//! Lays out what a build made: modules with depmod's data first, then everything that is published.
//!
//! kbuild's own `modules_install` copies every module every time; here only those that changed are copied, so that one
//! edited driver costs one module and one depmod.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use toolroot::Toolroot;

use crate::make::{INSTALL, Make, OBJECTS};
use crate::plan::KernelPlan;
use crate::selftests;

/// The staging directory inside an object directory.
pub fn staging(objects: &Path) -> PathBuf {
    objects.join("install")
}

/// `uname -r` of what was built.
pub fn release(objects: &Path) -> Result<String> {
    let path = objects.join("include/config/kernel.release");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_string())
}

/// Brings the staging directory's modules up to date, and depmod's data with them.
pub fn modules(plan: &KernelPlan, release: &str, make: &Make) -> Result<()> {
    let step = make.progress.step(format!("kernel:{}:modules", plan.name), format!("install modules of {}", plan.name));
    let objects = make.objects;
    let all = staging(objects).join("lib/modules");
    // A changed release would leave the modules of the old one behind.
    for entry in fs::read_dir(&all).into_iter().flatten().flatten().filter(|e| e.file_name() != release) {
        artifacts::remove_tree(&entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
    }
    let target = all.join(release);
    let order = read(&objects.join("modules.order"))?;
    let names: BTreeSet<String> = order.lines().map(|line| format!("{}.ko", line.trim_end_matches(".o"))).collect();
    step.total(names.len() as u64, progress::Unit::Items);
    let config = read(&objects.join(".config"))?;
    let strip = config.lines().any(|line| line == "CONFIG_DEBUG_INFO=y");
    for name in &names {
        make.progress.check_cancelled()?;
        let (from, to) = (objects.join(name), target.join("kernel").join(name));
        if !is_same_age(&from, &to)? {
            step.line(format!("INSTALL {name}"));
            copy(&from, &to)?;
            if strip {
                strip_debug(name, release, make)?;
            }
            take_age(&from, &to)?;
        }
        step.inc(1);
    }
    remove_others(&target.join("kernel"), &target.join("kernel"), &names)?;
    let installed: String = names.iter().map(|name| format!("kernel/{name}\n")).collect();
    // The order of the file is that of probing; the set above is sorted.
    let ordered: String = order.lines().map(|line| format!("kernel/{}.ko\n", line.trim_end_matches(".o"))).collect();
    debug_assert_eq!(installed.len(), ordered.len());
    write(&target.join("modules.order"), &ordered)?;
    for name in ["modules.builtin", "modules.builtin.modinfo"] {
        copy(&objects.join(name), &target.join(name))?;
    }
    step.line("DEPMOD");
    depmod(make.toolroot, &staging(objects), release, Some(&objects.join("System.map")))?;
    step.done();
    Ok(())
}

/// Runs depmod on `<base>/lib/modules/<release>`; with `System.map`, unknown symbols are an error.
pub fn depmod(toolroot: &Toolroot, base: &Path, release: &str, system_map: Option<&Path>) -> Result<()> {
    let mut sandbox = toolroot.sandbox("depmod").args(["-a", "-b", INSTALL]).bind_rw(base, INSTALL);
    if let Some(map) = system_map {
        sandbox = sandbox.args(["-e", "-F", "/build/System.map"]).bind_ro(map, "/build/System.map");
    }
    let output = sandbox.arg(release).output().context("run depmod")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || said.contains("needs unknown symbol") {
        bail!("depmod of {}: {}", base.display(), said.trim_end());
    }
    Ok(())
}

/// Copies what is published from objects and staging into `out`.
pub fn publish(release: &str, objects: &Path, out: &Path) -> Result<()> {
    for (from, to) in [
        ("arch/x86/boot/bzImage", "bzImage"),
        ("vmlinux", "vmlinux"),
        ("System.map", "System.map"),
        (".config", "config"),
    ] {
        copy(&objects.join(from), &out.join(to))?;
    }
    let below = format!("lib/modules/{release}");
    copy_tree(&staging(objects).join(&below), &out.join("modules").join(&below))?;
    let selftests = selftests::staging(objects);
    if selftests.exists() {
        copy_tree(&selftests, &out.join("selftests"))?;
    }
    Ok(())
}

/// Copies files and links below `from`; permissions are kept.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry.with_context(|| format!("list {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().with_context(|| format!("look at {}", source.display()))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).with_context(|| format!("read {}", source.display()))?;
            std::os::unix::fs::symlink(link, &target).with_context(|| format!("link {}", target.display()))?;
        } else {
            copy(&source, &target)?;
        }
    }
    Ok(())
}

/// Copies one file, making its directory.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    fs::copy(from, to).map(drop).with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn strip_debug(name: &str, release: &str, make: &Make) -> Result<()> {
    let inside = format!("{OBJECTS}/install/lib/modules/{release}/kernel/{name}");
    let output = make.sandbox("strip").args(["--strip-debug", &inside]).output().context("run strip")?;
    if !output.status.success() {
        bail!("strip {name}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

fn is_same_age(from: &Path, to: &Path) -> Result<bool> {
    let made = fs::metadata(from).with_context(|| format!("look at {}", from.display()))?;
    let age = |meta: &fs::Metadata| (meta.mtime(), meta.mtime_nsec());
    Ok(fs::metadata(to).is_ok_and(|there| age(&there) == age(&made)))
}

fn take_age(from: &Path, to: &Path) -> Result<()> {
    let time = fs::metadata(from).and_then(|meta| meta.modified());
    let file = fs::File::options().write(true).open(to);
    time.and_then(|time| file?.set_modified(time)).with_context(|| format!("set the time of {}", to.display()))
}

fn remove_others(dir: &Path, top: &Path, names: &BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_others(&path, top, names)?;
        } else if !path.strip_prefix(top).ok().and_then(Path::to_str).is_some_and(|name| names.contains(name)) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
