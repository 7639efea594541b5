//! Tar shards, from any bytes to examples.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mixer_data::internals::tar(bytes);
});
