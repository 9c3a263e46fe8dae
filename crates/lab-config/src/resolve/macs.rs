//! MAC addresses for NICs that are given none.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::model::Mac;

/// QEMU's customary prefix; the second-lowest bit of its first byte says "locally administered".
const PREFIX: [u8; 3] = [0x52, 0x54, 0x00];

/// Hands out addresses that depend only on guest and interface, unless another NIC has the same one.
pub(super) struct Allocator {
    taken: BTreeSet<Mac>,
}

impl Allocator {
    /// `taken` are the addresses that the file gives.
    pub(super) fn new(taken: impl Iterator<Item = Mac>) -> Self {
        Allocator { taken: taken.collect() }
    }

    /// The address of `interface` in `guest`.
    pub(super) fn next(&mut self, guest: &str, interface: &str) -> Mac {
        (0u32..)
            .map(|attempt| derived(guest, interface, attempt))
            .find(|mac| self.taken.insert(*mac))
            .expect("fewer NICs than addresses: a guest has at most 16")
    }
}

fn derived(guest: &str, interface: &str, attempt: u32) -> Mac {
    let digest = Sha256::digest(format!("nic\0{guest}\0{interface}\0{attempt}"));
    let [a, b, c] = PREFIX;
    Mac([a, b, c, digest[0], digest[1], digest[2]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_nic_has_the_same_address_whatever_else_there_is() {
        let mut alone = Allocator::new([].into_iter());
        let mut second = Allocator::new([].into_iter());
        second.next("b", "eth0");
        assert_eq!(alone.next("a", "eth0"), second.next("a", "eth0"));
    }

    #[test]
    fn an_address_that_is_taken_is_not_handed_out() {
        let first = derived("a", "eth0", 0);
        let mut allocator = Allocator::new([first].into_iter());
        assert_eq!(allocator.next("a", "eth0"), derived("a", "eth0", 1));
        assert_ne!(allocator.next("a", "eth0"), first);
    }
}
