//! Time per picture of each stage from file to patches, on one thread, for a folder of class folders
//! or a split in it, such as `train-*.tar`; and of that what no decoder can do without.
//!
//! ```sh
//! cargo run --release -p mixer-data --example stage_speed -- FOLDER [EXAMPLES [SPLIT]]
//! ```
//!
//! Inception crop to 224 px and mirroring. `mixer bench data` measures the same for any
//! configuration, and the whole loader besides.
//!
//! The limit is the time to read the Huffman codes, tables included, that the crops of the same
//! pictures need: `codes of the crop` with the jumps and short cuts that mixer-jpeg has, `codes of all`
//! for the whole picture. They are measured in turn with the stages. JPEGs that mixer-jpeg refuses and
//! other formats are left out of the limit.

use std::time::Duration;

use cpu_time::ThreadTime;
use mixer_data::{
    DecodeOptions, Example, ExampleRng, Interpolation, LoaderConfig, OnCorrupt, Order, Region,
    Source, Stage, TrainCrop, TrainTransform, open_split, time_stages,
};
use mixer_jpeg::Decoder;

/// Turns that stages and limit take.
const ROUNDS: u64 = 8;
const SEED: u64 = 0;

/// Reads the codes of some positions of the training stream; returns for how many pictures, and the
/// time for their crops and for all of them.
fn time_codes(
    source: &dyn Source,
    transform: &TrainTransform,
    positions: std::ops::Range<u64>,
) -> Result<(u32, [Duration; 2]), Box<dyn std::error::Error>> {
    let (mut decoder, mut out) = (Decoder::new(), Vec::new());
    let (mut count, mut times) = (0, [Duration::ZERO; 2]);
    for position in positions {
        let location = Order::Shuffled { seed: SEED }.location(position, source.len() as u64);
        let Example::Encoded(bytes) = source.read(location.index as usize)? else { continue };
        let Ok(header) = mixer_jpeg::read_header(&bytes) else { continue };
        let (width, height) = (header.width, header.height);
        let mut rng = ExampleRng::new(SEED, location.epoch, location.index, 0);
        let crop = transform.choose_region(width, height, &mut rng);
        let mut read = |region| {
            let start = ThreadTime::now();
            decoder.read_codes(&bytes, region, &mut out).ok().map(|()| start.elapsed())
        };
        let all = read(Region { left: 0, top: 0, width, height });
        if let (Some(crop), Some(all)) = (read(crop), all) {
            times[0] += crop;
            times[1] += all;
            count += 1;
        }
    }
    Ok((count, times))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected a folder of class folders")?;
    let examples: u64 = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let split = arguments.next().unwrap_or_else(|| ".".to_owned());
    let source = open_split(None, folder.as_ref(), &split, None, &DecodeOptions::default())?;
    let transform = TrainTransform {
        image_size: 224,
        crop: TrainCrop::Inception { area: (0.05, 1.0), aspect: (0.75, 4.0 / 3.0) },
        flip: true,
        interpolation: Interpolation::Bilinear,
        randaugment: None,
        erasing: None,
        jpeg_scaling: false,
    };
    let config = LoaderConfig {
        batch_size: 32,
        patch_size: 16,
        workers: 0,
        queue_bytes: 0,
        on_corrupt: OnCorrupt::Stop,
    };
    let per_round = examples.div_ceil(ROUNDS);
    let (mut wall, mut cpu) = ([0.0; Stage::ALL.len()], [0.0; Stage::ALL.len()]);
    let (mut num_codes, mut codes) = (0, [0.0; 2]);
    for round in 0..ROUNDS {
        let positions = round * per_round..(round + 1) * per_round;
        let found = time_stages(
            source.clone(),
            transform.clone(),
            SEED,
            config.clone(),
            positions.start,
            per_round,
        )?;
        for (at, stage) in Stage::ALL.into_iter().enumerate() {
            wall[at] += found.time.of(stage).wall.as_secs_f64();
            cpu[at] += found.time.of(stage).cpu.as_secs_f64();
        }
        let (count, times) = time_codes(&*source, &transform, positions)?;
        num_codes += count;
        codes.iter_mut().zip(times).for_each(|(sum, time)| *sum += time.as_secs_f64());
    }

    let total: f64 = cpu.iter().sum();
    let millis = |seconds: f64, count: f64| seconds * 1e3 / count;
    let count = (ROUNDS * per_round) as f64;
    for (at, stage) in Stage::ALL.into_iter().enumerate() {
        println!(
            "{:9} {:.3} ms on the clock, {:.3} ms of work, {:4.1} %",
            stage.name(),
            millis(wall[at], count),
            millis(cpu[at], count),
            100.0 * cpu[at] / total,
        );
    }
    let total = millis(total, count);
    println!("all       {total:.3} ms of work, {:.0} images per CPU second", 1e3 / total);
    for (name, time) in ["codes of the crop", "codes of all"].into_iter().zip(codes) {
        let limit = millis(time, f64::from(num_codes));
        println!(
            "{name:17} {limit:.3} ms of {num_codes} pictures, {:.0} images per CPU second: all stages \
             reach {:.0} % of that",
            1e3 / limit,
            100.0 * limit / total,
        );
    }
    Ok(())
}
