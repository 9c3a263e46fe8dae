use super::*;
use crate::frame::testing::{Random, Shape, judge};
use crate::frame::verify;

fn cut(frame: &[u8], mss: u16) -> Vec<Vec<u8>> {
    let mut segments = segments(frame, &Parsed::of(frame), mss).unwrap();
    let (mut all, mut out) = (Vec::new(), vec![0xaa; 5]);
    while segments.next_into(&mut out) {
        all.push(out.clone());
        assert_eq!(segments.remaining() == 0, all.len() == segments.template.count());
    }
    all
}

#[test]
fn segments_are_what_the_judge_takes_and_hold_the_payload_once() {
    let mut random = Random(1);
    for n in 0..400 {
        let payload = random.below(20_000);
        let mss = 88 + random.below(2000) as u16;
        let shape = Shape::random(&mut random, payload);
        let frame = shape.frame();
        let all = cut(&frame, mss);
        assert_eq!(all.len(), payload.div_ceil(usize::from(mss)).max(1), "frame {n}");
        let mut joined = Vec::new();
        for (at, segment) in all.iter().enumerate() {
            judge(segment);
            let parsed = Parsed::of(segment);
            assert!(verify(segment, &parsed).l4 == Some(true) || parsed.ipv6_extra);
            let last = at + 1 == all.len();
            let ought = if last { payload - at * usize::from(mss) } else { usize::from(mss) };
            assert_eq!(parsed.payload_len(), ought, "frame {n}, segment {at}");
            joined.extend_from_slice(&segment[parsed.payload_at..]);
            // Nothing else of the headers is another: Ethernet, addresses, ports, options.
            assert_eq!(segment[..shape.l3_at()], frame[..shape.l3_at()]);
            assert_eq!(parsed.flow_key(segment), Parsed::of(&frame).flow_key(&frame));
            let options = |bytes: &[u8]| bytes[shape.l4_at() + 20..shape.payload_at()].to_vec();
            if let Some(tcp) = &shape.tcp {
                assert_eq!(options(segment), options(&frame));
                let (is, _) = etherparse::TcpHeader::from_slice(&segment[shape.l4_at()..]).unwrap();
                let sequence = tcp.sequence_number.wrapping_add((at * usize::from(mss)) as u32);
                assert_eq!(is.sequence_number, sequence);
                assert_eq!((is.cwr, is.fin, is.psh), (tcp.cwr && at == 0, tcp.fin && last, tcp.psh && last));
                assert_eq!((is.ns, is.ece, is.urg, is.ack), (tcp.ns, tcp.ece, tcp.urg, tcp.ack));
                assert_eq!((is.syn, is.rst, is.window_size), (tcp.syn, tcp.rst, tcp.window_size));
                assert_eq!(is.acknowledgment_number, tcp.acknowledgment_number);
            }
            if let etherparse::IpHeaders::Ipv4(ip, _) = &shape.ip {
                let id = be16(segment, shape.l3_at() + 4).unwrap();
                assert_eq!(id, ip.identification.wrapping_add(at as u16));
            }
        }
        assert!(joined == shape.payload, "frame {n}");
    }
}

/// As `tcp_gso_segment` and `gve_prep_tso` leave it: over 64 KiB, IP's length is 0 and the checksum of no worth.
#[test]
fn the_largest_frame_is_cut() {
    for v6 in [false, true] {
        let mut random = Random(2);
        let shape = Shape::stream(v6, random.bytes(1000));
        let mut frame = shape.frame();
        let payload = random.bytes(PAYLOAD_MAX);
        frame.truncate(shape.payload_at());
        frame.extend_from_slice(&payload);
        let length = shape.l3_at() + if v6 { 4 } else { 2 };
        put(&mut frame, length, [0, 0]);
        for mss in [MSS_MIN, 1448, MSS_MAX] {
            let all = cut(&frame, mss);
            let joined: Vec<u8> = all.iter().flat_map(|segment| &segment[shape.payload_at()..]).copied().collect();
            assert!(joined == payload, "segments of {mss}");
            all.iter().for_each(|segment| judge(segment));
        }
        frame.push(0);
        assert_eq!(segments(&frame, &Parsed::of(&frame), 1448).unwrap_err(), SegmentError::Payload(PAYLOAD_MAX + 1));
    }
}

#[test]
fn headers_alone_make_a_template() {
    for udp in [false, true] {
        let mut shape = Shape::stream(true, (0..=255).cycle().take(5000).collect());
        if udp {
            shape.tcp = None;
        }
        let frame = shape.frame();
        let (headers, payload) = frame.split_at(shape.payload_at());
        let template = Template::of(headers, &Parsed::of(headers), payload.len(), 1400).unwrap();
        assert_eq!(template.header_len(), headers.len());
        for (n, ought) in cut(&frame, 1400).iter().enumerate() {
            let mut segment = [headers, &payload[template.range(n)]].concat();
            template.finish(n, &mut segment);
            assert_eq!(&segment, ought);
        }
        assert!(template.range(template.count()).is_empty() && template.range(usize::MAX).is_empty());
    }
}

#[test]
fn nonsense_is_an_error() {
    let shape = Shape::stream(false, vec![1; 3000]);
    let frame = shape.frame();
    let parsed = Parsed::of(&frame);
    let error = |frame: &[u8], parsed: &Parsed, mss| segments(frame, parsed, mss).unwrap_err();
    for mss in [0, 1, 87, 9729, u16::MAX] {
        assert_eq!(error(&frame, &parsed, mss), SegmentError::Mss(mss));
    }
    let headers = parsed.payload_at;
    assert_eq!(error(&frame[..20], &parsed, 1448), SegmentError::Headers { headers, frame: 20 });
    let not = SegmentError::NotSegmentable { l3: L3::Ipv4, l4: L4::Other };
    assert_eq!(error(&frame[..headers - 1], &Parsed::of(&frame[..headers - 1]), 1448), not);
    let fragment = shape.fragment(0, true).frame();
    let not = SegmentError::NotSegmentable { l3: L3::Ipv4, l4: L4::Unknown };
    assert_eq!(error(&fragment, &Parsed::of(&fragment), 1448), not);
    assert_eq!(not.to_string(), "Unknown over Ipv4 is not cut in segments");
    let far = Parsed { l4_at: 59_000, payload_at: 59_020, ..parsed };
    let long = vec![0; 60_000];
    assert_eq!(error(&long, &far, 9000), SegmentError::TooLong { headers: 59_020, mss: 9000 });
}
