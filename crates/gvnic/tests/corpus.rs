//! What the fuzzers found worth keeping, on any toolchain: each input of `fuzz/seeds` goes through its target again.
//!
//! A file is a target's, a line an input in hexadecimal. `cargo test -p gvnic --test corpus -- --ignored lay_out` makes folders of
//! them for `cargo +nightly fuzz run TARGET` in crates/gvnic (`fuzz/corpus`, which git does not see); after a run,
//! `cargo +nightly fuzz cmin TARGET` and `--ignored take_in` bring home what it kept.

mod common;
mod entry;
mod rings;

use std::fs;
use std::path::PathBuf;

/// What a fuzz target calls.
type Entry = fn(&[u8]);

/// The targets.
const TARGETS: [(&str, Entry); 4] = [
    ("admin_queue", entry::admin_queue),
    ("flow_rules", entry::flow_rules),
    ("rx_ring", |input| {
        rings::rx_ring(input);
    }),
    ("tx_chain", |input| {
        rings::tx_chain(input);
    }),
];
/// Longest input that is brought home: short ones are enough to get everywhere, and are read by people.
const INPUT_MAX: usize = 96;

fn folder(parts: &[&str]) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz"].iter().chain(parts).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let path = folder(&["seeds", target]).with_extension("hex");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("two digits");
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

#[test]
fn what_was_found_is_survived_again() {
    for (target, run) in TARGETS {
        let seeds = seeds(target);
        assert!(seeds.len() >= 20, "{target}: only {} inputs", seeds.len());
        seeds.iter().for_each(|input| run(input));
    }
}

#[test]
#[ignore = "no test: writes fuzz/corpus for a fuzzer; run by hand before fuzzing, see docs/contributing.md"]
fn lay_out() {
    for (target, _) in TARGETS {
        let into = folder(&["corpus", target]);
        fs::create_dir_all(&into).expect("a folder");
        for (n, input) in seeds(target).iter().enumerate() {
            fs::write(into.join(format!("{n:03}")), input).expect("a file");
        }
    }
}

#[test]
#[ignore = "no test: writes fuzz/seeds from fuzz/corpus; run by hand after fuzzing, see docs/contributing.md"]
fn take_in() {
    for (target, _) in TARGETS {
        let Ok(kept) = fs::read_dir(folder(&["corpus", target])) else { continue };
        let read = |entry: std::io::Result<fs::DirEntry>| fs::read(entry.expect("an entry").path()).expect("a file");
        let mut inputs: Vec<Vec<u8>> = kept.map(read).filter(|input| input.len() <= INPUT_MAX).collect();
        inputs.sort();
        let line = |input: &Vec<u8>| input.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
        fs::create_dir_all(folder(&["seeds"])).expect("a folder");
        fs::write(folder(&["seeds", target]).with_extension("hex"), inputs.iter().map(line).collect::<String>())
            .expect("a file");
    }
}
