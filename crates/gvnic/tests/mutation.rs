//! Seeded mutation: what cargo-fuzz does for minutes, for a second, on any toolchain.

mod common;
mod entry;

use common::{Driver, bench, command, config};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Every command as a driver would write it, for the victim's memory.
fn good_commands() -> Vec<[u8; 64]> {
    let page = |n: u64| (n * 0x1000).to_be_bytes();
    let one = |n: u32| n.to_be_bytes();
    let tx: &[(usize, &[u8])] =
        &[(8, &page(3)), (16, &page(4)), (24, &[0xff; 4]), (32, &page(5)), (40, &[0, 64]), (42, &[0, 64])];
    let rx: &[(usize, &[u8])] = &[
        (16, &page(3)),
        (24, &page(6)),
        (32, &page(8)),
        (40, &[0xff; 4]),
        (44, &[0, 64]),
        (46, &[8, 0]),
        (48, &[0, 64]),
        (50, &[1]),
        (52, &[0, 128]),
    ];
    vec![
        command(1, &[(0, &page(3)), (8, &one(1)), (12, &one(4096))]),
        command(2, &[(8, &page(2)), (16, &one(8)), (20, &one(8)), (24, &one(64)), (32, &[3])]),
        command(3, &[(0, &one(1))]),
        command(5, tx),
        command(6, rx),
        command(7, &[]),
        command(8, &[]),
        command(9, &[]),
        command(0xa, &[(0, &[0, 0xd2, 1]), (4, &[0, 40, 0, 128]), (8, &page(10)), (16, &page(10))]),
        command(0xb, &[(0, &one(1)), (14, &[5, 220])]),
        command(0xc, &[(6, &[1, 136]), (8, &page(11)), (22, &[78, 32])]),
        command(0xd, &[(0, &page(12))]),
        command(0xe, &[(6, &[8, 0]), (8, &page(12))]),
        command(0xf, &[(6, &[1, 48]), (8, &page(13))]),
        command(0x10, &[(14, &[16, 0]), (16, &page(12))]),
        command(0x11, &[(7, &[40]), (8, &page(12))]),
        command(0x12, &[(6, &[16, 0]), (8, &page(12))]),
        command(0xff, &[(0, &one(0x101)), (4, &one(92)), (8, &page(14))]),
    ]
}

#[test]
fn forty_thousand_mutated_commands() {
    let mut random = Random(1);
    let good = good_commands();
    let edges = [0u8, 1, 2, 3, 4, 0x10, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff];
    let (mut passed, mut refused) = (0, 0);
    for round in 0..40 {
        let mut victim = entry::Victim::default();
        victim.poke(0xd010, &8u64.to_be_bytes());
        for n in 0..1000 {
            let mut bytes = good[random.below(good.len())];
            // Some as they are, so that the others meet a device with queues and rules.
            for _ in 0..random.below(4) {
                let at = random.below(64);
                bytes[at] = match random.below(3) {
                    0 => edges[random.below(edges.len())],
                    1 => bytes[at] ^ 1 << random.below(8),
                    _ => random.next() as u8,
                };
            }
            if random.below(8) == 0 {
                let page = random.bytes(64);
                victim.poke(0xe000 + random.below(64) as u64, &page);
            }
            match victim.command(&bytes) {
                Some(1) => passed += 1,
                // A command may name the admin queue itself as the place of its answer; what is in the ring then is its own.
                Some(_) => refused += 1,
                None => panic!("round {round}, command {n}: {bytes:x?} has no answer"),
            }
            if n % 50 == 0 {
                victim.check();
            }
        }
        victim.check();
        victim.end();
    }
    assert!(passed > 4000 && refused > 4000, "{passed} passed, {refused} refused");
}

#[test]
fn guests_made_of_noise() {
    let mut random = Random(2);
    for _ in 0..300 {
        let length = random.below(3000);
        entry::admin_queue(&random.bytes(length));
    }
}

#[test]
fn rules_made_of_noise() {
    let mut random = Random(3);
    for _ in 0..60 {
        let length = random.below(4000);
        entry::flow_rules(&random.bytes(length));
    }
}

#[test]
fn pages_of_noise_as_the_admin_queue() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 16);
    let mut random = Random(4);
    for _ in 0..500 {
        let page = random.bytes(4096);
        bench.ram.poke(driver.ring, &page);
        driver.issued = driver.issued.wrapping_add(64);
        driver.write32(20, driver.issued);
        assert_eq!(driver.read32(24), driver.issued);
    }
    assert_eq!(bench.control.status().control.commands, 32_006);
}
