//! A kernel that reaches a trivial init, on the machine of a guest but with none of its devices.
//!
//! In: a guest's launch plan. Out: the time from QEMU's start to init's word on the console. Accelerator, CPUs, memory,
//! chipset, kernel and kernel parameters are the guest's own, taken from its very command line.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use machine::LaunchPlan;
use machine::process::Offspring;
use progress::Progress;

use crate::tiny::MARKER;
use crate::{cpu, listen};

/// Options of a guest's command line that describe the machine and not a device.
const KEPT: [&str; 8] = ["-L", "-display", "-machine", "-accel", "-cpu", "-smp", "-m", "-kernel"];
/// Options without a value.
const FLAGS: [&str; 3] = ["-nodefaults", "-no-user-config", "-no-reboot"];

/// What a boot took, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// On the clock.
    pub wall: f64,
    /// Of the host's processors, for QEMU.
    pub cpu: f64,
}

/// The command line of the bare machine.
pub fn args(plan: &LaunchPlan, initrd: &Path) -> Vec<OsString> {
    let all = plan.args();
    let (program, mut rest) = all.split_at(plan.qemu.argv_prefix.len());
    let mut args = program.to_vec();
    while let [option, tail @ ..] = rest {
        if FLAGS.iter().any(|flag| option == *flag) {
            args.push(option.clone());
            rest = tail;
            continue;
        }
        if let (true, [value, ..]) = (KEPT.iter().any(|kept| option == *kept), tail) {
            args.extend([option.clone(), value.clone()]);
        }
        rest = tail.get(1..).unwrap_or_default();
    }
    let cmdline = plan.kernel_cmdline();
    let cmdline: Vec<&str> = cmdline.split(' ').filter(|word| !word.starts_with("lab.")).collect();
    args.extend(["-append".into(), cmdline.join(" ").into(), "-initrd".into(), initrd.into()]);
    args.extend(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"].map(OsString::from));
    args
}

/// Boots it once: from QEMU's start to init's word.
///
/// # Errors
/// When QEMU ends or time is up first, with the console's last lines.
pub fn boot(plan: &LaunchPlan, initrd: &Path, patience: Duration, progress: &Progress) -> Result<Boot> {
    let args = args(plan, initrd);
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let mut command = Command::new(&args[0]);
    command.args(&args[1..]).stdin(Stdio::null()).stderr(writer.try_clone()?).stdout(writer);
    let started = Instant::now();
    let qemu = Offspring::spawn(command).with_context(|| format!("cannot run {}", Path::new(&args[0]).display()))?;
    let heard = listen::until(reader, MARKER, "the bare kernel", started, patience, progress);
    let cpu = cpu::of(qemu.id().pid.unsigned_abs());
    drop(qemu);
    Ok(Boot { wall: heard?, cpu: cpu? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::QemuProgram;

    #[test]
    fn the_machine_stays_and_the_devices_go() {
        let qemu = QemuProgram { argv_prefix: vec!["ld.so".into(), "qemu".into()], share_dirs: vec!["/share".into()] };
        let mut plan = LaunchPlan::new("a", qemu, "/k".into(), "/run".into(), "/log".into());
        plan.accelerator = machine::Accelerator::Tcg;
        plan.cpus = 2;
        plan.initrd = Some("/agent".into());
        plan.layers = vec!["/base".into()];
        let line: Vec<String> = args(&plan, Path::new("/tiny")).iter().map(|a| a.to_string_lossy().into()).collect();
        let line = line.join(" ");
        assert!(line.starts_with("ld.so qemu -L /share -nodefaults"), "{line}");
        for kept in
            ["-smp 2", "-m size=512M", "-kernel /k", "-initrd /tiny", "console=ttyS0", "-accel tcg", "-machine q35"]
        {
            assert!(line.contains(kept), "{kept} is missing: {line}");
        }
        for gone in ["virtio", "blockdev", "/agent", "lab.guest", "-qmp"] {
            assert!(!line.contains(gone), "{gone} is there: {line}");
        }
    }
}
