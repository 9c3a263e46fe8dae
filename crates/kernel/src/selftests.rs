//! The selftests of the tree that is compiled, as an install tree.
//!
//! In: a compiled tree and the names of its selftests. Out: what `make install` of `tools/testing/selftests` lays down,
//! in the object directory. They are built again only when something changed that they are made of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use artifacts::{remove_tree, sha256_bytes};

use crate::lay::Laid;
use crate::make::{Make, OBJECTS};
use crate::plan::{BuildPlan, KernelPlan};

/// Parts of the tree that selftests are made of.
const PARTS: [&str; 5] = ["tools/", "include/uapi/", "arch/x86/include/uapi/", "Documentation/netlink/", "scripts/"];

/// Whether an entry is one script rather than a target with a Makefile.
pub fn is_script(name: &str) -> bool {
    name.ends_with(".py") || name.ends_with(".sh")
}

/// The install tree inside an object directory.
pub fn staging(objects: &Path) -> PathBuf {
    objects.join("selftests")
}

/// Brings the install tree up to date.
pub fn build(plan: &KernelPlan, build: &BuildPlan, laid: &Laid, make: &Make) -> Result<()> {
    let target = staging(make.objects);
    let stamp_file = make.objects.join("selftests.done");
    let mut text = format!("{}\n{}\n{}\n", laid.tree.base(), build.selftests.join(" "), build.compiler);
    for (path, digest) in laid.differs.iter().filter(|(path, _)| PARTS.iter().any(|part| path.starts_with(part))) {
        text.push_str(&format!("{path} {digest}\n"));
    }
    let stamp = format!("{}\n", sha256_bytes(text.as_bytes()));
    if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) && target.exists() {
        return Ok(());
    }
    let _ = fs::remove_file(&stamp_file);
    remove_tree(&target).with_context(|| format!("remove {}", target.display()))?;
    if build.selftests.is_empty() {
        return Ok(());
    }
    let tests = make.source.join("tools/testing/selftests");
    let (scripts, targets): (Vec<&str>, Vec<&str>) =
        build.selftests.iter().map(String::as_str).partition(|name| is_script(name));
    for name in &build.selftests {
        let sign = if is_script(name) { name.clone() } else { format!("{name}/Makefile") };
        if !tests.join(&sign).exists() {
            bail!("kernel `{}` has no selftests `{name}` (tools/testing/selftests/{sign})", plan.name);
        }
    }
    make.run(
        &format!("kernel:{}:headers", plan.name),
        &format!("export headers of {}", plan.name),
        &["headers_install"],
    )?;
    let targets = format!("TARGETS={}", targets.join(" "));
    let path = format!("KSFT_INSTALL_PATH={OBJECTS}/selftests");
    // One target that fails to build must not pass for a suite that is not there.
    let args = ["-C", "tools/testing/selftests", &targets, &path, "FORCE_TARGETS=1", "install"];
    make.run(&format!("kernel:{}:selftests", plan.name), &format!("build selftests of {}", plan.name), &args)?;
    for name in scripts {
        let to = target.join(name);
        let copied = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::copy(tests.join(name), &to));
        copied.with_context(|| format!("copy the selftest {name} to {}", to.display()))?;
    }
    fs::write(&stamp_file, stamp).with_context(|| format!("write {}", stamp_file.display()))
}
