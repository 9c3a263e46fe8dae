//! CPU time of processes, as /proc tells it: no unsafe code, and no need to be the parent.

use std::fs;

use anyhow::{Context, Result};

/// Seconds this program's children used, as far as they have ended and been waited for; theirs are counted with them.
///
/// # Errors
/// When /proc is not there.
pub fn children() -> Result<f64> {
    read("self", 15)
}

/// Seconds process `pid` has used so far, all its threads together.
///
/// # Errors
/// When there is no such process.
pub fn of(pid: u32) -> Result<f64> {
    read(&pid.to_string(), 13)
}

/// The sum of two fields of `/proc/PID/stat`, counted as proc_pid_stat(5) does: 14 and 15 are the process's own time in
/// user and kernel mode, 16 and 17 its children's. `before` is the number of fields in front.
fn read(process: &str, before: usize) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is the program's name in parentheses, with whatever is in it.
    let (_, rest) = stat.rsplit_once(") ").with_context(|| format!("cannot make sense of {path}"))?;
    let ticks: u64 = rest.split_ascii_whitespace().skip(before - 2).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const BUSY: &str = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo; read line";

    #[test]
    fn what_a_child_uses_is_its_own_until_it_ends_and_then_ours() {
        use std::io::Read;
        use std::process::Stdio;
        let before = children().unwrap();
        let mut child =
            Command::new("sh").args(["-c", BUSY]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        assert!(of(child.id()).unwrap() > 0.0, "it used the processor and nothing was counted");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(children().unwrap() > before, "it ended and nothing was counted");
    }
}
