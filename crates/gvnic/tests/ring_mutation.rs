//! Seeded mutation of rings: what cargo-fuzz does for minutes, for a second, on any toolchain.

mod common;
mod rings;

use rings::{Random, Tally, rx_ring, tx_chain};

/// Random operations, then the same with a few bytes changed, so that long sequences that get somewhere are tried again.
fn mutate(seed: u64, rounds: usize, entry: fn(&[u8]) -> Tally) -> Tally {
    let (mut random, mut tally) = (Random(seed), [0; 3]);
    for _ in 0..rounds {
        let length = random.between(20, 500);
        let mut input = random.bytes(length);
        for _ in 0..4 {
            tally.iter_mut().zip(entry(&input)).for_each(|(sum, n)| *sum += n);
            for _ in 0..random.between(1, 6) {
                let at = random.below(input.len());
                input[at] = random.next() as u8;
            }
        }
    }
    tally
}

/// Random bytes have to get somewhere to prove anything.
fn proves(tally: Tally) {
    assert!(tally.iter().all(|n| *n > 1000), "{tally:?}");
}

#[test]
fn tx_rings_survive_anything() {
    proves(mutate(1, 5_000, tx_chain));
}

#[test]
fn rx_rings_survive_anything() {
    proves(mutate(2, 5_000, rx_ring));
}
