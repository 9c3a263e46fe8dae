//! Frames against etherparse: where headers are, checksums, segments, and merging as the reverse of cutting.

mod common;
mod rings;

use gvnic::abi::dqo::rx::Integrity;
use gvnic::abi::ptype::{L3, L4};
use gvnic::frame::merge::Train;
use gvnic::frame::segment::{Cut, Uncuttable};
use gvnic::frame::{Headers, checksum, parse, parse_whole, split};
use gvnic::steer::Addresses;
use rings::{Extension, Random, Recipe, judge};

const SOUND: Integrity = Integrity { processed: true, l3_error: false, l4_error: false };

#[test]
fn headers_are_where_etherparse_finds_them() {
    let mut random = Random(1);
    for n in 0..20_000 {
        let length = random.below(200);
        let recipe = Recipe::random(&mut random, length);
        let mut frame = recipe.frame();
        let judged = judge(&frame);
        let padding = random.below(20);
        frame.resize(frame.len() + padding, 0);
        let headers = parse(&frame);
        assert_eq!(headers.l3, if recipe.v6 { L3::Ipv6 } else { L3::Ipv4 }, "{n}: {recipe:?}");
        assert_eq!(headers.l4, if recipe.udp { L4::Udp } else { L4::Tcp }, "{n}: {recipe:?}");
        assert_eq!(usize::from(headers.payload_at), judged.header, "{n}: {recipe:?}");
        assert_eq!(headers.end as usize, frame.len() - padding, "{n}: {recipe:?}");
        assert_eq!(headers.extended, recipe.extension == Extension::Destination, "{n}: {recipe:?}");
        assert_eq!(split::header_bytes(&headers), Some(recipe.header()), "{n}: {recipe:?}");
        let flow = headers.flow(&frame).unwrap();
        let (source, destination) = judged.ports;
        let ports = [(source >> 8) as u8, source as u8, (destination >> 8) as u8, destination as u8];
        assert_eq!((flow.protocol, flow.ports), (judged.protocol, Some(ports)));
        assert_eq!(flow.traffic_class, recipe.tos);
        match flow.addresses {
            Addresses::V4 { source, destination } => {
                assert_eq!((source[3], destination[3]), recipe.hosts);
                assert!(!recipe.v6);
            }
            Addresses::V6 { source, destination } => {
                assert_eq!((source[15], destination[15]), recipe.hosts);
                assert!(recipe.v6);
            }
        }
    }
}

/// What is no whole TCP or UDP packet has an answer as well.
#[test]
fn every_other_frame_has_an_answer() {
    let v4 = |patch: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Recipe::tcp(64).frame();
        patch(&mut frame);
        frame
    };
    let v6 = |patch: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Recipe { v6: true, ..Recipe::tcp(64) }.frame();
        patch(&mut frame);
        frame
    };
    let mut arp = vec![0xff; 60];
    (arp[12], arp[13]) = (8, 6);
    let cases: Vec<(&str, Vec<u8>, L3, L4, bool)> = vec![
        ("nothing", Vec::new(), L3::Unknown, L4::Unknown, false),
        ("13 bytes", vec![0; 13], L3::Unknown, L4::Unknown, false),
        ("no IP", arp, L3::Other, L4::Unknown, false),
        ("version 5", v4(&|f| f[14] = 0x55), L3::Other, L4::Unknown, false),
        ("a header of 16 bytes", v4(&|f| f[14] = 0x44), L3::Other, L4::Unknown, false),
        ("cut short", v4(&|f| f.truncate(100)), L3::Other, L4::Unknown, false),
        ("longer than the frame", v4(&|f| f[16] = 2), L3::Other, L4::Unknown, false),
        ("shorter than its header", v4(&|f| (f[16], f[17]) = (0, 19)), L3::Other, L4::Unknown, false),
        ("a first fragment", v4(&|f| f[20] = 0x20), L3::Ipv4, L4::Unknown, true),
        ("a later fragment", v4(&|f| f[21] = 1), L3::Ipv4, L4::Unknown, true),
        ("a TCP header of 16 bytes", v4(&|f| f[46] = 0x40), L3::Ipv4, L4::Other, false),
        ("a TCP header beyond the end", v4(&|f| (f[16], f[17], f[46]) = (0, 50, 0xf0)), L3::Ipv4, L4::Other, false),
        ("ICMP", v4(&|f| f[23] = 1), L3::Ipv4, L4::Icmp, false),
        ("SCTP", v4(&|f| f[23] = 132), L3::Ipv4, L4::Sctp, false),
        ("a tunnel", v4(&|f| f[23] = 47), L3::Ipv4, L4::Other, false),
        ("ICMPv6", v6(&|f| f[20] = 58), L3::Ipv6, L4::Icmp, false),
        ("no next header", v6(&|f| f[20] = 59), L3::Ipv6, L4::Other, false),
        ("a v6 fragment", v6(&|f| (f[20], f[54], f[57]) = (44, 6, 1)), L3::Ipv6, L4::Unknown, true),
        ("an extension beyond the end", v6(&|f| (f[20], f[55]) = (60, 0xff)), L3::Other, L4::Unknown, false),
    ];
    for (what, frame, l3, l4, fragment) in cases {
        let headers = parse(&frame);
        assert_eq!((headers.l3, headers.l4, headers.fragment), (l3, l4, fragment), "{what}");
        assert_eq!(split::header_bytes(&headers), None, "{what}");
        assert!(!checksum::verify(&frame, &headers).processed, "{what}");
        let ports = headers.flow(&frame).and_then(|flow| flow.ports);
        assert!(ports.is_none() || matches!(l4, L4::Sctp | L4::Other), "{what}");
        assert!(!checksum::fill(&mut frame.clone(), &headers), "{what}");
    }
}

#[test]
fn too_many_extensions_are_not_followed() {
    let mut frame = Recipe { v6: true, ..Recipe::tcp(4000) }.frame();
    frame[20] = 60;
    for n in 0..400 {
        frame[54 + n * 8] = 60;
        frame[55 + n * 8] = 0;
    }
    let headers = parse(&frame);
    assert_eq!((headers.l4, headers.protocol), (L4::Other, 60));
}

#[test]
fn mutated_frames_stay_within_themselves() {
    let mut random = Random(2);
    for _ in 0..60_000 {
        let length = random.below(100);
        let mut frame = Recipe::random(&mut random, length).frame();
        for _ in 0..random.between(1, 4) {
            let at = random.below(frame.len().min(90));
            frame[at] = random.next() as u8;
        }
        let keep = random.between(frame.len() / 2, frame.len());
        frame.truncate(keep);
        for headers in [parse(&frame), parse_whole(&frame)] {
            let Headers { l3_at, l4_at, payload_at, end, .. } = headers;
            assert!(l3_at <= l4_at && l4_at <= payload_at && u32::from(payload_at) <= end.max(u32::from(l4_at)));
            assert!(end as usize <= frame.len());
            if matches!(headers.l4, L4::Tcp | L4::Udp) {
                assert!(u32::from(payload_at) <= end);
            }
            headers.flow(&frame);
            checksum::verify(&frame, &headers);
            let mut filled = frame.clone();
            if checksum::fill(&mut filled, &headers) && !headers.extended {
                assert_eq!(checksum::verify(&filled, &headers), SOUND);
            }
            if let Ok(cut) = Cut::new(&frame, &headers, usize::from(payload_at), random.between(1, 50)) {
                let mut packet = frame.clone();
                for n in 0..cut.segments() {
                    assert!(cut.segment(n, &mut packet).is_some());
                }
            }
            Train::start(&frame, &headers).map(|mut train| train.append(&frame, &headers, 1 << 20));
        }
    }
}

#[test]
fn checksums_are_etherparses() {
    let mut random = Random(3);
    for n in 0..5_000 {
        let length = random.below(300);
        let recipe = Recipe::random(&mut random, length);
        let frame = recipe.frame();
        let headers = parse(&frame);
        let (l3, l4) = (usize::from(headers.l3_at), usize::from(headers.l4_at));
        if recipe.extension == Extension::Destination {
            assert_eq!(checksum::verify(&frame, &headers), Integrity::default());
            continue;
        }
        assert_eq!(checksum::verify(&frame, &headers), SOUND, "{n}: {recipe:?}");
        let mut filled = frame.clone();
        let at = l4 + if recipe.udp { 6 } else { 16 };
        filled[at..at + 2].copy_from_slice(&random.next().to_le_bytes()[..2]);
        assert!(checksum::fill(&mut filled, &headers));
        assert_eq!(filled, frame, "{n}: {recipe:?}");
        let mut flipped = frame.clone();
        let bit = random.between(l4 * 8, frame.len() * 8 - 1);
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(checksum::verify(&flipped, &headers).l4_error, "{n}: bit {bit} of {recipe:?}");
        if !recipe.v6 {
            let mut flipped = frame;
            flipped[l3 + 8] ^= 1 << random.below(8);
            let expected = Integrity { processed: true, l3_error: true, l4_error: false };
            assert_eq!(checksum::verify(&flipped, &headers), expected);
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_is_none() {
    for (v6, error) in [(false, false), (true, true)] {
        let mut frame = Recipe { v6, ..Recipe::udp(100) }.frame();
        let headers = parse(&frame);
        let at = usize::from(headers.l4_at) + 6;
        frame[at..at + 2].fill(0);
        assert_eq!(checksum::verify(&frame, &headers), Integrity { l4_error: error, ..SOUND });
    }
    // One that comes out as zero is sent as its other representation.
    let mut frame = Recipe::udp(2).frame();
    let headers = parse(&frame);
    let payload = usize::from(headers.payload_at);
    for value in 0..=0xffff_u16 {
        frame[payload..].copy_from_slice(&value.to_be_bytes());
        assert!(checksum::fill(&mut frame, &headers));
        assert_ne!(frame[payload - 2..payload], [0, 0]);
    }
}

/// Segments of a packet, each judged, copied out in order.
fn segments(recipe: &Recipe, mss: usize) -> Vec<Vec<u8>> {
    let mut packet = recipe.packet();
    let headers = parse_whole(&packet);
    let cut = Cut::new(&packet, &headers, recipe.header(), mss).unwrap();
    (0..cut.segments())
        .map(|n| {
            // A wire without room: the same segment comes again.
            let first = cut.segment(n, &mut packet).unwrap().to_vec();
            assert_eq!(cut.segment(n, &mut packet).unwrap(), first);
            first
        })
        .collect()
}

#[test]
fn segments_are_frames_of_their_own_and_make_the_whole() {
    let mut random = Random(4);
    for n in 0..400 {
        let sizes = [1, 88, 1448, 9000, 60_000, 65_535, 262_143];
        let length = sizes[random.below(sizes.len())];
        let recipe = Recipe::random(&mut random, length);
        let mss = [88, 89, 536, 1448, 8948, 9728][random.below(6)];
        let frames = segments(&recipe, mss);
        assert_eq!(frames.len(), length.div_ceil(mss));
        let mut payload = Vec::new();
        let last = frames.len() - 1;
        for (i, frame) in frames.iter().enumerate() {
            let judged = judge(frame);
            assert!(judged.l3_holds && judged.l4_holds, "{n}: segment {i} of {recipe:?}");
            assert_eq!((judged.header, judged.ports), (recipe.header(), recipe.ports));
            assert_eq!(judged.payload.len(), if i < last { mss } else { length - last * mss });
            if !recipe.v6 {
                assert_eq!(judged.id, recipe.id.wrapping_add(i as u16));
            }
            if !recipe.udp {
                assert_eq!(judged.sequence, recipe.sequence.wrapping_add(payload.len() as u32));
                let keep = if i == 0 { 0xff } else { 0x7f } & if i == last { 0xff } else { 0xf6 };
                assert_eq!(judged.flags, recipe.flags & keep, "{n}: segment {i} of {recipe:?}");
            }
            payload.extend_from_slice(&judged.payload);
        }
        assert!(payload == recipe.payload, "{n}: {recipe:?}");
    }
}

#[test]
fn what_cannot_be_cut_is_said() {
    let packet = Recipe::tcp(3000).packet();
    let headers = parse_whole(&packet);
    let cut = |packet: &[u8], told, mss| Cut::new(packet, &parse_whole(packet), told, mss).err();
    assert_eq!(cut(&packet, 54, 1448), None);
    assert_eq!(cut(&packet, 66, 1448), Some(Uncuttable::Header { found: 54, told: 66 }));
    assert_eq!(cut(&packet, 54, 0), Some(Uncuttable::Empty));
    assert_eq!(cut(&packet[..54], 54, 1448), Some(Uncuttable::Empty));
    let mut fragment = packet.clone();
    fragment[20] = 0x20;
    assert_eq!(cut(&fragment, 54, 1448), Some(Uncuttable::Protocol));
    let mut icmp = packet.clone();
    icmp[23] = 1;
    assert_eq!(cut(&icmp, 54, 1448), Some(Uncuttable::Protocol));
    let cut = Cut::new(&packet, &headers, 54, 1448).unwrap();
    assert_eq!((cut.segments(), cut.segment(3, &mut packet.clone())), (3, None));
}

/// Merges frames as they come: the packets that come out.
fn merged(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(Train, Vec<u8>)> = None;
    let mut close = |open: &mut Option<(Train, Vec<u8>)>| {
        if let Some((mut train, payload)) = open.take() {
            assert_eq!(payload.len(), train.payload());
            out.push([train.header(), &payload].concat());
        }
    };
    let mut alone = Vec::new();
    for frame in frames {
        let headers = parse(frame);
        let payload = &frame[usize::from(headers.payload_at)..];
        if let Some((train, bytes)) = &mut open
            && train.append(frame, &headers, 1 << 20)
        {
            bytes.extend_from_slice(payload);
            if train.ended() {
                close(&mut open);
            }
            continue;
        }
        close(&mut open);
        match Train::start(frame, &headers) {
            Some(train) => open = Some((train, payload.to_vec())),
            None => alone.push(frame.clone()),
        }
    }
    close(&mut open);
    out.extend(alone);
    out
}

#[test]
fn merging_undoes_cutting() {
    let mut random = Random(5);
    for n in 0..400 {
        let length = [2, 177, 1449, 9000, 40_000, 65_400][random.below(6)];
        let mut recipe = Recipe::random(&mut random, length);
        (recipe.udp, recipe.extension, recipe.ip_options) = (false, Extension::None, Vec::new());
        recipe.flags = 0x10 | recipe.flags & 0xc9;
        let mss = [88, 89, 536, 1448, 8948, 9728][random.below(6)];
        let frames = segments(&recipe, mss);
        let whole = merged(&frames);
        assert_eq!(whole.len(), 1, "{n}: {recipe:?}");
        assert!(whole[0] == recipe.frame(), "{n}: {} segments of {mss}, {recipe:?}", frames.len());
    }
}

#[test]
fn what_does_not_follow_is_not_merged() {
    let first = Recipe { tcp_options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], ..Recipe::tcp(1000) };
    let next = Recipe { sequence: first.sequence + 1000, id: first.id + 1, ..first.clone() };
    let with = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = next.clone();
        change(&mut recipe);
        recipe.frame()
    };
    let padded = || {
        let mut frame = with(&|r| r.payload.truncate(10));
        frame.push(0);
        frame
    };
    // Packets that come out: one is merged.
    let cases: Vec<(&str, Vec<u8>, usize)> = vec![
        ("the next", next.frame(), 1),
        ("the same identification, never to be fragmented", with(&|r| r.id -= 1), 1),
        ("a smaller one", with(&|r| r.payload.truncate(10)), 1),
        ("PSH", with(&|r| r.flags = 0x18), 1),
        ("FIN", with(&|r| r.flags = 0x11), 1),
        ("a gap", with(&|r| r.sequence += 1), 2),
        ("the same again", first.frame(), 2),
        ("a larger one", with(&|r| r.payload.push(0)), 2),
        ("nothing but an acknowledgment", with(&|r| r.payload.clear()), 2),
        ("another acknowledgment", with(&|r| r.acknowledgment += 1), 2),
        ("another window", with(&|r| r.window += 1), 2),
        ("another timestamp", with(&|r| r.tcp_options[7] += 1), 2),
        ("no options", with(&|r| r.tcp_options.clear()), 2),
        ("another identification", with(&|r| r.id += 5), 2),
        ("may be fragmented", with(&|r| r.dont_fragment = false), 2),
        ("another time to live", with(&|r| r.ttl -= 1), 2),
        ("another type of service", with(&|r| r.tos += 4), 2),
        ("another port", with(&|r| r.ports.0 += 1), 2),
        ("another host", with(&|r| r.hosts.0 += 1), 2),
        ("a tag", with(&|r| r.tags = 1), 2),
        ("SYN", with(&|r| r.flags = 0x12), 2),
        ("RST", with(&|r| r.flags = 0x14), 2),
        ("URG", with(&|r| r.flags = 0x30), 2),
        ("ECE", with(&|r| r.flags = 0x50), 2),
        ("CWR", with(&|r| r.flags = 0x90), 2),
        ("no ACK", with(&|r| r.flags = 0), 2),
        ("IP options", with(&|r| r.ip_options = vec![1; 4]), 2),
        ("UDP", with(&|r| r.udp = true), 2),
        ("IPv6", with(&|r| r.v6 = true), 2),
        ("padding", padded(), 2),
    ];
    for (what, frame, packets) in cases {
        let frames = [first.frame(), frame];
        let out = merged(&frames);
        assert_eq!(out.len(), packets, "{what}");
        let payload: usize = out.iter().map(|packet| packet.len()).sum();
        let bytes: usize = frames.iter().map(Vec::len).sum();
        assert_eq!(payload, if packets == 1 { bytes - first.header() } else { bytes }, "{what}");
        let judged = judge(&out[0]);
        assert!(judged.l3_holds && judged.l4_holds, "{what}");
    }
}

#[test]
fn trains_end_when_they_must() {
    let part = |n: u32, payload: usize, flags: u8| Recipe {
        sequence: 1000 + n * 1000,
        id: 1 + n as u16,
        flags,
        ..Recipe::tcp(payload)
    };
    let frames = |recipes: &[Recipe]| recipes.iter().map(Recipe::frame).collect::<Vec<_>>();
    let lengths = |frames: &[Vec<u8>]| merged(frames).iter().map(|p| p.len() - 54).collect::<Vec<_>>();
    // A small one, PSH and FIN end it; what follows begins anew.
    for (payload, flags) in [(999, 0x10), (1000, 0x18), (1000, 0x11)] {
        let mut three = [part(0, 1000, 0x10), part(1, payload, flags), part(2, 1000, 0x10)];
        three[2].sequence = three[1].sequence + payload as u32;
        assert_eq!(lengths(&frames(&three)), [1000 + payload, 1000]);
    }
    // An IP packet has 65,535 bytes.
    let many: Vec<_> = (0..70).map(|n| part(n, 1000, 0x10)).collect();
    assert_eq!(lengths(&frames(&many)), [65_000, 5_000]);
    // A first with PSH is for itself.
    assert_eq!(lengths(&frames(&[part(0, 1000, 0x18), part(1, 1000, 0x10)])), [1000, 1000]);
}
