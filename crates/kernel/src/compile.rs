//! Compiles a whole kernel and lays out what is published.
//!
//! In: a laid tree and a build plan. Out: image, symbols, configuration, modules with depmod's data, and the selftests
//! of the very tree. The object directory stays for the next build, whose `make` then finds almost all of it done.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use artifacts::sha256_bytes;
use toolroot::Toolroot;

use crate::artifacts::KernelArtifacts;
use crate::build::Ctx;
use crate::config::{self, ConfigError};
use crate::install;
use crate::kconfig;
use crate::lay::{Laid, lay};
use crate::make::{Make, OBJECTS};
use crate::plan::{BuildPlan, KernelPlan, Kind, UNCONFIGURED};
use crate::selftests;

/// Compiles the kernel of `plan` and fills `out`.
pub fn compile(
    plan: &KernelPlan,
    build: &BuildPlan,
    ctx: &Ctx,
    toolroot: &Toolroot,
    out: &Path,
) -> Result<KernelArtifacts> {
    let mut laid = lay(plan, ctx, toolroot)?;
    let source = laid.tree.source();
    let names: Vec<&str> = build.fragments.iter().map(|f| f.name.trim_end_matches(".config")).collect();
    let objects = laid.tree.dir(&format!("obj/{}", object_dir(&names)))?;
    // In the developer's loop the name must not change with every edit, or the whole kernel would be linked anew.
    let version = match plan.kind {
        Kind::Tree { .. } => plan.name.clone(),
        _ => format!("{}-{}", plan.name, &laid.id[..12]),
    };
    let make = Make { toolroot, source: &source, objects: &objects, version: &version, progress: ctx.progress };
    configure(plan, build, &laid, &make)?;
    make.run(&format!("kernel:{}:compile", plan.name), &format!("compile {}", plan.name), &["bzImage", "modules"])?;
    let release = install::release(&objects)?;
    install::modules(plan, &release, &make)?;
    selftests::build(plan, build, &laid, &make)?;
    laid.tree.sync()?;
    install::publish(&release, &objects, out)?;
    Ok(KernelArtifacts {
        name: plan.name.clone(),
        release,
        image: "bzImage".into(),
        modules: "modules".into(),
        vmlinux: Some("vmlinux".into()),
        system_map: "System.map".into(),
        config: "config".into(),
        selftests: (!build.selftests.is_empty()).then(|| "selftests".into()),
        tree_id: laid.id,
        series: laid.applied.series,
        present: laid.applied.present,
        source_used: laid.source_used,
        dir: out.to_path_buf(),
    })
}

/// Kernels with the same fragments share objects; a changed option then rebuilds what depends on it.
pub(crate) fn object_dir(fragments: &[&str]) -> String {
    let name = fragments.join("+");
    if name.len() <= 100 && !name.is_empty() { name } else { sha256_bytes(name.as_bytes()).short().to_string() }
}

/// Makes the `.config`, and refuses one that lacks what was asked for.
pub(crate) fn configure(plan: &KernelPlan, build: &BuildPlan, laid: &Laid, make: &Make) -> Result<()> {
    let mut requests = build.requests.clone();
    for target in build.selftests.iter().filter(|target| !UNCONFIGURED.contains(&target.as_str())) {
        let path = format!("tools/testing/selftests/{target}/config");
        if let Ok(text) = fs::read_to_string(make.source.join(&path)) {
            config::add_wishes(&mut requests, &path, &text)?;
        }
    }
    let text = config::allconfig(&requests);
    let (file, done) = (make.objects.join("allconfig"), make.objects.join("allconfig.done"));
    let kconfig: String =
        laid.differs.iter().filter(|(p, _)| p.contains("Kconfig")).map(|(p, d)| format!("{p} {d}\n")).collect();
    let stamp = format!("{}\n", sha256_bytes(format!("{text}{kconfig}").as_bytes()));
    let is_done = fs::read_to_string(&done).is_ok_and(|found| found == stamp);
    if !is_done || !make.objects.join(".config").exists() {
        // Until the new one is found to have everything, no `.config` is taken for done: neither this nor the one before.
        remove_file(&done)?;
        fs::write(&file, &text).with_context(|| format!("write {}", file.display()))?;
        let sandbox = make.command(&["allnoconfig"]).env("KCONFIG_ALLCONFIG", format!("{OBJECTS}/allconfig"));
        let id = format!("kernel:{}:config", plan.name);
        make.run_sandbox(&id, &format!("configure {}", plan.name), sandbox, &make.objects.join("config.log"))?;
    }
    let path = make.objects.join(".config");
    let config = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut absent = config::absent(&requests, &config);
    if !absent.is_empty() {
        for absent in &mut absent {
            absent.hint = kconfig::hint(make.source, &absent.symbol)?;
        }
        return Err(ConfigError::Absent { absent }.into());
    }
    fs::write(&done, stamp).with_context(|| format!("write {}", done.display()))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_fragments_have_objects_of_their_own() {
        let lean = ["base", "net", "debug"];
        assert_eq!(object_dir(&lean), object_dir(&lean));
        // A debug kernel differs in every object: built into the same directory, each would cost the other a whole build.
        assert_ne!(object_dir(&lean), object_dir(&["base", "net", "debug", "sanitizers"]));
        let many = ["a-fragment-with-quite-a-long-name"; 4];
        assert!(object_dir(&many).len() <= 100 && object_dir(&many) != object_dir(&many[..3]));
    }
}
