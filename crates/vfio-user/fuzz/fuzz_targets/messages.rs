//! A client's stream, byte for byte; the descriptors come along as the ids of the messages say.
#![no_main]

#[path = "../../tests/common/replay.rs"]
mod replay;

use std::cell::LazyCell;

thread_local! {
    static ALONG: LazyCell<replay::Along> = const { LazyCell::new(replay::Along::new) };
}

libfuzzer_sys::fuzz_target!(|stream: &[u8]| {
    ALONG.with(|along| replay::replay(stream, along));
});
