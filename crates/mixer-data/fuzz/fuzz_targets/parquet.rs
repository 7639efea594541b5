//! Parquet files. The Parquet reader panics on some damage; that is caught, and no finding.

#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;

static QUIET: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    // libFuzzer's hook ends the process before a panic can be caught.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    drop(mixer_data::internals::read_parquet(bytes.to_vec()));
});
