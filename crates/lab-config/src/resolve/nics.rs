//! Network interfaces of all guests: names, MACs and addresses that must differ from one another.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gvnic::fault::FaultPlan;

use crate::errors::Diag;
use crate::file::{At, Name, NicTable};
use crate::model::{Mac, Nic, NicModel};
use crate::source::Span;

use super::networks::{DEFAULT_MTU, DEFAULT_SEED};
use super::{Resolver, macs, text};

/// RFC 8200, section 5.
const LEAST_IPV6_MTU: u32 = 1280;

/// The NICs of every guest of the file, in the file's order of guests.
pub(super) fn resolve(r: &mut Resolver<'_>) -> Vec<Vec<Nic>> {
    let file = r.file;
    let taken = given_macs(r);
    let mut macs = macs::Allocator::new(taken.keys().copied());
    let mut addresses = BTreeMap::new();
    let mut all = Vec::new();
    for (guest, table) in &file.guest {
        let interfaces = interfaces(r, &table.nic);
        let mut nics = Vec::new();
        for (nic, interface) in table.nic.iter().zip(interfaces) {
            r.refers_to("network", &nic.network, &file.network);
            distinct_addresses(r, guest, nic, &mut addresses);
            nics.push(Nic {
                network: text(&nic.network),
                model: nic.model.unwrap_or(NicModel::Virtio),
                queues: queues(r, nic),
                faults: faults(r, nic),
                mac: nic.mac.as_ref().map_or_else(|| macs.next(&guest.get().0, &interface), |mac| *mac.get()),
                mtu: mtu(r, nic),
                addresses: nic.addresses.iter().map(|a| *a.get()).collect(),
                interface,
            });
        }
        all.push(nics);
    }
    all
}

fn given_macs(r: &mut Resolver<'_>) -> BTreeMap<Mac, Span> {
    let file = r.file;
    let mut taken: BTreeMap<Mac, (Span, &At<Name>)> = BTreeMap::new();
    for (guest, table) in &file.guest {
        for mac in table.nic.iter().filter_map(|nic| nic.mac.as_ref()) {
            match taken.get(mac.get()) {
                Some((first, other)) => {
                    let problem = format!("MAC address {} is taken by guest `{}`", mac.get(), other.get().0);
                    r.report(
                        Diag::new(mac.span(), problem)
                            .place("first given at", first.clone())
                            .note("a NIC without `mac` gets one of its own"),
                    );
                }
                None => {
                    taken.insert(*mac.get(), (mac.span(), guest));
                }
            }
        }
    }
    taken.into_iter().map(|(mac, (span, _))| (mac, span)).collect()
}

fn interfaces(r: &mut Resolver<'_>, nics: &[NicTable]) -> Vec<String> {
    let mut names: Vec<(String, Option<Span>)> = Vec::new();
    for (index, nic) in nics.iter().enumerate() {
        let span = nic.interface.as_ref().map(At::span);
        let name = nic.interface.as_ref().map_or_else(|| format!("eth{index}"), |i| i.get().0.clone());
        if let Some((_, first)) = names.iter().find(|(other, _)| *other == name) {
            let at = span.clone().unwrap_or_else(|| nic.network.span());
            let diag = Diag::new(at, format!("interface `{name}` is given twice in this guest"));
            r.report(match first {
                Some(first) => diag.place("first given at", first.clone()),
                None => diag.note("a NIC without `interface` is called eth0, eth1, … by its place in the file"),
            });
        }
        names.push((name, span));
    }
    names.into_iter().map(|(name, _)| name).collect()
}

/// Queue pairs of a gvnic unless told otherwise: what the scenario of leased queues wants.
const GVNIC_QUEUES: u32 = 16;
/// The largest MTU of a gvnic: Ethernet's usual jumbo frame.
const GVNIC_MTU: u32 = 9000;

fn queues(r: &mut Resolver<'_>, nic: &NicTable) -> u32 {
    match (nic.model.unwrap_or(NicModel::Virtio), &nic.queues) {
        (NicModel::Gvnic, queues) => queues.as_ref().map_or(GVNIC_QUEUES, |queues| *queues.get()),
        (_, None) => 1,
        (model, Some(queues)) => {
            let diag = Diag::new(queues.span(), format!("`queues` of a NIC whose model is {}", model.name()));
            r.report(diag.note("only a NIC with `model = \"gvnic\"` has queues to choose"));
            1
        }
    }
}

fn faults(r: &mut Resolver<'_>, nic: &NicTable) -> FaultPlan {
    if let Some(first) = nic.fault.first().filter(|_| nic.model != Some(NicModel::Gvnic)) {
        let model = nic.model.unwrap_or(NicModel::Virtio);
        let diag = Diag::new(first.span(), format!("`fault` of a NIC whose model is {}", model.name()));
        r.report(
            diag.note("only a NIC with `model = \"gvnic\"` has faults of its own; a network and its links have some"),
        );
        return FaultPlan::default();
    }
    if nic.fault.is_empty() {
        return FaultPlan::default();
    }
    let seed = r.file.network.get(&nic.network).and_then(|network| network.seed).unwrap_or(DEFAULT_SEED);
    FaultPlan { seed, list: nic.fault.iter().map(|fault| fault.get().0).collect() }
}

fn mtu(r: &mut Resolver<'_>, nic: &NicTable) -> u32 {
    let network = r.file.network.get(&nic.network).and_then(|n| n.mtu.as_ref());
    let most = network.map_or(DEFAULT_MTU, |mtu| *mtu.get());
    let mtu = nic.mtu.as_ref().map_or(most, |mtu| *mtu.get());
    if let Some(given) = nic.mtu.as_ref().filter(|_| mtu > most && r.file.network.contains_key(&nic.network)) {
        let problem = format!("MTU {mtu} is larger than the {most} of network `{}`", nic.network.get().0);
        let diag = Diag::new(given.span(), problem).allowed(format!("at most {most}"));
        r.report(match network {
            Some(network) => diag.place("the network's is at", network.span()),
            None => diag.note("a network that sets no `mtu` has Ethernet's 1500"),
        });
    }
    // What the network could carry beyond that is for its other NICs.
    let mtu = if nic.model == Some(NicModel::Gvnic) && nic.mtu.is_none() { mtu.min(GVNIC_MTU) } else { mtu };
    if let Some(given) = nic.mtu.as_ref().filter(|_| nic.model == Some(NicModel::Gvnic) && mtu > GVNIC_MTU) {
        let problem = format!("MTU {mtu} of a NIC whose model is gvnic");
        r.report(Diag::new(given.span(), problem).allowed(format!("at most {GVNIC_MTU}")));
    }
    if let Some(address) = nic.addresses.iter().find(|a| a.get().ip.is_ipv6()).filter(|_| mtu < LEAST_IPV6_MTU) {
        let problem = format!("an IPv6 address on an interface whose MTU is {mtu}");
        r.report(Diag::new(address.span(), problem).allowed(format!("an MTU of at least {LEAST_IPV6_MTU} for IPv6")));
    }
    mtu
}

type Taken<'a> = BTreeMap<(&'a Name, IpAddr), (Span, &'a At<Name>)>;

fn distinct_addresses<'a>(r: &mut Resolver<'_>, guest: &'a At<Name>, nic: &'a NicTable, taken: &mut Taken<'a>) {
    for address in &nic.addresses {
        let ip = address.get().ip;
        match taken.get(&(nic.network.get(), ip)) {
            Some((first, other)) => {
                let problem = format!("address {ip} is taken by guest `{}` on the same network", other.get().0);
                r.report(Diag::new(address.span(), problem).place("first given at", first.clone()));
            }
            None => {
                taken.insert((nic.network.get(), ip), (address.span(), guest));
            }
        }
    }
}
