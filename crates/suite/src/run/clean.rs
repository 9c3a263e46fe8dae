//! Is a guest as it was? What a test leaves behind is found by comparing snapshots, and a guest that is not clean is
//! rebooted before the next test.
//!
//! Much of the kernel's tear-down is asynchronous (`ip netns del` returns before the namespace is gone), so a
//! difference gets some time to vanish.

use std::time::{Duration, Instant};

use protocol::{Event, FailureKind, Request, Snapshot};

use super::context::{Context, Stop};
use crate::results::Leak;

/// How long a difference may take to vanish, before the time scale.
const SETTLE: Duration = Duration::from_secs(3);
/// The same for RDMA devices, however fast the machine is: their removal waits for connections whose other end is gone
/// already, until the connection manager's own timers give up (drivers/infiniband/core/cm.c, `cm_remove_one`), which takes
/// some forty seconds.
const SETTLE_RDMA: Duration = Duration::from_secs(60);
/// Time for one snapshot.
const ANSWER: Duration = Duration::from_secs(20);

/// Records the state of a guest.
pub(super) fn snapshot(context: &mut Context, role: &str) -> Result<Snapshot, Stop> {
    context.pump(role, Request::Snapshot, Some(ANSWER), |_, event| match event {
        Event::Snapshot(snapshot) => Ok(Some(snapshot)),
        Event::Failed(failure) => Err(Stop::Infrastructure(format!("no snapshot of the guest: {}", failure.message))),
        _ => Ok(None),
    })
}

/// What ending a test's control group came to.
pub(super) enum Scope {
    /// Nothing is left; what was killed.
    Ended(Vec<String>),
    /// Something cannot even be killed, so it is stuck in the kernel; the agent's words.
    Stuck(String),
}

/// Kills what still runs in the test's control group.
pub(super) fn end_scope(context: &mut Context, role: &str) -> Result<Scope, Stop> {
    let request = Request::EndScope { scope: context.scope.clone() };
    context.pump(role, request, Some(ANSWER), |_, event| match event {
        Event::ScopeEnded { killed } => Ok(Some(Scope::Ended(killed))),
        Event::Failed(failure) if failure.kind == FailureKind::TimedOut => Ok(Some(Scope::Stuck(failure.message))),
        Event::Failed(failure) => Err(Stop::Infrastructure(format!("the test's processes: {}", failure.message))),
        _ => Ok(None),
    })
}

/// What differs from `before` and may not, once things have settled; and the state then.
pub(super) fn leaks(
    context: &mut Context,
    role: &str,
    before: &Snapshot,
    leaves: &[String],
) -> Result<(Vec<Leak>, Snapshot), Stop> {
    let guest = context.guest(role)?;
    let begun = Instant::now();
    let settle = SETTLE.mul_f64(context.scale);
    let patience = |leak: &Leak| if leak.kind == "rdma-link" { SETTLE_RDMA.max(settle) } else { settle };
    let mut pause = Duration::from_millis(50);
    loop {
        let after = snapshot(context, role)?;
        let found: Vec<Leak> = after
            .leaks_since(before)
            .into_iter()
            .filter(|leak| !leaves.iter().any(|pattern| allowed(pattern, &leak.kind, &leak.what)))
            .map(|leak| Leak { guest: guest.clone(), kind: leak.kind, what: leak.what })
            .collect();
        let elapsed = begun.elapsed();
        if found.is_empty() || found.iter().any(|leak| elapsed >= patience(leak)) {
            return Ok((found, after));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// `KIND:NAME`, either of which may end in `*`. The name is compared with what is new, gone or changed.
fn allowed(pattern: &str, kind: &str, what: &str) -> bool {
    let matches = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
        Some(head) => text.starts_with(head),
        None => text == pattern || text.strip_prefix(pattern).is_some_and(|rest| rest.starts_with(' ')),
    };
    let name = what.split_once(": ").map_or(what, |(_, name)| name);
    pattern.split_once(':').is_some_and(|(k, n)| matches(k, kind) && matches(n, name))
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn patterns() {
        for (pattern, kind, what, expected) in [
            ("module:*", "module", "new: rdma_rxe", true),
            ("module:rdma_rxe", "module", "gone: rdma_rxe", true),
            ("module:rdma", "module", "new: rdma_rxe", false),
            ("module:rdma*", "module", "new: rdma_rxe", true),
            ("*:*", "netns", "new: left", true),
            ("sysctl:net.ipv4.ip_forward", "sysctl", "changed: net.ipv4.ip_forward from \"0\" to \"1\"", true),
            ("module:*", "netns", "new: left", false),
        ] {
            assert_eq!(allowed(pattern, kind, what), expected, "{pattern} {kind} {what}");
        }
    }
}
