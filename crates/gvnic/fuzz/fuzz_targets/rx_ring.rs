//! `cargo +nightly fuzz run rx_ring` in crates/gvnic.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/rings/mod.rs"]
mod rings;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    rings::rx_ring(input);
});
