//! Whether KVM works, found out by using it.
//!
//! `/dev/kvm` may be there and not open, open and not make a machine, make one and not run it; and a KVM that is itself
//! virtual may run real mode and then fail on what a kernel does. So two programs of a few instructions are run: one in
//! real mode, where firmware begins, and one in 64-bit mode with page tables. Even that is not the final word: that has
//! the guest's kernel, when it boots.

#[cfg(target_arch = "x86_64")]
mod programs;
#[cfg(target_arch = "x86_64")]
mod sys;

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Finding;

/// How far KVM goes; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvmLevel {
    /// `/dev/kvm` is not there or does not open.
    None,
    /// It opens.
    Opens,
    /// It makes a virtual machine with a processor.
    CreatesVm,
    /// It runs a few instructions in real mode.
    RunsRealMode,
    /// It runs a few instructions in 64-bit mode.
    Runs,
}

/// What was found out about KVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kvm {
    /// How far it goes.
    pub level: KvmLevel,
    /// Why not further.
    pub stopped_by: Option<String>,
    /// The kernel modules it consists of (`kvm_intel`, `kvm_amd`, others), as far as `/sys/module` tells.
    pub modules: Vec<String>,
}

/// Instructions take microseconds; whoever takes this long hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries KVM on this host.
pub fn probe() -> Kvm {
    probe_at(Path::new("/"))
}

/// The same with `/dev/kvm` and `/sys/module` below `root`.
pub(crate) fn probe_at(root: &Path) -> Kvm {
    let (sender, receiver) = mpsc::channel();
    let device = root.join("dev/kvm");
    // A hanging KVM_RUN cannot be called back; its thread is left behind and ends with the program.
    let spawned = thread::Builder::new().name("kvm-probe".into()).spawn(move || {
        let mut level = KvmLevel::None;
        let outcome = climb(&device, &mut |reached| {
            level = reached;
            let _ = sender.send((reached, None));
        });
        if let Err(why) = outcome {
            let _ = sender.send((level, Some(why)));
        }
    });
    let mut kvm = Kvm { level: KvmLevel::None, stopped_by: None, modules: modules(root) };
    if let Err(e) = spawned {
        kvm.stopped_by = Some(format!("cannot start a thread to try it: {e}"));
        return kvm;
    }
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok((level, stopped_by)) => (kvm.level, kvm.stopped_by) = (level, stopped_by),
            Err(mpsc::RecvTimeoutError::Disconnected) => return kvm,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                kvm.stopped_by = Some(format!("it did not come back within {} s", PATIENCE.as_secs()));
                return kvm;
            }
        }
    }
}

/// Goes up level by level.
#[cfg(target_arch = "x86_64")]
fn climb(device: &Path, reached: &mut dyn FnMut(KvmLevel)) -> Result<(), String> {
    let kvm = sys::Kvm::open(device).map_err(|e| no_device(device, &e))?;
    match kvm.api_version() {
        // The one version there has been since Linux 2.6.22.
        Ok(12) => reached(KvmLevel::Opens),
        Ok(other) => return Err(format!("it has version {other} of the interface, 12 is expected")),
        Err(e) => return Err(format!("{} opens but is no KVM: {e}", device.display())),
    }
    let mut machine = programs::machine(&kvm).map_err(|e| format!("it makes no virtual machine: {e}"))?;
    reached(KvmLevel::CreatesVm);
    programs::real_mode(&mut machine).map_err(|e| format!("it does not run real-mode instructions: {e}"))?;
    reached(KvmLevel::RunsRealMode);
    programs::long_mode(&mut machine).map_err(|e| format!("it does not run 64-bit instructions: {e}"))?;
    reached(KvmLevel::Runs);
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
fn climb(_: &Path, _: &mut dyn FnMut(KvmLevel)) -> Result<(), String> {
    Err("guests are x86-64, this host is not".to_string())
}

fn no_device(device: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{} is not there", device.display()),
        io::ErrorKind::PermissionDenied => format!("{} does not open: permission denied", device.display()),
        _ => format!("{} does not open: {error}", device.display()),
    }
}

/// `kvm_*` in `/sys/module`.
fn modules(root: &Path) -> Vec<String> {
    let list = std::fs::read_dir(root.join("sys/module"));
    let names = list.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> = names.filter(|name| name.starts_with("kvm_")).collect();
    found.sort();
    found
}

/// Tells it to a user. Without KVM the lab still works, by emulation.
pub fn finding(kvm: &Kvm, cpu_flags: &str) -> Finding {
    let name = "kvm";
    let slow = "guests run by emulation (TCG), several times slower";
    let why = kvm.stopped_by.as_deref().unwrap_or("no reason known");
    let has = |flags: &[&str]| cpu_flags.split_whitespace().any(|flag| flags.contains(&flag));
    let usual = kvm.modules.is_empty() || kvm.modules.iter().any(|m| matches!(m.as_str(), "kvm_intel" | "kvm_amd"));
    let through =
        if usual { String::new() } else { format!(" (through {}, not kvm_intel or kvm_amd)", kvm.modules.join(", ")) };
    let is_guest = has(&["hypervisor"]);
    let fallback = "nothing to do here: accelerator = \"auto\" falls back by itself; a machine with VT-x or AMD-V runs guests faster";
    let nested = "switch on nested virtualisation where this host runs, or use a real machine";
    let (so_far, remedy) = match kvm.level {
        KvmLevel::Runs if usual => {
            return Finding::ok(name, "runs real-mode and 64-bit code; the guest's kernel has the final word");
        }
        KvmLevel::Runs => {
            let detail =
                format!("runs real-mode and 64-bit code{through}, but may fail on an ordinary kernel; then {slow}");
            return Finding::limited(name, detail, fallback);
        }
        KvmLevel::None if !usual => ("is not usable", fallback),
        KvmLevel::None if why.contains("ermission denied") => {
            ("is not usable", "sudo usermod -aG kvm \"$USER\", then log in again")
        }
        KvmLevel::None if has(&["vmx", "svm"]) => {
            ("is not usable", "sudo modprobe -a kvm_intel kvm_amd (in a container: pass it /dev/kvm)")
        }
        KvmLevel::None if is_guest => ("is not usable", nested),
        KvmLevel::None => ("is not usable", "switch on VT-x or AMD-V in the firmware"),
        KvmLevel::Opens => ("opens", "see dmesg for what kvm complains of; another hypervisor may hold the processor"),
        KvmLevel::CreatesVm | KvmLevel::RunsRealMode if !usual => ("cannot run a kernel", fallback),
        KvmLevel::CreatesVm | KvmLevel::RunsRealMode if is_guest => ("cannot run a kernel", nested),
        KvmLevel::CreatesVm | KvmLevel::RunsRealMode => ("cannot run a kernel", "see dmesg for what kvm complains of"),
    };
    Finding::limited(name, format!("{so_far}{through}: {why}; {slow}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;
    use crate::tree::Tree;

    fn kvm(level: KvmLevel, why: &str, module: &str) -> Kvm {
        let stopped_by = (level != KvmLevel::Runs).then(|| why.to_string());
        Kvm { level, stopped_by, modules: vec![module.to_string()] }
    }

    #[test]
    fn what_a_user_is_told() {
        use KvmLevel::{CreatesVm, None, Opens, Runs, RunsRealMode};
        let real = "fpu vmx";
        let guest = "fpu hypervisor";
        let denied = "/dev/kvm does not open: permission denied";
        let gone = "/dev/kvm is not there";
        let broken = "it does not run 64-bit instructions: internal error 1: emulation failure";
        let cases = [
            (kvm(Runs, "", "kvm_intel"), real, Status::Ok, "runs real-mode and 64-bit code; ", ""),
            (
                kvm(Runs, "", "kvm_pvm"),
                guest,
                Status::Limited,
                "runs real-mode and 64-bit code (through kvm_pvm",
                "nothing to do",
            ),
            (
                kvm(None, denied, "kvm_intel"),
                real,
                Status::Limited,
                "is not usable: /dev/kvm does not open",
                "sudo usermod -aG kvm",
            ),
            (
                kvm(None, gone, "kvm_intel"),
                real,
                Status::Limited,
                "is not usable: /dev/kvm is not there",
                "sudo modprobe",
            ),
            (kvm(None, gone, "kvm_intel"), guest, Status::Limited, "is not usable", "switch on nested"),
            (kvm(None, gone, "kvm_intel"), "fpu", Status::Limited, "is not usable", "switch on VT-x"),
            (kvm(Opens, "busy", "kvm_intel"), real, Status::Limited, "opens: busy", "see dmesg"),
            (kvm(CreatesVm, "x", "kvm_intel"), guest, Status::Limited, "cannot run a kernel: x", "switch on nested"),
            (
                kvm(RunsRealMode, broken, "kvm_pvm"),
                guest,
                Status::Limited,
                "cannot run a kernel (through kvm_pvm",
                "nothing to do",
            ),
            (
                kvm(RunsRealMode, broken, "kvm_amd"),
                real,
                Status::Limited,
                "cannot run a kernel: it does not",
                "see dmesg",
            ),
        ];
        for (kvm, flags, status, detail, remedy) in cases {
            let found = finding(&kvm, flags);
            assert_eq!(found.status, status, "{kvm:?}");
            assert!(found.detail.starts_with(detail), "{kvm:?}: {}", found.detail);
            assert!(found.remedy.as_deref().unwrap_or_default().starts_with(remedy), "{kvm:?}: {:?}", found.remedy);
            assert_eq!(found.remedy.is_none(), status == Status::Ok);
        }
    }

    #[test]
    fn a_host_without_the_device_and_one_with_a_file_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let none = probe_at(dir.path());
        assert_eq!(none.level, KvmLevel::None);
        assert!(none.stopped_by.unwrap().ends_with("dev/kvm is not there"));
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        std::fs::write(dir.path().join("dev/kvm"), "").unwrap();
        let fake = probe_at(dir.path());
        assert_eq!(fake.level, KvmLevel::None);
        assert!(fake.stopped_by.unwrap().contains("opens but is no KVM"));
        assert_eq!(modules(&Tree::sample("cloud-guest").path("")), ["kvm_pvm"]);
    }

    /// On any host: either everything runs or there is a reason.
    #[test]
    fn this_host_is_tried_and_the_verdict_has_a_reason() {
        let kvm = probe();
        assert_eq!(kvm.stopped_by.is_none(), kvm.level == KvmLevel::Runs, "{kvm:?}");
        assert_eq!(probe().level, kvm.level, "the verdict changed from one try to the next");
    }
}
