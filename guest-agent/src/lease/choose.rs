//! What may be asked for: names, addresses and queues of a new pod, judged before anything is touched.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{NewPod, PodAddress, QueueChoice};

use crate::kernel::netdev::RxQueue;

/// Room for `nk-` and the name within IFNAMSIZ.
const LONGEST: usize = 12;

/// Judges a name and its addresses. `taken` are the addresses of the pods there are, with their names.
pub fn identity(pod: &NewPod, taken: &[(PodAddress, String)]) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if pod.name.is_empty() || pod.name.len() > LONGEST || !pod.name.chars().all(plain) || pod.name.starts_with('-') {
        return Err(format!(
            "`{}` is no name for a pod: 1 to {LONGEST} of a-z, 0-9 and - (a link is named after it)",
            pod.name
        ));
    }
    if pod.addresses.is_empty() {
        return Err(format!("pod `{}` needs an address: its traffic is steered by it", pod.name));
    }
    let mut own = BTreeSet::new();
    for at in &pod.addresses {
        let address = at.address;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(format!("{address} cannot be the address of a pod"));
        }
        if !own.insert(address) {
            return Err(format!("{address} is named twice"));
        }
        if let Some((_, holder)) = taken.iter().find(|(other, _)| other.address == address) {
            return Err(format!("{address} is the address of pod `{holder}`"));
        }
    }
    Ok(())
}

/// The queues a pod gets, in ascending order. `holders` says which pod has which queue.
pub fn queues(
    choice: &QueueChoice,
    netdev: &str,
    there: &[RxQueue],
    holders: &BTreeMap<u32, String>,
) -> Result<Vec<u32>, String> {
    let taken = |queue: &RxQueue| holders.contains_key(&queue.id) || queue.lease.is_some() || queue.devmem;
    match choice {
        QueueChoice::Any(0) => Err("a pod needs a queue".into()),
        QueueChoice::Any(count) => {
            let free: Vec<u32> = there.iter().filter(|queue| queue.id != 0 && !taken(queue)).map(|it| it.id).collect();
            let first = free.len().checked_sub(*count as usize).ok_or_else(|| {
                format!("{netdev} has {} queues free to lease, not {count} (queue 0 stays the host's)", free.len())
            })?;
            Ok(free[first..].to_vec())
        }
        QueueChoice::These(asked) => {
            let wanted: BTreeSet<u32> = asked.iter().copied().collect();
            if wanted.len() != asked.len() {
                return Err("a queue is named twice".into());
            }
            if wanted.is_empty() {
                return Err("a pod needs a queue".into());
            }
            for queue in &wanted {
                one(*queue, netdev, there, holders)?;
            }
            Ok(wanted.into_iter().collect())
        }
    }
}

fn one(queue: u32, netdev: &str, there: &[RxQueue], holders: &BTreeMap<u32, String>) -> Result<(), String> {
    if queue == 0 {
        return Err(format!("queue 0 of {netdev} stays the host's: drivers refuse device memory on it"));
    }
    let Some(found) = there.iter().find(|it| it.id == queue) else {
        let last = there.last().map_or(0, |it| it.id);
        return Err(format!("{netdev} has no receive queue {queue}: its last is {last} (`ethtool -l {netdev}`)"));
    };
    if let Some(holder) = holders.get(&queue) {
        return Err(format!("queue {queue} of {netdev} is leased to pod `{holder}`"));
    }
    if let Some(lease) = found.lease {
        return Err(format!(
            "queue {queue} of {netdev} is leased to queue {} of an interface that is no pod's (number {})",
            lease.queue, lease.interface
        ));
    }
    if found.devmem {
        return Err(format!("queue {queue} of {netdev} has device memory bound to it by the host itself"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::Via;

    use super::*;
    use crate::kernel::netdev::Leasee;

    fn pod(name: &str, addresses: &[&str]) -> NewPod {
        NewPod {
            name: name.into(),
            netdev: "eth0".into(),
            queues: QueueChoice::Any(1),
            addresses: addresses.iter().map(|text| text.parse().expect(text)).collect(),
            via: Via::Bpf,
        }
    }

    #[test]
    fn names_and_addresses_that_cannot_be_say_why() {
        let taken = [("192.0.2.2/24".parse().expect("an address"), "blue".to_string())];
        assert_eq!(identity(&pod("red-1", &["192.0.2.3/24", "2001:db8::3/64"]), &taken), Ok(()));
        for (pod, wrong) in [
            (pod("", &["192.0.2.3/24"]), "no name"),
            (pod("a-name-too-long", &["192.0.2.3/24"]), "1 to 12"),
            (pod("../x", &["192.0.2.3/24"]), "`../x`"),
            (pod("red", &[]), "needs an address"),
            (pod("red", &["192.0.2.2/32"]), "192.0.2.2 is the address of pod `blue`"),
            (pod("red", &["192.0.2.3/24", "192.0.2.3/32"]), "named twice"),
            (pod("red", &["127.0.0.1/8"]), "127.0.0.1 cannot be"),
        ] {
            let error = identity(&pod, &taken).expect_err(wrong);
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn queues_go_to_one_pod_only() {
        let mut there: Vec<_> = (0..16).map(|id| RxQueue { id, devmem: false, lease: None }).collect();
        there[9].lease = Some(Leasee { interface: 44, queue: 1 });
        there[8].devmem = true;
        let holders = BTreeMap::from([(14, "blue".to_string()), (15, "blue".to_string())]);
        let ask = |choice: QueueChoice| queues(&choice, "eth0", &there, &holders);
        assert_eq!(ask(QueueChoice::These(vec![12, 11])), Ok(vec![11, 12]));
        assert_eq!(ask(QueueChoice::Any(5)), Ok(vec![7, 10, 11, 12, 13]));
        for (choice, wrong) in [
            (vec![13, 14], "queue 14 of eth0 is leased to pod `blue`"),
            (vec![0, 1], "queue 0 of eth0 stays the host's"),
            (vec![15, 16], "queue 15 of eth0 is leased"),
            (vec![16], "no receive queue 16: its last is 15"),
            (vec![9], "queue 1 of an interface that is no pod's (number 44)"),
            (vec![8], "by the host itself"),
            (vec![3, 3], "named twice"),
            (vec![], "needs a queue"),
        ] {
            let error = ask(QueueChoice::These(choice)).expect_err(wrong);
            assert!(error.contains(wrong), "{error}");
        }
        assert!(ask(QueueChoice::Any(12)).expect_err("too many").contains("has 11 queues free"));
    }
}
