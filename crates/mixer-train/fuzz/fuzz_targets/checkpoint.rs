//! Checkpoints: a directory in which one file is anything, with and without a manifest that knows it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mixer_train::internals::checkpoint(bytes);
});
