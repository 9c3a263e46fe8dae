//! The lab's networks: one switch each, and their ports by name. Ports are called `GUEST.N`, so one name says which
//! network is meant.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fabric::{Capture, Fault, Limits, LinkFault, PortConfig, PortCounters, Switch, SwitchConfig};

use crate::control::{FaultSpec, PortStatus};
use crate::launch::NetworkLaunch;

/// Every switch of the lab.
pub(crate) struct Fabric {
    switches: Vec<Switch>,
}

impl Fabric {
    /// Starts the switches; guests may be plugged in once this returns.
    ///
    /// # Errors
    /// When a switch cannot start; those that did are stopped.
    pub fn start(networks: &[NetworkLaunch]) -> Result<Self> {
        let start =
            |n: &NetworkLaunch| Switch::start(config(n)).with_context(|| format!("cannot start network `{}`", n.name));
        Ok(Fabric { switches: networks.iter().map(start).collect::<Result<_>>()? })
    }

    /// Gives frames to a port, from every other port of its network, a fault in place of the one they have.
    ///
    /// # Errors
    /// When there is no such port, naming those there are, or no link can have such a fault.
    pub fn set_fault(&self, port: &str, spec: &FaultSpec) -> Result<()> {
        Ok(self.switch_of(port)?.set_port_fault(port, fault(spec))?)
    }

    /// Writes what crosses a port to a pcapng file, until the result is dropped.
    ///
    /// # Errors
    /// When there is no such port, or the file cannot be written.
    pub fn capture(&self, port: &str, file: &Path) -> Result<Capture> {
        Ok(self.switch_of(port)?.capture(port, file)?)
    }

    /// What every port counted; only names for a switch that has stopped.
    pub fn status(&self) -> Vec<PortStatus> {
        let ports_of = |switch: &Switch| {
            let counters = switch.counters().unwrap_or_else(|_| {
                switch.ports().map(|name| PortCounters { name: name.to_owned(), ..PortCounters::default() }).collect()
            });
            counters.into_iter().map(|port| status(switch.name(), port)).collect::<Vec<_>>()
        };
        self.switches.iter().flat_map(ports_of).collect()
    }

    /// Unplugs every guest and removes the sockets.
    pub fn stop(&self) {
        for switch in &self.switches {
            // One that failed before has let go of everything, too.
            let _ = switch.stop();
        }
    }

    fn switch_of(&self, port: &str) -> Result<&Switch> {
        if let Some(switch) = self.switches.iter().find(|s| s.ports().any(|name| name == port)) {
            return Ok(switch);
        }
        let ports: Vec<&str> = self.switches.iter().flat_map(Switch::ports).collect();
        if ports.is_empty() {
            bail!("no port `{port}`: the guests of this lab have no NIC on any network");
        }
        bail!("no port `{port}`; there is {}", ports.join(", "))
    }
}

fn config(network: &NetworkLaunch) -> SwitchConfig {
    let port =
        |p: &crate::launch::PortLaunch| PortConfig { name: p.name.clone(), socket: p.socket.clone(), mtu: network.mtu };
    let link = |(from, to, spec): &(String, String, FaultSpec)| LinkFault {
        from: from.clone(),
        to: to.clone(),
        fault: fault(spec),
    };
    SwitchConfig {
        name: network.name.clone(),
        ports: network.ports.iter().map(port).collect(),
        faults: network.faults.iter().map(link).collect(),
        seed: network.seed,
        limits: Limits::default(),
    }
}

fn fault(spec: &FaultSpec) -> Fault {
    Fault {
        loss: spec.loss,
        delay: Duration::from_micros(spec.delay_us),
        jitter: Duration::from_micros(spec.jitter_us),
        reorder: spec.reorder,
        duplicate: spec.duplicate,
        corrupt: spec.corrupt,
        partition: spec.partition,
    }
}

fn status(network: &str, port: PortCounters) -> PortStatus {
    PortStatus {
        name: port.name,
        network: network.to_owned(),
        connected: port.connected,
        rx_frames: port.rx_frames,
        rx_bytes: port.rx_bytes,
        tx_frames: port.tx_frames,
        tx_bytes: port.tx_bytes,
        dropped: port.drops.total(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::PortLaunch;

    fn network(dir: &Path) -> NetworkLaunch {
        let port = |guest: &str| PortLaunch {
            name: format!("{guest}.0"),
            guest: guest.into(),
            socket: dir.join(format!("{guest}.0.net")),
        };
        let cut = FaultSpec { partition: true, ..FaultSpec::default() };
        NetworkLaunch {
            name: "fabric".into(),
            mtu: 9000,
            seed: 1,
            ports: vec![port("a"), port("b")],
            faults: vec![("a.0".into(), "b.0".into(), cut)],
        }
    }

    #[test]
    fn ports_go_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let fabric = Fabric::start(&[network(dir.path())]).unwrap();
        fabric.set_fault("b.0", &FaultSpec { loss: 0.1, ..FaultSpec::default() }).unwrap();
        assert_eq!(
            fabric.set_fault("c.0", &FaultSpec::default()).unwrap_err().to_string(),
            "no port `c.0`; there is a.0, b.0"
        );
        let impossible = FaultSpec { jitter_us: 1, ..FaultSpec::default() };
        assert_eq!(
            fabric.set_fault("b.0", &impossible).unwrap_err().to_string(),
            "no link can have jitter = 1µs: at most the delay, 0ns"
        );
        drop(fabric.capture("a.0", &dir.path().join("a.pcapng")).unwrap());
        let names: Vec<_> = fabric.status().into_iter().map(|p| (p.network, p.name)).collect();
        assert_eq!(names, [("fabric".into(), "a.0".into()), ("fabric".into(), String::from("b.0"))]);
        fabric.stop();
        assert!(!dir.path().join("a.0.net").exists());
        assert_eq!(fabric.status().len(), 2);
    }
}
