//! `cargo +nightly fuzz run tx_chain` in crates/gvnic.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/rings/mod.rs"]
mod rings;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rings::tx_chain(input);
});
