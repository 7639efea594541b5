//! Time to open the index of many shards, and the memory that it takes.
//!
//! `cargo run --release -p mixer-data --example index_scale -- 1281167 14000000`
//!
//! The index is that of shards which do not exist, with 10,000 examples each and 21,841 labels.

use std::time::Instant;

use mixer_data::internals::{open_index, write_synthetic_index};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut counts = Vec::new();
    for argument in std::env::args().skip(1) {
        counts.push(argument.parse::<u32>()?);
    }
    if counts.is_empty() {
        counts = vec![1_281_167, 14_000_000];
    }
    let path = std::env::temp_dir().join(format!("index-scale-{}.index", std::process::id()));
    for count in counts {
        // In a process of its own, so that freed memory does not count.
        if std::env::var_os("INDEX_SCALE_READ").is_some() {
            return read(std::env::var("INDEX_SCALE_READ")?.as_ref(), count);
        }
        write_synthetic_index(&path, count, count.div_ceil(10_000), 21_841)?;
        let status = std::process::Command::new(std::env::current_exe()?)
            .arg(count.to_string())
            .env("INDEX_SCALE_READ", &path)
            .status()?;
        fs_err::remove_file(&path)?;
        if !status.success() {
            return Err("the measuring process failed".into());
        }
    }
    Ok(())
}

fn read(path: &std::path::Path, count: u32) -> Result<(), Box<dyn std::error::Error>> {
    let before = resident_bytes()?;
    let start = Instant::now();
    let index = open_index(path)?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = resident_bytes()?.saturating_sub(before);

    let lookups = 1_000_000u64;
    let start = Instant::now();
    let mut sum = 0u64;
    for number in 0..lookups {
        let at = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % u64::from(count.max(1));
        let (shard, block, size) = index.locate(at as usize)?;
        sum = sum.wrapping_add(shard as u64 ^ u64::from(block) ^ u64::from(size));
    }
    println!(
        "{} entries: opened in {seconds:.3} s, {:.1} bytes of memory and {:.1} of file per entry, \
         {:.0} ns per lookup (sum {sum:x})",
        index.num_entries(),
        bytes as f64 / f64::from(count.max(1)),
        fs_err::metadata(path)?.len() as f64 / f64::from(count.max(1)),
        start.elapsed().as_nanos() as f64 / lookups as f64,
    );
    Ok(())
}

/// Memory of this process that is in use.
fn resident_bytes() -> Result<u64, Box<dyn std::error::Error>> {
    let status = fs_err::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmRSS")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}
