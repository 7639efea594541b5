//! The fuzz targets without a fuzzer: the seeds of `fuzz/seeds` and some thousand damaged ones, the same
//! in every run. It finds less than `cargo fuzz`, and runs wherever the tests do.
//!
//! No input may make a parser panic, and none may make it ask for more memory than it justifies.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "../../mixer-jpeg/tests/common/allocation.rs"]
mod allocation;
#[path = "../../mixer-jpeg/tests/common/mutate.rs"]
mod mutate;

use std::path::Path;

use mixer_train::internals;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

/// Bytes that a parser may hold at once, for inputs of at most some 4 kB.
const MAX_BYTES: usize = 4 << 20;

fn fuzz(target: &str, mutants: u64, parse: impl Fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = fs_err::read(&path).unwrap();
        assert!(parse(&bytes), "the seed {name} is sound");
        seeds.push((name, bytes));
    }
    seeds.sort();
    let mut most = 0;
    mutate::feed(&seeds, mutants, |bytes| {
        let peak = allocation::peak_of(|| {
            parse(bytes);
        });
        assert!(peak <= MAX_BYTES, "{} bytes made {target} hold {peak}", bytes.len());
        most = most.max(peak);
    });
    println!("{target}: at most {most} bytes for {mutants} inputs");
}

#[test]
fn damaged_configurations_neither_panic_nor_fill_the_memory() {
    fuzz("config", 20_000, internals::config);
}

/// Fewer, since each is written to files.
#[test]
fn damaged_checkpoints_neither_panic_nor_fill_the_memory() {
    fuzz("checkpoint", 2_000, internals::checkpoint);
}
