//! Lists, labels and synsets.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mixer_data::internals::list(bytes);
});
