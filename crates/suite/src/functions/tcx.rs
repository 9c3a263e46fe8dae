//! `tcx-drop` and `tcx-drop-end`: packets lost below RXE, on purpose and by number.
//!
//! tcx at egress answers the sender with NET_XMIT_DROP (net/core/dev.c, `sch_handle_egress`), a positive value that
//! `rxe_send()` must not take for a fatal error. Dropping every Nth RoCE packet by a counter makes the loss the same
//! in every run.
//!
//! The program is assembled here ([`crate::bpf`]), so that the test needs bpftool in the guest and no compiler
//! anywhere. It is loaded and attached with nsenter and not with `ip netns exec`, which would hide `/sys/fs/bpf`.

use super::Call;
use crate::bpf;
use crate::results::Metric;
use crate::run::{Stop, push};

const HOOKS: [&str; 2] = ["egress", "ingress"];

struct Names {
    object: String,
    pin: String,
    /// `tcx_egress` or `tcx_ingress`, as bpftool calls them.
    attach: String,
    hook: String,
}

fn names(call: &Call) -> Result<Names, Stop> {
    let hook = if call.arg("hook").is_empty() { "egress" } else { call.arg("hook") };
    if !HOOKS.contains(&hook) {
        return Err(Stop::Infrastructure(format!("`hook = \"{hook}\"`: allowed are {}", HOOKS.join(" and "))));
    }
    let name = format!("drop_{}_{hook}", call.arg("device"));
    Ok(Names {
        object: format!("/run/{name}.bpf.o"),
        pin: format!("/sys/fs/bpf/{name}"),
        attach: format!("tcx_{hook}"),
        hook: hook.into(),
    })
}

fn bpftool(call: &mut Call, part: &str, words: &[&str]) -> Result<String, Stop> {
    let netns = call.arg("netns");
    let enter = format!("--net=/run/netns/{netns}");
    let prefix: &[&str] = if netns.is_empty() { &["bpftool"] } else { &["nsenter", &enter, "bpftool"] };
    let argv: Vec<String> = [prefix, words].concat().into_iter().map(String::from).collect();
    call.must_run(part, &argv.iter().map(String::as_str).collect::<Vec<_>>())
}

pub(super) fn attach(call: &mut Call) -> Result<(), Stop> {
    let (names, every) = (names(call)?, call.number("every")?);
    let every = i32::try_from(every).ok().filter(|every| *every >= 2);
    let every = every.ok_or_else(|| Stop::Infrastructure("`every` must be from 2 to 2147483647".into()))?;
    let object = bpf::drop_every(&names.hook, every);
    push(call.context, call.role, &names.object, &object, 0o644, call.limit)?;
    bpftool(call, "load", &["prog", "load", &names.object, &names.pin])?;
    let device = call.arg("device").to_string();
    bpftool(call, "attach", &["net", "attach", &names.attach, "pinned", &names.pin, "dev", &device])?;
    Ok(())
}

pub(super) fn detach(call: &mut Call) -> Result<(), Stop> {
    let names = names(call)?;
    let device = call.arg("device").to_string();
    // The counters sit in the program's only map.
    let shown = bpftool(call, "show", &["--json", "prog", "show", "pinned", &names.pin])?;
    let counters = map_id(&shown).and_then(|id| {
        let dump = bpftool(call, "dump", &["--json", "map", "dump", "id", &id.to_string()])?;
        counters(&dump)
    });
    bpftool(call, "detach", &["net", "detach", &names.attach, "dev", &device])?;
    call.must_run("remove", &["rm", &names.pin, &names.object])?;
    let (seen, dropped) = counters?;
    for (name, value) in [("roce_packets_seen", seen), ("roce_packets_dropped", dropped)] {
        call.context.metrics.push(Metric { name: name.into(), unit: "count".into(), value: value as f64 });
    }
    Ok(())
}

/// The first map of `bpftool --json prog show`.
fn map_id(shown: &str) -> Result<u64, Stop> {
    let value: serde_json::Value = serde_json::from_str(shown).unwrap_or_default();
    value["map_ids"][0].as_u64().ok_or_else(|| Stop::Failed(format!("bpftool shows no map of the program: {shown}")))
}

/// Packets seen and dropped, from `bpftool --json map dump`: one entry whose value is two 64-bit counters, as bytes.
fn counters(dump: &str) -> Result<(u64, u64), Stop> {
    let value: serde_json::Value = serde_json::from_str(dump).unwrap_or_default();
    let bytes: Option<Vec<u8>> = value[0]["value"].as_array().and_then(|bytes| {
        bytes.iter().map(|byte| u8::from_str_radix(byte.as_str()?.trim_start_matches("0x"), 16).ok()).collect()
    });
    let bytes = bytes.filter(|bytes| bytes.len() == 16);
    let bytes = bytes.ok_or_else(|| Stop::Failed(format!("bpftool's map dump holds no two counters: {dump}")))?;
    let word = |at: usize| bytes[at..at + 8].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    Ok((word(0), word(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpftool_output() {
        let dump = std::fs::read_to_string("tests/data/bpftool/map-dump.json").unwrap();
        assert_eq!(counters(&dump).unwrap(), (1070, 66));
        let shown = std::fs::read_to_string("tests/data/bpftool/prog-show.json").unwrap();
        assert_eq!(map_id(&shown).unwrap(), 6);
        assert!(counters("[]").is_err() && map_id("{}").is_err() && counters("").is_err());
    }
}
