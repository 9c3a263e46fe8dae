//! Which accelerator runs a guest, and what is remembered about KVM on this host.
//!
//! `/dev/kvm` may open, create a virtual machine and run the firmware, and still not run Linux (a hypervisor that
//! emulates what it cannot virtualise gives up at the first instruction it does not know). So `auto` tries the real
//! guest kernel, falls back to TCG, and remembers the verdict for this boot of the host, so that the next guest need
//! not try again. A fault of the hypervisor holds for every kernel; a kernel that merely stayed silent condemns only
//! itself, since it may be the kernel that is broken.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// KVM if it runs this kernel, else TCG.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// Emulation by QEMU.
    Tcg,
}

/// What really runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// The host's processor.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Kvm => "kvm",
            Engine::Tcg => "tcg",
        })
    }
}

/// What is known about KVM before a guest is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// It ran a guest kernel since the host booted.
    Works,
    /// It did not, for this reason.
    Broken(String),
    /// Nobody has tried.
    Nothing,
}

/// Why KVM was given up, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The hypervisor failed: no kernel will run.
    Hypervisor(String),
    /// This kernel showed no sign of life.
    Kernel(String),
}

impl Fault {
    pub(crate) fn reason(&self) -> &str {
        match self {
            Fault::Hypervisor(reason) | Fault::Kernel(reason) => reason,
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// The boot of the host this is about.
    boot_id: String,
    /// Whether a guest kernel has run.
    works: bool,
    /// Why none can.
    broken: Option<String>,
    /// Kernels that did not start.
    kernels: Vec<Silent>,
}

/// A kernel that showed no sign of life under KVM.
#[derive(Debug, Serialize, Deserialize)]
struct Silent {
    identity: String,
    reason: String,
    /// It ran under TCG, so it is KVM that is at fault.
    ran_elsewhere: bool,
}

/// So many kernels that run elsewhere and not under KVM settle it for all others.
const ENOUGH: usize = 2;

/// The memory of verdicts: a small file in a directory of ours.
#[derive(Debug, Clone)]
pub struct Verdicts {
    dir: PathBuf,
}

impl Verdicts {
    /// Verdicts kept in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Verdicts {
        Verdicts { dir: dir.into() }
    }

    /// What is known for this kernel image. Unreadable memory counts as none.
    pub fn known(&self, kernel: &Path) -> Known {
        let record = self.load();
        if let Some(reason) = record.broken {
            return Known::Broken(reason);
        }
        let identity = kernel_identity(kernel);
        if let Some(silent) = record.kernels.iter().find(|s| Some(&s.identity) == identity.as_ref()) {
            return Known::Broken(silent.reason.clone());
        }
        let mut elsewhere = record.kernels.iter().filter(|s| s.ran_elsewhere);
        if let (false, Some(silent)) = (record.works, elsewhere.nth(ENOUGH - 1)) {
            return Known::Broken(format!("{} for {ENOUGH} other kernels that run under TCG", silent.reason));
        }
        if record.works { Known::Works } else { Known::Nothing }
    }

    /// Holds the verdict file while one guest tries KVM, so that guests started together do not all try.
    pub(crate) fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(&self.dir)?;
        let file = File::options().create(true).truncate(false).write(true).open(self.dir.join("kvm.lock"))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    pub(crate) fn works(&self) -> io::Result<()> {
        self.update(|record| record.works = true)
    }

    pub(crate) fn fault(&self, kernel: &Path, fault: &Fault) -> io::Result<()> {
        self.update(|record| match fault {
            Fault::Hypervisor(reason) => record.broken = Some(reason.clone()),
            Fault::Kernel(reason) => {
                if let Some(identity) = kernel_identity(kernel) {
                    record.kernels.retain(|s| s.identity != identity);
                    record.kernels.push(Silent { identity, reason: reason.clone(), ran_elsewhere: false });
                }
            }
        })
    }

    /// A kernel that was silent under KVM has booted under TCG.
    pub(crate) fn ran_elsewhere(&self, kernel: &Path) -> io::Result<()> {
        let Some(identity) = kernel_identity(kernel) else { return Ok(()) };
        if !self.load().kernels.iter().any(|s| s.identity == identity && !s.ran_elsewhere) {
            return Ok(());
        }
        self.update(|record| {
            record.kernels.iter_mut().filter(|s| s.identity == identity).for_each(|s| s.ran_elsewhere = true);
        })
    }

    /// Forgets everything, so that the next guest tries again.
    pub fn forget(&self) -> io::Result<()> {
        match fs::remove_file(self.path()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("kvm.json")
    }

    fn load(&self) -> Record {
        let now = boot_id();
        let fresh = Record { boot_id: now.clone(), ..Record::default() };
        let Ok(bytes) = fs::read(self.path()) else { return fresh };
        match serde_json::from_slice::<Record>(&bytes) {
            Ok(record) if record.boot_id == now && !now.is_empty() => record,
            _ => fresh,
        }
    }

    fn update(&self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut record = self.load();
        change(&mut record);
        let part = self.dir.join(format!("kvm.json.{}", std::process::id()));
        let written = serde_json::to_vec_pretty(&record)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(&part, bytes))
            .and_then(|()| fs::rename(&part, self.path()));
        if written.is_err() {
            // The write is the error to report, whatever becomes of the rest of it.
            let _ = fs::remove_file(&part);
        }
        written
    }
}

/// Identity of this boot of the host; empty where the kernel does not tell.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Path, size and time of an image: enough to tell a rebuilt kernel from the one that failed.
fn kernel_identity(kernel: &Path) -> Option<String> {
    let path = fs::canonicalize(kernel).ok()?;
    let meta = fs::metadata(&path).ok()?;
    Some(format!("{} {} {}.{}", path.display(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

/// Whether `/dev/kvm` can be opened at all; the reason and the remedy if not.
pub fn kvm_opens() -> Result<(), String> {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err("this host has no /dev/kvm (virtualisation is off in the firmware, or the kvm module is not loaded)"
                .into())
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err("no permission for /dev/kvm (add yourself to its group: sudo usermod -aG kvm $USER, then log in again)"
                .into())
        }
        Err(e) => Err(format!("/dev/kvm does not open: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, bytes).expect("write");
        path
    }

    #[test]
    fn a_fault_of_the_hypervisor_holds_for_every_kernel() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (a, b) = (image(dir.path(), "a", b"a"), image(dir.path(), "b", b"b"));
        let verdicts = Verdicts::new(dir.path().join("v"));
        assert_eq!(verdicts.known(&a), Known::Nothing);
        verdicts.fault(&a, &Fault::Hypervisor("emulation failure".into())).expect("record");
        assert_eq!(verdicts.known(&b), Known::Broken("emulation failure".into()));
        verdicts.forget().expect("forget");
        assert_eq!(verdicts.known(&b), Known::Nothing);
    }

    #[test]
    fn a_silent_kernel_condemns_itself_until_it_is_rebuilt() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (a, b) = (image(dir.path(), "a", b"a"), image(dir.path(), "b", b"b"));
        let verdicts = Verdicts::new(dir.path().join("v"));
        verdicts.works().expect("record");
        verdicts.fault(&a, &Fault::Kernel("silent".into())).expect("record");
        assert_eq!(verdicts.known(&a), Known::Broken("silent".into()));
        assert_eq!(verdicts.known(&b), Known::Works);
        image(dir.path(), "a", b"rebuilt");
        assert_eq!(verdicts.known(&a), Known::Works);
    }

    #[test]
    fn kernels_that_run_elsewhere_put_the_blame_on_kvm() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (a, b, c) = (image(dir.path(), "a", b"a"), image(dir.path(), "b", b"b"), image(dir.path(), "c", b"c"));
        let verdicts = Verdicts::new(dir.path().join("v"));
        for kernel in [&a, &b] {
            assert_eq!(verdicts.known(kernel), Known::Nothing);
            verdicts.fault(kernel, &Fault::Kernel("silent".into())).expect("record");
            assert_eq!(verdicts.known(&c), Known::Nothing, "a broken kernel says nothing about another");
            verdicts.ran_elsewhere(kernel).expect("record");
        }
        assert!(matches!(verdicts.known(&c), Known::Broken(why) if why.contains("2 other kernels")));
    }

    #[test]
    fn another_boot_of_the_host_starts_afresh() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let a = image(dir.path(), "a", b"a");
        let verdicts = Verdicts::new(dir.path());
        verdicts.fault(&a, &Fault::Hypervisor("x".into())).expect("record");
        let text = fs::read_to_string(dir.path().join("kvm.json")).expect("read").replace(&boot_id(), "another-boot");
        fs::write(dir.path().join("kvm.json"), text).expect("write");
        assert_eq!(verdicts.known(&a), Known::Nothing);
    }
}
