//! Corruptions of a frame's shape: too short, too long, tagged, with options or extension headers, in fragments.

use crate::layout::ICRC;
use crate::random::Random;
use crate::seal::{Seal, ipv4_checksum, ones_complement};
use crate::template::Template;

/// What is done to the shape of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// It ends early.
    Cut {
        /// Bytes that are left.
        to: usize,
        /// Whether IP and UDP lengths say so and the sums are right.
        told: bool,
    },
    /// It goes on.
    Pad {
        /// For so many bytes.
        by: usize,
        /// What they are.
        fill: u8,
        /// Whether they belong to the packet.
        told: bool,
    },
    /// Bytes between Ethernet's addresses and its type.
    Tags(Vec<u8>),
    /// IPv4 options, a multiple of four bytes.
    Options(Vec<u8>),
    /// IPv6 extension headers: the first one's number, and them all.
    Extensions(u8, Vec<u8>),
    /// Fragments: offset and length of each, in multiples of eight but for the last, and whether more are said to come.
    Fragments(Vec<(usize, usize, bool)>),
    /// From the BTH on, bytes at random with a right ICRC.
    Noise(u64),
    /// All of the IP packet is at random, with a right header in front.
    Body(u64),
    /// UDP has a checksum, and it is right: unusual for RoCEv2, not wrong.
    Checksum,
    /// The frame twice.
    Twice,
}

/// The IPv6 fragment header's number.
const FRAGMENT: u8 = 44;

/// IPv4 options: each kind there is, with lengths right, too short, too long and missing.
const OPTIONS: &[&[u8]] = &[
    &[1, 1, 1, 1],
    &[0, 0, 0, 0],
    &[0, 1, 2, 3],
    &[7, 7, 4, 0, 0, 0, 0, 0],
    &[7, 3, 4, 0],
    &[7, 255, 4, 0],
    &[7, 0, 0, 0],
    &[7, 1, 0, 0],
    &[131, 7, 4, 10, 77, 0, 9, 0],
    &[137, 7, 4, 10, 77, 0, 9, 0],
    &[137, 3, 4, 0],
    &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[68, 8, 13, 3, 0, 0, 0, 0],
    &[148, 4, 0, 0],
    &[148, 4, 255, 255],
    &[148, 3, 0, 0],
    &[134, 6, 0, 0, 0, 1, 0, 0],
    &[255, 255, 255, 255],
    &[1, 1, 1, 148],
];

/// IPv6 extension headers but for their first byte, what comes next: the number, and the rest.
const EXTENSIONS: &[(u8, &[u8])] = &[
    (0, &[0, 1, 4, 0, 0, 0, 0]),
    (0, &[0, 5, 2, 0, 0, 1, 0]),
    (0, &[0, 0xc2, 4, 0, 1, 0, 0]),
    (0, &[255, 1, 4, 0, 0, 0, 0]),
    (0, &[0, 1, 255, 0, 0, 0, 0]),
    (60, &[0, 1, 4, 0, 0, 0, 0]),
    (60, &[0, 0x80, 4, 0, 0, 0, 0]),
    (43, &[0, 0, 0, 0, 0, 0, 0]),
    (43, &[0, 4, 1, 0, 0, 0, 0]),
    (43, &[2, 0, 1, 0, 0, 0, 0]),
    (FRAGMENT, &[0, 0, 0, 0, 0, 0, 1]),
    (FRAGMENT, &[0, 0, 1, 0, 0, 0, 2]),
    (FRAGMENT, &[0, 0xff, 0xf8, 0, 0, 0, 3]),
    (51, &[1, 0, 0, 0, 0, 0, 1]),
    (59, &[0, 0, 0, 0, 0, 0, 0]),
    (135, &[0, 0, 0, 0, 0, 0, 0]),
    (255, &[0, 0, 0, 0, 0, 0, 0]),
];

impl Shape {
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Shape::Cut { .. } => "cut",
            Shape::Pad { .. } => "pad",
            Shape::Tags(_) => "tags",
            Shape::Options(_) => "options",
            Shape::Extensions(..) => "extensions",
            Shape::Fragments(_) => "fragments",
            Shape::Noise(_) | Shape::Body(_) => "noise",
            Shape::Checksum => "checksum",
            Shape::Twice => "twice",
        }
    }

    pub(crate) fn apply(&self, template: &Template) -> Vec<Vec<u8>> {
        let mut frame = template.frame.clone();
        let layout = &template.layout;
        match self {
            Shape::Cut { to, told } => {
                frame.truncate(*to);
                if *told {
                    tell_lengths(&mut frame, template);
                }
            }
            Shape::Pad { by, fill, told } => {
                frame.resize(frame.len() + by, *fill);
                if *told {
                    tell_lengths(&mut frame, template);
                }
            }
            Shape::Tags(bytes) => drop(frame.splice(12..12, bytes.iter().copied())),
            Shape::Options(bytes) => {
                frame.splice(layout.udp..layout.udp, bytes.iter().copied());
                frame[layout.ip] += (bytes.len() / 4) as u8;
                grow(&mut frame, layout.ip + 2, bytes.len());
                ipv4_checksum(&mut frame, layout.ip);
            }
            Shape::Extensions(first, bytes) => {
                frame.splice(layout.udp..layout.udp, bytes.iter().copied());
                frame[layout.ip + 6] = *first;
                grow(&mut frame, layout.ip + 4, bytes.len());
            }
            Shape::Fragments(parts) => {
                return parts.iter().map(|(at, len, more)| fragment(template, *at, *len, *more)).collect();
            }
            Shape::Noise(seed) => {
                noise(&mut frame[layout.bth..layout.end], *seed);
                Seal::Whole.apply(&mut frame, layout);
            }
            Shape::Body(seed) => noise(&mut frame[layout.udp..layout.end], *seed),
            Shape::Checksum => udp_checksum(&mut frame, template),
            Shape::Twice => return vec![frame.clone(), frame],
        }
        vec![frame]
    }
}

/// Every shape but the template's own.
pub(crate) fn shapes(template: &Template, random: &mut Random) -> Vec<Shape> {
    let (layout, len) = (&template.layout, template.frame.len());
    let mut all = Vec::new();
    // Each length; in the middle of a long payload one is like the other.
    let far = layout.payload + 80;
    let lengths = (0..len).filter(|to| *to <= far || *to + 24 >= len || to % 61 == 0);
    all.extend(lengths.flat_map(|to| [false, true].map(|told| Shape::Cut { to, told })));
    let pads = (1..=64).chain([100, 255, 256, 257, 1000, 1024, 1200, 4096]);
    all.extend(
        pads.flat_map(|by| [(0, false), (0, true), (0xff, true)].map(|(fill, told)| Shape::Pad { by, fill, told })),
    );
    for tpid in [0x8100u16, 0x88a8, 0x9100] {
        for tci in [0u16, 1, 77, 0x0fff, 0xe000, 0xffff] {
            let tag = [tpid.to_be_bytes(), tci.to_be_bytes()].concat();
            all.push(Shape::Tags(tag.clone()));
            all.push(Shape::Tags([tag.as_slice(), &[0x81, 0, 0, 1]].concat()));
            all.push(Shape::Tags(tag.repeat(9)));
        }
    }
    // MPLS, PPPoE and LLC in front, where an IP header is not what follows the type.
    let others: [&[u8]; 3] =
        [&[0x88, 0x47, 0, 1, 1, 64], &[0x88, 0x64, 0x11, 0, 0, 1], &[0, 60, 0xaa, 0xaa, 3, 0, 0, 0]];
    all.extend(others.map(|bytes| Shape::Tags(bytes.to_vec())));
    if layout.v6 {
        for (number, rest) in EXTENSIONS {
            for next in [17, *number, 59] {
                let header = [&[next], *rest].concat();
                all.push(Shape::Extensions(*number, header.clone()));
                let thrice = [[*number].as_slice(), rest, &[*number], rest, &header].concat();
                all.push(Shape::Extensions(*number, thrice));
            }
        }
    } else {
        all.extend(OPTIONS.iter().map(|bytes| Shape::Options(bytes.to_vec())));
        all.extend(OPTIONS.iter().map(|bytes| Shape::Options(bytes.repeat(40 / bytes.len()))));
    }
    all.extend(fragmentations(layout.end - layout.udp).into_iter().map(Shape::Fragments));
    all.extend((0..96).map(|_| Shape::Noise(random.number())));
    all.extend((0..32).map(|_| Shape::Body(random.number())));
    all.extend([Shape::Checksum, Shape::Twice]);
    all
}

/// Ways to take `len` bytes apart: whole, out of order, overlapping, with holes, twice, beyond any packet's end.
fn fragmentations(len: usize) -> Vec<Vec<(usize, usize, bool)>> {
    let mut all = Vec::new();
    for cut in [8, 16, 24, 32, len / 16 * 8].into_iter().filter(|cut| *cut > 0 && *cut < len) {
        let (first, last) = ((0, cut, true), (cut, len - cut, false));
        all.extend([vec![first, last], vec![last, first], vec![first], vec![last]]);
        all.extend([vec![first, first, last], vec![first, (0, len, false)], vec![(0, cut, false), last]]);
        all.push(vec![first, (cut / 16 * 8, len - cut / 16 * 8, false)]);
        all.push(vec![first, (cut + 8, (len - cut).saturating_sub(8), false)]);
        all.push(vec![(0, cut - 1, true), last]);
    }
    all.extend([vec![(0, len, true)], vec![(0xfff8, len, false)], vec![(0, 0, true)], vec![(8, 0, false)]]);
    let eighths: Vec<_> = (0..len).step_by(8).map(|at| (at, 8.min(len - at), at + 8 < len)).collect();
    all.push(eighths.iter().rev().copied().collect());
    all.push(eighths);
    all
}

/// One fragment: `len` bytes of what follows the IP header, from `at` on. They repeat past the end.
fn fragment(template: &Template, at: usize, len: usize, more: bool) -> Vec<u8> {
    let layout = &template.layout;
    let data = &template.frame[layout.udp..layout.end];
    let part = (at..at + len).map(|n| data[n % data.len()]);
    let mut frame = template.frame[..layout.udp].to_vec();
    let flags = (at / 8) as u16;
    if layout.v6 {
        frame[layout.ip + 6] = FRAGMENT;
        let [high, low] = (flags << 3 | u16::from(more)).to_be_bytes();
        frame.extend([17, 0, high, low, 0x4c, 0x41, 0x42, at as u8 ^ len as u8 & 1]);
        frame.extend(part);
        let length = (frame.len() - layout.udp) as u16;
        frame[layout.ip + 4..layout.ip + 6].copy_from_slice(&length.to_be_bytes());
        // All fragments of a packet have one identification.
        frame[layout.udp + 7] = 0x43;
    } else {
        frame.extend(part);
        let length = (frame.len() - layout.ip) as u16;
        frame[layout.ip + 2..layout.ip + 4].copy_from_slice(&length.to_be_bytes());
        let flags = flags & 0x1fff | if more { 0x2000 } else { 0 };
        frame[layout.ip + 6..layout.ip + 8].copy_from_slice(&flags.to_be_bytes());
        ipv4_checksum(&mut frame, layout.ip);
    }
    frame
}

/// Has IP and UDP lengths say what the frame's length is, as far as it has these fields, with right sums.
fn tell_lengths(frame: &mut [u8], template: &Template) {
    let layout = &template.layout;
    let mut tell = |at: usize, from: usize| {
        if frame.len() >= at + 2 && frame.len() >= from {
            let length = (frame.len() - from) as u16;
            frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
        }
    };
    if layout.v6 {
        tell(layout.ip + 4, layout.ip + 40)
    } else {
        tell(layout.ip + 2, layout.ip)
    }
    tell(layout.udp + 4, layout.udp);
    let moved = crate::layout::Layout { end: frame.len(), ..layout.clone() };
    if frame.len() >= layout.bth + ICRC {
        Seal::Whole.apply(frame, &moved);
    } else {
        Seal::Header.apply(frame, &moved);
    }
}

/// Adds to the length field at `at`.
fn grow(frame: &mut [u8], at: usize, by: usize) {
    let length = u16::from_be_bytes([frame[at], frame[at + 1]]).wrapping_add(by as u16);
    frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

fn noise(bytes: &mut [u8], seed: u64) {
    let mut random = Random::new(seed);
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.number().to_le_bytes()[..chunk.len()]));
}

fn udp_checksum(frame: &mut [u8], template: &Template) {
    let layout = &template.layout;
    let (src, dst) = template.addresses();
    let datagram = &template.frame[layout.udp..layout.end];
    let length = (datagram.len() as u16).to_be_bytes();
    // The checksum field itself counts as 0, which it is in RoCEv2.
    let sum = !ones_complement([src, dst, &[0, 17], &length, datagram]);
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[layout.udp + 6..layout.udp + 8].copy_from_slice(&sum.to_be_bytes());
}
