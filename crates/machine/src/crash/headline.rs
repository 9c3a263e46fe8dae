//! The first lines of kernel reports: which phrase starts which kind.
//!
//! Every phrase was taken from the kernel's sources (named beside it). The list says what *is* a report; everything else
//! is not, so a new informational line with "BUG" or "WARNING" in it does no harm. The exception is a `BUG:` nobody here
//! knows, which counts if a call trace follows.

use super::CrashKind;

/// What a headline says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headline {
    pub(super) kind: CrashKind,
    /// The report is real only if a call trace follows.
    pub(super) needs_trace: bool,
    /// The line is the whole report.
    pub(super) single: bool,
}

/// What a line of an open report means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// `---[ end trace`, `---[ end Kernel panic`.
    End,
    /// A line of `=` (KASAN, KFENCE, KCSAN, lockdep).
    Rule,
    /// `------------[ cut here ]------------`.
    CutHere,
    /// `</TASK>` and the like.
    TraceEnd,
    /// Nothing special.
    Other,
}

pub(super) fn mark(text: &str) -> Mark {
    let text = text.trim();
    if text.starts_with("---[ end ") {
        Mark::End
    } else if text.len() >= 20 && text.bytes().all(|b| b == b'=') {
        Mark::Rule
    } else if text.contains("[ cut here ]---") {
        Mark::CutHere
    } else if matches!(text, "</TASK>") {
        Mark::TraceEnd
    } else {
        Mark::Other
    }
}

/// Whether a panic for `reason` only follows from a report of `kind` before it: `panic_on_oops` and its kin, or the death
/// of a task that may not die (kernel/exit.c, arch/x86/kernel/dumpstack.c, kernel/panic.c, kernel/watchdog.c,
/// kernel/hung_task.c, kernel/rcu/tree_stall.h, kernel/workqueue.c).
pub(super) fn panic_follows(reason: &str, kind: CrashKind) -> bool {
    use CrashKind::*;
    let says = |phrases: &[&str]| phrases.iter().any(|p| reason.contains(p));
    match kind {
        Oops | Bug => says(&[
            "Fatal exception",
            "Aiee, killing interrupt handler",
            "Attempted to kill init!",
            "Attempted to kill the idle task!",
            "panic_on_warn set",
        ]),
        SoftLockup => says(&["softlockup: hung tasks"]),
        HardLockup => says(&["Hard LOCKUP"]),
        HungTask => says(&["hung_task: blocked tasks"]),
        RcuStall => says(&["RCU Stall"]),
        WorkqueueLockup => says(&["panic_on_stall"]),
        Panic => false,
        _ => says(&["panic_on_warn set"]),
    }
}

/// The reason of a panic line.
pub(super) fn panic_reason(text: &str) -> Option<&str> {
    text.strip_prefix("Kernel panic - not syncing: ").or_else(|| text.strip_prefix("Kernel panic - not syncing"))
}

/// Reads a line, without prefixes, as the start of a report.
pub(super) fn classify(text: &str) -> Option<Headline> {
    let text = subsystem(text);
    let yes = |kind| Some(Headline { kind, needs_trace: false, single: false });
    let single = |kind| Some(Headline { kind, needs_trace: false, single: true });
    if panic_reason(text).is_some() {
        return yes(CrashKind::Panic);
    }
    if let Some((_, kind)) = EXACT.iter().find(|(start, _)| text.starts_with(start)) {
        return yes(*kind);
    }
    if is_oops(text) {
        return yes(CrashKind::Oops);
    }
    if let Some(rest) = text.strip_prefix("WARNING: ") {
        return warn(rest).and_then(yes);
    }
    if let Some(rest) = text.strip_prefix("INFO: ") {
        return info(rest).and_then(yes);
    }
    // net/core/dev.c, netdev_wait_allrefs_any().
    if text.starts_with("unregister_netdevice: waiting for ") {
        return single(CrashKind::NetdevLeak);
    }
    // mm/kmemleak.c, kmemleak_scan().
    if text.starts_with("kmemleak: ") && text.contains(" new suspected memory leaks") {
        return single(CrashKind::MemoryLeak);
    }
    // mm/slub.c, slab_bug(): `BUG kmalloc-64 (Tainted: …): Right Redzone overwritten`.
    if let Some(rest) = text.strip_prefix("BUG ") {
        let (cache, after) = rest.split_once(' ')?;
        return (!cache.is_empty() && after.starts_with('(') && after.contains("): ")).then_some(Headline {
            kind: CrashKind::MemoryCorruption,
            needs_trace: false,
            single: false,
        });
    }
    // A limit of the checker, not a fault of what it checks (kernel/locking/lockdep.c, print_lockdep_off()).
    let limit = text.starts_with("BUG: MAX_LOCK") || text.starts_with("BUG: MAX_STACK_TRACE_ENTRIES");
    (text.starts_with("BUG: ") && !limit).then_some(Headline { kind: CrashKind::Bug, needs_trace: true, single: false })
}

/// Takes the name off that some files put before their lines (`pr_fmt`).
pub(super) fn subsystem(text: &str) -> &str {
    let files = ["NMI watchdog: ", "watchdog: ", "rcu: ", "traps: ", "workqueue: "];
    let text = files.iter().find_map(|p| text.strip_prefix(p)).unwrap_or(text);
    // kernel/watchdog.c, watchdog_hardlockup_check(): `watchdog: CPU0: Watchdog detected …`.
    let cpu = text
        .strip_prefix("CPU")
        .and_then(|r| r.split_once(": "))
        .filter(|(n, _)| n.bytes().all(|b| b.is_ascii_digit()));
    cpu.filter(|(n, _)| !n.is_empty()).map_or(text, |(_, rest)| rest)
}

/// Starts of lines that always begin a report.
const EXACT: &[(&str, CrashKind)] = &[
    // arch/x86/mm/fault.c, arch/arm64/mm/fault.c.
    ("BUG: kernel NULL pointer dereference", CrashKind::Oops),
    ("BUG: unable to handle page fault", CrashKind::Oops),
    ("BUG: unable to handle kernel", CrashKind::Oops),
    ("Unable to handle kernel", CrashKind::Oops),
    // arch/x86/kernel/traps.c.
    ("BUG: TASK stack guard page was hit", CrashKind::Oops),
    ("BUG: IRQ stack guard page was hit", CrashKind::Oops),
    ("PANIC: double fault", CrashKind::Oops),
    // lib/bug.c.
    ("kernel BUG at ", CrashKind::Bug),
    ("Kernel BUG at ", CrashKind::Bug),
    // mm/kasan, mm/kfence, kernel/kcsan, mm/kmsan, lib/ubsan.c.
    ("BUG: KASAN: ", CrashKind::Kasan),
    ("BUG: KFENCE: ", CrashKind::Kfence),
    ("BUG: KCSAN: ", CrashKind::Kcsan),
    ("BUG: KMSAN: ", CrashKind::Kmsan),
    ("UBSAN: ", CrashKind::Ubsan),
    // kernel/sched/core.c.
    ("BUG: sleeping function called from invalid context", CrashKind::AtomicSleep),
    ("BUG: scheduling while atomic", CrashKind::AtomicSleep),
    ("BUG: scheduling in a non-blocking section", CrashKind::AtomicSleep),
    ("BUG: assuming atomic context", CrashKind::AtomicSleep),
    ("BUG: workqueue leaked atomic", CrashKind::AtomicSleep),
    ("BUG: workqueue leaked lock", CrashKind::AtomicSleep),
    // mm/page_alloc.c, mm/memory.c, mm/filemap.c, kernel/fork.c.
    ("BUG: Bad page state", CrashKind::MemoryCorruption),
    ("BUG: Bad page map", CrashKind::MemoryCorruption),
    ("BUG: Bad page cache", CrashKind::MemoryCorruption),
    ("BUG: Bad rss-counter state", CrashKind::MemoryCorruption),
    ("BUG: non-zero pgtables_bytes", CrashKind::MemoryCorruption),
    // kernel/watchdog.c, kernel/workqueue.c.
    ("BUG: soft lockup", CrashKind::SoftLockup),
    ("Watchdog detected hard LOCKUP", CrashKind::HardLockup),
    ("BUG: workqueue lockup", CrashKind::WorkqueueLockup),
    // kernel/locking/lockdep.c.
    ("WARNING: possible circular locking dependency", CrashKind::Lockdep),
    ("WARNING: possible recursive locking", CrashKind::Lockdep),
    ("WARNING: possible irq lock inversion", CrashKind::Lockdep),
    ("WARNING: inconsistent lock state", CrashKind::Lockdep),
    ("WARNING: Nested lock was not taken", CrashKind::Lockdep),
    ("WARNING: bad unlock balance", CrashKind::Lockdep),
    ("WARNING: bad contention", CrashKind::Lockdep),
    ("WARNING: held lock freed", CrashKind::Lockdep),
    ("WARNING: lock held when returning to user space", CrashKind::Lockdep),
    ("WARNING: suspicious RCU usage", CrashKind::Lockdep),
    ("WARNING: chain_key collision", CrashKind::Lockdep),
    ("[ BUG: Invalid wait context ]", CrashKind::Lockdep),
    ("DEBUG_LOCKS_WARN_ON", CrashKind::Lockdep),
];

/// `WARN()`: `CPU: 0 PID: 1 at FILE:LINE FUNC` (to 6.x), `FILE:LINE at FUNC, CPU#0: COMM/PID`, `at FUNC, CPU#0: …`
/// (kernel/panic.c, `__warn()`); and lockdep's lines with a name in them.
fn warn(rest: &str) -> Option<CrashKind> {
    let numbered =
        rest.strip_prefix("CPU: ").and_then(|r| r.split_once(" PID: ")).is_some_and(|(_, r)| r.contains(" at "));
    let (place, named) = match rest.split_once(" at ") {
        Some((place, after)) => (place, after.contains(", CPU#")),
        None => ("", rest.starts_with("at ") && rest.contains(", CPU#")),
    };
    let file_line = place.rsplit_once(':').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let lockdep = rest.contains("-safe -> ") || rest.ends_with(" still has locks held!");
    match (numbered || (named && (file_line || place.is_empty())), lockdep) {
        (true, _) => Some(CrashKind::Warning),
        (_, true) => Some(CrashKind::Lockdep),
        _ => None,
    }
}

/// A die message: `Oops: 0002 [#1] SMP`, `general protection fault: 0000 [#1]`, `Oops: invalid opcode: 0000 [#1]`
/// (arch/x86/kernel/dumpstack.c, `__die_header()`).
fn is_oops(text: &str) -> bool {
    let Some((before, after)) = text.split_once(" [#") else { return false };
    let counted = after.split_once(']').is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let code = before
        .rsplit_once(": ")
        .is_some_and(|(_, code)| (4..=16).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_hexdigit()));
    counted && code
}

fn info(rest: &str) -> Option<CrashKind> {
    // kernel/hung_task.c: `task NAME:PID blocked for more than N seconds.`, also `blocked in I/O wait for more than`.
    if rest.starts_with("task ") && rest.contains(" blocked ") && rest.contains(" for more than ") {
        return Some(CrashKind::HungTask);
    }
    // kernel/rcu/tree_stall.h, kernel/rcu/tasks.h.
    if rest.starts_with("rcu")
        && (rest.contains(" detected stalls on ") || rest.contains(" self-detected stall on CPU"))
    {
        return Some(CrashKind::RcuStall);
    }
    // kernel/rcu/tree_exp.h: `rcu_preempt detected expedited stalls on CPUs/tasks: {`.
    if rest.starts_with("rcu") && rest.contains(" detected expedited stalls on ") {
        return Some(CrashKind::RcuStall);
    }
    // kernel/locking/lockdep.c.
    rest.starts_with("trying to register non-static key").then_some(CrashKind::Lockdep)
}

/// Whether a line is part of a register dump (arch/x86/kernel/process_64.c, `__show_regs()`).
pub(super) fn register(text: &str) -> bool {
    const STARTS: &[&str] = &[
        "RIP:", "RSP:", "RAX:", "RDX:", "RBP:", "R10:", "R13:", "FS:", "CS:", "CR2:", "DR0:", "DR3:", "PKRU:", "Code:",
        "EFLAGS", "ORIG_RAX",
    ];
    STARTS.iter().any(|s| text.starts_with(s))
}

/// Whether a line goes on with a report whose trace has begun: registers, more traces, the stall detectors' tables.
pub(super) fn continues(text: &str) -> bool {
    const STARTS: &[&str] = &[
        "Call Trace",
        "<",
        "</",
        "CPU:",
        "UID:",
        "Hardware name:",
        "Tainted:",
        "Modules linked in:",
        "Workqueue:",
        "task:",
        "Comm:",
        "Sending NMI",
        "NMI backtrace",
        "rcu:",
        "watchdog:",
        "Showing all locks",
        "Showing busy workqueues",
        "INFO: lockdep",
        "INFO: task",
        "#",
        "1 lock",
        "2 locks",
        "3 locks",
        "stack backtrace",
        "pool",
        "workqueue",
        "in-flight:",
        "pending:",
        "[<",
        "?",
        "irq event stamp",
        "hardirqs last",
        "softirqs last",
        "Kernel Offset",
    ];
    let text = text.trim_start();
    let known = text.is_empty() || register(text) || STARTS.iter().any(|s| text.starts_with(s));
    known || super::frame::Frame::of_trace_line(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headlines_of_every_kind() {
        let table: &[(&str, CrashKind)] = &[
            ("Kernel panic - not syncing: sysrq triggered crash", CrashKind::Panic),
            ("BUG: kernel NULL pointer dereference, address: 0000000000000010", CrashKind::Oops),
            ("Oops: 0002 [#1] SMP NOPTI", CrashKind::Oops),
            (
                "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#2] PREEMPT SMP",
                CrashKind::Oops,
            ),
            ("general protection fault: 0000 [#1] SMP", CrashKind::Oops),
            ("divide error: 0000 [#1] PREEMPT", CrashKind::Oops),
            ("kernel BUG at drivers/infiniband/sw/rxe/rxe_req.c:77!", CrashKind::Bug),
            ("WARNING: CPU: 0 PID: 90 at net/core/dev.c:12 foo+0x10/0x20 [mod]", CrashKind::Warning),
            ("WARNING: net/core/dev.c:12 at foo+0x10/0x20, CPU#1: ip/90", CrashKind::Warning),
            ("WARNING: at foo+0x10/0x20, CPU#1: ip/90", CrashKind::Warning),
            ("WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected", CrashKind::Lockdep),
            ("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [a:1]", CrashKind::SoftLockup),
            ("watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 0", CrashKind::HardLockup),
            ("rcu: INFO: rcu_preempt self-detected stall on CPU", CrashKind::RcuStall),
            ("rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-....", CrashKind::RcuStall),
            ("INFO: task a:1 blocked for more than 122 seconds.", CrashKind::HungTask),
            ("INFO: task a:1 blocked in I/O wait for more than 122 seconds.", CrashKind::HungTask),
            ("BUG kmalloc-64 (Not tainted): Right Redzone overwritten", CrashKind::MemoryCorruption),
            ("unregister_netdevice: waiting for eth0 to become free. Usage count = 2", CrashKind::NetdevLeak),
            ("kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)", CrashKind::MemoryLeak),
            ("BUG: spinlock bad magic on CPU#0, a/1", CrashKind::Bug),
        ];
        for (text, kind) in table {
            assert_eq!(classify(text).map(|h| h.kind), Some(*kind), "{text}");
        }
    }

    #[test]
    fn warnings_that_are_no_crashes() {
        for text in [
            "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
            "WARNING: Flushing system-wide workqueues will be prohibited in near future.",
            "WARNING: something looks wrong at least twice",
            "Warning: unable to open an initial console.",
            "BUG: MAX_LOCKDEP_CHAINS too low!",
            "INFO: lockdep is turned off.",
            "INFO: task a:1 is blocked on a mutex likely owned by task b:2.",
            "a[12]: segfault at 0 ip 000055d0 sp 00007ffe error 4 in a[55d0]",
            "traps: a[12] general protection fault ip:55d0 sp:7ffe error:0 in a[55d0]",
            "traps: a[12] trap divide error ip:55d0 sp:7ffe error:0 in a[55d0]",
            "Out of memory: Killed process 12 (a) total-vm:1kB",
            "a: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL)",
            "oops=panic is set",
            "sysrq: Show backtrace of all active CPUs",
            "NMI backtrace for cpu 0",
        ] {
            assert_eq!(classify(text), None, "{text}");
        }
    }
}
