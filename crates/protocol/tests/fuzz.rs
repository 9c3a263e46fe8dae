//! Decoding must survive anything. Random bytes, and valid traffic that was mutated, cut, glued and delivered in pieces,
//! go through the decoder, the multiplexer of both ends and the decoding of messages.
//!
//! Seeded: a failure prints the seed; `FUZZ_SEED=N FUZZ_ROUNDS=M cargo test -p protocol --test fuzz` repeats or extends.

use std::sync::Mutex;
use std::time::Duration;

use protocol::frame::{Decoder, Frame, Kind, MAX_PAYLOAD};
use protocol::mux::{MAX_STREAMS, Mux, MuxStream, Service, Vitals};
use protocol::{Condition, Event, Exec, Hello, Input, Pull, Push, Request, Wait, WinSize};

/// xorshift64*: small, seeded, good enough to shake bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self) -> String {
        let length = self.below(12);
        (0..length).map(|_| char::from_u32(self.below(0x3000) as u32 + 1).unwrap_or('x')).collect()
    }

    fn flip(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs the check for many seeds; a panic names the seed.
fn fuzz(rounds: u64, check: impl Fn(&mut Random)) {
    let first = number("FUZZ_SEED", 1);
    for seed in first..first + number("FUZZ_ROUNDS", rounds) {
        struct Tell(u64);
        impl Drop for Tell {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    eprintln!("FUZZ_SEED={} FUZZ_ROUNDS=1", self.0);
                }
            }
        }
        let tell = Tell(seed);
        check(&mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
        drop(tell);
    }
}

fn random_frame(random: &mut Random, nonce: u32) -> Frame {
    use Kind::*;
    let kind = [Hello, Ping, Pong, Open, Message, Data, Credit, Close, Padding][random.below(9)];
    let length = match random.below(8) {
        0 => random.below(MAX_PAYLOAD + 1),
        1 => 4,
        _ => random.below(64),
    };
    let payload = match kind {
        Open if random.flip() => postcard::to_stdvec(&random_request(random)).expect("a request"),
        Message if random.flip() => postcard::to_stdvec(&random_input(random)).expect("an input"),
        Hello if random.flip() => protocol::Hello { build: random.text(), boot: None }.encode(),
        _ => random.bytes(length),
    };
    let flags = if random.below(4) == 0 { random.next() as u8 } else { 0 };
    let nonce = if random.below(10) == 0 { random.next() as u32 } else { nonce };
    Frame { kind, flags, stream: random.below(20) as u32, nonce, payload }
}

fn random_request(random: &mut Random) -> Request {
    let netns = random.flip().then(|| random.text());
    match random.below(10) {
        0 => Request::Exec(Exec {
            argv: (0..random.below(5)).map(|_| random.text()).collect(),
            env: (0..random.below(3)).map(|_| (random.text(), random.text())).collect(),
            cwd: netns,
            pty: random.flip().then(|| WinSize { rows: random.next() as u16, cols: 80, term: random.text() }),
            stdin: random.flip(),
            timeout_ms: random.flip().then(|| random.next()),
            scope: random.flip().then(|| random.text()),
        }),
        1 => Request::Push(Push { path: random.text(), mode: random.next() as u32, size: random.next() }),
        2 => Request::Pull(Pull { path: random.text() }),
        3 => Request::Wait(Wait {
            condition: Condition::TcpListen { port: random.next() as u16, netns },
            timeout_ms: random.next(),
            interval_ms: 0,
        }),
        4 => Request::Wait(Wait {
            condition: Condition::FileContains { path: random.text(), pattern: random.text() },
            timeout_ms: 1,
            interval_ms: random.next(),
        }),
        5 => Request::Probe { names: (0..random.below(6)).map(|_| random.text()).collect() },
        6 => Request::Info,
        7 => Request::Snapshot,
        8 => Request::EndScope { scope: random.text() },
        _ => Request::PowerOff { reboot: random.flip() },
    }
}

fn random_input(random: &mut Random) -> Input {
    match random.below(4) {
        0 => {
            let length = random.below(40);
            Input::Stdin(random.bytes(length))
        }
        1 => Input::StdinEof,
        2 => Input::Signal(random.next() as i32),
        _ => Input::Resize(WinSize { rows: 1, cols: random.next() as u16, term: random.text() }),
    }
}

/// Does to the bytes what a broken pipe, a vanished host or a hostile one could.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(6) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(at..bytes.len().min(at + 1 + random.below(200)))),
            3 => {
                let length = random.below(200);
                let extra = random.bytes(length);
                bytes.splice(at..at, extra);
            }
            4 => {
                let end = bytes.len().min(at + random.below(400));
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => bytes.truncate(at),
        }
    }
}

/// Decodes, in pieces of random sizes.
fn decode(random: &mut Random, bytes: &[u8]) -> (Vec<Frame>, u64) {
    let (mut decoder, mut frames, mut rest) = (Decoder::new(), Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(1 + random.below(rest.len().min(5000)));
        decoder.push(piece);
        frames.extend(std::iter::from_fn(|| decoder.next_frame()));
        rest = after;
    }
    (frames, decoder.skipped())
}

#[test]
fn whatever_the_pieces_the_same_frames_come_out() {
    fuzz(200, |random| {
        let frames: Vec<Frame> = (0..1 + random.below(12)).map(|_| random_frame(random, 7)).collect();
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        assert_eq!(decode(random, &bytes), (frames, 0));
    });
}

#[test]
fn frames_are_found_again_after_garbage() {
    fuzz(200, |random| {
        let mut bytes = Vec::new();
        for _ in 0..random.below(4) {
            random_frame(random, 7).encode(&mut bytes);
        }
        mutate(random, &mut bytes);
        let length = random.below(300);
        let noise = random.bytes(length);
        bytes.extend(noise);
        // However the garbage ends, the padding completes it.
        let padding = Frame { kind: Kind::Padding, flags: 0, stream: 0, nonce: 8, payload: vec![0; MAX_PAYLOAD] };
        padding.encode(&mut bytes);
        let last: Vec<Frame> = (0..3).map(|_| random_frame(random, 8)).collect();
        last.iter().for_each(|frame| frame.encode(&mut bytes));
        let (frames, _) = decode(random, &bytes);
        assert!(frames.ends_with(&last), "the frames after the garbage were lost");
    });
}

#[test]
fn every_byte_is_part_of_a_frame_or_counted_as_skipped() {
    fuzz(200, |random| {
        let mut bytes = Vec::new();
        for _ in 0..random.below(5) {
            random_frame(random, 7).encode(&mut bytes);
        }
        mutate(random, &mut bytes);
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        let mut whole = Vec::new();
        std::iter::from_fn(|| decoder.next_frame()).for_each(|frame| frame.encode(&mut whole));
        decoder.reset();
        assert_eq!(whole.len() as u64 + decoder.skipped(), bytes.len() as u64);
    });
}

#[derive(Default)]
struct Guest(Mutex<Vec<MuxStream>>);

impl Service for Guest {
    fn accept(&self, stream: MuxStream, request: Vec<u8>) {
        let _ = postcard::from_bytes::<Request>(&request);
        self.0.lock().expect("the streams").push(stream);
    }
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }
}

#[test]
fn neither_end_falls_over_whatever_frames_arrive() {
    fuzz(300, |random| {
        let hello = || Hello { build: "fuzz".into(), boot: None };
        let ends = [Mux::guest(None, hello()), Mux::host(7, hello())];
        let service = Guest::default();
        let asked: Vec<_> = (0..10).filter_map(|_| ends[1].open(b"request").ok()).collect();
        for _ in 0..40 {
            let mut bytes = Vec::new();
            for _ in 0..1 + random.below(6) {
                random_frame(random, 7).encode(&mut bytes);
            }
            if random.flip() {
                mutate(random, &mut bytes);
            }
            ends.iter().for_each(|end| end.feed(&bytes, &service));
            let mut streams = service.0.lock().expect("the streams");
            for stream in streams.iter().chain(&asked) {
                match random.below(5) {
                    0 => drop(stream.send_message(b"an answer")),
                    1 if stream.has_room() == Ok(true) => drop(stream.send_data(random.flip(), b"some data")),
                    _ => drop(stream.recv(Duration::ZERO)),
                }
            }
            if !streams.is_empty() && random.flip() {
                let which = random.below(streams.len());
                streams.swap_remove(which);
            }
            assert!(streams.len() <= 40 * MAX_STREAMS);
            for end in &ends {
                while end.try_next_out().is_some() {}
            }
        }
        // The guest still answers a host that behaves.
        let host = Mux::host(0xbeef, hello());
        let (mut to, mut back) = (Vec::new(), Vec::new());
        host.greet_again();
        while let Some(frame) = host.try_next_out() {
            frame.encode(&mut to);
        }
        ends[0].feed(&to, &service);
        ends[0].feed(&to, &service);
        while let Some(frame) = ends[0].try_next_out() {
            frame.encode(&mut back);
        }
        host.feed(&back, &service);
        assert_eq!(host.wait_hello(Duration::ZERO), Ok(hello()));
    });
}

#[test]
fn messages_come_back_as_they_went_and_mutated_ones_are_errors_at_worst() {
    fuzz(3000, |random| {
        let request = random_request(random);
        let mut bytes = postcard::to_stdvec(&request).expect("a request");
        assert_eq!(postcard::from_bytes::<Request>(&bytes), Ok(request));
        mutate(random, &mut bytes);
        let _ = postcard::from_bytes::<Request>(&bytes);
        let _ = postcard::from_bytes::<Input>(&bytes);
        let _ = postcard::from_bytes::<Event>(&bytes);
        let _ = Hello::decode(&bytes);
    });
}
