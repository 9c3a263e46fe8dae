//! `kmemleak` and `lockdep`: what a debug kernel found out without a word on the console.
//!
//! KASAN and its kin report at once, and the crash watcher sees it. Leaked memory is only found by a scan that somebody asks
//! for, and lockdep turns itself off when it runs out of room, after which its silence means nothing.

use super::Call;
use crate::model::Program;
use crate::results::{Evidence, Metric};
use crate::run::Stop;

/// kmemleak's file. debugfs may not be mounted yet, and whoever mounts it here leaves it so: it is part of the guest.
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
/// Messages of a smaller number than the first one here are shown on the console.
const CONSOLE: &str = "/proc/sys/kernel/printk";
const STATS: &str = "/proc/lockdep_stats";

/// Scans memory until what is found stays found: an object younger than five seconds is no suspect (`MSECS_MIN_AGE` of
/// mm/kmemleak.c), nor is one that changed since the last scan. The kernel's own line about it, of the level info, stays off the
/// console meanwhile: there it would be a crash of whatever runs, and the guest gone before anybody has read what leaked.
pub(super) fn kmemleak(call: &mut Call) -> Result<(), Stop> {
    let script = format!(
        "test -e {KMEMLEAK} || mount -t debugfs debugfs /sys/kernel/debug || exit 1; \
         set -- $(cat {CONSOLE}); trap \"echo $1 > {CONSOLE}\" EXIT; echo 6 > {CONSOLE} || exit 1; \
         for age in 6 1; do sleep $age; echo scan > {KMEMLEAK} || exit 1; done; cat {KMEMLEAK}"
    );
    let argv = ["sh", "-c", &script].map(String::from).to_vec();
    let found = call.must_run_program("scan", &Program { argv, ..Program::default() })?;
    let leaks = leaks(&found)?;
    call.context.metrics.push(Metric { name: "leaks".into(), unit: "count".into(), value: leaks.len() as f64 });
    let Some(first) = leaks.first() else { return Ok(()) };
    let what = first.join("; ");
    let lines: Vec<String> = leaks.iter().flatten().map(ToString::to_string).collect();
    call.context.evidence.push(Evidence { name: "kmemleak".into(), lines });
    Err(Stop::Failed(format!("{} objects that nothing points to any more, the first: {what}", leaks.len())))
}

/// Requires that lockdep still looks at every lock, and records how much it knows.
pub(super) fn lockdep(call: &mut Call) -> Result<(), Stop> {
    let stats = call.must_run("stats", &["cat", STATS])?;
    if number(&stats, "debug_locks")? != 1.0 {
        return Err(Stop::Failed(format!("lockdep has turned itself off ({STATS}: debug_locks is not 1)")));
    }
    for (name, label) in [("lock_classes", "lock-classes"), ("lock_dependencies", "direct dependencies")] {
        let value = number(&stats, label)?;
        call.context.metrics.push(Metric { name: name.into(), unit: "count".into(), value });
    }
    Ok(())
}

/// The objects of `/sys/kernel/debug/kmemleak`, each with its first lines.
fn leaks(found: &str) -> Result<Vec<Vec<&str>>, Stop> {
    let mut leaks: Vec<Vec<&str>> = Vec::new();
    for line in found.lines() {
        match leaks.last_mut() {
            _ if line.starts_with("unreferenced object ") => leaks.push(vec![line]),
            Some(leak) => leak.push(line.trim()),
            None => return Err(Stop::Failed(format!("{KMEMLEAK} cannot be read: `{line}`"))),
        }
    }
    Ok(leaks)
}

/// The number behind `label:` in `/proc/lockdep_stats`.
fn number(stats: &str, label: &str) -> Result<f64, Stop> {
    let line = stats.lines().find_map(|line| line.trim().strip_prefix(label)?.strip_prefix(':'));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).ok_or_else(|| Stop::Failed(format!("{STATS} has no number `{label}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_told_with_its_trace() {
        let found = "unreferenced object 0xffff888102b1b000 (size 512):\n  comm \"rdma\", pid 123, jiffies 4294938741\n  \
                     backtrace (crc 0):\n    rxe_newlink+0x10/0x20\nunreferenced object 0xffff888102b1c000 (size 8):\n";
        let leaks = leaks(found).unwrap();
        assert_eq!(leaks.len(), 2);
        assert!(leaks[0].contains(&"rxe_newlink+0x10/0x20"));
        assert!(super::leaks("").unwrap().is_empty());
        assert!(super::leaks("Kernel memory leak detector disabled\n").is_err());
    }

    #[test]
    fn numbers_of_lockdep() {
        let stats =
            " lock-classes:                         1531 [max: 8192]\n debug_locks:                             1\n";
        assert_eq!(number(stats, "lock-classes").unwrap(), 1531.0);
        assert_eq!(number(stats, "debug_locks").unwrap(), 1.0);
        assert!(number(stats, "locks").is_err() && number("", "debug_locks").is_err());
    }
}
