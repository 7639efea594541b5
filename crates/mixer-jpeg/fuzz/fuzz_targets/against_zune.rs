//! Any bytes; `tests/common/against_zune.rs` says what must hold of them. The test `fuzz` feeds the same
//! function from fixtures.
//!
//! ```sh
//! RUSTC_BOOTSTRAP=1 cargo fuzz run against_zune --fuzz-dir crates/mixer-jpeg/fuzz \
//!     crates/mixer-jpeg/fuzz/corpus/against_zune crates/mixer-jpeg/tests/fixtures -- -max_len=8192
//! ```

#![no_main]

#[path = "../../tests/common/against_zune.rs"]
mod against_zune;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    against_zune::check(bytes);
});
