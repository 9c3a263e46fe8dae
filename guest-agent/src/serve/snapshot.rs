//! Records what tests must leave as they found it.

use std::fs;

use protocol::{Link, Process, Snapshot};

use crate::kernel::{links, netns, ntuple, rdma};
use crate::proc;
use crate::serve::answer::failed;

/// Sysctls that tests of networks and RDMA are known to change.
const SYSCTLS: [&str; 13] = [
    "kernel.panic_on_oops",
    "kernel.panic_on_warn",
    "net.core.bpf_jit_enable",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.optmem_max",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.ip_forward",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.all.forwarding",
    "vm.nr_hugepages",
];

/// Takes the snapshot. What cannot be read is noted in it rather than failing the rest.
pub fn take() -> Snapshot {
    let mut snapshot = Snapshot { netns: netns::names(), ..Snapshot::default() };
    add_links(&mut snapshot, None);
    for name in snapshot.netns.clone() {
        add_links(&mut snapshot, Some(&name));
    }
    snapshot.links.sort();
    snapshot.modules = modules();
    snapshot.sysctls = SYSCTLS.iter().filter_map(|name| Some((name.to_string(), sysctl(name)?))).collect();
    match rdma_links() {
        Ok(links) => snapshot.rdma_links = links,
        Err(error) => snapshot.notes.push(format!("RDMA devices: {error}")),
    }
    snapshot.mounts = mounts();
    snapshot.processes = processes();
    snapshot
}

/// Adds links and flow rules of one namespace.
fn add_links(snapshot: &mut Snapshot, name: Option<&str>) {
    let found = netns::within(name, || {
        let links = links::all().map_err(|error| failed("listing network links", &error))?;
        let rules: Vec<_> = links.iter().map(|link| ntuple::rules(&link.name)).collect();
        Ok((links, rules))
    });
    let place = name.unwrap_or_default();
    let (links, rules) = match found {
        Ok(found) => found,
        // A namespace that went meanwhile, or a file in /run/netns that never was one.
        Err(failure) => return snapshot.notes.push(failure.message),
    };
    for (link, rules) in links.into_iter().zip(rules) {
        match rules {
            Ok(rules) => snapshot.ntuple.extend(rules.into_iter().map(|rule| format!("{} {rule}", link.name))),
            Err(error) => snapshot.notes.push(format!("flow rules of {}: {error}", link.name)),
        }
        snapshot.links.push(Link { netns: place.into(), name: link.name, mtu: link.mtu, up: link.up });
    }
}

fn modules() -> Vec<String> {
    let text = fs::read_to_string("/proc/modules").unwrap_or_default();
    let mut names: Vec<String> = text.lines().filter_map(|line| line.split(' ').next()).map(str::to_string).collect();
    names.sort();
    names
}

fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(text.trim_end().replace('\t', " "))
}

fn rdma_links() -> std::io::Result<Vec<String>> {
    let mut links = Vec::new();
    for device in rdma::devices()? {
        for port in rdma::ports(&device)? {
            let netdev = if port.netdev.is_empty() { "-" } else { &port.netdev };
            links.push(format!("{}/{} {netdev}", device.name, port.number));
        }
    }
    links.sort();
    Ok(links)
}

fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut mounts: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some(format!("{} {}", fields.next()?, fields.next()?))
        })
        // `ip netns` binds one per namespace, and the namespaces are told apart already.
        .filter(|mount| !mount.starts_with("/run/netns"))
        .collect();
    mounts.sort();
    mounts
}

fn processes() -> Vec<Process> {
    let me = std::process::id();
    proc::processes()
        .into_iter()
        .filter(|process| process.pid != me && !process.is_kernel_thread() && process.state != 'Z')
        .map(|process| Process { pid: process.pid, command: process.command(), cgroup: process.cgroup() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_snapshots_of_a_machine_left_alone_differ_in_nothing_but_programs() {
        let before = take();
        assert!(before.links.iter().any(|link| link.name == "lo"), "{before:?}");
        assert!(before.mounts.iter().any(|mount| mount == "/proc proc"), "{before:?}");
        let leaks = take().leaks_since(&before);
        assert!(leaks.iter().all(|leak| leak.kind == "process"), "{leaks:?}");
    }
}
