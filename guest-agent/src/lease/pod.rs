//! One pod: a namespace, a netkit pair with leased queues, rules, programs. It is made step by step into a [`Held`], so that
//! taking away one that is half made is the same as taking away one that is whole, or one whose parts have gone by themselves.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

use protocol::{Failure, LeasedQueue, NewPod, Pod, PodAddress, Traffic, Via};

use super::nic::{self, Nic};
use super::redirect::{self, Count, End, Then};
use super::steer;
use crate::kernel::bpf::{self, Attached, Counters, Hook};
use crate::kernel::links::{self, Interface, NetkitEnd};
use crate::kernel::netdev::{self, RxQueue};
use crate::kernel::{addresses, netns, ntuple};
use crate::serve::answer::failed;

/// The netkit's end in the pod.
const POD_LINK: &str = "nk0";

/// All there is of a pod.
#[derive(Debug)]
pub struct Held {
    name: String,
    /// The NIC's name.
    pub netdev: String,
    /// Its addresses.
    pub addresses: Vec<PodAddress>,
    via: Via,
    host_link: String,
    /// Inode of the namespace: another one may come to have its name.
    netns: Option<u64>,
    host: Option<Interface>,
    inside: Option<u32>,
    /// Numbers at the NIC and at the netkit, as far as they are leased.
    pub queues: Vec<(u32, u32)>,
    /// Places of the rules.
    rules: Vec<u32>,
    /// By receive queue plus one; the last are what the pod sent.
    counters: Option<Counters>,
    counted: u32,
    programs: Vec<Attached>,
}

impl Held {
    /// A pod of which nothing is made yet.
    pub fn new(pod: &NewPod) -> Held {
        Held {
            name: pod.name.clone(),
            netdev: pod.netdev.clone(),
            addresses: pod.addresses.clone(),
            via: pod.via,
            host_link: format!("nk-{}", pod.name),
            netns: None,
            host: None,
            inside: None,
            queues: Vec::new(),
            rules: Vec::new(),
            counters: None,
            counted: 0,
            programs: Vec::new(),
        }
    }

    /// Makes namespace, pair and leases.
    pub fn make(&mut self, nic: &Nic, queues: &[u32]) -> Result<(), Failure> {
        let name = self.name.clone();
        let step = |what: &str| {
            let what = format!("pod {name}: {what}");
            move |error: io::Error| failed(&what, &error)
        };
        let netns = netns::create(&name).map_err(step("making the network namespace (`ip netns`)"))?;
        self.netns = Some(netns.metadata().map_err(step("looking at its network namespace"))?.ino());
        let host = NetkitEnd { name: &self.host_link, mtu: nic.link.mtu };
        let pod = NetkitEnd { name: POD_LINK, mtu: nic.link.mtu };
        // One queue of its own, which every device has, and the leased ones.
        links::create_netkit(host, pod, 1 + queues.len() as u32, &netns).map_err(step("making the netkit pair"))?;
        self.host = links::find(&self.host_link).map_err(step("looking for its netkit"))?;
        let host = self.host.as_ref().map_or(0, |link| link.index);
        links::set_up(host).map_err(step("bringing its netkit up"))?;
        let here = File::open("/proc/self/ns/net").map_err(step("opening our own network namespace"))?;
        let (addresses, held) = (self.addresses.clone(), &mut *self);
        netns::within(Some(&name), || held.furnish(&here, nic, queues, &addresses))
    }

    /// What is done inside the namespace.
    fn furnish(&mut self, host: &File, nic: &Nic, queues: &[u32], own: &[PodAddress]) -> Result<(), Failure> {
        let name = &self.name;
        let say = |what: String, error: io::Error| failed(&format!("pod {name}: {what}"), &error);
        let link = links::find(POD_LINK).map_err(|error| say("looking for its end of the netkit".into(), error))?;
        let index = link.map_or(0, |link| link.index);
        self.inside = Some(index);
        let number = addresses::netns_id(host).map_err(|error| say("numbering the host's namespace".into(), error))?;
        for queue in queues {
            let made = netdev::lease(index, nic.link.index, *queue, number)
                .map_err(|error| say(format!("leasing queue {queue} of {}", nic.link.name), error))?;
            self.queues.push((*queue, made));
        }
        links::set_up(index).map_err(|error| say("bringing its end of the netkit up".into(), error))?;
        for at in own {
            addresses::add(index, at.address, at.prefix)
                .map_err(|error| say(format!("giving it the address {at}"), error))?;
        }
        for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
            if let Some(at) = own.iter().find(|at| family(&at.address)) {
                addresses::route(index, at.address, true)
                    .map_err(|error| say("giving it a default route".into(), error))?;
            }
        }
        Ok(())
    }

    /// Leads the pod's traffic to it and back.
    pub fn connect(&mut self, nic: &mut Nic, queues_there: u32) -> Result<(), Failure> {
        let name = self.name.clone();
        let say = |what: String, error: io::Error| failed(&format!("pod {name}: {what}"), &error);
        let host = self.host.clone().unwrap_or_else(|| nic.link.clone());
        let own: Vec<IpAddr> = self.addresses.iter().map(|at| at.address).collect();
        self.counted = queues_there + 1;
        let counters =
            Counters::new(self.counted + 1).map_err(|error| say("making counters (a BPF map)".into(), error))?;
        let arrive = if self.via == Via::Bpf { Then::ToPeerOf(host.index) } else { Then::Pass };
        let code = redirect::program(&own, End::Destination, &counters, Count::ByQueue, arrive);
        let program = bpf::attach(&code, Hook::Ingress, &nic.link)
            .map_err(|error| say(format!("attaching a BPF program to the ingress of {}", nic.link.name), error))?;
        self.programs.push(program);
        match self.via {
            Via::Bpf => {
                let out = Then::Out(nic.link.index);
                let code = redirect::program(&own, End::Source, &counters, Count::Under(self.counted), out);
                let program = bpf::attach(&code, Hook::NetkitPeer, &host)
                    .map_err(|error| say(format!("attaching a BPF program to the peer of {}", host.name), error))?;
                self.programs.push(program);
            }
            Via::Forward => {
                nic.allow_forwarding()?;
                for file in nic::forwarding(&host.name) {
                    fs::write(&file, "1").map_err(|error| say(format!("writing 1 to {file}"), error))?;
                }
                for address in own {
                    addresses::route(host.index, address, false)
                        .map_err(|error| say(format!("adding a route to {address} through {}", host.name), error))?;
                }
            }
        }
        self.counters = Some(counters);
        // Last, so that nothing comes by a leased queue before it can be led on.
        let queues: Vec<u32> = self.queues.iter().map(|(queue, _)| *queue).collect();
        for rule in steer::rules(&self.addresses, &queues) {
            let place = ntuple::add(&nic.link.name, &rule).map_err(|error| {
                say(format!("steering {} to queue {} of {}", rule.to, rule.queue, nic.link.name), error)
            })?;
            self.rules.push(place);
        }
        Ok(())
    }

    /// What of it the kernel no longer has.
    pub fn broken(&self, nic: &Nic) -> Option<String> {
        if !nic.is_there() {
            return Some(format!("the NIC {} was removed", self.netdev));
        }
        if netns::open(&self.name).and_then(|file| file.metadata()).map(|it| it.ino()).ok() != self.netns {
            return Some(format!("the network namespace {} was deleted", self.name));
        }
        if !self.host_is_there() {
            return Some(format!("the netkit {} was deleted", self.host_link));
        }
        let there = netdev::rx_queues(nic.link.index).unwrap_or_default();
        let kept = |(queue, own): &&(u32, u32)| lease_of(&there, *queue) == self.inside.map(|inside| (inside, *own));
        if let Some((queue, _)) = self.queues.iter().find(|pair| !kept(pair)) {
            return Some(format!("queue {queue} of {} is not leased to it any more", self.netdev));
        }
        let rules = ntuple::rules(&self.netdev).unwrap_or_default();
        self.rules
            .iter()
            .any(|rule| !rules.contains(rule))
            .then(|| format!("a steering rule of {} was deleted", self.netdev))
    }

    fn host_is_there(&self) -> bool {
        let Some(host) = &self.host else { return false };
        links::find(&host.name).is_ok_and(|found| found.is_some_and(|found| found.index == host.index))
    }

    /// Takes everything away that is there; returns what could not be. Each part goes by itself, whatever became of others.
    pub fn tear_down(&mut self, nic: &Nic) -> Vec<String> {
        let mut left = Vec::new();
        self.programs.clear();
        self.counters = None;
        let there = if nic.is_there() { ntuple::rules(&self.netdev).unwrap_or_default() } else { Vec::new() };
        for rule in std::mem::take(&mut self.rules).into_iter().filter(|rule| there.contains(rule)) {
            if let Err(error) = ntuple::delete(&self.netdev, rule) {
                left.push(format!("steering rule {rule} of {}: {error}", self.netdev));
            }
        }
        // Leases end with the netkit, and so does the memory that is bound through them.
        if let (true, Some(host)) = (self.host_is_there(), &self.host)
            && let Err(error) = links::delete(host.index)
        {
            left.push(format!("netkit {}: {error}", host.name));
        }
        let own = netns::open(&self.name).and_then(|file| file.metadata()).map(|it| it.ino()).ok();
        if self.netns.is_some()
            && own == self.netns
            && let Err(error) = netns::delete(&self.name)
        {
            left.push(format!("network namespace {}: {error}", self.name));
        }
        (self.host, self.inside, self.netns) = (None, None, None);
        self.queues.clear();
        left
    }

    /// What is told of it. `there` are the NIC's queues as they are.
    pub fn report(&self, nic: &Nic, there: &[RxQueue]) -> Pod {
        let count = |index: u32| {
            let pair = self.counters.as_ref().and_then(|counters| counters.get(index).ok()).unwrap_or_default();
            Traffic { frames: pair.0, bytes: pair.1 }
        };
        let queue = |(queue, pod_queue): &(u32, u32)| LeasedQueue {
            queue: *queue,
            pod_queue: *pod_queue,
            devmem: there.iter().any(|it| it.id == *queue && it.devmem),
            received: count(queue + 1),
        };
        let mut elsewhere = Traffic::default();
        for index in (0..self.counted).filter(|index| !self.queues.iter().any(|(queue, _)| queue + 1 == *index)) {
            let traffic = count(index);
            elsewhere.frames += traffic.frames;
            elsewhere.bytes += traffic.bytes;
        }
        Pod {
            name: self.name.clone(),
            netdev: self.netdev.clone(),
            host_link: self.host_link.clone(),
            pod_link: POD_LINK.into(),
            addresses: self.addresses.clone(),
            via: self.via,
            queues: self.queues.iter().map(queue).collect(),
            elsewhere,
            sent: if self.via == Via::Bpf { count(self.counted) } else { Traffic::default() },
            broken: self.broken(nic),
        }
    }
}

/// Who has a queue: the interface and the queue there.
fn lease_of(there: &[RxQueue], queue: u32) -> Option<(u32, u32)> {
    let lease = there.iter().find(|it| it.id == queue)?.lease?;
    Some((lease.interface, lease.queue))
}
