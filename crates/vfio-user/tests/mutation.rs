//! Messages as they should not be: valid ones with bytes, fields and lengths changed, many of them, always the same ones.
//! Whatever comes, the server answers every message it can tell from the next one, or hangs up; what it holds, it lets go of.

#[path = "common/replay.rs"]
mod replay;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use replay::{Along, corpus, hello, replay};

const SEED: u64 = 0x7f10_05e7;
const STREAMS: u64 = 20_000;
const FUZZ_CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/messages");

/// SplitMix64: a seed for each stream, so that one that fails can be had again by its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A number somebody may have forgotten.
    fn odd(&mut self) -> u64 {
        const ODD: [u64; 24] = [
            0,
            1,
            2,
            3,
            4,
            5,
            7,
            8,
            9,
            15,
            16,
            17,
            20,
            32,
            255,
            256,
            4095,
            4096,
            65_536,
            65_537,
            1 << 31,
            1 << 32,
            1 << 63,
            u64::MAX,
        ];
        let value = ODD[self.below(ODD.len())];
        match self.below(4) {
            0 => value.wrapping_neg(),
            1 => self.next(),
            _ => value,
        }
    }
}

fn mutate(message: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(message.len().max(1));
        match random.below(8) {
            // Everything is aligned to its size: a whole field.
            kind @ 0..4 => {
                let width = [1, 2, 4, 8][kind];
                let value = random.odd().to_ne_bytes();
                let at = at / width * width;
                if let Some(field) = message.get_mut(at..at + width) {
                    field.copy_from_slice(&value[..width]);
                }
            }
            4 => message.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            5 => message.truncate(at),
            6 => {
                let more = random.below(64);
                message.extend((0..more).map(|n| n as u8));
            }
            // The header tells the truth about the length again.
            _ => {
                let size = (message.len() as u32).to_ne_bytes();
                if let Some(field) = message.get_mut(4..8) {
                    field.copy_from_slice(&size);
                }
            }
        }
    }
}

fn stream(number: u64, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut random = Random(SEED ^ number << 32);
    let mut stream = if random.below(8) == 0 { Vec::new() } else { hello() };
    for _ in 0..=random.below(6) {
        let mut message = corpus[random.below(corpus.len())].clone();
        if random.below(3) > 0 {
            mutate(&mut message, &mut random);
        }
        stream.extend_from_slice(&message);
    }
    // What is left open by a wrong length may be closed by many bytes.
    if random.below(100) == 0 {
        stream.resize(stream.len() + random.below(70_000), 0xa5);
    }
    stream
}

#[test]
fn mutated_streams_are_answered_or_cut_and_nothing_is_left() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    // A server that never comes back would be the test's end, silently.
    thread::spawn(|| {
        let mut last = u64::MAX;
        loop {
            thread::sleep(Duration::from_secs(60));
            let now = NOW.load(Ordering::Relaxed);
            if now == last {
                eprintln!("stream {now} hangs");
                std::process::abort();
            }
            last = now;
        }
    });
    let (along, corpus) = (Along::new(), corpus());
    // What is mutated was right before, but for two commands that this server does not have.
    let mut errors = Vec::new();
    for chunk in corpus[1..].chunks(replay::MESSAGES - 1) {
        errors.extend(replay(&[vec![hello()], chunk.to_vec()].concat().concat(), &along));
    }
    assert_eq!(errors, [95, 95]);
    // And what the fuzzer has found so far.
    for file in std::fs::read_dir(FUZZ_CORPUS).unwrap() {
        replay(&std::fs::read(file.unwrap().path()).unwrap(), &along);
    }
    let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
    for number in 0..STREAMS {
        NOW.store(number, Ordering::Relaxed);
        let stream = stream(number, &corpus);
        if let Err(panic) = std::panic::catch_unwind(|| replay(&stream, &along)) {
            eprintln!("stream {number}: {stream:02x?}");
            std::panic::resume_unwind(panic);
        }
        if number % 1000 == 0 {
            assert_eq!(std::fs::read_dir("/proc/self/fd").unwrap().count(), before, "after stream {number}");
        }
    }
}

/// Writes what the fuzzer begins with: `cargo test -p vfio-user --test mutation -- --ignored`.
#[test]
#[ignore = "writes the corpus of fuzz/ into the repository: run by hand when a message is added"]
fn write_the_corpus_of_the_fuzzer() {
    std::fs::create_dir_all(FUZZ_CORPUS).unwrap();
    for (n, message) in corpus().into_iter().enumerate() {
        let stream = if n == 0 { message } else { [hello(), message].concat() };
        std::fs::write(format!("{FUZZ_CORPUS}/{n:02}"), stream).unwrap();
    }
}
