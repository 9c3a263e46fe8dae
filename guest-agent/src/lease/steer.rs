//! Which frames go to which queue of a NIC, as plans: rules lead a pod's TCP to its queues, and what no rule leads, the NIC
//! spreads over the queues that are nobody's.
//!
//! Only TCP is led: a queue with device memory bound drops what it cannot split, which is everything else.

use std::collections::BTreeSet;

use protocol::PodAddress;

use crate::kernel::ntuple::TcpRule;

/// The rules of a pod. Connections are spread over its queues by the low bits of the sender's port, since a rule has one
/// queue only and drivers with device memory need not have tables to spread by within a rule (gve has none). With a number of
/// queues that is no power of two, some have twice as many connections as others.
pub fn rules(addresses: &[PodAddress], queues: &[u32]) -> Vec<TcpRule> {
    let parts = queues.len().next_power_of_two() as u16;
    let rule =
        |to, part: u16| TcpRule { to, from_port: (part, parts - 1), queue: queues[usize::from(part) % queues.len()] };
    addresses.iter().flat_map(|at| (0..parts).map(move |part| rule(at.address, part))).collect()
}

/// The NIC's table with every leased queue in it replaced by one that is not, in turn.
pub fn spread(table: &[u32], all: &[u32], leased: &BTreeSet<u32>) -> Vec<u32> {
    let mut free = all.iter().copied().filter(|queue| !leased.contains(queue)).cycle();
    let instead = |queue: &u32| if leased.contains(queue) { free.next().unwrap_or(0) } else { *queue };
    table.iter().map(instead).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_port_has_exactly_one_rule_and_only_the_pods_queues_are_used() {
        let addresses = ["192.0.2.2/24", "2001:db8::2/64"].map(|text| text.parse().expect(text));
        for queues in [&[7][..], &[12, 13, 14], &[12, 13, 14, 15], &[1, 2, 3, 9, 11]] {
            let rules = rules(&addresses, queues);
            for address in addresses {
                for port in 1..=u16::MAX {
                    let of =
                        |rule: &&TcpRule| rule.to == address.address && port & rule.from_port.1 == rule.from_port.0;
                    assert_eq!(rules.iter().filter(of).count(), 1, "{address} from port {port} with {queues:?}");
                }
            }
            let used: BTreeSet<u32> = rules.iter().map(|rule| rule.queue).collect();
            assert_eq!(used, queues.iter().copied().collect());
        }
    }

    #[test]
    fn nothing_is_spread_over_leased_queues() {
        let all: Vec<u32> = (0..8).collect();
        let table: Vec<u32> = (0..16).map(|at| at % 8).collect();
        let leased = BTreeSet::from([6, 7, 2]);
        let spread = spread(&table, &all, &leased);
        assert_eq!(spread, [0, 1, 0, 3, 4, 5, 1, 3, 0, 1, 4, 3, 4, 5, 5, 0]);
        assert_eq!(super::spread(&table, &all, &BTreeSet::new()), table);
    }
}
