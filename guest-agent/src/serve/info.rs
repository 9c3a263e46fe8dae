//! Who this guest is.

use std::fs;

use protocol::{BootReport, Info};

use crate::proc;

/// Answers `Info`.
pub fn info(boot: &BootReport) -> Info {
    let name = rustix::system::uname();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    Info {
        kernel_release: name.release().to_string_lossy().into_owned(),
        kernel_version: name.version().to_string_lossy().into_owned(),
        hostname: name.nodename().to_string_lossy().into_owned(),
        uptime_us: proc::uptime_us(),
        mem_kib: total.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0),
        cpus: proc::cpus(),
        agent_build: super::BUILD.into(),
        boot: boot.clone(),
    }
}
