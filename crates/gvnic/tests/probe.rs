//! The driver's own sequence, from the first register to the last, and what it finds on the way.

mod common;

use common::{Driver, bench, command, config};
use gvnic::config::PortConfig;
use gvnic::control::Wake;

/// Options of a descriptor, as the driver walks them (`gve_process_device_options`).
fn options(driver: &Driver<'_>, descriptor: u64) -> Vec<(u16, Vec<u8>)> {
    let ram = driver.ram;
    let total = u64::from(ram.peek16(descriptor + 32));
    let mut at = descriptor + 40;
    let mut options = Vec::new();
    for _ in 0..ram.peek16(descriptor + 30) {
        let (id, length) = (ram.peek16(at), ram.peek16(at + 2));
        assert_eq!(ram.peek32(at + 4), 0, "option {id:#x} requires nothing");
        options.push((id, ram.peek(at + 8, usize::from(length))));
        at += 8 + u64::from(length);
        assert!(at <= descriptor + total, "options exceed the descriptor's total length");
    }
    assert_eq!(at, descriptor + total);
    options
}

#[test]
fn the_descriptor_says_what_the_port_is() {
    let bench = bench(PortConfig { queues_initial: 8, ..config() });
    let mut driver = Driver::attach(&bench);
    let descriptor = driver.describe();
    let ram = driver.ram;
    assert_eq!(ram.peek64(descriptor), 0, "pages of page lists");
    let words: Vec<u16> = (4..=10).map(|n| ram.peek16(descriptor + n * 2)).collect();
    assert_eq!(words, [0, 1024, 1024, 8, 1500, 32, 0], "rings, queues, MTU, counters");
    assert_eq!(ram.peek(descriptor + 24, 6), [2, 0, 0, 0, 0, 0x42]);
    let be32 = |mask: u32| mask.to_be_bytes();
    let be16 = |values: &[u16]| values.iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>();
    let all = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8;
    let expected = vec![
        (0x4, [be32(all), be32(0)].concat()),
        (0x8, [&be32(1 << 2)[..], &be16(&[9000, 0])].concat()),
        (0xa, [&be32(1 << 4)[..], &be16(&[4096, 128])].concat()),
        (0x6, [&be32(1 << 0)[..], &be16(&[1024, 1024, 64, 64])].concat()),
        (0xb, [be32(1 << 5), be32(0), be32(256)].concat()),
        (0xe, [&be32(1 << 7)[..], &be16(&[40, 128])].concat()),
        (0xd, be32(1 << 8).to_vec()),
    ];
    assert_eq!(options(&driver, descriptor), expected);
}

#[test]
fn what_a_port_has_not_is_not_offered() {
    let small = PortConfig {
        mtu: 1500,
        flow_rules: 0,
        rss_query: false,
        timestamps: false,
        header_split: false,
        rx_buffer: 2048,
        ..config()
    };
    let bench = bench(small);
    let mut driver = Driver::attach(&bench);
    let descriptor = driver.describe();
    let options = options(&driver, descriptor);
    assert_eq!(options.iter().map(|o| o.0).collect::<Vec<_>>(), [0x4, 0xa, 0x6]);
    assert_eq!(options[0].1[..4], [0, 0, 0, 1 << 0 | 1 << 4]);
    assert_eq!(options[1].1[4..], [8, 0, 0, 0], "buffers of 2,048 bytes, none for headers");
    // And commands for it do not exist: the driver reads EOPNOTSUPP.
    let unimplemented = 0xffff_fffe;
    let buffer = bench.ram.alloc(4096).to_be_bytes();
    assert_eq!(driver.execute(command(0x11, &[(7, &[40]), (8, &buffer)])), unimplemented);
    assert_eq!(driver.execute(command(0x12, &[(6, &[16]), (8, &buffer)])), unimplemented);
    assert_eq!(driver.execute(command(0x10, &[(14, &[16]), (16, &buffer)])), unimplemented);
    assert_eq!(driver.flow_rule(0, 0, &[0; 84]), unimplemented);
}

#[test]
fn the_driver_probes_opens_closes_and_leaves() {
    let bench = bench(config());
    let fresh = bench.control.status();
    assert!(!fresh.running && fresh.link && fresh.driver.is_empty());
    let mut driver = Driver::probe(&bench, 16);
    assert_eq!((driver.read32(8), driver.read32(12)), (16, 16));
    let indices: Vec<u32> = (0..32).map(|n| bench.ram.peek32(driver.irq_indices + n * 64)).collect();
    assert_eq!(indices, (0..32).collect::<Vec<_>>());
    bench.wakes.take();
    let rings = driver.open(16, 256);
    assert_eq!(bench.wakes.take(), [Wake::Configuration; 2], "one view behind each doorbell");

    let status = bench.control.status();
    assert_eq!((status.driver.as_str(), status.system.as_str()), ("GVE-1.0.0", "Linux 7.3.4-amd64"));
    let rx = status.rx[5].setup.unwrap();
    assert_eq!((rx.notify_block, rx.packet_buffer, rx.header_buffer, rx.merge), (21, 4096, 128, true));
    assert_eq!((rx.buffer_ring, rx.completion_ring), (rings[5].1.ring, rings[5].1.completions));
    let tx = status.tx[15].setup.unwrap();
    assert_eq!((tx.notify_block, tx.ring_size, tx.completion_size), (15, 256, 256));

    // Tails: the doorbell that was written into the queue's resources.
    driver.ring(&rings[5].1, 224);
    driver.ring(&rings[15].0, 3);
    assert_eq!(bench.wakes.take(), [Wake::Rx(5), Wake::Tx(15)]);
    let view = bench.control.shared().view();
    assert_eq!((view.queues.rx(5).unwrap().tail(), view.queues.tx(15).unwrap().tail()), (224, 3));

    // Interrupts: a completion before the driver enables the block fires when it does.
    bench.raised.take();
    bench.control.shared().blocks().event(21);
    assert!(bench.raised.take().is_empty());
    driver.enable(21);
    assert_eq!(bench.raised.take(), [21]);

    driver.close(16);
    driver.release();
    let status = bench.control.status();
    assert!(!status.running);
    assert_eq!((status.control.rx_created, status.control.rx_destroyed), (16, 16));
    assert_eq!(status.control.command_errors, 0);
    assert_eq!((status.rx[5].buffers.posted, status.rx[5].buffers.abandoned), (224, 224));
    assert!(view.queues.rx(5).unwrap().enter().is_none(), "a view of before holds queues that have ended");
}

#[test]
fn link_and_reset_requests_reach_the_service_task() {
    let bench = bench(config());
    bench.control.set_link(false);
    assert!(bench.raised.take().is_empty(), "nobody to tell yet");
    let mut driver = Driver::probe(&bench, 4);
    assert_eq!(driver.read32(0) & 4, 0);
    bench.control.set_link(true);
    bench.control.set_link(true);
    assert_eq!(bench.raised.take(), [8], "the management vector is behind the blocks in use");
    assert_eq!(driver.read32(0) & 4, 4);
    bench.control.request_reset();
    assert_eq!((bench.raised.take(), driver.read32(0) & 2), (vec![8], 2));
    driver.release();
    driver.run();
    driver.configure(4);
    assert_eq!(driver.read32(0) & 2, 0, "or the driver would reset for ever");
}

#[test]
fn speed_packet_types_and_mtu() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 2);
    let speed = bench.ram.alloc(8);
    driver.must(0xd, &[(0, &speed.to_be_bytes())]);
    assert_eq!(bench.ram.peek64(speed), 100_000);
    let map = bench.ram.alloc(2048);
    driver.must(0xe, &[(0, &2048u64.to_be_bytes()), (8, &map.to_be_bytes())]);
    assert_eq!(bench.ram.peek(map, 2048), gvnic::abi::ptype::map());
    driver.must(0xb, &[(0, &1u32.to_be_bytes()), (8, &4000u64.to_be_bytes())]);
    assert_eq!(bench.control.shared().view().mtu, 4000);
    driver.release();
    assert_eq!(bench.control.shared().view().mtu, 9000);
}

#[test]
fn statistics_are_where_ethtool_looks() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 16);
    driver.open(3, 64);
    let counters = bench.control.shared().stats().rx(2);
    counters.drop_no_buffer.add(5);
    counters.drop_checksum.add(2);
    counters.drop_no_queue.add(1);
    let (address, length) = driver.stats;
    // `gve_get_ethtool_stats`: the device's entries are as many as three queues have, at the end.
    let base = address + length - 3 * 4 * 16;
    for _ in 0..9 {
        bench.control.tick();
    }
    assert_eq!(bench.ram.peek(address, length as usize), vec![0; length as usize], "not yet");
    bench.control.tick();
    let entries: Vec<(u32, u32, u64)> = (0..12)
        .map(|n| base + n * 16)
        .map(|at| (bench.ram.peek32(at), bench.ram.peek32(at + 4), bench.ram.peek64(at + 8)))
        .collect();
    assert_eq!(entries[..4], [(65, 0, 0), (66, 0, 0), (67, 0, 0), (68, 0, 0)]);
    assert_eq!(entries[8..], [(65, 2, 8), (66, 2, 5), (67, 2, 0), (68, 2, 2)]);
    assert_eq!(
        bench.ram.peek(address, (base - address) as usize),
        vec![0; (base - address) as usize],
        "the driver's part"
    );
    driver.report_stats((0, 0));
    let written = bench.ram.written();
    (0..100).for_each(|_| bench.control.tick());
    assert_eq!(bench.ram.written(), written, "a report that was detached is left alone");
}

#[test]
fn the_clock_goes_on() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 1);
    let report = bench.ram.alloc(40);
    let mut last = 0;
    for _ in 0..3 {
        driver.must(0x11, &[(0, &40u64.to_be_bytes()), (8, &report.to_be_bytes())]);
        let now = bench.ram.peek64(report);
        assert!(now > last && now <= bench.control.shared().clock().nanoseconds());
        last = now;
    }
}
