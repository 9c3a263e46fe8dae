//! What the device sends for given packets, byte for byte, as captures that Wireshark shows: `tests/golden/*.pcap`.
//!
//! An independent library says that the frames are sound, here and whenever they are compared. `UPDATE_EXPECTED=1` writes the
//! captures anew; look at what changed before committing them.

mod common;
mod rings;

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::Ram;
use gvnic::stats::TxCount;
use gvnic::tx::{Limits, Outlet, Rest, Scratch, TxRing, Verdict};
use gvnic::wire::{Frame, Sent};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use rings::{Extension, Recipe, Tso, TxDriver, judge};

/// The largest frame: MTU 9000.
const FRAME_MAX: usize = 9022;

/// A wire that keeps everything.
#[derive(Default)]
struct Kept(Vec<Vec<u8>>);

impl Outlet for Kept {
    fn send(&mut self, frame: Frame<'_>) -> Sent {
        self.0.push(frame.bytes.to_vec());
        Sent::Taken
    }

    fn verdict(&mut self) -> Verdict {
        Verdict::Complete
    }
}

/// What the device sends when the driver has it fill in checksums, and cut at `mss` where that is given.
fn sent(recipe: &Recipe, mss: Option<u16>) -> Vec<Vec<u8>> {
    let ram = Arc::new(Ram::new(2 << 20));
    let mut driver = TxDriver::new(&ram, 0, 256, 1 << 20);
    let mut ring = TxRing::new(driver.setup);
    let packet = if mss.is_some() { recipe.packet() } else { without_sum(recipe) };
    let tso = mss.map(|mss| Tso { mss, header: recipe.header() as u8 });
    let pieces = [recipe.header(), 1000];
    driver.send(&packet, &pieces, tso, true).expect("room for one");
    let (mut kept, mut count, mut descriptors) = (Kept::default(), TxCount::default(), 0);
    let limits = Limits { packets: 10, frame: FRAME_MAX };
    let rest = ring.run(
        &*ram,
        driver.tail,
        limits,
        &|| true,
        &mut Scratch::default(),
        &mut kept,
        &mut count,
        &mut descriptors,
    );
    assert_eq!(rest.expect("a sound ring"), Rest::Idle);
    assert_eq!((count.packets, count.drops(), driver.poll().len()), (1, 0, 1));
    kept.0
}

/// The frame, with nonsense for a checksum of TCP or UDP.
fn without_sum(recipe: &Recipe) -> Vec<u8> {
    let mut frame = recipe.frame();
    let at = gvnic::frame::parse(&frame).l4_at as usize + if recipe.udp { 6 } else { 16 };
    frame[at..at + 2].copy_from_slice(&[0xde, 0xad]);
    frame
}

/// The capture of that name.
fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", &format!("{name}.pcap")].iter().collect()
}

/// Frames of a capture, a microsecond apart.
fn write(name: &str, frames: &[Vec<u8>]) {
    fs::create_dir_all(path(name).parent().expect("a folder")).expect("the folder");
    let header = PcapHeader { datalink: DataLink::ETHERNET, snaplen: 65_535, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(File::create(path(name)).expect("a file"), header).expect("a header");
    for (n, frame) in (0..).zip(frames) {
        let length = u32::try_from(frame.len()).expect("a short frame");
        writer.write_packet(&PcapPacket::new(Duration::from_micros(n), length, frame)).expect("a frame");
    }
}

fn read(name: &str) -> Vec<Vec<u8>> {
    let file = File::open(path(name)).unwrap_or_else(|error| panic!("{}: {error}", path(name).display()));
    let mut reader = PcapReader::new(file).expect("a capture");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.expect("a whole packet").data.into_owned());
    }
    frames
}

/// Compares what the device sends with the capture, and has every frame judged.
fn golden(name: &str, packets: &[(Recipe, Option<u16>)]) {
    let mut frames = Vec::new();
    for (recipe, mss) in packets {
        let of_this = sent(recipe, *mss);
        let mut payload = Vec::new();
        for frame in &of_this {
            let judged = judge(frame);
            assert!(judged.l3_holds && judged.l4_holds, "{name}: {recipe:?}");
            payload.extend_from_slice(&judged.payload);
        }
        assert!(payload == recipe.payload, "{name}: {recipe:?}");
        frames.extend(of_this);
    }
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        write(name, &frames);
    }
    let expected = read(name);
    assert_eq!(frames.len(), expected.len(), "{name}: frames");
    for (n, (frame, expected)) in frames.iter().zip(&expected).enumerate() {
        assert!(frame == expected, "{name}: frame {} is\n{frame:02x?}, and was\n{expected:02x?}", n + 1);
    }
}

fn v6(recipe: Recipe) -> Recipe {
    Recipe { v6: true, ..recipe }
}

#[test]
fn checksums() {
    let options = Recipe { tcp_options: vec![1; 12], ..Recipe::tcp(300) };
    let tagged = Recipe { tags: 1, ..Recipe::tcp(64) };
    let hop = Recipe { extension: Extension::HopByHop, ..v6(Recipe::udp(33)) };
    let packets = [
        Recipe::tcp(0),
        Recipe::tcp(1),
        options,
        tagged,
        Recipe::udp(17),
        v6(Recipe::tcp(1440)),
        v6(Recipe::udp(0)),
        hop,
    ];
    golden("checksums", &packets.map(|recipe| (recipe, None)));
}

#[test]
fn tcp_segments() {
    // SYN, FIN and PSH belong to one segment each; the identification counts.
    let push = Recipe { flags: 0x19, id: 0xfffe, sequence: u32::MAX - 1000, ..Recipe::tcp(700) };
    let options = Recipe { tcp_options: vec![1; 12], ..v6(Recipe::tcp(600)) };
    let tagged = Recipe { tags: 2, tos: 0x02, flags: 0x90, ..Recipe::tcp(500) };
    golden("tcp-segments", &[(push, Some(200)), (options, Some(256)), (tagged, Some(499))]);
}

#[test]
fn udp_segments() {
    golden("udp-segments", &[(Recipe::udp(1000), Some(300)), (v6(Recipe::udp(512)), Some(256))]);
}
