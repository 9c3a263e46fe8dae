//! The controller of queue leases: which pod has which receive queues of which NIC.
//!
//! It makes pods whole or not at all, gives a queue to one pod only, and takes pods away whatever has become of them. A lease
//! is the kernel's, and ends when its netkit goes: with the namespace, with the NIC, with `ip link del`. Nothing tells the
//! controller, so it looks: what it says of a pod is what the kernel says at that moment, and what a pod left behind that died
//! by itself (rules, programs, a netns's name) goes with the next `remove` of it, or `add` of any.

mod choose;
mod nic;
mod pod;
mod redirect;
mod steer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use protocol::{Event, Failure, FailureKind, LeaseAsk, NewPod, Pod};

use crate::serve::answer::failure;
use nic::Nic;
use pod::Held;

static CONTROLLER: Mutex<Controller> = Mutex::new(Controller { nics: BTreeMap::new(), pods: BTreeMap::new() });

/// Answers a request; one at a time.
pub fn serve(ask: &LeaseAsk) -> Result<Event, Failure> {
    let mut controller = CONTROLLER.lock().unwrap_or_else(PoisonError::into_inner);
    match ask {
        LeaseAsk::List => Ok(Event::Leases(controller.list())),
        LeaseAsk::Add(pod) => controller.add(pod).map(|pod| Event::Leases(vec![pod])),
        LeaseAsk::Remove { pod } => controller.remove(pod).map(|()| Event::Done),
    }
}

struct Controller {
    /// By name; those of which queues are leased.
    nics: BTreeMap<String, Nic>,
    pods: BTreeMap<String, Held>,
}

impl Controller {
    fn list(&self) -> Vec<Pod> {
        self.pods.values().filter_map(|pod| self.report(pod)).collect()
    }

    fn report(&self, pod: &Held) -> Option<Pod> {
        let nic = self.nics.get(&pod.netdev)?;
        let there = if nic.is_there() { nic::queues(&nic.link).unwrap_or_default() } else { Vec::new() };
        Some(pod.report(nic, &there))
    }

    fn add(&mut self, wanted: &NewPod) -> Result<Pod, Failure> {
        self.bury()?;
        let invalid = |why: String| failure(FailureKind::Invalid, why);
        if self.pods.contains_key(&wanted.name) {
            return Err(invalid(format!("there is a pod `{}` already; `lab lease remove` takes it away", wanted.name)));
        }
        let taken: Vec<_> = self
            .pods
            .iter()
            .flat_map(|(name, pod)| pod.addresses.iter().map(|address| (*address, name.clone())))
            .collect();
        choose::identity(wanted, &taken).map_err(invalid)?;
        let link = nic::find(&wanted.netdev)?;
        let there = nic::queues(&link)?;
        let holders = self.holders(&wanted.netdev);
        let queues = choose::queues(&wanted.queues, &wanted.netdev, &there, &holders).map_err(invalid)?;
        if !self.nics.contains_key(&wanted.netdev) {
            self.nics.insert(wanted.netdev.clone(), Nic::prepare(link)?);
        }
        let mut pod = Held::new(wanted);
        let made = self.make(&mut pod, &queues, there.len() as u32);
        self.pods.insert(wanted.name.clone(), pod);
        if let Err(mut failure) = made {
            let left = self.discard(&wanted.name);
            if !left.is_empty() {
                failure.message = format!("{} (and of it stays: {})", failure.message, left.join("; "));
            }
            return Err(failure);
        }
        self.pods
            .get(&wanted.name)
            .and_then(|pod| self.report(pod))
            .ok_or_else(|| failure(FailureKind::Io, "the pod went while it was made"))
    }

    fn make(&mut self, pod: &mut Held, queues: &[u32], there: u32) -> Result<(), Failure> {
        let mut leased: BTreeSet<u32> = self.holders(&pod.netdev).into_keys().collect();
        leased.extend(queues);
        let Some(nic) = self.nics.get_mut(&pod.netdev) else { return Ok(()) };
        pod.make(nic, queues)?;
        nic.keep_off(&leased)?;
        pod.connect(nic, there)
    }

    fn remove(&mut self, name: &str) -> Result<(), Failure> {
        if !self.pods.contains_key(name) {
            let names: Vec<&str> = self.pods.keys().map(String::as_str).collect();
            let others =
                if names.is_empty() { "there are none".into() } else { format!("there are {}", names.join(", ")) };
            return Err(failure(FailureKind::NotFound, format!("there is no pod `{name}` ({others})")));
        }
        stays(name, self.discard(name))
    }

    /// Which pod has which queue of a NIC.
    fn holders(&self, netdev: &str) -> BTreeMap<u32, String> {
        let of_nic = self.pods.iter().filter(|(_, pod)| pod.netdev == netdev);
        of_nic.flat_map(|(name, pod)| pod.queues.iter().map(|(queue, _)| (*queue, name.clone()))).collect()
    }

    /// Clears up after pods that died.
    fn bury(&mut self) -> Result<(), Failure> {
        let dead = |pod: &Held| self.nics.get(&pod.netdev).is_none_or(|nic| pod.broken(nic).is_some());
        let dead: Vec<String> = self.pods.iter().filter(|(_, pod)| dead(pod)).map(|(name, _)| name.clone()).collect();
        dead.iter().try_for_each(|name| stays(name, self.discard(name)))
    }

    /// Takes a pod away, and gives the NIC back what it was when it was the last. Returns what could not be taken away.
    fn discard(&mut self, name: &str) -> Vec<String> {
        let Some(mut pod) = self.pods.remove(name) else { return Vec::new() };
        let Some(nic) = self.nics.get(&pod.netdev) else { return Vec::new() };
        let mut left = pod.tear_down(nic);
        if self.pods.values().any(|other| other.netdev == pod.netdev) {
            let leased = self.holders(&pod.netdev).into_keys().collect();
            if nic.is_there() {
                left.extend(nic.keep_off(&leased).err().map(|failure| failure.message));
            }
        } else {
            left.extend(nic.restore());
            self.nics.remove(&pod.netdev);
        }
        left
    }
}

fn stays(name: &str, left: Vec<String>) -> Result<(), Failure> {
    if left.is_empty() {
        return Ok(());
    }
    Err(failure(FailureKind::Io, format!("pod `{name}` is gone, but not all of it: {}", left.join("; "))))
}
