//! Receive queues of a NIC leased to pods: what the host asks for, and what the guest then has.
//!
//! A pod is a network namespace with one end of a netkit pair, to which the kernel has leased receive queues of the NIC
//! (`queue-create` with `lease`, Documentation/netlink/specs/netdev.yaml): a program in the pod binds device memory to
//! them as if they were the netkit's own. Only receive queues are leased; what the pod sends goes out through the NIC's
//! ordinary queues.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What to do about leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseAsk {
    /// Says what is leased to whom: `Leases`.
    List,
    /// Makes a pod with leased queues, all of it or nothing: `Leases` with that pod alone.
    Add(NewPod),
    /// Takes a pod away, whatever is left of it: `Done`.
    Remove {
        /// Its name.
        pod: String,
    },
}

/// A pod to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPod {
    /// Name of the pod and of its network namespace: 1 to 12 of `a-z`, `0-9` and `-`, so that a link can be named after it.
    pub name: String,
    /// The NIC whose queues are leased.
    pub netdev: String,
    /// Which queues.
    pub queues: QueueChoice,
    /// The pod's addresses, at least one.
    pub addresses: Vec<PodAddress>,
    /// How frames get to the pod and back.
    pub via: Via,
}

/// The queues of a new pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueChoice {
    /// These.
    These(Vec<u32>),
    /// So many of the highest that are free.
    Any(u32),
}

impl FromStr for QueueChoice {
    type Err = String;

    /// `12-15`, `3,5-7`, or `any:4`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<u32>().map_err(|_| format!("`{text}` is no number of a queue; write 12-15, 3,5-7 or any:4"))
        };
        if let Some(count) = text.strip_prefix("any:") {
            return Ok(QueueChoice::Any(number(count)?));
        }
        let mut queues = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            // More than any NIC has is a slip of the keyboard.
            if first > last || last - first > 4096 {
                return Err(format!("`{part}` is no range of queues"));
            }
            queues.extend(first..=last);
        }
        Ok(QueueChoice::These(queues))
    }
}

/// An address with the length of its network's prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodAddress {
    /// The address.
    pub address: IpAddr,
    /// At most 32 or 128.
    pub prefix: u8,
}

impl fmt::Display for PodAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for PodAddress {
    type Err = String;

    /// `ADDRESS/PREFIX`; without a prefix the address alone is the network.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| format!("`{address}` is no IP address"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix.map(str::parse::<u8>) {
            None => most,
            Some(Ok(prefix)) if prefix <= most => prefix,
            Some(_) => return Err(format!("the prefix of `{text}` must be a number from 0 to {most}")),
        };
        Ok(PodAddress { address, prefix })
    }
}

/// The way between NIC and pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// BPF programs on the NIC and on the netkit redirect frames past the host's IP layer.
    Bpf,
    /// The host's IP layer forwards them.
    Forward,
}

impl FromStr for Via {
    type Err = String;

    /// `bpf` or `forward`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "bpf" => Ok(Via::Bpf),
            "forward" => Ok(Via::Forward),
            _ => Err(format!("`{text}` is no way to a pod; there are bpf and forward")),
        }
    }
}

/// A pod, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// The NIC.
    pub netdev: String,
    /// The netkit's end beside the NIC.
    pub host_link: String,
    /// The netkit's end in the pod.
    pub pod_link: String,
    /// Its addresses.
    pub addresses: Vec<PodAddress>,
    /// How frames get there.
    pub via: Via,
    /// Its queues, in ascending order of the NIC's numbers.
    pub queues: Vec<LeasedQueue>,
    /// Came for the pod on a queue that is not leased to it: everything but TCP does, and TCP when steering is wrong.
    pub elsewhere: Traffic,
    /// Left the pod through the NIC; counted only where BPF programs redirect, 0 otherwise.
    pub sent: Traffic,
    /// What of it the kernel no longer has, for people; the pod is then to be removed (or is, by the next `Add`).
    pub broken: Option<String>,
}

/// A queue of the NIC in the hands of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedQueue {
    /// Its number at the NIC.
    pub queue: u32,
    /// Its number at the netkit, which is what a program in the pod binds to.
    pub pod_queue: u32,
    /// Whether device memory is bound to it at the moment.
    pub devmem: bool,
    /// Came for the pod on this queue since the pod was made.
    pub received: Traffic,
}

/// Frames as the kernel hands them up, several segments joined to one, and their bytes with headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// How many.
    pub frames: u64,
    /// Their bytes from the Ethernet header on.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_read() {
        assert_eq!("12-15".parse(), Ok(QueueChoice::These(vec![12, 13, 14, 15])));
        assert_eq!("3,5-7".parse(), Ok(QueueChoice::These(vec![3, 5, 6, 7])));
        assert_eq!("any:4".parse(), Ok(QueueChoice::Any(4)));
        for (bad, why) in [("", "no number"), ("a-b", "`a`"), ("7-5", "no range"), ("0-4294967295", "no range")] {
            let error = bad.parse::<QueueChoice>().expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["192.0.2.2/24", "2001:db8::2/64"] {
            assert_eq!(text.parse::<PodAddress>().expect(text).to_string(), text);
        }
        assert_eq!("192.0.2.2".parse::<PodAddress>().expect("no prefix").prefix, 32);
        for (text, wrong) in [("192.0.2.2/33", "0 to 32"), ("2001:db8::2/x", "0 to 128"), ("pod/24", "`pod`")] {
            let error = text.parse::<PodAddress>().expect_err(text);
            assert!(error.contains(wrong), "{error}");
        }
    }
}
