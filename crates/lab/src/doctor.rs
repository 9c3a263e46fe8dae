//! What this host can do for a lab, and the remedy for each thing missing.
//!
//! Most of it is found out by [`host`]; the namespaces by the toolroot, which is what needs them, by making them.

use anyhow::Result;
use artifacts::Cache;
use toolroot::NamespaceSupport;

pub use host::{Finding, Status};

/// Looks at everything.
///
/// # Errors
/// When the cache cannot be opened, which nothing works without.
pub fn examine() -> Result<Vec<Finding>> {
    let cache = Cache::open()?;
    let mut findings = vec![namespaces(toolroot::probe_namespaces())];
    findings.extend(host::examine(cache.root()));
    Ok(findings)
}

/// Whether a lab cannot be brought up with this.
pub fn blocks(finding: &Finding) -> bool {
    finding.status == Status::Missing
}

fn namespaces(support: NamespaceSupport) -> Finding {
    match support {
        NamespaceSupport::User => Finding::ok("namespaces", "user namespaces work: builds need no root"),
        NamespaceSupport::RootOnly { why } => Finding::limited(
            "namespaces",
            format!("user namespaces are refused ({why}); as root the lab does without"),
            "nothing to do as root; an ordinary user needs user namespaces",
        ),
        NamespaceSupport::Forbidden { why, remedy } => Finding::missing("namespaces", why, remedy),
    }
}
