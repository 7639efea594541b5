//! The fuzz target without a fuzzer: the fixtures and some thousand damaged ones, the same in every run.
//! It finds less than `cargo fuzz`, and runs wherever the tests do.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

#[path = "common/against_zune.rs"]
mod against_zune;
#[path = "common/mutate.rs"]
mod mutate;

use std::path::Path;

/// About two seconds, with optimisation.
const MUTANTS: u64 = 20_000;

#[test]
fn damaged_files_neither_panic_nor_decode_differently_in_parts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut seeds = Vec::new();
    let entries =
        [folder.clone(), folder.join("whole")].map(|part| std::fs::read_dir(part).unwrap());
    for entry in entries.into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jpg") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            seeds.push((name, std::fs::read(&path).unwrap()));
        }
    }
    seeds.sort();
    assert!(seeds.len() > 90, "the fixtures are there");
    let (mut fed, mut decoded) = (0, 0);
    mutate::feed(&seeds, MUTANTS, |bytes| {
        fed += 1;
        decoded += usize::from(against_zune::check(bytes));
    });
    println!("{decoded} of {fed} inputs were decoded");
    // Damage that is always noticed at the first marker would test nothing behind it.
    assert!(decoded > fed / 10, "{decoded} of {fed}");
}
