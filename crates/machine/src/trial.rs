//! Choosing the accelerator by trying it with the real guest kernel.
//!
//! KVM is believed once the kernel has written to its console. Until then four things end the trial: QEMU reports
//! `internal-error`, it exits, KVM's own counters show that it emulates instead of running, or the kernel stays silent
//! for longer than any working KVM needs. The reason is told, remembered ([`Verdicts`]), and the guest starts on TCG.

use std::time::{Duration, Instant};

use progress::Progress;

use crate::accel::{self, Accelerator, Engine, Fault, Known, Verdicts};
use crate::boot::LaunchError;
use crate::console::Console;
use crate::machine::console_length;
use crate::plan::LaunchPlan;
use crate::process::ThreadTime;
use crate::qmp::KvmCounts;
use crate::start::Qemu;

/// How much CPU time a virtual CPU under KVM may use before the kernel's first console byte. A working KVM needs a few
/// tenths of a second for firmware and decompression; CPU time, unlike the clock, does not run on a busy host.
const KVM_EFFORT: Duration = Duration::from_secs(2);

/// How long a kernel under KVM may stay silent, whatever the host's load.
const KVM_SILENCE: Duration = Duration::from_secs(20);

/// So many instructions emulated rather than run, [`KVM_EMULATED_PER_EXIT`] for each return to the hypervisor, mean that
/// it runs none at all. A working KVM emulates about one an exit: accesses to devices. (A processor without
/// "unrestricted guest" emulates real mode too; firmware spends some ten thousand instructions there.)
const KVM_EMULATED: u64 = 200_000;
const KVM_EMULATED_PER_EXIT: u64 = 50;

/// Decides the accelerator by trying.
pub(crate) fn first_start(
    plan: &LaunchPlan,
    console: &Console,
    progress: &Progress,
) -> Result<(Qemu, Option<String>), LaunchError> {
    let tcg = |reason: String, remembered: bool| {
        let remembered = if remembered { ", as seen before in this boot of the host" } else { "" };
        progress.warn(format!("guest `{}`: KVM is not used ({reason}{remembered}); emulating with TCG", plan.name));
        Ok((Qemu::start(plan, Engine::Tcg, progress)?, Some(reason)))
    };
    match plan.accelerator {
        Accelerator::Tcg => return Ok((Qemu::start(plan, Engine::Tcg, progress)?, None)),
        Accelerator::Kvm => {
            accel::kvm_opens().map_err(|reason| LaunchError::NoKvm { guest: plan.name.clone(), reason })?;
            return Ok((Qemu::start(plan, Engine::Kvm, progress)?, None));
        }
        Accelerator::Auto if plan.icount => {
            return Ok((Qemu::start(plan, Engine::Tcg, progress)?, Some("deterministic time needs TCG".into())));
        }
        Accelerator::Auto => {}
    }
    if let Err(reason) = accel::kvm_opens() {
        return tcg(reason, false);
    }
    let verdicts = plan.verdict_dir.as_ref().map(Verdicts::new);
    // Held until there is a verdict, so that guests started together do not all try. Not being able to remember costs
    // time, not correctness.
    let _turn = verdicts.as_ref().and_then(|v| v.lock().ok());
    match verdicts.as_ref().map_or(Known::Nothing, |v| v.known(&plan.kernel)) {
        Known::Works => return Ok((Qemu::start(plan, Engine::Kvm, progress)?, None)),
        Known::Broken(reason) => return tcg(reason, true),
        Known::Nothing => {}
    }
    let fault = match Qemu::start(plan, Engine::Kvm, progress) {
        Ok(mut qemu) => match prove(plan, &mut qemu, console, progress)? {
            None => {
                remember(plan, None, progress);
                return Ok((qemu, None));
            }
            Some(fault) => fault,
        },
        // Anything else that is wrong with the command line will fail again on TCG, and be reported from there.
        Err(LaunchError::Exited { said, exit, .. }) => match said.0.iter().find(|l| l.to_lowercase().contains("kvm")) {
            Some(line) => Fault::Hypervisor(line.clone()),
            None => Fault::Kernel(format!("QEMU ended with {exit}")),
        },
        Err(other) => return Err(other),
    };
    remember(plan, Some(&fault), progress);
    // What the attempt wrote is not part of the boot that counts, and QEMU appends.
    let log = |source| LaunchError::File { guest: plan.name.clone(), what: "log", path: console.path().into(), source };
    std::fs::File::create(console.path()).map_err(log)?;
    tcg(fault.reason().to_owned(), false)
}

/// Writes a verdict down. A memory that cannot be written is worth a word, no more.
pub(crate) fn remember(plan: &LaunchPlan, fault: Option<&Fault>, progress: &Progress) {
    let Some(dir) = &plan.verdict_dir else { return };
    let verdicts = Verdicts::new(dir);
    let written = match fault {
        None => verdicts.works(),
        Some(fault) => verdicts.fault(&plan.kernel, fault),
    };
    if let Err(e) = written {
        progress.warn(format!("cannot remember in {} whether KVM works: {e}; it will be tried again", dir.display()));
    }
}

/// Watches a machine under KVM until its kernel has spoken (`None`) or has shown that it will not.
fn prove(
    plan: &LaunchPlan,
    qemu: &mut Qemu,
    console: &Console,
    progress: &Progress,
) -> Result<Option<Fault>, LaunchError> {
    if plan.gdb.as_ref().is_some_and(|g| g.hold) {
        return Ok(None);
    }
    let deadline = Instant::now() + KVM_SILENCE;
    let threads = qemu.qmp.cpu_threads().unwrap_or_default();
    let pid = qemu.process.id().pid;
    let effort = || Duration::from_nanos(threads.iter().map(|&tid| ThreadTime::of(pid, tid).ran_ns).sum());
    while Instant::now() < deadline && effort() < KVM_EFFORT {
        progress.check_cancelled()?;
        if let Some(fault) = hypervisor_fault(qemu) {
            return Ok(Some(fault));
        }
        if console_length(plan, console)? > 0 {
            return Ok(None);
        }
        if let Ok(Some(exit)) = qemu.process.try_wait() {
            return Ok(Some(Fault::Kernel(format!("QEMU ended with {exit} before the kernel wrote anything"))));
        }
        let known = qemu.qmp.events(0).len();
        qemu.qmp.wait_event(known, Duration::from_millis(50));
    }
    let (spent, after) = (effort(), qemu.started.elapsed());
    Ok(Some(Fault::Kernel(format!("no console output after {after:.1?} and {spent:.1?} of CPU time"))))
}

/// The hypervisor gave up on the guest, or never ran it.
pub(crate) fn hypervisor_fault(qemu: &Qemu) -> Option<Fault> {
    if matches!(qemu.qmp.status(), Ok(qapi::qmp::RunState::internal_error)) {
        let first = qemu.said_about("KVM").unwrap_or_else(|| "QEMU reports internal-error".into());
        let why = ["emulation failure", "Suberror"].iter().find_map(|p| qemu.said_about(p)).filter(|l| *l != first);
        return Some(Fault::Hypervisor(match why {
            Some(why) => format!("{} ({why})", first.trim_end_matches('.')),
            None => first,
        }));
    }
    let KvmCounts { emulated, exits } = (qemu.engine == Engine::Kvm).then(|| qemu.qmp.kvm_counts())??;
    let only_emulates = emulated > KVM_EMULATED && emulated / KVM_EMULATED_PER_EXIT > exits;
    only_emulates.then(|| {
        let what = "this host's KVM emulates the guest's instructions instead of running them";
        Fault::Hypervisor(format!("{what}: {emulated} in {exits} exits"))
    })
}
