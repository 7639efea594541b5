//! Configurations, from any text to a plan, with and without overrides.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mixer_train::internals::config(bytes);
});
