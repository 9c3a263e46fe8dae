use super::*;
use crate::frame::testing::{Random, Shape};
use crate::frame::{Merger, fill, segments, verify};

/// Everything that takes a frame takes this one, and offsets are in order.
fn survives(frame: &[u8], merger: &mut Merger, out: &mut Vec<u8>) {
    let parsed = Parsed::of(frame);
    let ends = [parsed.l3_at, parsed.l4_at, parsed.payload_at, parsed.end, frame.len()];
    assert!(ends.is_sorted(), "{parsed:?} of {} bytes", frame.len());
    let _ = (parsed.flow_key(frame), parsed.split_at(), parsed.packet_type());
    let integrity = verify(frame, &parsed);
    if let Ok(mut segments) = segments(frame, &parsed, 88) {
        while segments.next_into(out) {}
    }
    // As if the checksums were right, which random bytes seldom have.
    for integrity in [integrity, crate::frame::Integrity { l3: Some(true), l4: Some(true) }] {
        if merger.offer(frame, &parsed, &integrity) != crate::frame::Verdict::Absorbed {
            merger.take();
        }
    }
    let mut copy = frame.to_vec();
    fill(&mut copy, &parsed);
    assert_eq!(copy.len(), frame.len());
    if parsed.complete && !parsed.rerouted && matches!(parsed.l4, L4::Tcp) {
        let after = verify(&copy, &Parsed { ipv6_extra: false, ..Parsed::of(&copy) });
        assert_eq!(after.l4, Some(true), "{parsed:?}");
    }
}

#[test]
fn offsets_are_those_of_the_maker() {
    let mut random = Random(1);
    for n in 0..5000 {
        let payload = random.below(200);
        let shape = Shape::random(&mut random, payload);
        let mut frame = shape.frame();
        let end = frame.len();
        frame.resize(end + random.below(20), 0);
        let parsed = Parsed::of(&frame);
        let l4 = if shape.tcp.is_some() { L4::Tcp } else { L4::Udp };
        assert_eq!((parsed.l4, parsed.tags), (l4, shape.tags), "frame {n}");
        assert_eq!((parsed.l3_at, parsed.l4_at), (shape.l3_at(), shape.l4_at()), "frame {n}");
        assert_eq!((parsed.payload_at, parsed.end), (shape.payload_at(), end), "frame {n}");
        assert!(parsed.complete && !parsed.fragment);
        assert_eq!(parsed.split_at(), Some(shape.payload_at()));
        assert_eq!(parsed.payload_len(), payload);
        let key = parsed.flow_key(&frame).unwrap();
        let (from, to) = (shape.ports.0.to_be_bytes(), shape.ports.1.to_be_bytes());
        assert_eq!(key.ports, Some([from[0], from[1], to[0], to[1]]));
        match (&shape.ip, key.addresses) {
            (etherparse::IpHeaders::Ipv4(ip, _), Addresses::V4 { source, destination }) => {
                assert_eq!((&ip.source, &ip.destination), (source, destination));
                assert_eq!(key.traffic_class, ip.dscp.value() << 2 | ip.ecn.value());
            }
            (etherparse::IpHeaders::Ipv6(ip, _), Addresses::V6 { source, destination }) => {
                assert_eq!((&ip.source, &ip.destination), (source, destination));
                assert_eq!(key.traffic_class, ip.traffic_class);
            }
            (ip, addresses) => panic!("{ip:?} gave {addresses:?}"),
        }
    }
}

#[test]
fn frames_cut_anywhere_are_only_shorter() {
    let mut random = Random(2);
    let (mut merger, mut out) = (Merger::new(9000), Vec::new());
    for _ in 0..300 {
        let payload = random.below(300);
        let frame = Shape::random(&mut random, payload).frame();
        let whole = Parsed::of(&frame);
        for length in 0..frame.len() {
            let cut = &frame[..length];
            survives(cut, &mut merger, &mut out);
            let parsed = Parsed::of(cut);
            assert!(!parsed.complete, "{length} of {} bytes", frame.len());
            assert!(verify(cut, &parsed).l4_error());
            if length >= whole.payload_at {
                assert_eq!((parsed.l4, parsed.payload_at, parsed.end), (whole.l4, whole.payload_at, length));
            }
        }
    }
}

#[test]
fn nonsense_is_survived() {
    let mut random = Random(3);
    let (mut merger, mut out) = (Merger::new(9000), Vec::new());
    for n in 0..100_000 {
        let payload = random.below(120);
        let mut frame = if n % 8 == 0 { random.bytes(payload) } else { Shape::random(&mut random, payload).frame() };
        for _ in 0..1 + random.below(6) {
            // Most of it where the headers are.
            let reach = if random.chance(4) { frame.len() } else { frame.len().min(70) };
            if let Some(byte) = frame.get_mut(random.below(reach.max(1))) {
                *byte = if random.chance(3) {
                    [0, 4, 5, 6, 15, 17, 43, 44, 60, 255][random.below(10)]
                } else {
                    random.next() as u8
                };
            }
        }
        survives(&frame, &mut merger, &mut out);
    }
}

#[test]
fn what_is_not_ip_is_plain() {
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6], &[0; 46]].concat();
    let parsed = Parsed::of(&arp);
    assert_eq!((parsed.l3, parsed.l4, parsed.l3_at, parsed.end), (L3::Other, L4::Unknown, 14, 60));
    assert_eq!((parsed.flow_key(&arp), parsed.split_at()), (None, None));
    assert_eq!(Parsed::of(&[]).end, 0);
    let tagged = [&arp[..12], &[0x81, 0, 0, 1].repeat(3), &[8, 0], &[0x45; 60]].concat();
    assert_eq!(Parsed::of(&tagged).l3, L3::Other, "a third tag is not looked through");
}

#[test]
fn fragments_have_no_transport() {
    let shape = Shape { payload: vec![7; 64], ..Shape::stream(false, vec![]) };
    for (offset, more, ports) in [(0, true, true), (8, true, false), (8, false, false)] {
        let frame = shape.clone().fragment(offset, more).frame();
        let parsed = Parsed::of(&frame);
        assert_eq!((parsed.l4, parsed.fragment, parsed.split_at()), (L4::Unknown, true, None));
        assert_eq!(parsed.payload_at, parsed.l4_at);
        assert_eq!(parsed.flow_key(&frame).unwrap().ports.is_some(), ports, "offset {offset}");
        assert_eq!(verify(&frame, &parsed), crate::frame::Integrity { l3: Some(true), l4: None });
    }
}

/// An IPv6 packet of these extension headers, each given by number and its bytes, before some UDP.
fn chain(extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let udp = [0, 1, 0, 2, 0, 8, 0, 0];
    let mut body = Vec::new();
    for (n, (_, bytes)) in extensions.iter().enumerate() {
        body.push(extensions.get(n + 1).map_or(17, |next| next.0));
        body.extend_from_slice(&bytes[1..]);
    }
    body.extend_from_slice(&udp);
    let length = (body.len() as u16).to_be_bytes();
    let header = [0x60, 0, 0, 0, length[0], length[1], extensions.first().map_or(17, |first| first.0), 64];
    [&[2; 12][..], &[0x86, 0xdd], &header, &[9; 32], &body].concat()
}

#[test]
fn extension_headers_are_stepped_over_up_to_a_bound() {
    let options = [0; 8];
    let chain_of = |n| chain(&vec![(0, &options[..]); n]);
    assert_eq!(Parsed::of(&chain_of(8)).l4, L4::Udp);
    let parsed = Parsed::of(&chain_of(9));
    assert_eq!((parsed.l3, parsed.l4, parsed.protocol), (L3::Ipv6, L4::Other, 0));

    let flags = |extension: (u8, &[u8])| {
        let parsed = Parsed::of(&chain(&[extension]));
        (parsed.l4, parsed.ipv6_extra, parsed.rerouted, parsed.fragment, parsed.later_fragment)
    };
    assert_eq!(flags((0, &options)), (L4::Udp, false, false, false, false));
    assert_eq!(flags((60, &options)), (L4::Udp, true, false, false, false));
    assert_eq!(flags((43, &options)), (L4::Udp, true, false, false, false), "it has arrived");
    assert_eq!(flags((43, &[0, 0, 0, 1, 0, 0, 0, 0])), (L4::Udp, true, true, false, false));
    assert_eq!(flags((44, &options)), (L4::Udp, false, false, false, false), "whole");
    assert_eq!(flags((44, &[0, 0, 0, 1, 0, 0, 0, 0])), (L4::Unknown, false, false, true, false));
    assert_eq!(flags((44, &[0, 0, 0, 8, 0, 0, 0, 0])), (L4::Unknown, false, false, true, true));
    // An SPI behind its authentication header's first four bytes.
    let frame = chain(&[(51, &[0, 4, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0])]);
    let key = Parsed::of(&frame);
    assert_eq!(key.flow_key(&frame).unwrap().ports, Some([1, 2, 3, 4]));
}

#[test]
fn a_length_of_nothing_means_all_there_is() {
    let shape = Shape::stream(false, vec![1; 100]);
    let mut frame = shape.frame();
    frame[16..18].fill(0);
    let parsed = Parsed::of(&frame);
    assert_eq!((parsed.l4, parsed.end, parsed.complete), (L4::Tcp, frame.len(), false));
    frame[17] = 19;
    assert_eq!(Parsed::of(&frame).l4, L4::Other, "less than a header");
}
