//! Leases of receive queues, asked of a guest's agent.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::{Event, Request};
pub use protocol::{LeaseAsk, LeasedQueue, NewPod, Pod, PodAddress, QueueChoice, Traffic, Via};

use crate::client::Client;

/// How long a slow emulated guest may take: a lease restarts queues of its NIC.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks; returns the pods the answer tells of.
///
/// # Errors
/// With the agent's reason, or when it does not answer.
pub fn ask(client: &Client, guest: &str, ask: LeaseAsk) -> Result<Vec<Pod>> {
    let mut stream = client.open(guest, Request::Lease(ask))?;
    match stream.recv(PATIENCE)? {
        Some(Event::Leases(pods)) => Ok(pods),
        Some(Event::Done) => Ok(Vec::new()),
        Some(Event::Failed(failure)) => Err(failure).with_context(|| format!("guest `{guest}` refuses")),
        Some(other) => bail!("guest `{guest}` answered {other:?} to a question about leases"),
        None => bail!("guest `{guest}` did not answer a question about leases within {PATIENCE:?}"),
    }
}
