//! The index of shards.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mixer_data::internals::shard_index(bytes);
});
