//! The data lines of `rping -v` (rdma-core 56), each checked for its content.
//!
//! Ping number N carries `rdma-ping-N: ` and then letters from `A` + N on, round and round up to `z`; the client prints
//! what came back as `ping data: …`, the server what it got as `server ping data: …`. Since the text is known, a
//! corrupted transfer is found even when rping itself was content.

use super::{Parsed, metric};
use crate::results::Evidence;

const FIRST: u8 = b'A';
const LAST: u8 = b'z';

pub(super) fn parse(output: &str) -> Result<Parsed, String> {
    let mut lines = Vec::new();
    for line in output.lines() {
        let Some(data) = line.strip_prefix("server ").unwrap_or(line).strip_prefix("ping data: ") else { continue };
        check(lines.len(), data).map_err(|e| format!("line `{line}`: {e}"))?;
        lines.push(line.to_string());
    }
    if lines.is_empty() {
        return Err("no line `ping data: …`: rping sent nothing (or ran without -v)".into());
    }
    let metrics = vec![metric("pings", "count", lines.len() as f64)];
    Ok(Parsed { metrics, evidence: vec![Evidence { name: "ping data".into(), lines }] })
}

/// Whether `data` is what ping `number` (from 0) must carry, whatever its length.
fn check(number: usize, data: &str) -> Result<(), String> {
    let head = format!("rdma-ping-{number}: ");
    let letters = data.strip_prefix(&head).ok_or_else(|| format!("`{head}` is due here"))?;
    let span = usize::from(LAST - FIRST) + 1;
    for (at, found) in letters.bytes().enumerate() {
        let due = FIRST + ((number + at) % span) as u8;
        if found != due {
            return Err(format!("byte {} is {:?}, not {:?}", head.len() + at, found as char, due as char));
        }
    }
    if letters.is_empty() { Err("it carries no letters".into()) } else { Ok(()) }
}
