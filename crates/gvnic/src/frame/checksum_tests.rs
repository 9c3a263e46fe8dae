use super::*;
use crate::frame::testing::{Random, Shape, judge};

const GOOD: Option<bool> = Some(true);
const BAD: Option<bool> = Some(false);

/// RFC 1071, 1, a pair of bytes at a time.
fn by_pairs(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[test]
fn sums_agree_with_the_definition() {
    let mut random = Random(1);
    for length in (0..300).chain([1460, 8948, 65_535, 262_143]) {
        let bytes = random.bytes(length);
        assert_eq!(Sum::default().bytes(&bytes).checksum(), by_pairs(&bytes), "{length} bytes");
        let (front, back) = bytes.split_at(random.below(length + 1));
        let (a, b) = (Sum::default().bytes(front), Sum::default().bytes(back));
        let joined = if front.len() % 2 == 0 { a.sum(b) } else { a.sum_at_odd(b) };
        assert_eq!(joined.checksum(), by_pairs(&bytes), "{length} bytes, cut at {}", front.len());
    }
    let ones = vec![0xff; 1 << 20];
    assert_eq!(Sum::default().bytes(&ones).checksum(), [0, 0], "no lane overflows");
}

#[test]
fn filled_frames_are_those_of_the_judge() {
    let mut random = Random(2);
    for n in 0..3000 {
        let payload = random.below(1500);
        let shape = Shape::random(&mut random, payload);
        let frame = shape.frame();
        let parsed = Parsed::of(&frame);
        let mut filled = frame.clone();
        if parsed.l3 == L3::Ipv4 {
            put(&mut filled, parsed.l3_at + 10, random.array::<2>());
        }
        put(&mut filled, parsed.l4_at + place(&parsed).unwrap(), random.array::<2>());
        fill(&mut filled, &parsed);
        assert_eq!(filled, frame, "frame {n}");
        judge(&filled);
        let l3 = (parsed.l3 == L3::Ipv4).then_some(true);
        let l4 = (!parsed.ipv6_extra).then_some(true);
        assert_eq!(verify(&frame, &parsed), Integrity { l3, l4 });
    }
}

#[test]
fn each_wrong_bit_is_seen() {
    for v6 in [false, true] {
        for udp in [false, true] {
            let mut shape = Shape::stream(v6, vec![5; 33]);
            if udp {
                shape.tcp = None;
            }
            let frame = shape.frame();
            let parsed = Parsed::of(&frame);
            let at_ports = parsed.l4_at * 8..parsed.l4_at * 8 + 32;
            let in_payload = parsed.payload_at * 8..frame.len() * 8;
            let ttl = (parsed.l3_at + 8) * 8..(parsed.l3_at + 8) * 8 + 8;
            for bit in at_ports.chain(in_payload).chain(ttl.filter(|_| !v6)) {
                let mut bad = frame.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let found = verify(&bad, &Parsed::of(&bad));
                let l3 = (!v6).then_some(bit / 8 >= parsed.l4_at);
                assert_eq!(found, Integrity { l3, l4: Some(bit / 8 < parsed.l4_at) }, "bit {bit}");
            }
        }
    }
}

#[test]
fn a_udp_sum_of_nothing_is_written_as_all_ones() {
    for v6 in [false, true] {
        let shape = Shape { tcp: None, ..Shape::stream(v6, vec![0, 0]) };
        let mut frame = shape.frame();
        let parsed = Parsed::of(&frame);
        // A payload that is the sum of the rest makes the whole sum nothing.
        let rest = array::<2>(&frame, parsed.l4_at + 6).copied().unwrap();
        put(&mut frame, parsed.payload_at, rest);
        fill(&mut frame, &parsed);
        assert_eq!(array(&frame, parsed.l4_at + 6), Some(&[0xff, 0xff]));
        judge(&frame);
        assert_eq!(verify(&frame, &parsed).l4, GOOD);
    }
}

#[test]
fn udp_without_a_checksum() {
    for (v6, expected) in [(false, None), (true, BAD)] {
        let shape = Shape { tcp: None, ..Shape::stream(v6, vec![1, 2, 3]) };
        let mut frame = shape.frame();
        let parsed = Parsed::of(&frame);
        put(&mut frame, parsed.l4_at + 6, [0, 0]);
        assert_eq!(verify(&frame, &parsed).l4, expected);
    }
}

#[test]
fn udp_lengths_that_cannot_be() {
    let frame = Shape { tcp: None, ..Shape::stream(false, vec![1; 20]) }.frame();
    let parsed = Parsed::of(&frame);
    for length in [0u16, 7, 29, 65_535] {
        let mut bad = frame.clone();
        put(&mut bad, parsed.l4_at + 4, length.to_be_bytes());
        assert_eq!(verify(&bad, &parsed).l4, BAD, "{length}");
    }
    // A shorter one is the packet's own business: what follows is not summed.
    let mut short = frame.clone();
    put(&mut short, parsed.l4_at + 4, 18u16.to_be_bytes());
    fill(&mut short, &parsed);
    short[parsed.l4_at + 18..].fill(0xee);
    assert_eq!(verify(&short, &parsed).l4, GOOD);
}

#[test]
fn icmp_is_verified() {
    let link = || etherparse::PacketBuilder::ethernet2([1; 6], [2; 6]);
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let ping = link().ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9).icmpv4_echo_request(1, 2);
    ping.write(&mut v4, b"odd").unwrap();
    link().ipv6([1; 16], [2; 16], 9).icmpv6_echo_request(1, 2).write(&mut v6, b"odd").unwrap();
    for mut frame in [v4, v6] {
        let parsed = Parsed::of(&frame);
        assert_eq!((parsed.l4, verify(&frame, &parsed).l4), (L4::Icmp, GOOD));
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(verify(&frame, &parsed).l4, BAD);
    }
}

#[test]
fn a_routed_packet_is_summed_with_the_sum_that_the_guest_left() {
    // UDP to where the routing header says in the end.
    let last = [7u8; 16];
    let udp = [0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4];
    let routing = [&[17, 2, 2, 1, 0, 0, 0, 0][..], &last].concat();
    let header = [0x60, 0, 0, 0, 0, (routing.len() + udp.len()) as u8, 43, 64];
    let mut frame = [&[2; 12][..], &[0x86, 0xdd], &header, &[3; 16], &[4; 16], &routing, &udp].concat();
    let parsed = Parsed::of(&frame);
    assert!(parsed.rerouted && parsed.complete && parsed.l4 == L4::Udp);
    let pseudo = [&[3; 16][..], &last, &[0, 0, 0, 12, 0, 0, 0, 17]].concat();
    let ought = by_pairs(&[&pseudo[..], &udp].concat());
    put(&mut frame, parsed.l4_at + 6, by_pairs(&pseudo).map(|byte| !byte));
    fill(&mut frame, &parsed);
    assert_eq!(array(&frame, parsed.l4_at + 6), Some(&ought));
    assert_eq!(verify(&frame, &parsed).l4, None, "not with this address");
}
