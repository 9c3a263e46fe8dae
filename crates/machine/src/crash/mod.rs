//! Crash reports out of a console log.
//!
//! In come the bytes of a console, all at once ([`scan`]) or as they are written ([`Watcher`]); out come [`Crash`]es: what
//! kind, one line for people, a fingerprint that is equal for equal crashes whatever the addresses, and the report's
//! text. Nothing here needs a machine: logs of other people's guests work as well.
//!
//! Only what the kernel itself calls a fault counts ([`headline`] knows the phrases, with their source files). A line that
//! merely holds the word "warning" is not one. Frames come from the report's own trace ([`frame`]); the parts every
//! report shares (the machinery that prints it, the primitives a task sleeps in) are left out of the fingerprint.
//! [`decode`] adds source lines where the build kept debug information.

pub mod decode;
mod elf;
mod frame;
mod headline;
mod line;
mod watch;

use serde::{Deserialize, Serialize};

pub use decode::{DecodeError, Decoder};
pub use frame::Frame;
pub use watch::Watcher;

/// What kind of fault a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CrashKind {
    /// The kernel gave up: `Kernel panic - not syncing`.
    Panic,
    /// A fault in kernel code: bad address, general protection, invalid opcode, stack overflow…
    Oops,
    /// `BUG()`, or one of the kernel's own consistency checks that print `BUG:`.
    Bug,
    /// `WARN()` and its kin.
    Warning,
    /// The address sanitizer.
    Kasan,
    /// The sampling memory checker.
    Kfence,
    /// The data-race detector.
    Kcsan,
    /// The uninitialised-memory checker.
    Kmsan,
    /// The undefined-behaviour sanitizer.
    Ubsan,
    /// The lock dependency checker and the RCU usage checker.
    Lockdep,
    /// Sleeping or scheduling where that is not allowed.
    AtomicSleep,
    /// A page or slab object is not as it should be.
    MemoryCorruption,
    /// A task blocked for too long.
    HungTask,
    /// A CPU that does not schedule.
    SoftLockup,
    /// A CPU that takes no interrupts.
    HardLockup,
    /// A grace period that does not end.
    RcuStall,
    /// A workqueue that makes no progress.
    WorkqueueLockup,
    /// A network device that cannot go because somebody still holds it.
    NetdevLeak,
    /// Memory nobody points to any more (`kmemleak`).
    MemoryLeak,
}

/// What a fault means for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The kernel goes on; what it complains about is still a fault of the kernel.
    Complaint,
    /// The kernel runs and cannot be trusted any more: reboot it.
    Broken,
    /// The kernel has stopped.
    Dead,
}

impl CrashKind {
    /// The name used in results: `panic`, `oops`, `soft-lockup`…
    pub fn as_str(self) -> &'static str {
        match self {
            CrashKind::Panic => "panic",
            CrashKind::Oops => "oops",
            CrashKind::Bug => "bug",
            CrashKind::Warning => "warning",
            CrashKind::Kasan => "kasan",
            CrashKind::Kfence => "kfence",
            CrashKind::Kcsan => "kcsan",
            CrashKind::Kmsan => "kmsan",
            CrashKind::Ubsan => "ubsan",
            CrashKind::Lockdep => "lockdep",
            CrashKind::AtomicSleep => "atomic-sleep",
            CrashKind::MemoryCorruption => "memory-corruption",
            CrashKind::HungTask => "hung-task",
            CrashKind::SoftLockup => "soft-lockup",
            CrashKind::HardLockup => "hard-lockup",
            CrashKind::RcuStall => "rcu-stall",
            CrashKind::WorkqueueLockup => "workqueue-lockup",
            CrashKind::NetdevLeak => "netdev-leak",
            CrashKind::MemoryLeak => "memory-leak",
        }
    }

    /// What such a fault means when no panic follows it.
    pub fn severity(self) -> Severity {
        use CrashKind::*;
        match self {
            Panic => Severity::Dead,
            Oops | Bug | Kasan | Kfence | MemoryCorruption | HungTask | SoftLockup | HardLockup | RcuStall
            | WorkqueueLockup => Severity::Broken,
            Warning | Kcsan | Kmsan | Ubsan | Lockdep | AtomicSleep | NetdevLeak | MemoryLeak => Severity::Complaint,
        }
    }
}

impl std::fmt::Display for CrashKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// What it is about.
    pub kind: CrashKind,
    /// The kernel's headline, and the function it happened in where the headline does not say.
    pub title: String,
    /// Kind and first meaningful frames: `oops:rxe_completer/rxe_sender/do_work`.
    pub fingerprint: String,
    /// The frames of the trace, innermost first, without those of the reporting machinery.
    pub frames: Vec<Frame>,
    /// The report's lines without timestamps.
    pub trace: String,
    /// A panic followed, or the report is one.
    pub fatal: bool,
    /// The report's end was seen.
    pub complete: bool,
    /// How often it came; the text is that of the first.
    pub times: u32,
    /// Offset of the headline in the console.
    pub offset: u64,
}

impl Crash {
    /// What it means for the guest.
    pub fn severity(&self) -> Severity {
        if self.fatal { Severity::Dead } else { self.kind.severity() }
    }
}

/// All reports of a complete console log.
pub fn scan(console: &[u8]) -> Vec<Crash> {
    let mut watcher = Watcher::at(0);
    watcher.feed(console);
    watcher.finish();
    watcher.crashes()
}
