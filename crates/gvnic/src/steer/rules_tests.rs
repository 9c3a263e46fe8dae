use super::*;

const SOURCE: [u8; 16] = [10, 1, 2, 3, 0x44, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const DESTINATION: [u8; 16] = [10, 9, 8, 7, 0x66, 5, 4, 3, 2, 1, 99, 98, 97, 96, 95, 94];
const PROTOCOLS: [u8; 5] = [6, 17, 132, 51, 50];

/// A packet that owns its bytes.
#[derive(Debug, Clone, Copy)]
struct Packet {
    v6: bool,
    protocol: u8,
    source: [u8; 16],
    destination: [u8; 16],
    ports: Option<[u8; 4]>,
    traffic_class: u8,
}

impl Packet {
    fn new(flow_type: u16) -> Packet {
        Packet {
            v6: flow_type >= 5,
            protocol: PROTOCOLS[usize::from(flow_type % 5)],
            source: SOURCE,
            destination: DESTINATION,
            ports: Some([0x12, 0x34, 0x56, 0x78]),
            traffic_class: 0xb8,
        }
    }

    fn find(&self, rules: &Rules) -> Option<(u32, u16)> {
        let addresses = if self.v6 {
            Addresses::V6 { source: &self.source, destination: &self.destination }
        } else {
            Addresses::V4 {
                source: self.source.first_chunk().unwrap(),
                destination: self.destination.first_chunk().unwrap(),
            }
        };
        let (protocol, traffic_class, ports) = (self.protocol, self.traffic_class, self.ports);
        rules.find(&FlowKey { addresses, protocol, traffic_class, ports })
    }
}

fn spec(v6: bool, bits: u8, value: u8, of: impl Fn(usize) -> u8) -> FlowSpec {
    let on = |bit: u8, at: usize| if bits >> bit & 1 == 1 { of(at) & value } else { 0 };
    let width = if v6 { 16 } else { 4 };
    let address = |bit, base: usize| std::array::from_fn(|n| if n < width { on(bit, base + n) } else { 0 });
    FlowSpec {
        source: address(0, 0),
        destination: address(1, 16),
        ports: [on(2, 32), on(2, 33), on(3, 34), on(3, 35)],
        traffic_class: on(4, 36),
        padding: [0; 3],
    }
}

fn packet_byte(at: usize) -> u8 {
    let packet = Packet::new(0);
    [&packet.source[..], &packet.destination, &packet.ports.unwrap(), &[packet.traffic_class]].concat()[at]
}

/// A rule for the packets of [`Packet::new`] that looks at the fields in `bits`: source, destination, source port (or half
/// of an SPI), destination port, traffic class.
fn rule(flow_type: u16, bits: u8, queue: u16) -> FlowRule {
    let v6 = flow_type >= 5;
    FlowRule { flow_type, queue, key: spec(v6, bits, 0xff, packet_byte), mask: spec(v6, bits, 0xff, |_| 0xff) }
}

fn table() -> RuleTable {
    RuleTable::new(256, 16)
}

#[test]
fn every_mask_of_every_flow_type_matches_what_it_should() {
    type Change = fn(&mut Packet);
    let changes: [Change; 5] = [
        |p| p.source[3] ^= 1,
        |p| p.destination[0] ^= 0x80,
        |p| p.ports.as_mut().unwrap()[1] ^= 1,
        |p| p.ports.as_mut().unwrap()[2] ^= 0x10,
        |p| p.traffic_class ^= 4,
    ];
    for flow_type in 0..10 {
        for bits in 0..32 {
            let mut table = table();
            table.add(200, rule(flow_type, bits, 7)).unwrap();
            let rules = table.compile();
            let hit = Some((200, 7));
            let packet = Packet::new(flow_type);
            assert_eq!(packet.find(&rules), hit, "type {flow_type}, fields {bits:05b}");
            for (n, change) in changes.iter().enumerate() {
                let mut other = packet;
                change(&mut other);
                let counts = bits >> n & 1 == 1;
                assert_eq!(other.find(&rules), hit.filter(|_| !counts), "type {flow_type}, fields {bits:05b}, not {n}");
            }
            for other in 0..10 {
                let found = Packet::new(other).find(&rules);
                assert_eq!(found, hit.filter(|_| other == flow_type), "a rule for {flow_type} and a packet of {other}");
            }
            let fragment = Packet { ports: None, ..packet };
            assert_eq!(
                fragment.find(&rules),
                hit.filter(|_| bits & 0b1100 == 0),
                "a later fragment, fields {bits:05b}"
            );
        }
    }
}

#[test]
fn partial_masks_are_prefixes_and_holes() {
    let mut table = table();
    let mut prefix = rule(0, 1, 3);
    prefix.mask.source[3] = 0;
    prefix.mask.source[2] = 0xf0;
    // Bits of the key outside the mask do not count.
    table.add(0, prefix).unwrap();
    let mut odd = rule(6, 8, 4);
    odd.mask.ports = [0, 0, 0, 1];
    odd.key.ports = [0, 0, 0, 0];
    table.add(1, odd).unwrap();
    let rules = table.compile();
    let v4 = |source: [u8; 4]| {
        let mut packet = Packet::new(0);
        packet.source[..4].copy_from_slice(&source);
        packet.find(&rules)
    };
    assert_eq!(v4([10, 1, 2, 200]), Some((0, 3)));
    assert_eq!(v4([10, 1, 15, 0]), Some((0, 3)));
    assert_eq!(v4([10, 1, 16, 0]), None);
    let port = |port| Packet { ports: Some([0, 0, 0, port]), ..Packet::new(6) }.find(&rules);
    assert_eq!((port(2), port(3)), (Some((1, 4)), None));
}

#[test]
fn the_lowest_location_wins_whatever_the_order_and_the_mask() {
    let all = rule(0, 0b01111, 1);
    let any = rule(0, 0, 2);
    let port = rule(0, 0b01000, 3);
    let packet = Packet::new(0);
    type Case<'a> = (&'a [(u32, FlowRule)], Option<(u32, u16)>);
    let cases: [Case<'_>; 6] = [
        (&[(5, all), (9, any)], Some((5, 1))),
        (&[(9, any), (5, all)], Some((5, 1))),
        (&[(5, any), (9, all)], Some((5, 2))),
        (&[(7, port), (8, all), (3, any)], Some((3, 2))),
        (&[(7, port), (7, all)], Some((7, 1))),
        (&[(255, port), (254, FlowRule { queue: 9, ..port })], Some((254, 9))),
    ];
    for (rules, found) in cases {
        let mut table = table();
        for (location, rule) in rules {
            table.add(*location, *rule).unwrap();
        }
        assert_eq!(packet.find(&table.compile()), found, "{:?}", rules.iter().map(|r| r.0).collect::<Vec<_>>());
    }
}

#[test]
fn rules_go_away() {
    let mut table = table();
    table.add(4, rule(0, 3, 1)).unwrap();
    table.add(6, rule(0, 0, 2)).unwrap();
    let packet = Packet::new(0);
    assert_eq!(packet.find(&table.compile()), Some((4, 1)));
    table.remove(4).unwrap();
    assert_eq!(packet.find(&table.compile()), Some((6, 2)));
    assert_eq!(table.remove(4), Err(BadRule::Missing));
    table.clear();
    assert_eq!((packet.find(&table.compile()), table.len()), (None, 0));
}

#[test]
fn rules_that_cannot_be_are_refused() {
    let good = rule(0, 3, 1);
    let mut wide = good;
    wide.mask.destination[4] = 1;
    let cases = [
        (0, FlowRule { flow_type: 10, ..good }, BadRule::FlowType),
        (0, FlowRule { flow_type: u16::MAX, ..good }, BadRule::FlowType),
        (256, good, BadRule::Location),
        (u32::MAX, good, BadRule::Location),
        (0, FlowRule { queue: 16, ..good }, BadRule::Queue),
        (0, wide, BadRule::Mask),
    ];
    let mut table = table();
    for (location, rule, why) in cases {
        assert_eq!(table.add(location, rule), Err(why));
    }
    assert_eq!(table.len(), 0);
    table.add(255, FlowRule { queue: 15, ..good }).unwrap();
    assert_eq!(RuleTable::new(0, 16).add(0, good), Err(BadRule::Location));
}

#[test]
fn many_rules_find_what_looking_at_each_would() {
    let mut state = 7u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut table = table();
    for location in 0..256 {
        let flow_type = next(10) as u16;
        let mut rule = rule(flow_type, 1 | next(32) as u8, next(16) as u16);
        // Few values, so that many rules match.
        rule.key.ports[1] = next(2) as u8;
        rule.key.source[3] = next(8) as u8;
        rule.mask.source[1] &= next(256) as u8;
        table.add(location, rule).unwrap();
    }
    let rules = table.compile();
    let mut hits = 0;
    for _ in 0..4000 {
        let flow_type = next(10) as u16;
        let mut packet = Packet::new(flow_type);
        packet.ports = Some([0x12, next(2) as u8, 0x56, 0x78]);
        packet.source[3] = next(16) as u8;
        packet.traffic_class ^= next(2) as u8;
        let expected = table.rules.iter().find(|(_, rule)| {
            let width = if packet.v6 { 16 } else { 4 };
            let same = |a: &[u8], k: &[u8], m: &[u8]| a.iter().zip(k).zip(m).all(|((a, k), m)| a & m == k & m);
            rule.flow_type == flow_type
                && same(&packet.source[..width], &rule.key.source, &rule.mask.source)
                && same(&packet.destination[..width], &rule.key.destination, &rule.mask.destination)
                && same(&packet.ports.unwrap(), &rule.key.ports, &rule.mask.ports)
                && same(&[packet.traffic_class], &[rule.key.traffic_class], &[rule.mask.traffic_class])
        });
        let expected = expected.map(|(location, rule)| (*location, rule.queue));
        hits += usize::from(expected.is_some());
        assert_eq!(packet.find(&rules), expected);
    }
    assert!((400..4000).contains(&hits), "{hits}: the test tests something");
}
