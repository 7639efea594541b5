//! Measures region decoding against a full decode by zune-jpeg, on the same pictures and crops, and
//! against reading the codes alone, which no decoder can do without.
//!
//! ```sh
//! cargo run --release -p mixer-jpeg --example decode_speed -- FOLDER [ROUNDS]
//! ```
//!
//! Every JPEG below the folder is read into memory first. In each round all pictures are decoded by
//! one contestant after the other, so that a busy minute of the machine meets all of them; a crop has
//! 5 % to 100 % of the area and an aspect of ¾ to 4⁄3, as for training. Printed are medians over the
//! rounds of CPU time for a picture, on one thread.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mixer_jpeg::{Decoder, Header, Region, Scale, read_header};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A training crop, or the whole picture where none fits.
    fn crop(&mut self, header: Header) -> Region {
        let area = f64::from(header.width) * f64::from(header.height);
        for _ in 0..10 {
            let target = area * (0.05 + 0.95 * self.uniform());
            let aspect = (0.75f64.ln() + (16.0f64 / 9.0).ln() * self.uniform()).exp();
            let width = (target * aspect).sqrt().round() as u32;
            let height = (target / aspect).sqrt().round() as u32;
            if (1..=header.width).contains(&width) && (1..=header.height).contains(&height) {
                let left = (self.uniform() * f64::from(header.width - width + 1)) as u32;
                let top = (self.uniform() * f64::from(header.height - height + 1)) as u32;
                return Region { left, top, width, height };
            }
        }
        whole(header)
    }
}

fn whole(header: Header) -> Region {
    Region { left: 0, top: 0, width: header.width, height: header.height }
}

fn find_jpegs(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find_jpegs(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|ext| ext.eq_ignore_ascii_case("jpg") || ext.eq_ignore_ascii_case("jpeg"))
        {
            found.push(path);
        }
    }
    Ok(())
}

/// Nanoseconds that this thread has run; wall-clock time where the kernel does not tell.
fn cpu_nanos(start: Instant) -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let told = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    told.unwrap_or(start.elapsed().as_nanos() as u64)
}

fn decode_zune(bytes: &[u8]) -> Result<usize, Box<dyn Error>> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
    let pixels = JpegDecoder::new_with_options(ZCursor::new(bytes), options).decode();
    Ok(pixels.map_err(|error| error.to_string())?.len())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected a folder of JPEGs")?;
    let num_rounds = arguments.next().map_or(Ok(9), |text| text.parse())?;

    let mut paths = Vec::new();
    find_jpegs(Path::new(&folder), &mut paths)?;
    paths.sort();
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    let mut pictures = Vec::new();
    for path in &paths {
        let bytes = std::fs::read(path)?;
        let header = read_header(&bytes);
        match header
            .and_then(|header| decoder.decode_region(&bytes, Scale::Full, whole(header), &mut out))
        {
            Ok(()) => pictures.push((header?, bytes)),
            Err(reason) => println!("left out, {reason}: {}", path.display()),
        }
    }
    println!("{} of {} pictures, {num_rounds} rounds", pictures.len(), paths.len());

    const NAMES: [&str; 5] = [
        "full (zune-jpeg)",
        "full (mixer-jpeg)",
        "region (mixer-jpeg)",
        "codes of the region",
        "codes of all",
    ];
    let mut random = Random(0);
    let mut millis = [const { Vec::new() }; 5];
    let mut cropped = 0.0;
    let start = Instant::now();
    for _ in 0..num_rounds {
        let crops: Vec<Region> = pictures.iter().map(|(header, _)| random.crop(*header)).collect();
        for ((header, _), crop) in pictures.iter().zip(&crops) {
            let area = f64::from(header.width) * f64::from(header.height);
            cropped += f64::from(crop.width) * f64::from(crop.height) / area;
        }
        let mut measure = |contestant: usize, from: u64| {
            let now = cpu_nanos(start);
            millis[contestant].push((now - from) as f64 / 1e6 / pictures.len() as f64);
            now
        };
        let mut now = cpu_nanos(start);
        for (_, bytes) in &pictures {
            std::hint::black_box(decode_zune(bytes)?);
        }
        now = measure(0, now);
        for (header, bytes) in &pictures {
            decoder.decode_region(bytes, Scale::Full, whole(*header), &mut out)?;
        }
        now = measure(1, now);
        for ((_, bytes), crop) in pictures.iter().zip(&crops) {
            decoder.decode_region(bytes, Scale::Full, *crop, &mut out)?;
        }
        now = measure(2, now);
        for ((_, bytes), crop) in pictures.iter().zip(&crops) {
            decoder.read_codes(bytes, *crop, &mut out)?;
        }
        now = measure(3, now);
        for (header, bytes) in &pictures {
            decoder.read_codes(bytes, whole(*header), &mut out)?;
        }
        measure(4, now);
    }
    let medians = millis.each_mut().map(|values| median(values));
    for (name, median) in NAMES.iter().zip(medians) {
        let ratio = medians[0] / median;
        println!(
            "{name:22} {median:.3} ms  {:6.0} images/s  {ratio:.2}x of zune-jpeg",
            1000.0 / median
        );
    }
    let mean = cropped / (num_rounds * pictures.len()) as f64;
    println!("a crop has {:.0} % of the pixels on average", 100.0 * mean);
    Ok(())
}
