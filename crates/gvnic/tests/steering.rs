//! Flow rules and spreading as the driver asks for them, up to the queue a packet goes to.

mod common;

use common::{Bench, Driver, bench, command, config};
use gvnic::config::PortConfig;
use gvnic::steer::{Addresses, FlowKey};

const OUT_OF_RANGE: u32 = 0xffff_fff9;
const NOT_FOUND: u32 = 0xffff_fff8;

/// A rule for TCP over IPv4 to a port (`gve_generate_flow_rule`, gve_flow_rule.c).
fn tcp4(queue: u16, port: u16) -> [u8; 84] {
    let mut rule = [0; 84];
    rule[2..4].copy_from_slice(&queue.to_be_bytes());
    rule[4 + 34..4 + 36].copy_from_slice(&port.to_be_bytes());
    rule[44 + 34..44 + 36].copy_from_slice(&[0xff; 2]);
    rule
}

fn queue_of(bench: &Bench, port: u16) -> (u16, Option<u32>) {
    let [high, low] = port.to_be_bytes();
    let key = FlowKey {
        addresses: Addresses::V4 { source: &[192, 0, 2, 1], destination: &[192, 0, 2, 2] },
        protocol: 6,
        traffic_class: 0,
        ports: Some([0x80, 1, high, low]),
    };
    let steered = bench.control.shared().view().steer(&key);
    (steered.queue, steered.rule)
}

/// `gve_adminq_query_flow_rules`: rules in all, how many came, and where they are.
fn query(driver: &mut Driver<'_>, opcode: u16, start: u32) -> (u32, u32, u64) {
    let buffer = driver.ram.alloc(4096);
    driver.must(
        0x10,
        &[
            (0, &opcode.to_be_bytes()),
            (4, &start.to_be_bytes()),
            (8, &4096u64.to_be_bytes()),
            (16, &buffer.to_be_bytes()),
        ],
    );
    let ram = driver.ram;
    let (rules, capacity, queried, total) =
        (ram.peek32(buffer), ram.peek32(buffer + 4), ram.peek32(buffer + 8), ram.peek32(buffer + 12));
    assert_eq!(capacity, 256);
    // `gve_adminq_process_flow_rules_query` checks this sum.
    let entry = [88, 4, 0][usize::from(opcode)];
    assert_eq!(total, 16 + queried * entry);
    (rules, queried, buffer + 16)
}

#[test]
fn a_rule_takes_its_flow_and_gives_it_back() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 16);
    driver.open(16, 64);
    assert_eq!(queue_of(&bench, 5201).1, None);
    assert_eq!(driver.flow_rule(0, 255, &tcp4(12, 5201)), 1);
    assert_eq!((queue_of(&bench, 5201), queue_of(&bench, 5202).1), ((12, Some(255)), None));
    assert_eq!(driver.flow_rule(0, 3, &tcp4(13, 5201)), 1, "a lower location goes first");
    assert_eq!(queue_of(&bench, 5201), (13, Some(3)));
    assert_eq!(driver.flow_rule(0, 3, &tcp4(14, 5201)), 1, "adding where one is updates it");
    assert_eq!(queue_of(&bench, 5201), (14, Some(3)));
    assert_eq!(driver.flow_rule(1, 3, &[0; 84]), 1);
    assert_eq!(queue_of(&bench, 5201), (12, Some(255)));
    assert_eq!(driver.flow_rule(1, 3, &[0; 84]), NOT_FOUND);
    assert_eq!(driver.flow_rule(0, 256, &tcp4(1, 1)), OUT_OF_RANGE);
    assert_eq!(driver.flow_rule(0, 1, &tcp4(16, 1)), OUT_OF_RANGE);
    assert_eq!(driver.destroy_rx(12), 1);
    assert_eq!(queue_of(&bench, 5201), (12, Some(255)), "a rule waits for its queue");
    assert_eq!(driver.flow_rule(2, 0, &[0; 84]), 1);
    assert_eq!((queue_of(&bench, 5201).1, query(&mut driver, 2, 0).0), (None, 0));
}

#[test]
fn rules_are_listed_a_page_at_a_time() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 16);
    let rules: Vec<(u32, [u8; 84])> = (0..100).map(|n| (n * 2, tcp4((n % 16) as u16, n as u16 + 1))).collect();
    for (location, rule) in rules.iter().rev() {
        assert_eq!(driver.flow_rule(0, *location, rule), 1);
    }
    assert_eq!(query(&mut driver, 2, 0).0, 100);
    // `gve_get_flow_rule_ids`.
    let (mut ids, mut start) = (Vec::new(), 0);
    loop {
        let (all, queried, at) = query(&mut driver, 1, start);
        assert_eq!(all, 100);
        if queried == 0 {
            break;
        }
        ids.extend((0..u64::from(queried)).map(|n| driver.ram.peek32(at + n * 4)));
        start = ids.last().unwrap() + 1;
    }
    assert_eq!(ids, rules.iter().map(|r| r.0).collect::<Vec<_>>());
    // `gve_get_flow_rule_entry` asks from any location; 46 fit in a page.
    for (start, first, expected) in [(0, 0, 46), (51, 26, 46), (110, 55, 45), (198, 99, 1), (199, 0, 0)] {
        let (_, queried, at) = query(&mut driver, 0, start);
        assert_eq!(queried, expected, "from {start}");
        for n in 0..queried as usize {
            let (location, rule) = rules[first + n];
            let at = at + n as u64 * 88;
            assert_eq!((driver.ram.peek32(at), driver.ram.peek(at + 4, 84)), (location, rule.to_vec()));
        }
    }
}

#[test]
fn a_larger_buffer_gets_no_more_than_the_driver_keeps() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 1);
    for n in 0..200 {
        assert_eq!(driver.flow_rule(0, n, &tcp4(0, n as u16)), 1);
    }
    let buffer = bench.ram.alloc(32768);
    for (available, queried) in [(u64::MAX, 46), (32768, 46), (16 + 88 * 3 + 87, 3), (16, 0)] {
        driver.must(0x10, &[(8, &available.to_be_bytes()), (16, &buffer.to_be_bytes())]);
        assert_eq!(bench.ram.peek32(buffer + 8), queried, "of {available}");
    }
}

#[test]
fn spreading_follows_the_queues_until_the_driver_has_a_table() {
    let bench = bench(PortConfig { queues_initial: 2, ..config() });
    let mut driver = Driver::probe(&bench, 16);
    let answer = bench.ram.alloc(4096);
    let table = |driver: &mut Driver<'_>| -> Vec<u32> {
        driver.must(0x12, &[(0, &4096u64.to_be_bytes()), (8, &answer.to_be_bytes())]);
        // `gve_adminq_process_rss_query`.
        assert_eq!((bench.ram.peek32(answer), bench.ram.peek(answer + 6, 1)), (8 + 40 + 128 * 4, vec![1]));
        (0..128).map(|n| bench.ram.peek32(answer + 48 + n * 4)).collect()
    };
    let dealt = |queues: u32| (0..128).map(|n| n % queues).collect::<Vec<_>>();
    assert_eq!(table(&mut driver), dealt(2));
    driver.open(5, 64);
    assert_eq!(table(&mut driver), dealt(5));
    assert_eq!(driver.destroy_rx(4), 1);
    assert_eq!(table(&mut driver), dealt(5), "a queue that is being restarted keeps its flows");

    let lut = bench.ram.alloc(512);
    (0..128).for_each(|n| bench.ram.poke(lut + n * 4, &(15 - n as u32 % 2).to_be_bytes()));
    let table_only: &[(usize, &[u8])] =
        &[(0, &0x00d2u16.to_be_bytes()), (2, &[1]), (6, &128u16.to_be_bytes()), (16, &lut.to_be_bytes())];
    driver.must(0xa, table_only);
    assert_eq!(table(&mut driver), (0..128).map(|n| 15 - n % 2).collect::<Vec<_>>());
    assert_eq!(bench.ram.peek16(answer + 4), 0x00d2);
    assert!([14, 15].contains(&queue_of(&bench, 1).0));
    assert_eq!(bench.control.shared().view().steer_other().queue, 15);

    let key = bench.ram.alloc(40);
    bench.ram.poke(key, &[0; 40]);
    driver.must(0xa, &[(4, &40u16.to_be_bytes()), (8, &key.to_be_bytes())]);
    assert_eq!((queue_of(&bench, 1).0, queue_of(&bench, 2).0), (15, 15), "a key of zeros hashes to zero");
    assert_eq!(table(&mut driver)[1], 14, "and leaves the table");
    assert_eq!(bench.ram.peek(answer + 8, 40), [0; 40]);
    driver.release();
    driver.run();
    assert_eq!(table(&mut driver), dealt(2), "a reset forgets");
}

#[test]
fn a_bad_table_changes_nothing() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 16);
    driver.open(16, 64);
    let before = (1..100).map(|port| queue_of(&bench, port)).collect::<Vec<_>>();
    let (lut, key) = (bench.ram.alloc(512), bench.ram.alloc(40));
    bench.ram.poke(lut + 508, &16u32.to_be_bytes());
    let both: &[(usize, &[u8])] =
        &[(4, &40u16.to_be_bytes()), (6, &128u16.to_be_bytes()), (8, &key.to_be_bytes()), (16, &lut.to_be_bytes())];
    assert_eq!(driver.execute(command(0xa, both)), OUT_OF_RANGE);
    assert_eq!((1..100).map(|port| queue_of(&bench, port)).collect::<Vec<_>>(), before);
}
