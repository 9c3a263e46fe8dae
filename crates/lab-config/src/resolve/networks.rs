//! Networks and the faults on their links.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::errors::Diag;
use crate::file::{At, FaultTable, LinkTable, Name, NetworkTable, Percent};
use crate::model::{Fault, Link, Network};

use super::{Resolver, text};

/// MTU of a network that sets none: Ethernet's.
pub(super) const DEFAULT_MTU: u32 = 1500;
pub(super) const DEFAULT_SEED: u64 = 1;
const LONGEST_DELAY: Duration = Duration::from_secs(60);

pub(super) fn resolve(r: &mut Resolver<'_>) -> BTreeMap<String, Network> {
    let file = r.file;
    let boots = |name: &str| file.lab.guests.as_ref().is_none_or(|g| g.get().iter().any(|n| n.get().0 == name));
    let mut networks = BTreeMap::new();
    for (name, table) in &file.network {
        links(r, name, table);
        // A profile that leaves a guest out need not repeat the network without its links.
        let links = table.link.iter().filter(|l| boots(&l.from.get().0) && boots(&l.to.get().0));
        let links = links.map(|l| Link { from: text(&l.from), to: text(&l.to), fault: fault(r, &l.fault) }).collect();
        networks.insert(
            text(name),
            Network {
                name: text(name),
                mtu: table.mtu.as_ref().map_or(DEFAULT_MTU, |mtu| *mtu.get()),
                seed: table.seed.unwrap_or(DEFAULT_SEED),
                fault: fault(r, &table.fault),
                links,
            },
        );
    }
    networks
}

fn links(r: &mut Resolver<'_>, network: &At<Name>, table: &NetworkTable) {
    let file = r.file;
    let mut seen: Vec<&LinkTable> = Vec::new();
    for link in &table.link {
        for end in [&link.from, &link.to] {
            if r.refers_to("guest", end, &file.guest) && !file.guest[end].nic.iter().any(|n| n.network == *network) {
                let problem = format!("guest `{}` has no NIC on network `{}`", end.get().0, network.get().0);
                let here: Vec<String> = file
                    .guest
                    .iter()
                    .filter(|(_, g)| g.nic.iter().any(|n| n.network == *network))
                    .map(|(n, _)| text(n))
                    .collect();
                let here = if here.is_empty() { "none, as no guest is on it".into() } else { here.join(", ") };
                r.report(Diag::new(end.span(), problem).allowed(here));
            }
        }
        let (from, to) = (&link.from, &link.to);
        if from == to {
            let diag = Diag::new(to.span(), format!("a link from `{}` to itself", from.get().0));
            r.report(diag.allowed("another guest of the network"));
        }
        match seen.iter().find(|l| l.from == *from && l.to == *to) {
            Some(first) => r.report(
                Diag::new(from.span(), format!("the link from `{}` to `{}` is given twice", from.get().0, to.get().0))
                    .place("first given at", first.from.span()),
            ),
            None => seen.push(link),
        }
    }
}

fn fault(r: &mut Resolver<'_>, table: &FaultTable) -> Fault {
    let share = |p: &Option<At<Percent>>| p.as_ref().map_or(0.0, |p| p.get().0);
    let delay = table.delay.as_ref().map_or(Duration::ZERO, |d| d.get().0);
    let jitter = table.jitter.as_ref().map_or(Duration::ZERO, |j| j.get().0);
    if let Some(given) = table.delay.as_ref().filter(|_| delay > LONGEST_DELAY) {
        r.report(Diag::new(given.span(), "a delay of more than a minute").allowed("at most \"60s\""));
    }
    if let Some(given) = table.jitter.as_ref().filter(|_| jitter > delay) {
        let diag =
            Diag::new(given.span(), "the jitter is larger than the delay, so frames would arrive before they left");
        r.report(match &table.delay {
            Some(delay) => diag.allowed("at most the delay").place("the delay is at", delay.span()),
            None => diag.allowed("none without a `delay`"),
        });
    }
    Fault {
        loss: share(&table.loss),
        delay,
        jitter,
        reorder: share(&table.reorder),
        duplicate: share(&table.duplicate),
        corrupt: share(&table.corrupt),
        partition: table.partition.unwrap_or(false),
    }
}
