//! Readers of `/proc` that several requests share.

use std::fs;

use protocol::mux::Vitals;

use crate::sys;

/// A process, from `/proc/PID/stat` (Documentation/filesystems/proc.rst, table 1-4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// State letter; `Z` is a zombie.
    pub state: char,
    /// Session id.
    pub session: u32,
    /// Kernel flags (include/linux/sched.h, `PF_*`).
    pub flags: u32,
}

/// A thread of the kernel (include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;

impl Stat {
    /// Whether it is a thread of the kernel.
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// Its command line with spaces for zeroes, or its name in brackets when it has none.
    pub fn command(&self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ");
        if text.is_empty() { format!("[{}]", self.name) } else { text }
    }

    /// Its control group in the unified hierarchy.
    pub fn cgroup(&self) -> String {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_string()
    }
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name stands in parentheses and may itself hold some.
    let (pid, rest) = text.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let session = fields.nth(2)?.parse().ok()?;
    let flags = fields.nth(2)?.parse().ok()?;
    Some(Stat { pid: pid.parse().ok()?, name: name.to_string(), state, session, flags })
}

/// All processes there are, kernel threads among them.
pub fn processes() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit))
        .filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// A process; `None` if it is gone.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Time since boot and idle time, from `/proc/uptime`: two numbers of seconds with two decimals.
pub fn vitals() -> Vitals {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let mut millis = text.split_ascii_whitespace().map(|number| {
        let (seconds, rest) = number.split_once('.').unwrap_or((number, "0"));
        seconds.parse::<u64>().unwrap_or(0) * 1000 + rest.parse::<u64>().unwrap_or(0) * 10
    });
    let uptime_ms = millis.next().unwrap_or(0);
    Vitals { uptime_ms, idle_ms: millis.next().unwrap_or(0), cpus: cpus() }
}

/// Processors online.
pub fn cpus() -> u32 {
    // A list of ranges such as `0-3,5`.
    let text = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    count_list(text.trim()).max(1)
}

fn count_list(list: &str) -> u32 {
    list.split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(last.parse::<u32>().ok()?.saturating_sub(first.parse().ok()?) + 1)
        })
        .sum()
}

/// Time since the kernel started, in microseconds.
pub fn uptime_us() -> u64 {
    sys::since_boot().as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "42 (a) (b) S 1 42 40 34816 42 4194560 102 0 0 0 1 2 0 0 20 0 1 0 5 0 0";
        let stat = parse_stat(line).expect("a stat line");
        assert_eq!((stat.pid, stat.name.as_str(), stat.state, stat.session), (42, "a) (b", 'S', 40));
        assert!(!stat.is_kernel_thread());
        let thread = parse_stat("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0").expect("a stat line");
        assert!(thread.is_kernel_thread());
        assert_eq!(parse_stat("gone"), None);
    }

    #[test]
    fn processors_are_counted_from_ranges() {
        assert_eq!(count_list("0-3,5"), 5);
        assert_eq!(count_list("0"), 1);
    }

    #[test]
    fn this_process_is_among_the_processes() {
        let me = std::process::id();
        assert!(processes().iter().any(|process| process.pid == me && !process.command().is_empty()));
    }
}
