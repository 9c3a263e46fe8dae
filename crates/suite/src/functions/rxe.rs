//! `rxe-link`: an RXE device over a netdev; `rxe-layer`: the network layer at which RXE hands packets over.
//!
//! RXE accepts any netdev, and the kernel has to, since an upstream selftest puts RXE on a TUN device that has no
//! hardware address. But between two ends of a netkit pair in mode l3 nothing can work: neither has an address, both
//! get the same port GID, every packet looks like one to itself and rping hangs. So the refusal is here, in the lab's
//! set-up, with the remedy.

use protocol::{Condition, Event, Request, Wait};
use serde::Deserialize;

use super::Call;
use crate::model::Program;
use crate::run::Stop;

/// How long the port may take to become active, in milliseconds and before the time scale.
const ACTIVE_MS: f64 = 10_000.0;

#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    link_type: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    linkinfo: LinkInfo,
}

#[derive(Deserialize, Default)]
struct LinkInfo {
    #[serde(default)]
    info_kind: String,
    #[serde(default)]
    info_data: LinkData,
}

#[derive(Deserialize, Default)]
struct LinkData {
    #[serde(default)]
    mode: String,
}

pub(super) fn link(call: &mut Call) -> Result<(), Stop> {
    let (name, device, netns) =
        (call.arg("name").to_string(), call.arg("device").to_string(), call.arg("netns").to_string());
    let within = |argv: &[&str]| -> Vec<String> {
        let prefix: &[&str] = if netns.is_empty() { &[] } else { &["ip", "netns", "exec", &netns] };
        [prefix, argv].concat().into_iter().map(String::from).collect()
    };
    let words = within(&["ip", "-details", "-json", "link", "show", "dev", &device]);
    let shown = call.must_run("show", &words.iter().map(String::as_str).collect::<Vec<_>>())?;
    if let Some(refusal) = refusal(&device, &shown)? {
        return Err(Stop::Failed(refusal));
    }
    call.must_run("modprobe", &["modprobe", "rdma_rxe"])?;
    let words = within(&["sh", "-c", ADD, &name, &device]);
    call.must_run("add", &words.iter().map(String::as_str).collect::<Vec<_>>())?;
    let condition = Condition::RdmaLinkActive { name: name.clone(), netns: None };
    let timeout_ms = (ACTIVE_MS * call.context.scale) as u64;
    let request = Request::Wait(Wait { condition, timeout_ms, interval_ms: 0 });
    call.context.pump(call.role, request, call.limit, |_, event| match event {
        Event::Done => Ok(Some(())),
        Event::Failed(failure) => Err(Stop::Failed(format!("RDMA device {name} over {device}: {}", failure.message))),
        _ => Ok(None),
    })
}

/// Adds link `$0` to netdev `$1`. The name of a link that was removed, which `rdma link` does not show any more, is taken until the
/// last reference to it is gone (ENFILE, `assign_name()` in drivers/infiniband/core/device.c): for that it waits a minute.
const ADD: &str = r#"
tries=0
until said=$(rdma link add "$0" type rxe netdev "$1" 2>&1); do
    tries=$((tries + 1))
    case $said in
    *"Too many open files in system"*) test $tries -lt 300 && sleep 0.2 && continue ;;
    esac
    echo "$said" >&2
    exit 1
done
"#;

/// Where the layer is set, in the namespace of whoever looks.
const LAYER: &str = "/proc/sys/net/rxe/rxe_network_layer";

/// Sets `net.rxe.rxe_network_layer` in a namespace. A kernel without it works at layer 3 and only there.
pub(super) fn layer(call: &mut Call) -> Result<(), Stop> {
    let (layer, netns) = (call.arg("layer").to_string(), call.arg("netns").to_string());
    call.must_run("modprobe", &["modprobe", "rdma_rxe"])?;
    // /proc/sys/net shows the namespace of the process that opens it.
    let script = format!("test -e {LAYER} || exit 3; echo \"$0\" > {LAYER} && cat {LAYER}");
    let argv = ["sh", "-c", &script, &layer].map(String::from).to_vec();
    let program = Program { argv, netns: (!netns.is_empty()).then_some(netns), ..Program::default() };
    let (now, exit) = call.try_program("set", &program)?;
    match exit.code {
        Some(3) if layer == "3" => Ok(()),
        Some(3) => Err(Stop::Failed(format!("this kernel has no {LAYER}: its RXE works at layer 3 only"))),
        Some(0) if now.trim() == layer => Ok(()),
        _ => {
            let said = call.context.ending(&format!("{}-set", call.label), &exit);
            Err(Stop::Failed(format!("{LAYER} does not take {layer}: {said}")))
        }
    }
}

/// Why RXE cannot work over a netdev, from `ip -details -json link show`.
fn refusal(device: &str, shown: &str) -> Result<Option<String>, Stop> {
    let links: Vec<Link> = serde_json::from_str(shown)
        .map_err(|e| Stop::Failed(format!("`ip -details -json link show dev {device}` cannot be read: {e}")))?;
    let Some(link) = links.first() else {
        return Err(Stop::Failed(format!("`ip -details -json link show dev {device}` shows no link")));
    };
    let info = &link.linkinfo;
    if info.info_kind == "netkit" && info.info_data.mode == "l3" {
        return Ok(Some(format!(
            "netdev {device} is a netkit device in mode l3: it has no hardware address, so RXE takes every packet of \
             its peer for its own and nothing connects. Create the pair with `mode l2`"
        )));
    }
    if link.link_type == "none" || link.address == "00:00:00:00:00:00" {
        return Ok(Some(format!(
            "netdev {device} ({}) has no hardware address, so RXE devices over it and over its peer cannot tell each \
             other apart. Use a netdev of link type ether",
            if info.info_kind.is_empty() { "no kind" } else { &info.info_kind }
        )));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &str) -> Option<String> {
        let shown = std::fs::read_to_string(format!("tests/data/iproute2/{file}")).unwrap();
        refusal("nk0", &shown).unwrap()
    }

    #[test]
    fn real_links() {
        assert_eq!(of("netkit-l2.json"), None);
        assert_eq!(of("virtio-net.json"), None);
        assert!(of("netkit-l3.json").unwrap().contains("mode l3"));
        assert!(of("tun.json").unwrap().contains("no hardware address"));
        assert!(refusal("nk0", "Device \"nk0\" does not exist.").is_err());
        assert!(refusal("nk0", "[]").is_err());
    }
}
