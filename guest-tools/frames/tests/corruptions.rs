//! Corruptions of frames that RXE sent (tests/data, taken with tcpdump), looked at with another decoder.

use std::collections::BTreeMap;

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use frames::{Corruption, Seal, Template, corruptions};

/// Frames of one capture, one a line in hexadecimal.
fn captured(name: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/tests/data/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.lines().filter(|l| !l.starts_with('#')).map(|l| l.as_bytes().chunks(2).map(byte).collect()).collect()
}

fn templates() -> Vec<Template> {
    let frames = ["rping-v4", "rping-v6", "ud-v4", "atomic-v4"].map(captured).concat();
    assert!(frames.len() >= 10);
    // Every captured frame is valid: the ICRC computed here is the one the kernel sent.
    frames.iter().map(|frame| Template::new(frame).unwrap()).collect()
}

#[test]
fn captured_frames_are_templates() {
    let mut kinds = BTreeMap::new();
    for template in templates() {
        let headers = PacketHeaders::from_ethernet_slice(&template.frame).unwrap();
        let Some(TransportHeader::Udp(udp)) = headers.transport else { panic!("no UDP") };
        assert_eq!(udp.destination_port, 4791);
        let bits: usize = template.layout.fields.iter().filter(|f| f.name != "icrc").map(|f| f.width).sum();
        assert_eq!(bits, template.layout.payload * 8, "{}: fields cover all headers", template.key);
        kinds.insert(template.key.to_string(), ());
    }
    let has = |part: &str| kinds.keys().any(|kind| kind.contains(part));
    // SEND, WRITE, READ and its response, ACK; UD.
    for part in
        ["v4-RC-0x04", "v6-RC-0x04", "v4-RC-0x0a", "v4-RC-0x0c", "v4-RC-0x10", "v4-RC-0x11", "v4-RC-0x12", "v4-UD-0x64"]
    {
        assert!(has(part), "{part} is not in {kinds:?}");
    }
}

#[test]
fn a_broken_template_is_refused() {
    let template = &templates()[0];
    for (at, why) in [(12, "neither plain IPv4 nor IPv6"), (36, "another port"), (50, "ICRC"), (23, "no whole UDP")] {
        let mut frame = template.frame.clone();
        frame[at] ^= 0x40;
        let error = Template::new(&frame).unwrap_err().to_string();
        assert!(error.contains(why), "byte {at}: {error}");
    }
    for len in 0..template.frame.len() {
        assert!(Template::new(&template.frame[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn every_bit_of_every_header_is_turned_over() {
    for template in templates() {
        let all = corruptions(&template, 1);
        let mut turned = vec![false; template.layout.end * 8];
        for frame in all.iter().flat_map(|corruption| corruption.apply(&template)) {
            if frame.len() != template.frame.len() {
                continue;
            }
            let differing: Vec<usize> = (0..frame.len() * 8)
                .filter(|bit| (frame[bit / 8] ^ template.frame[bit / 8]) >> (7 - bit % 8) & 1 == 1)
                .collect();
            if let [bit] = differing[..] {
                turned[bit] = true;
            }
        }
        let headers = (0..template.layout.payload * 8).chain((template.layout.end - 4) * 8..template.layout.end * 8);
        let missing: Vec<usize> = headers.filter(|bit| !turned[*bit]).collect();
        assert!(missing.is_empty(), "{}: bits {missing:?}", template.key);
    }
}

#[test]
fn seals_make_sums_right_and_leave_the_corruption() {
    for template in templates() {
        for corruption in corruptions(&template, 2) {
            let Corruption::Value { field, value, seal } = corruption else { continue };
            let frame = &corruption.apply(&template)[0];
            assert_eq!(frames::bits::get(frame, field.at, field.width), value, "{corruption:?}");
            if seal == Seal::Whole && !["icrc", "ipv4.checksum"].contains(&field.name) {
                assert_eq!(frames::icrc::of(frame, &template.layout).unwrap(), frame[frame.len() - 4..]);
            }
            // Whatever still reads as plain IPv4 has a right checksum once it is sealed, by the other decoder's sum.
            // The other decoder has no place for the reserved bit.
            let shape =
                ["eth.type", "ipv4.version", "ipv4.ihl", "ipv4.reserved", "ipv4.checksum"].contains(&field.name);
            if seal != Seal::Broken && !template.key.v6 && !shape {
                let header = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
                assert_eq!(header.calc_header_checksum(), header.header_checksum, "{corruption:?}");
            }
        }
    }
}

#[test]
fn shapes_are_what_they_say() {
    for template in templates() {
        let all = corruptions(&template, 3);
        let classes: BTreeMap<&str, usize> = all.iter().fold(BTreeMap::new(), |mut map, corruption| {
            *map.entry(corruption.class()).or_default() += 1;
            map
        });
        let other = if template.key.v6 { "extensions" } else { "options" };
        for class in
            ["eth", "udp", "bth", "icrc", "cut", "pad", "tags", "fragments", "noise", "checksum", "twice", other]
        {
            assert!(classes.get(class).is_some_and(|count| *count > 0), "{}: no {class} in {classes:?}", template.key);
        }
        // Truncation at each length down to nothing.
        let lengths: Vec<usize> = all.iter().flat_map(|c| c.apply(&template)).map(|frame| frame.len()).collect();
        assert!((0..template.layout.payload).all(|len| lengths.contains(&len)));
        let checksum = all.iter().find(|c| c.class() == "checksum").unwrap().apply(&template).remove(0);
        let headers = PacketHeaders::from_ethernet_slice(&checksum).unwrap();
        let (Some(net), Some(TransportHeader::Udp(udp))) = (headers.net, headers.transport) else { panic!() };
        let due = match net {
            NetHeaders::Ipv4(ip, _) => udp.calc_checksum_ipv4(&ip, headers.payload.slice()),
            NetHeaders::Ipv6(ip, _) => udp.calc_checksum_ipv6(&ip, headers.payload.slice()),
            NetHeaders::Arp(_) => panic!(),
        };
        assert_eq!(due.unwrap(), udp.checksum, "{}", template.key);
    }
}

#[test]
fn the_same_seed_gives_the_same_campaign() {
    let template = &templates()[0];
    assert_eq!(corruptions(template, 7), corruptions(template, 7));
    assert_ne!(corruptions(template, 7), corruptions(template, 8));
    assert!(corruptions(template, 7).len() > 2_000, "{}", corruptions(template, 7).len());
}
