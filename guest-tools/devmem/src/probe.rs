//! `lab-devmem probe`: what this kernel and this NIC can do with device memory, by trying it.
//!
//! Binding for sending disturbs nobody. Binding for receiving restarts a queue, the highest one unless told otherwise, so it
//! is tried only on queues that nobody has bound.

use anyhow::Result;
use serde_json::{Value, json};

use crate::dmabuf::{Buffer, Memory};
use crate::netdev::{self, Ask, Netdev, Split};
use crate::refusal::{self, Refusal};

/// Enough for the fullest ring of the NICs at hand: 1024 pages, and what the pool keeps.
const SIZE: usize = 16 << 20;

/// What was found out, for programs.
///
/// # Errors
/// When there is no such netdev.
pub fn probe(name: &str, queue: Option<u32>) -> Result<Value> {
    let netdev = Netdev::find(name)?;
    let mut facts = json!({ "netdev": name });
    facts["kernel"] = json!(rustix::system::uname().release().to_string_lossy());
    let mut buffer = None;
    for memory in [Memory::Heap, Memory::Udmabuf] {
        let made = Buffer::new(memory, SIZE);
        facts[memory.to_string()] = match &made {
            Ok(_) => json!({ "ok": true }),
            Err(error) => json!({ "ok": false, "why": format!("{error:#}") }),
        };
        buffer = made.ok().or(buffer);
    }
    match netdev::rings(&netdev)? {
        Ok(rings) => {
            let split = match rings.split {
                Split::On => "on",
                Split::Off => "off",
                Split::Unknown => "unknown",
            };
            facts["tcp_data_split"] = json!(split);
            facts["hds_thresh"] = json!(rings.threshold);
        }
        Err(refusal) => facts["tcp_data_split"] = refused(&refusal),
    }
    let queues = match netdev::rx_queues(&netdev)? {
        Ok(queues) => queues,
        Err(refusal) => {
            facts["rx_queues"] = refused(&refusal);
            return Ok(facts);
        }
    };
    facts["rx_queues"] = json!(queues.len());
    facts["bound_queues"] = json!(queues.iter().filter(|q| q.binding.is_some()).map(|q| q.id).collect::<Vec<_>>());
    facts["leased_queues"] = json!(queues.iter().filter(|q| q.leased).map(|q| q.id).collect::<Vec<_>>());
    let Some(buffer) = buffer else { return Ok(facts) };
    facts["bind_tx"] = tried(&netdev::bind_tx(netdev.index, buffer.fd())?.map(drop));
    let free = queues.iter().rfind(|q| q.binding.is_none() && !q.taken && queue.is_none_or(|queue| queue == q.id));
    facts["bind_rx"] = match free {
        Some(queue) => {
            let ask = Ask { index: netdev.index, dmabuf: buffer.fd(), queues: &[queue.id], page_size: None };
            let count = Some(queues.len());
            let bound = netdev::bind_rx(&ask)?.map(drop);
            let mut found = tried(&bound);
            found["queue"] = json!(queue.id);
            if let Err(refusal) = bound {
                found["advice"] = json!(refusal.advice(name, &[queue.id], count));
            }
            found
        }
        None => json!({ "ok": false, "why": "no such queue is free" }),
    };
    Ok(facts)
}

fn tried(bound: &Result<(), Refusal>) -> Value {
    match bound {
        Ok(()) => json!({ "ok": true }),
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: &Refusal) -> Value {
    json!({ "ok": false, "errno": refusal::name(refusal.errno), "why": refusal.words })
}

/// What was found out, for people: a line each.
pub fn text(facts: &Value) -> String {
    let mut text = String::new();
    for (name, fact) in facts.as_object().into_iter().flatten() {
        let said = match (fact.get("ok").and_then(Value::as_bool), fact.as_str()) {
            (Some(true), _) => "yes".to_owned(),
            (Some(false), _) => format!(
                "no, {}",
                [&fact["errno"], &fact["why"]]
                    .iter()
                    .filter_map(|v| v.as_str())
                    .filter(|s| !s.is_empty())
                    .collect::<Vec<_>>()
                    .join(": ")
            ),
            (None, Some(word)) => word.to_owned(),
            (None, None) => fact.to_string(),
        };
        let queue = fact.get("queue").map_or(String::new(), |queue| format!(" (queue {queue})"));
        text.push_str(&format!("{name}: {said}{queue}\n"));
        if let Some(advice) = fact.get("advice").and_then(Value::as_str) {
            text.push_str(&format!("    {advice}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_read_as_lines() {
        let facts = json!({
            "netdev": "eth0", "rx_queues": 16, "hds_thresh": null, "bound_queues": [1, 2],
            "bind_tx": { "ok": true },
            "bind_rx": { "ok": false, "errno": "EINVAL", "why": "tcp-data-split is disabled", "queue": 15, "advice": "run x" },
        });
        let text = text(&facts);
        for line in [
            "netdev: eth0\n",
            "rx_queues: 16\n",
            "bound_queues: [1,2]\n",
            "bind_tx: yes\n",
            "bind_rx: no, EINVAL: tcp-data-split is disabled (queue 15)\n    run x\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
