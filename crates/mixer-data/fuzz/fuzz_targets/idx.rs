//! IDX files, packed and not.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mixer_data::internals::idx(bytes);
});
