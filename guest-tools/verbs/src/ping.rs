//! What rping does, over any memory: the other end READs what is here and WRITEs it back to another place, again and again.

use anyhow::Result;
use serde_json::json;

use crate::buffer::Kind;
use crate::device::ALL_ACCESS;
use crate::ffi;
use crate::pattern;
use crate::report::{Report, status_name};
use crate::transfer::Client;

/// Pings `count` times with `size` bytes.
pub fn ping(
    client: &mut Client,
    local: Kind,
    remote: Kind,
    count: usize,
    size: usize,
    report: &mut Report,
) -> Result<()> {
    let length = size.next_multiple_of(4096) + 4096;
    let (mut source, mut sink) = (client.region(local, length)?, client.region(local, length)?);
    client.remote(remote, length, ALL_ACCESS)?;
    for number in 0..count {
        let (key, stale) = (client.fresh_key(), client.fresh_key());
        // Another odd place every time.
        let at = (number * 97) % 4096;
        source.buffer()?.access(|memory| pattern::fill(memory, key, at, size))?;
        sink.buffer()?.access(|memory| pattern::fill(memory, stale, at, size))?;
        client.control.ask(&format!("fill {stale} {at} {size}"))?;
        let place = |iova: u64, rkey: u32| format!("{at} {} {rkey} {size}", iova + at as u64);
        let read = format!("run {} {}", ffi::WR_READ, place(source.iova, source.rkey()));
        let write = format!("run {} {}", ffi::WR_WRITE, place(sink.iova, sink.rkey()));
        let mut status = client.control.ask_one(&read)?;
        let mut wrong = client.control.ask_one(&format!("check {key} {at} {size}"))?;
        if status == 0 {
            status = client.control.ask_one(&write)?;
        }
        wrong += sink.buffer()?.access(|memory| pattern::mismatches(memory, key, at, size))?;
        let name = format!("ping {number} {local} {remote}");
        let facts = json!({ "operation": "ping", "bytes": size, "status": status_name(u32::try_from(status)?) });
        report.case(&name, status == 0 && wrong == 0, wrong, 2 * size as u64, facts);
        if status != 0 {
            client.reconnect()?;
        }
    }
    Ok(())
}
