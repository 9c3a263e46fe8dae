//! Captures, read back by a reader that is not ours.

mod common;

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Lab, PATIENCE, frame, mac, number};
use fabric::{Fault, LinkFault};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};

const OUTBOUND: u32 = 2;
const INBOUND: u32 = 1;

/// What a file holds.
#[derive(Debug, Default)]
struct Contents {
    interface: String,
    /// Direction, number, nanoseconds since 1970, bytes.
    frames: Vec<(u32, u32, u64, Vec<u8>)>,
    /// Frames seen and missed, at the end.
    statistics: Option<(u64, u64)>,
}

fn read(path: &Path) -> Contents {
    let mut reader = PcapNgReader::new(File::open(path).unwrap()).unwrap();
    let mut contents = Contents::default();
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(interface) => {
                assert_eq!(u32::from(interface.linktype), 1, "Ethernet");
                for option in &interface.options {
                    match option {
                        InterfaceDescriptionOption::IfName(name) => contents.interface = name.to_string(),
                        InterfaceDescriptionOption::IfTsResol(resolution) => assert_eq!(*resolution, 9, "nanoseconds"),
                        _ => {}
                    }
                }
            }
            Block::EnhancedPacket(packet) => {
                assert_eq!(packet.original_len as usize, packet.data.len());
                let [EnhancedPacketOption::Flags(flags)] = packet.options[..] else { panic!("{:?}", packet.options) };
                // The reader takes what the file holds for nanoseconds, whatever its resolution.
                let nanos = u64::try_from(packet.timestamp.as_nanos()).unwrap();
                contents.frames.push((flags, number(&packet.data), nanos, Cow::into_owned(packet.data)));
            }
            Block::InterfaceStatistics(statistics) => {
                let (mut seen, mut missed) = (0, 0);
                for option in &statistics.options {
                    match option {
                        InterfaceStatisticsOption::IsbIfRecv(n) => seen = *n,
                        InterfaceStatisticsOption::IsbIfDrop(n) => missed = *n,
                        _ => {}
                    }
                }
                contents.statistics = Some((seen, missed));
            }
            other => panic!("{other:?}"),
        }
    }
    contents
}

fn nanos() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

#[test]
fn a_capture_holds_every_frame_of_its_port_and_no_other() {
    let lab = Lab::new(3);
    let (mut a, mut b, mut c) = (lab.plug("a"), lab.plug("b"), lab.plug("c"));
    for nic in [&mut a, &mut b, &mut c] {
        nic.announce(&lab);
    }
    for nic in [&mut a, &mut b, &mut c] {
        nic.drain();
    }
    let path = lab.dir.path().join("a.pcapng");
    let start = nanos();
    let capture = lab.switch.capture("a", &path).unwrap();
    let mut sent = Vec::new();
    for n in 0..100 {
        let out = frame(mac("b"), mac("a"), n, 64 + n as usize);
        a.send(&out);
        assert_eq!(b.expect(), n);
        b.send_to(mac("a"), n + 1000);
        assert_eq!(a.expect(), n + 1000);
        b.send_to(mac("c"), n);
        assert_eq!(c.expect(), n);
        sent.push(out);
    }
    let summary = capture.finish().unwrap();
    assert_eq!((summary.frames, summary.missed), (200, 0));
    let end = nanos();
    a.send_to(mac("b"), 5000);
    assert_eq!(b.expect(), 5000);

    let contents = read(&path);
    assert_eq!(contents.interface, "a");
    assert_eq!(contents.statistics, Some((200, 0)));
    let order: Vec<_> = contents.frames.iter().map(|f| (f.0, f.1)).collect();
    assert_eq!(order, (0..100).flat_map(|n| [(OUTBOUND, n), (INBOUND, n + 1000)]).collect::<Vec<_>>());
    assert!(contents.frames.iter().filter(|f| f.0 == OUTBOUND).map(|f| &f.3).eq(&sent));
    let times: Vec<u64> = contents.frames.iter().map(|f| f.2).collect();
    assert!(times.is_sorted() && start <= times[0] && times[199] <= end, "{start} {} {} {end}", times[0], times[199]);
    assert!(times.iter().any(|t| t % 1000 != 0), "no finer than microseconds");
}

#[test]
fn a_live_capture_can_be_read() {
    let lab = Lab::new(2);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    let path = lab.dir.path().join("live.pcapng");
    let capture = lab.switch.capture("b", &path).unwrap();
    for n in 0..10 {
        a.send_to(mac("b"), n);
        assert_eq!(b.expect(), n);
        let deadline = std::time::Instant::now() + PATIENCE;
        while read(&path).frames.len() <= n as usize {
            assert!(std::time::Instant::now() < deadline, "frame {n} is not in the file");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(read(&path).statistics, None);
    drop(capture);
    assert_eq!(read(&path).statistics, Some((10, 0)));
}

#[test]
fn faults_show_between_the_captures_of_both_ends() {
    let fault = Fault { loss: 0.3, duplicate: 0.2, corrupt: 0.2, delay: Duration::from_millis(2), ..Fault::default() };
    let lab = Lab::with(2, |c| c.faults = vec![LinkFault { from: "a".into(), to: "b".into(), fault }]);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    let (at_a, at_b) = (lab.dir.path().join("a.pcapng"), lab.dir.path().join("b.pcapng"));
    let captures = [lab.switch.capture("a", &at_a).unwrap(), lab.switch.capture("b", &at_b).unwrap()];
    for n in 0..200 {
        a.send_to(mac("b"), n);
    }
    lab.wait("a", |c| c.rx_frames == 200);
    lab.wait("b", |c| c.backlog_bytes == 0);
    let received: Vec<Vec<u8>> = std::iter::from_fn(|| b.receive(common::QUIET)).collect();
    drop(captures);
    assert_eq!(read(&at_a).frames.len(), 200);
    let seen = read(&at_b);
    assert_eq!(seen.frames.iter().map(|f| f.3.clone()).collect::<Vec<_>>(), received);
    assert!(seen.frames.iter().all(|f| f.0 == INBOUND));
    assert_eq!(lab.counters("b").tx_frames, received.len() as u64);
}

#[test]
fn two_captures_of_one_port_do_not_mind_each_other() {
    let lab = Lab::new(2);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    let paths = ["1", "2"].map(|n| lab.dir.path().join(n));
    let first = lab.switch.capture("a", &paths[0]).unwrap();
    let second = lab.switch.capture("a", &paths[1]).unwrap();
    a.send_to(mac("b"), 1);
    assert_eq!(b.expect(), 1);
    drop(first);
    a.send_to(mac("b"), 2);
    assert_eq!(b.expect(), 2);
    // A capture that outlives its switch ends well.
    drop(lab.switch);
    assert_eq!(second.finish().unwrap().frames, 2);
    assert_eq!((read(&paths[0]).frames.len(), read(&paths[1]).frames.len()), (1, 2));
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let lab = Lab::new(1);
    let path = lab.dir.path().join("no/such/folder");
    let error = lab.switch.capture("a", &path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot write the capture of port `a` to {}: ", path.display())), "{error}");
    let error = lab.switch.capture("a", Path::new("/dev/full")).unwrap_err().to_string();
    assert!(error.starts_with("cannot write the capture of port `a` to /dev/full: No space left"), "{error}");
    assert_eq!(lab.switch.capture("q", &path).unwrap_err().to_string(), "network `test` has no port `q`; it has a");
    assert!(!path.exists());
}

#[test]
fn a_pipe_whose_reader_goes_away_ends_the_capture_and_nothing_else() {
    let lab = Lab::new(2);
    let (mut a, mut b) = (lab.plug("a"), lab.plug("b"));
    let pipe = lab.dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || File::open(pipe).unwrap().read_exact(&mut [0; 28]).unwrap())
    };
    let capture = lab.switch.capture("a", &pipe).unwrap();
    reader.join().unwrap();
    for n in 0..100 {
        a.send_to(mac("b"), n);
        assert_eq!(b.expect(), n);
    }
    let error = capture.finish().unwrap_err().to_string();
    assert!(error.contains("Broken pipe"), "{error}");
    a.send_to(mac("b"), 1);
    assert_eq!(b.expect(), 1);
    assert!(fs::exists(&pipe).unwrap());
}
