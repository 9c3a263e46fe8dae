//! What a run changes of the machine: a NIC's set-up and the binding of queues, undone at its end however it ends.
//!
//! A binding vanishes with its socket; the set-up does not. So what was changed is noted before the next thing is, and a thread
//! that waits for the signals that end programs undoes it too. Only SIGKILL leaves a NIC set up.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::dmabuf::Buffer;
use crate::ethtool::{self, Nic, Rule};
use crate::netdev::{self, Ask, Binding, Netdev, Split};
use crate::refusal;
use crate::sys;

/// One thing to undo.
#[derive(Debug)]
enum Undo {
    Split(Split),
    Ntuple,
    Spread(Vec<u32>),
    Rule(u32),
}

#[derive(Debug, Default)]
struct Changed {
    binding: Option<Binding>,
    netdev: Option<Netdev>,
    undo: Vec<Undo>,
}

/// The machine during a run.
#[derive(Debug)]
pub struct Stage(Arc<Mutex<Changed>>);

impl Stage {
    /// From here on signals end the program only after everything is undone. To be called before other threads start.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn open() -> Result<Stage> {
        let changed = Arc::new(Mutex::new(Changed::default()));
        sys::hold_signals();
        let seen = Arc::clone(&changed);
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let signal = sys::wait_for_signal();
                // Held until the end: the run must not change anything any more.
                let mut changed = lock(&seen);
                let restored = if changed.undo.is_empty() { "" } else { "; the NIC is as it was" };
                for failure in changed.undo() {
                    eprintln!("lab-devmem: {failure}");
                }
                eprintln!("lab-devmem: ended by signal {signal}{restored}");
                std::process::exit(128 + signal);
            })
            .context("cannot start a thread")?;
        Ok(Stage(changed))
    }

    /// Sets a NIC up for `queues`: header split on, flow rules allowed, other traffic led around, and TCP to `port` led to the
    /// first of them.
    ///
    /// # Errors
    /// With the command that does by hand what could not be done.
    pub fn set_up(&self, netdev: &Netdev, queues: &[u32], to: IpAddr, port: u16) -> Result<()> {
        let name = &netdev.name;
        let mut changed = lock(&self.0);
        changed.netdev = Some(netdev.clone());
        let rings = netdev::rings(netdev)?.map_err(|refusal| {
            anyhow!("{name} has no header split to set up ({refusal}); a netkit's is set up on the NIC that its queues are leased from")
        })?;
        if rings.split != Split::On {
            let refused = |refusal| anyhow!("`ethtool -G {name} tcp-data-split on`: {refusal}");
            netdev::set_split(netdev, Split::On)?.map_err(refused)?;
            changed.undo.push(Undo::Split(Split::Off));
        }
        let by_hand = |what: String| {
            move |error: std::io::Error| anyhow!("`{what}`: {}", refusal::name(error.raw_os_error().unwrap_or(0)))
        };
        let nic = Nic::open(name)?;
        let ntuple = format!("ethtool -K {name} ntuple on");
        if !nic.ntuple().map_err(by_hand(ntuple.clone()))? {
            nic.set_ntuple(true).map_err(by_hand(ntuple.clone()))?;
            changed.undo.push(Undo::Ntuple);
        }
        let table = nic.spread().map_err(by_hand(format!("ethtool -x {name}")))?;
        if table.iter().any(|queue| queues.contains(queue)) {
            let count = netdev::rx_queues(netdev)?.map_err(|refusal| anyhow!("the queues of {name}: {refusal}"))?.len();
            let Some(around) = ethtool::around(&table, queues, count as u32) else {
                bail!(
                    "{name} has no queue left for other traffic; leave it one, or give it more with `ethtool -L {name}`"
                );
            };
            nic.set_spread(&around).map_err(by_hand(format!("ethtool -X {name} equal {}", queues[0])))?;
            // The same table put back would not be the default to the kernel, which then refuses fewer queues.
            let before = if ethtool::is_default(&table, count as u32) { Vec::new() } else { table };
            changed.undo.push(Undo::Spread(before));
        }
        let families = match to {
            IpAddr::V4(_) => vec![false],
            IpAddr::V6(to) if to.is_unspecified() => vec![false, true],
            IpAddr::V6(_) => vec![true],
        };
        for v6 in families {
            let rule = Rule { v6, to: Some(to).filter(|to| !to.is_unspecified()), port, queue: queues[0] };
            let location = nic.insert(&rule).map_err(by_hand(rule.command(name)))?;
            changed.undo.push(Undo::Rule(location));
        }
        Ok(())
    }

    /// Binds a dma-buf to queues; returns the binding's id.
    ///
    /// # Errors
    /// With the kernel's reason, and what to do about it.
    pub fn bind_rx(&self, netdev: &Netdev, queues: &[u32], buffer: &Buffer) -> Result<u32> {
        let ask = Ask { index: netdev.index, dmabuf: buffer.fd(), queues, page_size: None };
        let binding = netdev::bind_rx(&ask)?.map_err(|refusal| {
            let count = netdev::rx_queues(netdev).ok().and_then(Result::ok).map(|queues| queues.len());
            let advice = refusal.advice(&netdev.name, queues, count);
            anyhow!("cannot bind a dma-buf to {queues:?} of {}'s RX queues: {refusal}\n{advice}", netdev.name)
        })?;
        Ok(self.keep(binding))
    }

    /// Binds a dma-buf for sending; returns the binding's id.
    ///
    /// # Errors
    /// As with [`Stage::bind_rx`].
    pub fn bind_tx(&self, netdev: &Netdev, buffer: &Buffer) -> Result<u32> {
        let binding = netdev::bind_tx(netdev.index, buffer.fd())?.map_err(|refusal| {
            let advice = refusal.advice(&netdev.name, &[], None);
            anyhow!("cannot bind a dma-buf to {} for sending: {refusal}\n{advice}", netdev.name)
        })?;
        Ok(self.keep(binding))
    }

    fn keep(&self, binding: Binding) -> u32 {
        lock(&self.0).binding.insert(binding).id
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for failure in lock(&self.0).undo() {
            eprintln!("lab-devmem: {failure}");
        }
    }
}

fn lock(changed: &Mutex<Changed>) -> MutexGuard<'_, Changed> {
    changed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Changed {
    /// Undoes everything, the last change first; returns what could not be undone.
    fn undo(&mut self) -> Vec<String> {
        // First the binding: header split cannot be turned off under it.
        self.binding = None;
        let Some(netdev) = self.netdev.take() else { return Vec::new() };
        let name = &netdev.name;
        let nic = match Nic::open(name) {
            Ok(nic) => nic,
            Err(error) => return vec![format!("{name} is left set up: {error}")],
        };
        let told = |done: std::io::Result<()>, by_hand: String| {
            done.err().map(|error| format!("cannot undo the set-up of {name} ({error}); run `{by_hand}`"))
        };
        let mut failures = Vec::new();
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            failures.extend(match undo {
                Undo::Rule(location) => told(nic.delete(location), format!("ethtool -N {name} delete {location}")),
                Undo::Spread(table) => told(nic.set_spread(&table), format!("ethtool -X {name} default")),
                Undo::Ntuple => told(nic.set_ntuple(false), format!("ethtool -K {name} ntuple off")),
                Undo::Split(split) => {
                    let done = match netdev::set_split(&netdev, split) {
                        Ok(Ok(())) => Ok(()),
                        Ok(Err(refusal)) => Err(std::io::Error::other(refusal)),
                        Err(error) => Err(std::io::Error::other(error)),
                    };
                    told(done, format!("ethtool -G {name} tcp-data-split off"))
                }
            });
        }
        failures
    }
}
