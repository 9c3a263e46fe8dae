//! `cargo +nightly fuzz run flow_rules` in crates/gvnic.
#![no_main]

#[path = "../../tests/entry/mod.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|input: &[u8]| entry::flow_rules(input));
