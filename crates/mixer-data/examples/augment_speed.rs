//! Time per picture of each distortion and of whole recipes, on one core.
//!
//! ```sh
//! cargo run --release -p mixer-data --example augment_speed
//! cargo run --release -p mixer-data --example augment_speed -- recipes 9
//! ```
//!
//! The first argument is `all` or `recipes`, the second how often everything is measured; the least of
//! them counts. `scripts/bench_augment.py` runs it in turn with torchvision and timm.

use std::hint::black_box;
use std::time::Instant;

use mixer_data::{BigVisionOp, ExampleRng, MixSpec, RandAugment, RandomErasing, Sampling, TimmOp};

const SIDE: usize = 224;
const PICTURES: usize = 64;

/// Smooth colours with edges and some noise, one after the other in memory.
fn pictures() -> Vec<u8> {
    let mut rng = ExampleRng::new(0, 0, 0, 0);
    let mut pixels = Vec::with_capacity(PICTURES * SIDE * SIDE * 3);
    for picture in 0..PICTURES {
        for (y, x) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (y, x))) {
            let noise = rng.next_u64() as usize % 16;
            let edge = if (x / 40 + y / 56 + picture) % 3 == 0 { 60 } else { 0 };
            for channel in [x, y, (x + y) / 2] {
                pixels.push((channel * 150 / SIDE + edge + noise + picture / 3) as u8);
            }
        }
    }
    pixels
}

/// Least mean time over all pictures, µs; copying them is not counted.
fn measure(rounds: usize, originals: &[u8], mut apply: impl FnMut(usize, &mut [u8])) -> f64 {
    let mut work = originals.to_vec();
    let mut least = f64::INFINITY;
    for _ in 0..rounds {
        work.copy_from_slice(originals);
        let start = Instant::now();
        for (index, image) in work.chunks_exact_mut(SIDE * SIDE * 3).enumerate() {
            apply(index, image);
        }
        least = least.min(start.elapsed().as_secs_f64() * 1e6 / PICTURES as f64);
        black_box(&work);
    }
    least
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "all".to_owned());
    let rounds: usize = arguments.next().map_or(Ok(7), |text| text.parse())?;
    let originals = pictures();
    let mut scratch = Vec::new();

    if what == "all" {
        for op in BigVisionOp::ALL {
            let micros = measure(rounds, &originals, |index, image| {
                let op = op.at(15.0, index % 2 == 0, SIDE, (index as u32 * 3, 100));
                op.apply(image, SIDE, &mut scratch);
            });
            println!("big_vision {op:?}: {micros:.1} us");
        }
        for sampling in [Sampling::Bilinear, Sampling::Bicubic] {
            for op in TimmOp::ALL.into_iter().filter(|op| op.is_affine()) {
                let micros = measure(rounds, &originals, |index, image| {
                    let op = op.at(9.0, index % 2 == 0, true, SIDE, sampling, [128; 3]);
                    op.apply(image, SIDE, &mut scratch);
                });
                println!("timm {op:?} {sampling:?}: {micros:.1} us");
            }
        }
        for op in TimmOp::ALL.into_iter().filter(|op| !op.is_affine()) {
            let micros = measure(rounds, &originals, |index, image| {
                let op = op.at(9.0, index % 2 == 0, true, SIDE, Sampling::Bilinear, [128; 3]);
                op.apply(image, SIDE, &mut scratch);
            });
            println!("timm {op:?}: {micros:.1} us");
        }
        for fill in ["mean", "pixel"] {
            let erasing: RandomErasing =
                serde_json::from_str(&format!(r#"{{"probability": 1, "fill": "{fill}"}}"#))?;
            let micros = measure(rounds, &originals, |index, image| {
                erasing.apply(image, SIDE, &mut ExampleRng::new(0, 0, index as u64, 0));
            });
            println!("erasing {fill}: {micros:.1} us");
        }
        let spec: MixSpec = serde_json::from_str(r#"{"cutmix_alpha": 1}"#)?;
        let mut batch = mixer_data::Batch {
            patches: originals.clone(),
            num_examples: PICTURES,
            num_tokens: 196,
            patch_dim: 768,
            ..Default::default()
        };
        let start = Instant::now();
        for step in 0..rounds as u64 {
            spec.draw(0, step, SIDE as u32).apply_cutmix(&mut batch)?;
        }
        let micros = start.elapsed().as_secs_f64() * 1e6 / (PICTURES * rounds) as f64;
        println!("cutmix: {micros:.1} us");
    }

    // Many keys per picture, so that every distortion has its part.
    const KEYS: usize = 16;
    for (name, text) in [
        ("big_vision(2, 15)", r#"{"flavour": "big_vision", "layers": 2, "magnitude": 15}"#),
        ("timm rand-m15-n2", r#"{"flavour": "timm", "layers": 2, "magnitude": 15}"#),
        (
            "timm rand-m9-n2-mstd0.5-inc1",
            r#"{"flavour": "timm", "layers": 2, "magnitude": 9, "magnitude_std": 0.5, "increasing": true}"#,
        ),
    ] {
        let augment: RandAugment = serde_json::from_str(text)?;
        let mut least = f64::INFINITY;
        for _ in 0..rounds {
            let mut sum = 0.0;
            for key in 0..KEYS {
                sum += measure(1, &originals, |index, image| {
                    let mut rng = ExampleRng::new(0, key as u64, index as u64, 0);
                    augment.apply(image, SIDE, &mut rng, &mut scratch);
                });
            }
            least = least.min(sum / KEYS as f64);
        }
        println!("recipe {name}: {least:.1} us");
    }
    Ok(())
}
