//! Boot to first command, beside virtme-ng's `--root-disk`.
//!
//! virtme-ng brings its init and tools into the guest over 9p, so both boot the lab's kernel with 9p added. Its root
//! disk is the lab's own base image, in which udev is (it needs that to find its channel).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::config::{Kernel, KernelOrigin};
use lab::plan::Plan;
use machine::LaunchPlan;
use machine::process::Offspring;
use progress::Progress;
use rustix::process::Signal;

use crate::boot::{Guest, PATIENCE};
use crate::ratio::{Bound, Ratio};
use crate::samples::alternate;
use crate::virtme::Virtme;
use crate::{Bench, Outcome, listen};

/// Ours over virtme-ng.
const BOUND: f64 = 0.5;
/// The kernel with 9p; also its name in the cache.
const KERNEL: &str = "bench";
/// The fragment that adds it.
const FRAGMENT: &str = "bench-9p";
/// What the first command says.
const WORD: &str = "first-command-runs";

/// Runs the benchmark.
pub(crate) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let virtme = match Virtme::find() {
        Ok(virtme) => virtme,
        Err(missing) => return Ok(Outcome::Skipped(missing)),
    };
    let plan = with_9p(bench.plan, bench.progress)?;
    let guest = Guest::prepare(&plan, bench.progress)?;
    let scratch = bench.scratch()?;
    let qemu = scratch.path("qemu");
    wrapper(&guest.plan, &qemu)?;
    let (ours, peer) = alternate(
        bench.rounds(3),
        |_| guest.to_command(WORD, bench.progress),
        |_| peer(&virtme, &guest.plan, &qemu, &scratch.path("vng.log"), bench.progress),
    )?;
    let mut notes = vec![
        format!(
            "both: the lab's kernel with 9p, the same QEMU, TCG, {} CPUs, {} MiB, the same base image",
            guest.plan.cpus, guest.plan.memory_mib
        ),
        "each from its own start; virtme-ng's includes that of Python, ours the wait for QEMU's sockets".into(),
    ];
    notes.extend(virtme.remark());
    Ok(Outcome::Measured(vec![Ratio {
        name: "vng".into(),
        what: "boot to the first output of a first command".into(),
        unit: "s",
        ours_is: "the agent".into(),
        ours,
        peer_is: format!("{} --root-disk", virtme.version),
        peer,
        bound: Bound::Ratio(BOUND),
        notes,
    }]))
}

/// The same lab on a kernel that has 9p, too.
fn with_9p(plan: &Plan, progress: &Progress) -> Result<Plan> {
    let mut lab = plan.lab.clone();
    let declared = lab.kernels.get(&lab.guests[0].kernel).context("the lab's kernel is gone")?;
    let KernelOrigin::Source { source, fragments, .. } = &declared.origin else {
        bail!(
            "kernel `{}` is not built from source, so 9p cannot be added to it; name another with --kernel",
            declared.name
        );
    };
    let mut fragments = fragments.clone();
    fragments.push(FRAGMENT.into());
    let origin = KernelOrigin::Source { source: source.clone(), fragments, debug_info: false, btf: false };
    let kernel = Kernel { name: KERNEL.into(), origin, series: declared.series.clone() };
    lab.kernels.insert(KERNEL.into(), kernel);
    lab.guests.truncate(1);
    KERNEL.clone_into(&mut lab.guests[0].kernel);
    Plan::make(lab, plan.options.clone(), progress)
}

/// A program that is the lab's QEMU, for who wants a path.
fn wrapper(plan: &LaunchPlan, path: &Path) -> Result<()> {
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut words: Vec<String> = plan.qemu.argv_prefix.iter().map(|word| quote(&word.to_string_lossy())).collect();
    for dir in &plan.qemu.share_dirs {
        words.extend(["-L".into(), quote(&dir.to_string_lossy())]);
    }
    fs::write(path, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Seconds from virtme-ng's start to the first output of its command.
fn peer(virtme: &Virtme, plan: &LaunchPlan, qemu: &Path, log: &Path, progress: &Progress) -> Result<f64> {
    let root = plan.layers.first().context("the guest has no base image")?;
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let errors = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(&virtme.program);
    command.arg("--run").arg(&plan.kernel).arg("--root-disk").arg(root).arg("--qemu").arg(qemu);
    command.args(["--disable-kvm", "--user", "root"]);
    command.args(["--cpus", &plan.cpus.to_string(), "--memory", &format!("{}M", plan.memory_mib)]);
    command.args(["--", &format!("echo {WORD}")]);
    // Standard input is a pipe that stays open and silent: QEMU hands it to the guest.
    let (silence, _open) = io::pipe().context("cannot make a pipe")?;
    command.stdin(silence).stdout(writer).stderr(Stdio::from(errors));
    let started = Instant::now();
    let mut child = Offspring::spawn(command).with_context(|| format!("cannot run {}", virtme.program.display()))?;
    let heard = listen::until(reader, WORD, &virtme.version, started, PATIENCE, progress).map_err(|error| {
        let complaints = fs::read(log).unwrap_or_default();
        error.context(format!("virtme-ng{}", listen::last_lines(&complaints)))
    });
    // It ends by itself after the command; told to, it ends its QEMU.
    let patience = if heard.is_ok() { Duration::from_secs(60) } else { Duration::ZERO };
    if child.wait(patience)?.is_none() {
        child.id().signal(Signal::TERM)?;
        child.wait(Duration::from_secs(10))?;
    }
    drop(child);
    heard
}
