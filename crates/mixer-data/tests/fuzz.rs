//! The fuzz targets without a fuzzer: the seeds of `fuzz/seeds` and some thousand damaged ones, the same
//! in every run. It finds less than `cargo fuzz`, and runs wherever the tests do.
//!
//! No input may make a parser panic, and none may make it ask for more memory than it justifies.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "../../mixer-jpeg/tests/common/allocation.rs"]
mod allocation;
#[path = "../../mixer-jpeg/tests/common/mutate.rs"]
mod mutate;

use std::cell::Cell;
use std::path::Path;

use mixer_data::internals;

/// Bytes that a parser may hold at once, for inputs of at most some 10 kB. The most that is
/// justified is a packed file that unpacks to a thousand times its size.
const MAX_BYTES: usize = 4 << 20;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

/// Feeds a target, whose `parse` says whether the input was sound.
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
fn damaged_shards_neither_panic_nor_fill_the_memory() {
    fuzz("tar", 20_000, internals::tar);
}

#[test]
fn damaged_indices_of_shards_neither_panic_nor_fill_the_memory() {
    fuzz("shard_index", 20_000, internals::shard_index);
}

#[test]
fn damaged_lists_neither_panic_nor_fill_the_memory() {
    fuzz("list", 20_000, internals::list);
}

#[test]
fn damaged_cifar_files_neither_panic_nor_fill_the_memory() {
    fuzz("cifar", 20_000, internals::cifar);
}

#[test]
fn damaged_idx_files_neither_panic_nor_fill_the_memory() {
    fuzz("idx", 20_000, internals::idx);
}

#[cfg(feature = "parquet")]
#[test]
fn damaged_parquet_files_neither_panic_nor_fill_the_memory() {
    thread_local! {
        static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    }
    // The Parquet reader panics on some damage. That is caught and no finding, but each would print.
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !IS_QUIET.get() {
            loud(info);
        }
    }));
    fuzz("parquet", 10_000, |bytes| {
        IS_QUIET.set(true);
        let outcome = std::panic::catch_unwind(|| internals::read_parquet(bytes.to_vec()));
        IS_QUIET.set(false);
        outcome.expect("no panic leaves the parser").is_ok()
    });
}
