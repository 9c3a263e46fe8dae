//! `cargo +nightly fuzz run admin_queue` in crates/gvnic.
#![no_main]

#[path = "../../tests/entry/mod.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|input: &[u8]| entry::admin_queue(input));
