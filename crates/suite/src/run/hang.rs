//! Time ran out: busy, quiet, or the whole guest?
//!
//! The agent still answers in the first two cases, so it is asked for the processes of the test's control group twice,
//! a second apart: used CPU time tells busy from quiet, state and kernel stack tell what is being waited for.

use std::time::{Duration, Instant};

use super::clean;
use super::context::{Context, Stop};
use super::steps::pull;
use crate::results::{Hang, HangKind};

/// How long to look, before the time scale for the answers and after it for the pause between two looks.
const ANSWER: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
/// CPU time within the pause that counts as busy, in clock ticks of 10 ms.
const BUSY_TICKS: u64 = 20;
/// Processes described at most.
const DESCRIBED: usize = 16;

/// Describes what hangs in the guest that plays `role`. Must be called before the test's programs are killed.
pub(super) fn look(context: &mut Context, role: &str, step: &str, answers: bool) -> Hang {
    let quiet_ms = u64::try_from(context.last_output.elapsed().as_millis()).unwrap_or(u64::MAX);
    let current = context.current.clone();
    let last_output = current.and_then(|label| context.output(&label).map(|o| o.tail(10))).unwrap_or_default();
    let guest = context.roles.get(role).cloned().unwrap_or_default();
    let mut hang =
        Hang { kind: HangKind::Guest, guest, step: step.into(), quiet_ms, last_output, processes: Vec::new() };
    if !answers {
        return hang;
    }
    context.allow(ANSWER);
    let Ok(before) = processes(context, role) else { return hang };
    let pause = Instant::now();
    while pause.elapsed() < PAUSE {
        std::thread::sleep(Duration::from_millis(50));
    }
    let Ok(after) = processes(context, role) else { return hang };
    let used: u64 = after
        .iter()
        .map(|now| now.ticks - before.iter().find(|p| p.pid == now.pid).map_or(0, |p| p.ticks.min(now.ticks)))
        .sum();
    // A process that wants the CPU at both looks is busy even where a crowded host lets it have little.
    let wants = |list: &[Process]| list.iter().any(|p| p.state == 'R');
    let busy = used >= BUSY_TICKS || (wants(&before) && wants(&after));
    hang.kind = if busy { HangKind::Busy } else { HangKind::Quiet };
    hang.processes = after.iter().take(DESCRIBED).map(|process| describe(context, role, process)).collect();
    hang
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    name: String,
    state: char,
    ticks: u64,
}

/// The processes of the test's control group.
fn processes(context: &mut Context, role: &str) -> Result<Vec<Process>, Stop> {
    let group = format!("/lab/{}", context.scope);
    let state = clean::snapshot(context, role)?;
    let mut list = Vec::new();
    for process in state.processes.iter().filter(|process| process.cgroup.ends_with(&group)) {
        match pull(context, role, &format!("/proc/{}/stat", process.pid), None) {
            Ok(stat) => list.extend(parse_stat(&String::from_utf8_lossy(&stat))),
            // It may have ended since.
            Err(Stop::Failed(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(list)
}

/// `/proc/PID/stat` (proc_pid_stat(5)): the name stands in brackets and may hold anything, brackets too.
fn parse_stat(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, fields) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // utime and stime are fields 14 and 15 of the line; the state is the third and the first here.
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Process { pid: pid.parse().ok()?, name: name.into(), state: fields.first()?.chars().next()?, ticks })
}

fn describe(context: &mut Context, role: &str, process: &Process) -> String {
    let mut read = |file: &str| match pull(context, role, &format!("/proc/{}/{file}", process.pid), None) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    };
    // "[<0>] rdma_destroy_id+0x…": the innermost frames say enough.
    let stack: Vec<String> = read("stack")
        .lines()
        .filter_map(|line| line.split_once("] ").map(|(_, frame)| frame.split('+').next().unwrap_or(frame).to_string()))
        .take(6)
        .collect();
    let command = read("cmdline").replace('\0', " ");
    let command = if command.trim().is_empty() { format!("[{}]", process.name) } else { command.trim().to_string() };
    let place = if stack.is_empty() { String::new() } else { format!(", in {}", stack.join(" < ")) };
    let seconds = process.ticks as f64 / 100.0;
    format!("{} {command}: state {}, {seconds:.2} s of CPU time{place}", process.pid, process.state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let line =
            "812 (a) b (c)) S 1 812 812 0 -1 4194304 150 0 0 0 7 5 0 0 20 0 1 0 8123 3100672 412 18446744073709551615";
        let process = parse_stat(line).unwrap();
        assert_eq!((process.pid, process.name.as_str(), process.state, process.ticks), (812, "a) b (c)", 'S', 12));
        assert_eq!(parse_stat(""), None);
    }
}
