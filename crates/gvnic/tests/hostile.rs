//! Every command with each of its fields at values no driver may use: the right error, and nothing is touched.

mod common;

use common::{BASE, Bench, Driver, bench, command, config};

const PRECONDITION: u32 = 0xffff_fff5;
const EXISTS: u32 = 0xffff_fff1;
const INVALID: u32 = 0xffff_fff7;
const NOT_FOUND: u32 = 0xffff_fff8;
const RANGE: u32 = 0xffff_fff9;
const UNIMPLEMENTED: u32 = 0xffff_fffe;

/// Below the guest's memory, just behind it, across its end, and around the address space.
fn bad_addresses(end: u64) -> [u64; 6] {
    [0, BASE - 1, end, end - 1, u64::MAX, u64::MAX - 63]
}

/// What a command may not change when it fails.
fn state(bench: &Bench) -> (String, u64) {
    let mut status = bench.control.status();
    status.control = Default::default();
    (serde_json::to_string(&status).unwrap(), bench.control.shared().view().epoch)
}

/// A good command, and its fields (offset in the body, bytes) with what they are refused with.
struct Case {
    what: &'static str,
    good: [u8; 64],
    bad: Vec<(usize, Vec<u8>, u32)>,
}

impl Case {
    fn new(what: &'static str, good: [u8; 64]) -> Case {
        Case { what, good, bad: Vec::new() }
    }

    fn bad16(mut self, at: usize, values: &[u16], status: u32) -> Case {
        self.bad.extend(values.iter().map(|v| (at, v.to_be_bytes().to_vec(), status)));
        self
    }

    fn bad32(mut self, at: usize, values: &[u32], status: u32) -> Case {
        self.bad.extend(values.iter().map(|v| (at, v.to_be_bytes().to_vec(), status)));
        self
    }

    fn bad64(mut self, at: usize, values: &[u64], status: u32) -> Case {
        self.bad.extend(values.iter().map(|v| (at, v.to_be_bytes().to_vec(), status)));
        self
    }

    fn bad8(mut self, at: usize, values: &[u8], status: u32) -> Case {
        self.bad.extend(values.iter().map(|v| (at, vec![*v], status)));
        self
    }

    /// Runs the bad ones, and then the good one, which shows that it was the field.
    fn run(self, bench: &Bench, driver: &mut Driver<'_>) {
        for (at, bytes, status) in &self.bad {
            let mut bad = self.good;
            bad[8 + at..8 + at + bytes.len()].copy_from_slice(bytes);
            let before = (state(bench), bench.ram.written());
            bench.wakes.take();
            assert_eq!(driver.execute(bad), *status, "{} with {bytes:x?} at {at}", self.what);
            // The answer itself is four bytes.
            let after = (state(bench), bench.ram.written() - 4);
            assert_eq!(after, before, "{} with {bytes:x?} at {at}", self.what);
            assert!(bench.wakes.take().is_empty());
        }
        assert_eq!(driver.execute(self.good), 1, "{}", self.what);
    }
}

#[test]
fn what_describes() {
    let bench = bench(config());
    let mut driver = Driver::attach(&bench);
    let (ram, bad) = (&bench.ram, bad_addresses(bench.ram.end()));
    let buffer = ram.alloc(4096).to_be_bytes();
    let describe = command(1, &[(0, &buffer), (8, &1u32.to_be_bytes()), (12, &4096u32.to_be_bytes())]);
    Case::new("DESCRIBE_DEVICE", describe)
        .bad64(0, &bad, INVALID)
        .bad32(8, &[0, 2, u32::MAX], INVALID)
        .bad32(12, &[0, 39, 40, 155], INVALID)
        .run(&bench, &mut driver);
    let info = ram.alloc(304);
    ram.poke(info + 16, &8u64.to_be_bytes());
    let verify = |info: u64| command(0xf, &[(0, &304u64.to_be_bytes()), (8, &info.to_be_bytes())]);
    let without = ram.alloc(304);
    Case::new("VERIFY_DRIVER_COMPATIBILITY", verify(info))
        .bad64(0, &[0, 303], INVALID)
        .bad64(8, &bad, INVALID)
        .bad64(8, &[without], PRECONDITION)
        .run(&bench, &mut driver);
    Case::new("GET_PTYPE_MAP", command(0xe, &[(0, &2048u64.to_be_bytes()), (8, &buffer)]))
        .bad64(0, &[0, 2047], INVALID)
        .bad64(8, &bad, INVALID)
        .run(&bench, &mut driver);
    Case::new("REPORT_LINK_SPEED", command(0xd, &[(0, &buffer)])).bad64(0, &bad, INVALID).run(&bench, &mut driver);
    Case::new("REPORT_NIC_TIMESTAMP", command(0x11, &[(0, &40u64.to_be_bytes()), (8, &buffer)]))
        .bad64(0, &[0, 39], INVALID)
        .bad64(8, &bad, INVALID)
        .run(&bench, &mut driver);
    Case::new("SET_DRIVER_PARAMETER", command(0xb, &[(0, &1u32.to_be_bytes()), (8, &1500u64.to_be_bytes())]))
        .bad32(0, &[0, 2, u32::MAX], INVALID)
        .bad64(8, &[0, 67, 9001, 65536 + 1500, u64::MAX], RANGE)
        .run(&bench, &mut driver);
    Case::new("REPORT_STATS", command(0xc, &[(0, &72u64.to_be_bytes()), (8, &buffer)]))
        .bad64(0, &[1, 7, 8, 9, 71, 65544, 1 << 40, u64::MAX], INVALID)
        .bad64(8, &bad, INVALID)
        .run(&bench, &mut driver);
}

#[test]
fn what_configures_resources() {
    let bench = bench(config());
    let mut driver = Driver::attach(&bench);
    let indices = bench.ram.alloc(32 * 64);
    let configure = command(
        2,
        &[
            (8, &indices.to_be_bytes()),
            (16, &32u32.to_be_bytes()),
            (20, &32u32.to_be_bytes()),
            (24, &64u32.to_be_bytes()),
            (32, &[3]),
        ],
    );
    assert_eq!(driver.execute(command(9, &[])), PRECONDITION, "deconfigure before configure");
    Case::new("CONFIGURE_DEVICE_RESOURCES", configure)
        .bad64(8, &bad_addresses(bench.ram.end()), INVALID)
        // The first fits and the last does not.
        .bad64(8, &[bench.ram.end() - 31 * 64], INVALID)
        .bad32(16, &[33, u32::MAX], RANGE)
        .bad32(20, &[0, 33, 65536 + 32, u32::MAX], RANGE)
        .bad32(24, &[0, 3, 4097, u32::MAX], INVALID)
        .bad32(28, &[1, u32::MAX], INVALID)
        .bad8(32, &[0, 1, 2, 4, 255], INVALID)
        .run(&bench, &mut driver);
    assert_eq!(driver.execute(configure), EXISTS);
    driver.blocks = 32;
    driver.open(1, 64);
    assert_eq!(driver.execute(command(9, &[])), PRECONDITION, "with queues there");
    assert_eq!((driver.destroy_rx(0), driver.destroy_tx(0), driver.execute(command(9, &[]))), (1, 1, 1));
}

#[test]
fn what_makes_and_ends_queues() {
    let bench = bench(config());
    let mut driver = Driver::attach(&bench);
    let ring = driver.rings(256);
    driver.blocks = 32;
    assert_eq!(driver.execute(driver.create_tx(0, &ring)), PRECONDITION, "before the resources");
    assert_eq!(driver.execute(driver.create_rx(0, &ring, 128)), PRECONDITION, "before the resources");
    driver.configure(16);
    let bad = bad_addresses(bench.ram.end());
    let sizes = [0, 1, 32, 63, 65, 255, 2048, 32768, 65535];
    // A ring that begins in memory and does not end there.
    let across = [bench.ram.end() - 512];
    Case::new("CREATE_TX_QUEUE", driver.create_tx(3, &ring))
        .bad32(0, &[16, 65536 + 3, u32::MAX], RANGE)
        .bad64(8, &bad, INVALID)
        .bad64(16, &bad, INVALID)
        .bad64(16, &across, INVALID)
        .bad64(16, &[ring.ring + 8], INVALID)
        .bad32(24, &[0, 1, 0xffff_fffe], INVALID)
        .bad32(28, &[32, 65536, u32::MAX], RANGE)
        .bad64(32, &bad, INVALID)
        .bad64(32, &across, INVALID)
        .bad64(32, &[ring.completions + 4], INVALID)
        .bad16(40, &sizes, RANGE)
        .bad16(42, &sizes, RANGE)
        .run(&bench, &mut driver);
    Case::new("CREATE_RX_QUEUE", driver.create_rx(3, &ring, 128))
        .bad32(0, &[16, 65536 + 3, u32::MAX], RANGE)
        .bad32(12, &[32, 65536, u32::MAX], RANGE)
        .bad64(16, &bad, INVALID)
        .bad64(24, &bad, INVALID)
        .bad64(24, &across, INVALID)
        .bad64(24, &[ring.completions + 16], INVALID)
        .bad64(32, &bad, INVALID)
        .bad64(32, &across, INVALID)
        .bad64(32, &[ring.ring + 1], INVALID)
        .bad32(40, &[0, 1, 0xffff_fffe], INVALID)
        .bad16(44, &sizes, RANGE)
        .bad16(46, &[0, 1, 2047, 4097, 65535], INVALID)
        .bad16(48, &sizes, RANGE)
        .bad8(50, &[2, 255], INVALID)
        .bad16(52, &[1, 127, 129, 256, 65535], INVALID)
        .run(&bench, &mut driver);
    assert_eq!(driver.execute(driver.create_tx(3, &ring)), EXISTS);
    assert_eq!(driver.execute(driver.create_rx(3, &ring, 128)), EXISTS);
    for opcode in [7, 8] {
        Case::new("DESTROY", command(opcode, &[(0, &3u32.to_be_bytes())]))
            .bad32(0, &[0, 2, 4, 16, 65536 + 3, u32::MAX], NOT_FOUND)
            .run(&bench, &mut driver);
    }
}

#[test]
fn what_spreads_and_steers() {
    let bench = bench(config());
    let mut driver = Driver::attach(&bench);
    let (ram, bad) = (&bench.ram, bad_addresses(bench.ram.end()));
    let (key, lut) = (ram.alloc(40), ram.alloc(512));
    let wrong = ram.alloc(512);
    ram.poke(wrong + 256, &65536u32.to_be_bytes());
    let configure = command(
        0xa,
        &[
            (0, &0xd2u16.to_be_bytes()),
            (2, &[1]),
            (4, &40u16.to_be_bytes()),
            (6, &128u16.to_be_bytes()),
            (8, &key.to_be_bytes()),
            (16, &lut.to_be_bytes()),
        ],
    );
    Case::new("CONFIGURE_RSS", configure)
        .bad16(0, &[1 << 9, 0xffff], INVALID)
        .bad8(2, &[2, 3, 255], INVALID)
        .bad16(4, &[1, 39, 41, 65535], INVALID)
        .bad16(6, &[1, 127, 129, 256, 65535], INVALID)
        .bad64(8, &bad, INVALID)
        .bad64(16, &bad, INVALID)
        .bad64(16, &[wrong], RANGE)
        .run(&bench, &mut driver);
    let buffer = ram.alloc(4096).to_be_bytes();
    Case::new("QUERY_RSS", command(0x12, &[(0, &4096u64.to_be_bytes()), (8, &buffer)]))
        .bad64(0, &[0, 8, 559], INVALID)
        .bad64(8, &bad, INVALID)
        .run(&bench, &mut driver);
    Case::new("QUERY_FLOW_RULES", command(0x10, &[(8, &4096u64.to_be_bytes()), (16, &buffer)]))
        .bad16(0, &[3, 65535], INVALID)
        .bad64(8, &[0, 15], INVALID)
        .bad64(16, &bad, INVALID)
        .run(&bench, &mut driver);
    let inner = ram.alloc(92);
    let extended = command(0xff, &[(0, &0x101u32.to_be_bytes()), (4, &92u32.to_be_bytes()), (8, &inner.to_be_bytes())]);
    Case::new("EXTENDED_COMMAND", extended)
        .bad32(0, &[0, 1, 5, 0xff, 0x100, 0x102, u32::MAX], UNIMPLEMENTED)
        .bad32(4, &[0, 91, 93, u32::MAX], INVALID)
        .bad64(8, &bad, INVALID)
        .run(&bench, &mut driver);
    // The rule itself: (offset in the command, bytes).
    let rule: [(usize, &[u8], u32); 6] = [
        (0, &[0, 3], INVALID),
        (4, &[0, 10], INVALID),
        (6, &[0, 16], RANGE),
        (48 + 4, &[1], INVALID),
        (64 + 15, &[1], INVALID),
        (88, &[0, 0, 1, 0], RANGE),
    ];
    for (at, bytes, status) in rule {
        ram.poke(inner, &[0; 92]);
        ram.poke(inner + at as u64, bytes);
        let before = state(&bench);
        assert_eq!((driver.execute(extended), state(&bench)), (status, before), "{bytes:x?} at {at} of a rule");
    }
}

#[test]
fn what_there_is_not() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 2);
    // Page lists, which raw addressing has not, and numbers nobody knows.
    for opcode in [3, 4, 0, 0x13, 0x7f, 0xfe, 0x100, 0x101, 0x0f00_0000, u32::MAX] {
        assert_eq!(driver.execute(command(opcode, &[])), UNIMPLEMENTED, "{opcode:#x}");
    }
}

#[test]
fn doorbells_of_the_admin_queue_are_bounded() {
    let bench = bench(config());
    let mut driver = Driver::attach(&bench);
    for bell in [65, 1000, 1 << 31, u32::MAX] {
        driver.write32(20, bell);
        assert_eq!(driver.read32(24), 0, "{bell} commands");
    }
    (0..64).for_each(|_| driver.issue(command(0, &[])));
    driver.write32(20, 64);
    assert_eq!(driver.read32(24), 64, "a full ring");
    driver.write32(20, 63);
    assert_eq!(driver.read32(24), 64, "back");
    driver.write32(20, 64);
    assert_eq!(bench.control.status().control.commands, 64, "and again");
    driver.release();
    driver.write32(20, 1);
    assert_eq!((driver.read32(24), bench.control.status().control.bad_admin_doorbells), (0, 6));
    // A ring that is not in memory, or only its first half is.
    for (ring, answered, written) in [(BASE - 4096, 0, 0), (bench.ram.end() - 2048, 32, 32 * 4)] {
        driver.release();
        driver.ring = ring;
        driver.run();
        let before = bench.ram.written();
        driver.write32(20, 64);
        assert_eq!((driver.read32(24), bench.ram.written() - before), (answered, written));
    }
}

#[test]
fn doorbells_of_nothing_ring_nothing() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 2);
    driver.open(2, 64);
    bench.wakes.take();
    bench.raised.take();
    let bad = |offset: u64, bytes: &[u8]| {
        let before = bench.control.status().control.bad_doorbells;
        bench.control.write_doorbell(offset, bytes);
        assert_eq!(bench.control.status().control.bad_doorbells, before + 1, "{bytes:x?} at {offset:#x}");
    };
    for index in [4, 255, 258, 271, 272, 511, 514, 527, 528, 1023, 1024, u64::MAX / 4] {
        bad(index * 4, &[1, 0, 0, 0]);
    }
    for (id, tail) in [(256, 64u32), (257, 65), (512, 1 << 16), (513, u32::MAX)] {
        bad(id * 4, &tail.to_le_bytes());
    }
    for (offset, bytes) in [(1024, &[1][..]), (1024, &[1, 0]), (1024, &[0; 8]), (1024, &[]), (1025, &[0; 4])] {
        bad(offset, bytes);
    }
    assert!(bench.wakes.take().is_empty() && bench.raised.take().is_empty());
}
