//! The fuzz targets without a fuzzer: the seeds of `fuzz/seeds` and some thousand damaged ones, the same
//! in every run. It finds less than `cargo fuzz`, and runs wherever the tests do.
//!
//! No input may make a reader panic, and none may make it ask for more memory than it justifies.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "../../mixer-jpeg/tests/common/allocation.rs"]
mod allocation;
#[path = "../../mixer-jpeg/tests/common/mutate.rs"]
mod mutate;

use std::path::Path;

use mixer_model::internals;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

/// Bytes that reading one of these files may hold at once; they have at most some 10 kB. Arrays may unpack
/// to 4 MiB, and are there twice while a tensor is turned.
const MAX_BYTES: usize = 12 << 20;

/// Feeds the readers with the seeds of a format.
fn fuzz(format: &str, mutants: u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(format);
    let mut seeds = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = fs_err::read(&path).unwrap();
        assert!(internals::weights(&bytes), "the seed {name} is sound");
        seeds.push((name, bytes));
    }
    seeds.sort();
    let mut most = 0;
    mutate::feed(&seeds, mutants, |bytes| {
        let peak = allocation::peak_of(|| {
            internals::weights(bytes);
        });
        assert!(peak <= MAX_BYTES, "{} bytes made the reader hold {peak}", bytes.len());
        most = most.max(peak);
    });
    println!("{format}: at most {most} bytes for {mutants} inputs");
}

#[test]
fn damaged_npz_files_neither_panic_nor_fill_the_memory() {
    fuzz("npz", 20_000);
}

#[test]
fn damaged_pytorch_files_neither_panic_nor_fill_the_memory() {
    fuzz("pth", 20_000);
}

#[test]
fn damaged_safetensors_files_neither_panic_nor_fill_the_memory() {
    fuzz("safetensors", 20_000);
}
