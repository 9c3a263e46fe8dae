use etherparse::{IpHeaders, TcpHeader};

use super::*;
use crate::frame::testing::{Random, Shape, judge};
use crate::frame::{fill, segments, verify};

const GOOD: Integrity = Integrity { l3: Some(true), l4: Some(true) };

fn offer(merger: &mut Merger, frame: &[u8]) -> Verdict {
    let parsed = Parsed::of(frame);
    merger.offer(frame, &parsed, &verify(frame, &parsed))
}

fn cut(frame: &[u8], mss: u16) -> Vec<Vec<u8>> {
    let mut segments = segments(frame, &Parsed::of(frame), mss).unwrap();
    let (mut all, mut out) = (Vec::new(), Vec::new());
    while segments.next_into(&mut out) {
        all.push(out.clone());
    }
    all
}

#[test]
fn what_was_cut_is_joined_again() {
    let mut random = Random(1);
    let bytes = random.bytes(60_000);
    let mut merger = Merger::new(IP_MAX);
    let lengths = (1..3100).chain((3100..60_000).step_by(487)).chain([59_999, 60_000]);
    for (n, length) in lengths.enumerate() {
        let mss = [1448, 1449, 88, 536, 8948][n % 5];
        let mut shape = Shape::stream(n % 3 == 0, bytes[..length].to_vec());
        shape.tags = (n % 4 % 3) as u8;
        if let Some(tcp) = &mut shape.tcp {
            tcp.ece = n % 7 == 0;
            (tcp.psh, tcp.fin) = (n % 2 == 0, n % 11 == 0);
        }
        let frame = shape.frame();
        let all = cut(&frame, mss);
        let ends = n % 2 == 0 || n % 11 == 0;
        let whole = length % usize::from(mss) == 0;
        let (mut joined, mut alone) = (0, false);
        for (at, segment) in all.iter().enumerate() {
            let last = at + 1 == all.len();
            let expected = match last {
                true if at == 0 && ends => Verdict::Pass,
                true if at > 0 && (ends || !whole) => Verdict::Last,
                _ => Verdict::Absorbed,
            };
            assert_eq!(offer(&mut merger, segment), expected, "{length} bytes by {mss}, segment {at}");
            joined += 1;
            alone = expected == Verdict::Pass;
        }
        let Some(merged) = merger.take() else {
            assert!(alone && all[0] == frame);
            continue;
        };
        assert!(merged.frame == frame, "{length} bytes by {mss}");
        assert_eq!(merged.segments, joined);
        assert_eq!(usize::from(merged.segment_len), length.min(usize::from(mss)));
        // What the driver computes, gve_rx_complete_rsc.
        assert_eq!(length.div_ceil(usize::from(merged.segment_len)), usize::from(merged.segments));
        if n % 16 == 0 {
            judge(merged.frame);
        }
        assert!(merger.is_empty() && merger.take().is_none());
    }
}

#[test]
fn padding_does_not_join() {
    let all = cut(&Shape::stream(false, vec![9; 89]).frame(), 88);
    let mut merger = Merger::new(IP_MAX);
    assert_eq!(offer(&mut merger, &[&all[0][..], &[0xee; 9]].concat()), Verdict::Absorbed);
    assert_eq!(offer(&mut merger, &[&all[1][..], &[0xee; 40]].concat()), Verdict::Last);
    assert_eq!(merger.take().unwrap().frame, Shape::stream(false, vec![9; 89]).frame());
}

/// The second of two segments, changed and with a right checksum.
fn second(v6: bool, change: impl FnOnce(&mut TcpHeader, &mut IpHeaders, &mut Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    let first = Shape::stream(v6, vec![3; 100]);
    let mut shape = first.clone();
    let mut tcp = shape.tcp.take().unwrap();
    tcp.sequence_number = tcp.sequence_number.wrapping_add(100);
    if let IpHeaders::Ipv4(ip, _) = &mut shape.ip {
        ip.identification += 1;
    }
    change(&mut tcp, &mut shape.ip, &mut shape.payload);
    shape.tcp = Some(tcp);
    (first.frame(), shape.frame())
}

#[test]
fn what_differs_flushes() {
    type Change = fn(&mut TcpHeader, &mut IpHeaders, &mut Vec<u8>);
    use Verdict::{Absorbed, FlushFirst, Last};
    let table: &[(&str, Verdict, Change)] = &[
        ("nothing", Absorbed, |_, _, _| {}),
        ("push", Last, |tcp, _, _| tcp.psh = true),
        ("the end", Last, |tcp, _, _| tcp.fin = true),
        ("a short segment", Last, |_, _, payload| payload.truncate(99)),
        ("a long segment", FlushFirst, |_, _, payload| payload.push(0)),
        ("no payload", FlushFirst, |_, _, payload| payload.clear()),
        ("the end with no payload", FlushFirst, |tcp, _, payload| (tcp.fin, *payload) = (true, vec![])),
        ("a gap", FlushFirst, |tcp, _, _| tcp.sequence_number += 1),
        ("a repetition", FlushFirst, |tcp, _, _| tcp.sequence_number -= 100),
        ("another acknowledgement", FlushFirst, |tcp, _, _| tcp.acknowledgment_number += 1),
        ("another window", FlushFirst, |tcp, _, _| tcp.window_size += 1),
        ("SYN", FlushFirst, |tcp, _, _| tcp.syn = true),
        ("RST", FlushFirst, |tcp, _, _| tcp.rst = true),
        ("URG", FlushFirst, |tcp, _, _| tcp.urg = true),
        ("an urgent pointer", FlushFirst, |tcp, _, _| tcp.urgent_pointer = 1),
        ("ECE", FlushFirst, |tcp, _, _| tcp.ece = true),
        ("CWR", FlushFirst, |tcp, _, _| tcp.cwr = true),
        ("NS", FlushFirst, |tcp, _, _| tcp.ns = true),
        ("no ACK", FlushFirst, |tcp, _, _| tcp.ack = false),
        ("another port", FlushFirst, |tcp, _, _| tcp.source_port += 1),
        ("another timestamp", FlushFirst, |tcp, _, _| {
            tcp.set_options_raw(&[1, 1, 8, 10, 1, 2, 3, 5, 5, 6, 7, 8]).unwrap()
        }),
        ("no timestamp", FlushFirst, |tcp, _, _| tcp.set_options_raw(&[]).unwrap()),
        ("another hop limit", FlushFirst, |_, ip, _| match ip {
            IpHeaders::Ipv4(ip, _) => ip.time_to_live -= 1,
            IpHeaders::Ipv6(ip, _) => ip.hop_limit -= 1,
        }),
        ("another traffic class", FlushFirst, |_, ip, _| match ip {
            IpHeaders::Ipv4(ip, _) => ip.dscp = 1.try_into().unwrap(),
            IpHeaders::Ipv6(ip, _) => ip.traffic_class = 4,
        }),
        ("another address", FlushFirst, |_, ip, _| match ip {
            IpHeaders::Ipv4(ip, _) => ip.source[3] ^= 1,
            IpHeaders::Ipv6(ip, _) => ip.source[15] ^= 1,
        }),
        ("a fragment or an extension header", FlushFirst, |_, ip, _| match ip {
            IpHeaders::Ipv4(ip, _) => ip.more_fragments = true,
            IpHeaders::Ipv6(_, extensions) => extensions.destination_options = Some(Default::default()),
        }),
        ("another flow label or options", FlushFirst, |_, ip, _| match ip {
            IpHeaders::Ipv4(ip, _) => ip.options = [1, 1, 1, 0].into(),
            IpHeaders::Ipv6(ip, _) => ip.flow_label = 9.try_into().unwrap(),
        }),
    ];
    for v6 in [false, true] {
        for (what, expected, change) in table {
            let (first, second) = second(v6, change);
            let mut merger = Merger::new(IP_MAX);
            assert_eq!(offer(&mut merger, &first), Verdict::Absorbed);
            assert_eq!(offer(&mut merger, &second), *expected, "{what}, IPv6 {v6}");
            let merged = merger.take().unwrap();
            judge(merged.frame);
            let joined = *expected != Verdict::FlushFirst;
            assert_eq!(merged.segments, 1 + u16::from(joined), "{what}");
            assert!(joined || merged.frame == first, "{what}: what is held is as it came");
        }
    }
}

#[test]
fn a_frame_that_cannot_begin_passes() {
    type Change = fn(&mut TcpHeader);
    let changes: [(&str, Change); 5] = [
        ("push", |tcp| tcp.psh = true),
        ("SYN", |tcp| tcp.syn = true),
        ("RST", |tcp| tcp.rst = true),
        ("URG", |tcp| tcp.urg = true),
        ("CWR", |tcp| tcp.cwr = true),
    ];
    for (what, change) in changes {
        let mut shape = Shape::stream(false, vec![1; 50]);
        shape.tcp.as_mut().map(change);
        let mut merger = Merger::new(IP_MAX);
        assert_eq!(offer(&mut merger, &shape.frame()), Verdict::Pass, "{what}");
        assert!(merger.is_empty());
    }
    let mut merger = Merger::new(IP_MAX);
    assert_eq!(offer(&mut merger, &Shape::stream(true, vec![]).frame()), Verdict::Pass, "an acknowledgement");
    let udp = Shape { tcp: None, ..Shape::stream(true, vec![1; 50]) };
    assert_eq!(offer(&mut merger, &udp.frame()), Verdict::Pass);
    assert_eq!(offer(&mut Merger::new(100), &Shape::stream(false, vec![1; 50]).frame()), Verdict::Pass, "too large");
}

#[test]
fn damage_does_not_join() {
    for damaged_first in [true, false] {
        let (mut first, mut second) = second(false, |_, _, _| {});
        let bad = if damaged_first { &mut first } else { &mut second };
        *bad.last_mut().unwrap() ^= 0x40;
        let mut merger = Merger::new(IP_MAX);
        let verdicts = (offer(&mut merger, &first), offer(&mut merger, &second));
        let expected = match damaged_first {
            true => (Verdict::Pass, Verdict::Absorbed),
            false => (Verdict::Absorbed, Verdict::FlushFirst),
        };
        assert_eq!(verdicts, expected);
    }
}

#[test]
fn identifications_count_or_stand_still() {
    let frame = |n: u32, id: u16, unfragmented| {
        let mut shape = Shape::stream(false, vec![3; 100]);
        let tcp = shape.tcp.as_mut().unwrap();
        tcp.sequence_number = tcp.sequence_number.wrapping_add(100 * n);
        if let IpHeaders::Ipv4(ip, _) = &mut shape.ip {
            (ip.identification, ip.dont_fragment) = (id, unfragmented);
        }
        shape.frame()
    };
    let joined = |ids: [u16; 3], unfragmented| {
        let mut merger = Merger::new(IP_MAX);
        let frames = [0, 1, 2].map(|n| frame(n, ids[n as usize], unfragmented));
        frames.iter().take_while(|frame| offer(&mut merger, frame) == Verdict::Absorbed).count()
    };
    assert_eq!(joined([65_535, 0, 1], true), 3);
    assert_eq!(joined([65_535, 0, 1], false), 3);
    assert_eq!(joined([0, 0, 0], true), 3);
    assert_eq!(joined([0, 0, 0], false), 1);
    assert_eq!(joined([5, 6, 6], true), 2);
    assert_eq!(joined([5, 5, 6], true), 2);
    assert_eq!(joined([5, 5, 7], true), 2);
    assert_eq!(joined([5, 7, 8], true), 1);
}

#[test]
fn the_limit_holds() {
    for (v6, limit) in [(false, IP_MAX), (true, IP_MAX), (false, 9000), (true, usize::MAX)] {
        let shape = Shape::stream(v6, vec![1; 80_000]);
        let mut frame = Shape { payload: vec![], ..shape.clone() }.frame();
        frame.extend_from_slice(&shape.payload);
        let mut merger = Merger::new(limit);
        for (n, segment) in cut(&frame, 1448).iter().enumerate() {
            let headers = shape.payload_at() - shape.l3_at();
            let fits = headers + (n + 1) * 1448 <= limit.min(IP_MAX);
            let verdict = offer(&mut merger, segment);
            assert_eq!(verdict == Verdict::Absorbed, fits, "segment {n} with a limit of {limit}");
            if !fits {
                assert_eq!(verdict, Verdict::FlushFirst);
                let merged = merger.take().unwrap();
                assert_eq!(usize::from(merged.segments), n);
                judge(merged.frame);
                assert_eq!(offer(&mut merger, segment), Verdict::Absorbed, "the next begins");
                break;
            }
        }
    }
}

#[test]
fn nothing_follows_the_last() {
    let (first, second) = second(false, |tcp, _, _| tcp.psh = true);
    let mut merger = Merger::new(IP_MAX);
    assert_eq!(offer(&mut merger, &first), Verdict::Absorbed);
    assert_eq!(offer(&mut merger, &second), Verdict::Last);
    let mut shape = Shape::stream(false, vec![3; 100]);
    let tcp = shape.tcp.as_mut().unwrap();
    tcp.sequence_number = tcp.sequence_number.wrapping_add(200);
    assert_eq!(offer(&mut merger, &shape.frame()), Verdict::FlushFirst);
}

#[test]
fn flows_are_told_apart() {
    for v6 in [false, true] {
        let (first, second) = second(v6, |_, _, payload| payload.clear());
        let mut merger = Merger::new(IP_MAX);
        assert!(!merger.same_flow(&first, &Parsed::of(&first)), "nothing is held");
        offer(&mut merger, &first);
        assert!(merger.same_flow(&second, &Parsed::of(&second)), "an acknowledgement is of the flow too");
        for at in [0, 14 + if v6 { 23 } else { 15 }, Parsed::of(&first).l4_at + 3] {
            let mut other = first.clone();
            other[at] ^= 1;
            assert!(!merger.same_flow(&other, &Parsed::of(&other)), "byte {at}");
        }
    }
}

/// Segments of an even and an odd length, with any bytes: the sum taken from their checksums is that of their bytes.
#[test]
fn sums_are_taken_from_the_segments() {
    let mut random = Random(9);
    let mut merger = Merger::new(IP_MAX);
    for n in 0..300 {
        let length = 1 + random.below(4000);
        let payload = match n % 3 {
            0 => vec![0; length],
            1 => vec![0xff; length],
            _ => random.bytes(length),
        };
        let frame = Shape::stream(n % 2 == 0, payload).frame();
        for segment in cut(&frame, 88 + random.below(100) as u16) {
            assert_ne!(offer(&mut merger, &segment), Verdict::FlushFirst);
        }
        let mut joined = merger.take().unwrap().frame.to_vec();
        let by_segments = joined.clone();
        fill(&mut joined, &Parsed::of(&by_segments));
        assert!(joined == by_segments && joined == frame);
        assert_eq!(verify(&joined, &Parsed::of(&joined)).l4, GOOD.l4);
    }
}
