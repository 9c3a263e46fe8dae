//! Frames of a kernel trace, and which of them tell one crash from another.

use serde::{Deserialize, Serialize};

/// How many frames make a fingerprint. Three tell places apart; more would tell callers apart, which often differ for
/// one and the same fault.
const FINGERPRINT: usize = 3;

/// A return address, as the kernel printed it: `function+0xOFFSET/0xSIZE [module]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// The symbol, with any suffix the compiler gave it.
    pub function: String,
    /// Offset into it, in bytes.
    pub offset: u64,
    /// Its size, in bytes.
    pub size: u64,
    /// The module it is in.
    pub module: Option<String>,
}

impl Frame {
    /// The first frame in `text`, if there is one.
    pub(super) fn find(text: &str) -> Option<Frame> {
        let mut words = text.split_ascii_whitespace();
        while let Some(word) = words.next() {
            // `RIP: 0010:func+…` and `[<addr>] func+…` have something before the symbol.
            let word = word.rsplit_once(':').map_or(word, |(_, symbol)| symbol).trim_end_matches(',');
            let Some((function, place)) = word.rsplit_once('+') else { continue };
            let Some((offset, size)) = place.split_once('/') else { continue };
            let (Some(offset), Some(size)) = (hex(offset), hex(size)) else { continue };
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.$".contains(c);
            if function.is_empty() || function.starts_with(|c: char| c.is_ascii_digit()) || !function.chars().all(plain)
            {
                continue;
            }
            // `[name]`, or `[name BUILD-ID]`.
            let module =
                words.next().and_then(|w| w.strip_prefix('[')).map(|w| w.trim_end_matches([']', ',']).to_owned());
            return Some(Frame { function: function.to_owned(), offset, size, module });
        }
        None
    }

    /// A line of a call trace whose address was really called, not merely found on the stack (`?`).
    pub(super) fn of_trace_line(text: &str) -> Option<Frame> {
        let line = text.trim_start();
        if line.starts_with('?') || line.starts_with("RIP:") {
            return None;
        }
        // A call trace line is the frame alone, after an optional `[<address>]`.
        let line = match line.strip_prefix("[<") {
            Some(rest) => rest.split_once(">]")?.1.trim_start(),
            None => line,
        };
        if line.starts_with('?') {
            return None;
        }
        let first = line.split_ascii_whitespace().next()?;
        Frame::find(first).and_then(|_| Frame::find(line))
    }

    /// The function's name without what the compiler added (`.isra.0`, `.constprop.0`, `.part.0`, `.cold`, `.llvm.1`).
    pub fn base_name(&self) -> &str {
        match self.function.split_once('.') {
            Some((base, _)) if !base.is_empty() => base,
            _ => &self.function,
        }
    }

    /// Whether it belongs to the crash rather than to what reports it or waits in it.
    pub(super) fn meaningful(&self) -> bool {
        let name = self.base_name();
        !EXACT.contains(&name) && !PREFIXES.iter().any(|p| name.starts_with(p))
    }
}

impl std::fmt::Display for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{:#x}/{:#x}", self.function, self.offset, self.size)?;
        self.module.as_ref().map_or(Ok(()), |module| write!(f, " [{module}]"))
    }
}

/// What was running when a timer interrupted it to dump the stack: the addresses after the interrupt's entry.
pub(super) fn interrupted(found: &[Frame]) -> &[Frame] {
    let entry = found.iter().position(|f| f.function.starts_with("asm_sysvec_"));
    &found[entry.map_or(0, |at| at + 1)..]
}

/// The fingerprint's part that comes from frames; empty without any.
pub(super) fn fingerprint(frames: &[Frame]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in frames.iter().map(Frame::base_name) {
        if names.last() != Some(&name) {
            names.push(name);
        }
        if names.len() == FINGERPRINT {
            break;
        }
    }
    names.join("/")
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Functions that only lead to a report, or that a task merely waits in.
const EXACT: &[&str] = &[
    // Printing (lib/dump_stack.c, kernel/panic.c, lib/bug.c).
    "show_stack",
    "panic",
    "vpanic",
    "nmi_panic",
    "panic_other_cpus_shutdown",
    "unknown_nmi_error",
    "default_do_nmi",
    "end_repeat_nmi",
    "asm_exc_nmi",
    "report_bug",
    "report_bug_entry",
    "handle_bug",
    "warn_slowpath_null",
    "warn_slowpath_fmt",
    "warn_slowpath_common",
    "fixup_bug",
    "check_panic_on_warn",
    "end_report",
    "check_region_inline",
    "print_address_description",
    "print_memory_metadata",
    "print_report",
    "refcount_warn_saturate",
    "debug_print_object",
    "__might_resched",
    "__might_sleep",
    "__might_fault",
    "__schedule_bug",
    "check_preemption_disabled",
    "debug_smp_processor_id",
    "__this_cpu_preempt_check",
    "lockdep_rcu_suspicious",
    "__lock_acquire",
    "lock_acquire",
    "lock_release",
    "__lock_release",
    "validate_chain",
    "check_prev_add",
    "check_prevs_add",
    "check_noncircular",
    "check_deadlock",
    "mark_lock",
    "mark_usage",
    "mark_lock_irq",
    "valid_state",
    "debug_check_no_locks_freed",
    "debug_check_no_locks_held",
    // Faults (arch/x86/mm/fault.c, arch/x86/kernel/traps.c, arch/x86/kernel/dumpstack.c).
    "no_context",
    "bad_area",
    "bad_area_nosemaphore",
    "page_fault_oops",
    "kernelmode_fixup_or_oops",
    "do_user_addr_fault",
    "do_kern_addr_fault",
    "do_error_trap",
    "do_trap",
    "do_trap_no_signal",
    "fixup_exception",
    "oops_end",
    "die",
    "die_addr",
    "make_task_dead",
    "rewind_stack_and_make_dead",
    "error_entry",
    // Ticks that notice a lockup (kernel/watchdog.c, kernel/rcu/tree_stall.h).
    "watchdog_timer_fn",
    "watchdog_overflow_callback",
    "check_cpu_stall",
    "rcu_pending",
    "rcu_sched_clock_irq",
    "update_process_times",
    "tick_sched_handle",
    "tick_sched_timer",
    "tick_nohz_handler",
    "__hrtimer_run_queues",
    "hrtimer_interrupt",
    "local_apic_timer_interrupt",
    "__sysvec_apic_timer_interrupt",
    "sysvec_apic_timer_interrupt",
    // Waiting (kernel/sched/core.c, kernel/locking, kernel/sched/completion.c, kernel/sched/wait_bit.c).
    "schedule",
    "__schedule",
    "schedule_preempt_disabled",
    "schedule_timeout",
    "schedule_timeout_uninterruptible",
    "schedule_hrtimeout_range",
    "schedule_hrtimeout_range_clock",
    "io_schedule",
    "io_schedule_timeout",
    "preempt_schedule",
    "preempt_schedule_irq",
    "preempt_schedule_common",
    "preempt_schedule_thunk",
    "__cond_resched",
    "wait_for_common",
    "__wait_for_common",
    "do_wait_for_common",
    "down",
    "down_read",
    "down_write",
    "down_interruptible",
    "down_killable",
    "out_of_line_wait_on_bit",
    "__wait_on_bit",
    "__wait_on_bit_lock",
    "bit_wait",
    "bit_wait_io",
    "native_queued_spin_lock_slowpath",
    "queued_spin_lock_slowpath",
    "__pv_queued_spin_lock_slowpath",
    "do_raw_spin_lock",
    "cpu_relax",
    "csd_lock_wait",
    "msleep",
    "msleep_interruptible",
    "usleep_range_state",
    // Entry and idle.
    "entry_SYSCALL_64_after_hwframe",
];

/// Families of such functions.
const PREFIXES: &[&str] = &[
    "dump_stack",
    "__dump_stack",
    "__warn",
    "kasan_",
    "__kasan_",
    "__asan_",
    "asan_",
    "kmsan_",
    "__msan_",
    "kcsan_",
    "__tsan_",
    "__kcsan_",
    "kfence_report",
    "kfence_handle",
    "ubsan_",
    "__ubsan_",
    "print_circular",
    "print_usage_bug",
    "print_deadlock",
    "print_irq",
    "print_bad",
    "print_unlock",
    "print_lock",
    "print_freed",
    "print_rcu",
    "__bad_area",
    "exc_",
    "asm_exc_",
    "asm_sysvec_",
    "nmi_cpu_backtrace",
    "nmi_trigger",
    "arch_trigger_cpumask",
    "rcu_check_gp",
    "rcu_dump",
    "print_cpu_stall",
    "print_other_cpu_stall",
    "__list_add_valid",
    "__list_del_entry_valid",
    "__slab_bug",
    "slab_bug",
    "object_err",
    "check_bytes_and_report",
    "check_object",
    "free_to_partial_list",
    "free_debug_processing",
    "alloc_debug_processing",
    "bad_page",
    "__die",
    "oops_",
    "__mutex_lock",
    "mutex_lock",
    "rwsem_down",
    "__down",
    "wait_for_completion",
    "_raw_spin",
    "_raw_read",
    "_raw_write",
    "raw_spin",
    "__raw_spin",
    "__switch_to",
    // Padding before functions, found on stacks by chance.
    "__pfx_",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_in_every_shape() {
        let f = Frame::find("RIP: 0010:rxe_completer+0x1b/0x20 [rdma_rxe]").expect("a frame");
        assert_eq!(
            (f.function.as_str(), f.offset, f.size, f.module.as_deref()),
            ("rxe_completer", 0x1b, 0x20, Some("rdma_rxe"))
        );
        let f = Frame::of_trace_line(" [<ffffffff81000000>] foo.isra.0+0x1/0x2").expect("a frame");
        assert_eq!((f.base_name(), &f.module), ("foo", &None));
        let f = Frame::of_trace_line(" bar+0x1/0x2 [mod 0123456789abcdef]").expect("a frame");
        assert_eq!(f.module.as_deref(), Some("mod"));
        let f = Frame::find("BUG: KASAN: use-after-free in baz+0x10/0x20").expect("a frame");
        assert_eq!(f.function, "baz");
        let f = Frame::find("WARNING: net/core/dev.c:12 at foo+0x1/0x2, CPU#0: ip/1").expect("a frame");
        assert_eq!((f.function.as_str(), f.module), ("foo", None));
        let f = Frame::find("WARNING: a.c:1 at foo+0x1/0x2 [m], CPU#0: ip/1").expect("a frame");
        assert_eq!(f.module.as_deref(), Some("m"));
    }

    #[test]
    fn what_is_no_frame_is_not_read_as_one() {
        for text in [" ? foo+0x1/0x2", "RIP: 0033:0x7f1234", "Code: 00 +0x1/0x2", " <TASK>", " 1+0x1/0x2", ""] {
            assert_eq!(Frame::of_trace_line(text), None, "{text}");
        }
    }

    #[test]
    fn fingerprints_ignore_offsets_suffixes_and_recursion() {
        let frames = |lines: &[&str]| lines.iter().filter_map(|l| Frame::find(l)).collect::<Vec<_>>();
        let a = frames(&["a.cold+0x1/0x2", "b+0x1/0x2", "b+0x1/0x2", "c+0x1/0x2", "d+0x1/0x2"]);
        let b = frames(&["a+0x9/0x22", "b+0x5/0x12", "c.part.0+0x1/0x2", "e+0x1/0x2"]);
        assert_eq!(fingerprint(&a), "a/b/c");
        assert_eq!(fingerprint(&a), fingerprint(&b));
    }
}
