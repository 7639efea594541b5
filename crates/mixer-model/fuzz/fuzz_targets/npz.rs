//! Weights, from any bytes to a network or a refusal. The seeds make this target that of `.npz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mixer_model_fuzz::internals::weights(bytes);
});
