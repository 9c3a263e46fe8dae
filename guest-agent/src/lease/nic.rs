//! A NIC of which queues are leased: what it needs for that, and what it was before, for when the last lease has ended.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use protocol::{Failure, FailureKind};

use super::steer;
use crate::kernel::links::{self, Interface};
use crate::kernel::netdev::{self, RxQueue};
use crate::kernel::rings::{self, Split};
use crate::kernel::{ntuple, rss};
use crate::serve::answer::{failed, failure};

/// A prepared NIC.
#[derive(Debug)]
pub struct Nic {
    /// As it was found.
    pub link: Interface,
    ntuple: bool,
    split: Split,
    table: Vec<u32>,
    /// Files under `/proc/sys` and what they held.
    sysctls: Vec<(String, String)>,
}

/// The interface, or who is there instead.
pub fn find(name: &str) -> Result<Interface, Failure> {
    let all = links::all().map_err(|error| failed("listing network links", &error))?;
    let names: Vec<&str> = all.iter().map(|link| link.name.as_str()).collect();
    let missing = || format!("there is no interface {name} (there are {})", names.join(", "));
    all.iter().find(|link| link.name == name).cloned().ok_or_else(|| failure(FailureKind::NotFound, missing()))
}

/// Its receive queues.
pub fn queues(link: &Interface) -> Result<Vec<RxQueue>, Failure> {
    netdev::rx_queues(link.index)
        .map_err(|error| failed(&format!("asking for the receive queues of {}", link.name), &error))
}

/// The files that say whether what an interface receives may be forwarded.
pub fn forwarding(name: &str) -> [String; 2] {
    [format!("/proc/sys/net/ipv4/conf/{name}/forwarding"), format!("/proc/sys/net/ipv6/conf/{name}/force_forwarding")]
}

impl Nic {
    /// Turns steering by rules and header split on. Whatever was turned on is turned off again if the rest fails.
    pub fn prepare(link: Interface) -> Result<Nic, Failure> {
        let name = link.name.clone();
        let step = |what: &str, error: io::Error| failed(&format!("{name}: {what}"), &error);
        let splits = rings::splits().map_err(|error| step("asking for header split", error))?;
        let Some((_, split)) = splits.into_iter().find(|(index, _)| *index == link.index) else {
            return Err(failure(FailureKind::Invalid, format!("{name} cannot split headers from payload")));
        };
        let ntuple = ntuple::enabled(&name).map_err(|error| step("asking for flow steering", error))?;
        let table = rss::table(&name).map_err(|error| step("asking how it spreads frames over queues", error))?;
        let nic = Nic { link, ntuple, split, table, sysctls: Vec::new() };
        let made = || -> Result<(), Failure> {
            if !ntuple {
                ntuple::enable(&name, true).map_err(|error| step("turning on flow steering", error))?;
            }
            if split == Split::Off {
                let index = nic.link.index;
                rings::set_split(index, Split::On).map_err(|error| step("turning on header split", error))?;
            }
            Ok(())
        };
        made().inspect_err(|_| drop(nic.restore()))?;
        Ok(nic)
    }

    /// Lets the host forward what the NIC receives, by IPv4 and IPv6.
    pub fn allow_forwarding(&mut self) -> Result<(), Failure> {
        for file in forwarding(&self.link.name) {
            if self.sysctls.iter().any(|(known, _)| *known == file) {
                continue;
            }
            let old = fs::read_to_string(&file).map_err(|error| failed(&format!("reading {file}"), &error))?;
            fs::write(&file, "1").map_err(|error| failed(&format!("writing 1 to {file}"), &error))?;
            self.sysctls.push((file, old.trim_end().into()));
        }
        Ok(())
    }

    /// Keeps what no rule steers away from these queues.
    pub fn keep_off(&self, leased: &BTreeSet<u32>) -> Result<(), Failure> {
        let all: Vec<u32> = queues(&self.link)?.iter().map(|queue| queue.id).collect();
        let table = steer::spread(&self.table, &all, leased);
        rss::set_table(&self.link.name, &table).map_err(|error| {
            failed(&format!("{}: spreading other frames over the queues that are not leased", self.link.name), &error)
        })
    }

    /// Whether the NIC is still the one that was prepared.
    pub fn is_there(&self) -> bool {
        links::all()
            .is_ok_and(|all| all.iter().any(|link| (link.index, &link.name) == (self.link.index, &self.link.name)))
    }

    /// Undoes [`Nic::prepare`] and what came after; returns what could not be undone. A NIC that has gone took it all along.
    pub fn restore(&self) -> Vec<String> {
        if !self.is_there() {
            return Vec::new();
        }
        let name = &self.link.name;
        let mut left = Vec::new();
        let mut note = |what: &str, outcome: io::Result<()>| {
            if let Err(error) = outcome {
                left.push(format!("{name}: {what}: {error}"));
            }
        };
        let queues = netdev::rx_queues(self.link.index).map_or(0, |queues| queues.len());
        let table = if rss::is_default(&self.table, queues) {
            rss::reset_table(name)
        } else {
            rss::set_table(name, &self.table)
        };
        note("setting the table of queues to what it was", table);
        if self.split == Split::Off {
            note("turning header split off", rings::set_split(self.link.index, Split::Off));
        }
        if !self.ntuple {
            note("turning flow steering off", ntuple::enable(name, false));
        }
        for (file, old) in &self.sysctls {
            note(file, fs::write(file, old));
        }
        left
    }
}
