//! `agent-facts`: what the agent says of its guest.

use protocol::{Event, Request};

use super::Call;
use crate::results::Metric;
use crate::run::Stop;

pub(super) fn agent_facts(call: &mut Call) -> Result<(), Stop> {
    let role = call.role;
    let info = call.context.pump(role, Request::Info, call.limit, |_, event| match event {
        Event::Info(info) => Ok(Some(info)),
        Event::Failed(failure) => Err(Stop::Failed(failure.message)),
        _ => Ok(None),
    })?;
    let expected = call.context.guest_info(role)?;
    let mut wrong = Vec::new();
    let mut compare = |what: &str, said: &str, due: &str| {
        if !due.is_empty() && said != due {
            wrong.push(format!("{what} is `{said}`, the lab started `{due}`"));
        }
    };
    compare("the kernel release", &info.kernel_release, &expected.kernel_release);
    compare("the host name", &info.hostname, &expected.name);
    if info.cpus == 0 || info.mem_kib == 0 {
        wrong.push(format!("{} processors and {} KiB of memory cannot be", info.cpus, info.mem_kib));
    }
    let prefix = if call.context.roles.len() > 1 { format!("{role}.") } else { String::new() };
    let mut metric = |name: &str, unit: &str, value: f64| {
        call.context.metrics.push(Metric { name: format!("{prefix}{name}"), unit: unit.into(), value });
    };
    metric("uptime", "s", info.uptime_us as f64 / 1e6);
    metric("memory", "KiB", info.mem_kib as f64);
    metric("cpus", "count", f64::from(info.cpus));
    if wrong.is_empty() { Ok(()) } else { Err(Stop::Failed(wrong.join("; "))) }
}
