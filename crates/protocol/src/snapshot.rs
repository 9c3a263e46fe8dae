//! What a test could leave behind in a guest, recorded before and after it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The state of a guest that tests must leave as they found it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Named network namespaces.
    pub netns: Vec<String>,
    /// Network links of the agent's own and of every named namespace.
    pub links: Vec<Link>,
    /// Loaded modules.
    pub modules: Vec<String>,
    /// Chosen sysctls, name (dotted) and value.
    pub sysctls: Vec<(String, String)>,
    /// RDMA devices, `device netdev`.
    pub rdma_links: Vec<String>,
    /// Flow steering rules, `device rule`.
    pub ntuple: Vec<String>,
    /// Mount points, `path type`.
    pub mounts: Vec<String>,
    /// Programs that run, apart from the agent and the kernel's own threads.
    pub processes: Vec<Process>,
    /// What could not be recorded, and why.
    pub notes: Vec<String>,
}

/// A network link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// Namespace name; empty for the agent's own.
    pub netns: String,
    /// Interface name.
    pub name: String,
    /// Bytes of payload it carries at most.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
}

/// A running program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Command line, or the name when there is none.
    pub command: String,
    /// Control group, as in `/proc/PID/cgroup`.
    pub cgroup: String,
}

/// One difference between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Leak {
    /// `netns`, `link`, `module`, `sysctl`, `rdma-link`, `ntuple`, `mount` or `process`.
    pub kind: String,
    /// What is new, gone or changed, for people.
    pub what: String,
}

impl Snapshot {
    /// What differs from an earlier snapshot. Modules only count when they are gone or new, processes only when new.
    pub fn leaks_since(&self, before: &Snapshot) -> Vec<Leak> {
        let mut leaks = Vec::new();
        sets(&mut leaks, "netns", &before.netns, &self.netns);
        let name = |link: &Link| {
            let place = if link.netns.is_empty() { String::new() } else { format!(" in netns {}", link.netns) };
            let state = format!("mtu {}, {}", link.mtu, if link.up { "up" } else { "down" });
            (format!("{}{place}", link.name), state)
        };
        maps(&mut leaks, "link", before.links.iter().map(name), self.links.iter().map(name));
        sets(&mut leaks, "module", &before.modules, &self.modules);
        maps(&mut leaks, "sysctl", before.sysctls.iter().cloned(), self.sysctls.iter().cloned());
        sets(&mut leaks, "rdma-link", &before.rdma_links, &self.rdma_links);
        sets(&mut leaks, "ntuple", &before.ntuple, &self.ntuple);
        sets(&mut leaks, "mount", &before.mounts, &self.mounts);
        let known: BTreeSet<u32> = before.processes.iter().map(|process| process.pid).collect();
        for process in self.processes.iter().filter(|process| !known.contains(&process.pid)) {
            leaks.push(Leak { kind: "process".into(), what: format!("new: {} {}", process.pid, process.command) });
        }
        leaks
    }
}

fn sets(leaks: &mut Vec<Leak>, kind: &str, before: &[String], after: &[String]) {
    let pairs = |list: &[String]| list.iter().map(|name| (name.clone(), String::new())).collect::<Vec<_>>();
    maps(leaks, kind, pairs(before).into_iter(), pairs(after).into_iter());
}

fn maps(
    leaks: &mut Vec<Leak>,
    kind: &str,
    before: impl Iterator<Item = (String, String)>,
    after: impl Iterator<Item = (String, String)>,
) {
    let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) = (before.collect(), after.collect());
    for (name, value) in &after {
        match before.get(name) {
            None => leaks.push(Leak { kind: kind.into(), what: format!("new: {name}") }),
            Some(old) if old != value => {
                leaks.push(Leak { kind: kind.into(), what: format!("changed: {name} from {old:?} to {value:?}") });
            }
            Some(_) => {}
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        leaks.push(Leak { kind: kind.into(), what: format!("gone: {name}") });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, up: bool) -> Link {
        Link { netns: String::new(), name: name.into(), mtu: 1500, up }
    }

    #[test]
    fn a_clean_test_leaves_no_difference() {
        let state = Snapshot { links: vec![link("lo", true)], modules: vec!["rdma_rxe".into()], ..Snapshot::default() };
        assert_eq!(state.leaks_since(&state.clone()), []);
    }

    #[test]
    fn every_sort_of_difference_is_named() {
        let before = Snapshot {
            netns: vec!["kept".into(), "lost".into()],
            links: vec![link("lo", true), link("eth0", true)],
            sysctls: vec![("net.ipv4.ip_forward".into(), "0".into())],
            processes: vec![Process { pid: 7, command: "sh".into(), cgroup: "/".into() }],
            ..Snapshot::default()
        };
        let after = Snapshot {
            netns: vec!["kept".into(), "left".into()],
            links: vec![link("lo", true), link("eth0", false)],
            sysctls: vec![("net.ipv4.ip_forward".into(), "1".into())],
            processes: vec![Process { pid: 9, command: "rping -s".into(), cgroup: "/lab/t".into() }],
            ..Snapshot::default()
        };
        let said: Vec<String> =
            after.leaks_since(&before).into_iter().map(|leak| format!("{} {}", leak.kind, leak.what)).collect();
        assert_eq!(
            said,
            [
                "netns new: left",
                "netns gone: lost",
                "link changed: eth0 from \"mtu 1500, up\" to \"mtu 1500, down\"",
                "sysctl changed: net.ipv4.ip_forward from \"0\" to \"1\"",
                "process new: 9 rping -s",
            ]
        );
    }
}
