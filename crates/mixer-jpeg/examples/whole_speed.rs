//! Measures decoding of whole JPEGs, progressive ones too, at a scale; and prints a checksum of their pixels.
//!
//! ```sh
//! cargo run --release -p mixer-jpeg --example whole_speed -- FOLDER [DENOMINATOR [ROUNDS]]
//! ```
//!
//! Files of the folder are read into memory first, those that are refused left out. Printed are the
//! median over the rounds of CPU time for a picture, on one thread, and the CRC-32 of all pixels in the
//! order of the file names: `scripts/check_jpeg.py` prints both for Pillow.

use std::error::Error;
use std::time::Instant;

use mixer_jpeg::{Decoder, Picture, Scale};

/// Nanoseconds that this thread has run; wall-clock time where the kernel does not tell.
fn cpu_nanos(start: Instant) -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let told = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    told.unwrap_or(start.elapsed().as_nanos() as u64)
}

/// The CRC-32 of more bytes.
fn crc(mut state: u32, bytes: &[u8]) -> u32 {
    for &byte in bytes {
        state ^= u32::from(byte);
        for _ in 0..8 {
            state = state >> 1 ^ if state & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    state
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected a folder of JPEGs")?;
    let scale = Scale::within(arguments.next().map_or(Ok(1), |text| text.parse())?);
    let num_rounds = arguments.next().map_or(Ok(5), |text| text.parse())?;

    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder)?.collect();
    let mut paths: Vec<_> = entries?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let (decoder, mut out, mut state) = (Decoder::new(), Vec::new(), u32::MAX);
    let mut pictures = Vec::new();
    for path in &paths {
        let bytes = std::fs::read(path)?;
        let outcome = Picture::read(&bytes)
            .and_then(|picture| decoder.decode_whole(&picture, scale, &mut out));
        match outcome {
            Ok(()) => {
                state = crc(state, &out);
                pictures.push(bytes);
            }
            Err(reason) => println!("left out, {reason}: {}", path.display()),
        }
    }
    let start = Instant::now();
    let mut millis = Vec::new();
    for _ in 0..num_rounds {
        let from = cpu_nanos(start);
        for bytes in &pictures {
            decoder.decode_whole(&Picture::read(bytes)?, scale, &mut out)?;
        }
        millis.push((cpu_nanos(start) - from) as f64 / 1e6 / pictures.len() as f64);
    }
    millis.sort_by(f64::total_cmp);
    let median = millis.get(millis.len() / 2).copied().unwrap_or(f64::NAN);
    println!("{} pictures, {median:.3} ms each, CRC-32 {:08x}", pictures.len(), !state);
    Ok(())
}
