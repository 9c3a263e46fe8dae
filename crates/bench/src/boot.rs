//! How much the lab adds to a boot: to "agent ready" beside the bare kernel reaching a trivial init.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fabric::{Limits, PortConfig, Switch, SwitchConfig};
use lab::paths::LabPaths;
use lab::plan::Plan;
use machine::{Accelerator, LaunchPlan, Machine};
use progress::Progress;
use protocol::Exec;

use crate::bare::Boot;
use crate::ratio::{Bound, Ratio};
use crate::samples::{Samples, alternate};
use crate::{Bench, Outcome, bare, cpu, tiny};

/// Agent ready over bare init.
const BOUND: f64 = 1.15;
/// How long a boot may take; emulation on a busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The first guest of a lab, with everything it is plugged into.
pub struct Guest {
    /// How QEMU is started; always emulated, so that hosts compare.
    pub plan: LaunchPlan,
    /// The kernel's name in `lab.toml`.
    pub kernel: String,
    _switches: Vec<Switch>,
}

impl Guest {
    /// Makes what is missing, and starts the switches its NICs are plugged into.
    ///
    /// # Errors
    /// When something cannot be made or started.
    pub fn prepare(plan: &Plan, progress: &Progress) -> Result<Guest> {
        let paths = LabPaths::new(&plan.lab.root, "bench")?;
        paths.create()?;
        let launch = lab::prepare::prepare(plan, &paths, progress)?;
        let mut switches = Vec::new();
        for network in &launch.networks {
            let ports = network.ports.iter().map(|port| PortConfig {
                name: port.name.clone(),
                socket: port.socket.clone(),
                mtu: network.mtu,
            });
            switches.push(Switch::start(SwitchConfig {
                name: network.name.clone(),
                ports: ports.collect(),
                faults: Vec::new(),
                seed: network.seed,
                limits: Limits::default(),
            })?);
        }
        let guest = launch.guests.into_iter().next().context("the lab has no guest")?;
        let mut plan = guest.plan;
        plan.accelerator = Accelerator::Tcg;
        Ok(Guest { plan, kernel: guest.kernel, _switches: switches })
    }

    /// From QEMU's start to the agent's greeting.
    pub fn to_ready(&self, progress: &Progress) -> Result<Boot> {
        let machine = Machine::launch(self.plan.clone(), progress)?;
        let ready = machine.wait_ready(PATIENCE, progress)?;
        let cpu = cpu::of(machine.process().pid.unsigned_abs())?;
        machine.kill()?;
        Ok(Boot { wall: ready.took.as_secs_f64(), cpu })
    }

    /// Seconds from QEMU's start to the first output of a first command.
    pub fn to_command(&self, word: &str, progress: &Progress) -> Result<f64> {
        let started = Instant::now();
        let machine = Machine::launch(self.plan.clone(), progress)?;
        machine.wait_ready(PATIENCE, progress)?;
        let finished = machine.session().run(Exec::new(["/bin/sh", "-c", &format!("echo {word}")]), PATIENCE)?;
        let took = started.elapsed().as_secs_f64();
        machine.kill()?;
        anyhow::ensure!(
            String::from_utf8_lossy(&finished.stdout).trim() == word,
            "the first command said {:?} and ended with {:?}",
            String::from_utf8_lossy(&finished.stdout),
            finished.exit
        );
        Ok(took)
    }
}

/// Runs the benchmark.
pub(crate) fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let guest = Guest::prepare(bench.plan, bench.progress)?;
    let scratch = bench.scratch()?;
    let initrd = scratch.path("tiny.cpio");
    fs::write(&initrd, tiny::initramfs()?).with_context(|| format!("cannot write {}", initrd.display()))?;
    let (mut our_cpu, mut peer_cpu) = (Samples::default(), Samples::default());
    let (ours, peer) = alternate(
        bench.rounds(5),
        |_| {
            let boot = guest.to_ready(bench.progress)?;
            our_cpu.0.push(boot.cpu);
            Ok(boot.wall)
        },
        |_| {
            let boot = bare::boot(&guest.plan, &initrd, PATIENCE, bench.progress)?;
            peer_cpu.0.push(boot.cpu);
            Ok(boot.wall)
        },
    )?;
    let plan = &guest.plan;
    let note = format!(
        "both: kernel `{}`, the same QEMU, TCG, {} CPUs, {} MiB, the same kernel parameters",
        guest.kernel, plan.cpus, plan.memory_mib
    );
    let ratio = |name: &str, unit, ours, peer, bound, note: String| Ratio {
        name: name.into(),
        what: "from QEMU's start to where work can begin".into(),
        unit,
        ours_is: format!("agent ready, a disk of {} images, {} NICs", plan.layers.len(), plan.nics.len()),
        ours,
        peer_is: "the bare kernel's trivial init writes to its console; no device but that".into(),
        peer,
        bound,
        notes: vec![note],
    };
    Ok(Outcome::Measured(vec![
        ratio("boot", "s", ours, peer, Bound::Ratio(BOUND), note),
        ratio(
            "boot-cpu",
            "CPU s",
            our_cpu,
            peer_cpu,
            Bound::None,
            "what QEMU used of the host's processors meanwhile: hardly depends on what else the host does".into(),
        ),
    ]))
}
