//! Time per picture of each stage from file to patches, on one thread, for a folder of class folders
//! or a split in it, such as `train-*.tar`.
//!
//! ```sh
//! cargo run --release -p mixer-data --example stage_speed -- FOLDER [EXAMPLES [SPLIT]]
//! ```
//!
//! Inception crop to 224 px and mirroring. `mixer bench --mode data` measures the same for any
//! configuration, and the whole loader besides.

use mixer_data::{
    DecodeOptions, Interpolation, LoaderConfig, OnCorrupt, Stage, TrainCrop, TrainTransform,
    open_split, time_stages,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected a folder of class folders")?;
    let examples = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let split = arguments.next().unwrap_or_else(|| ".".to_owned());
    let source = open_split(None, folder.as_ref(), &split, None, &DecodeOptions::default())?;
    let transform = TrainTransform {
        image_size: 224,
        crop: TrainCrop::Inception { area: (0.05, 1.0), aspect: (0.75, 4.0 / 3.0) },
        flip: true,
        interpolation: Interpolation::Bilinear,
        randaugment: None,
        erasing: None,
    };
    let config = LoaderConfig {
        batch_size: 32,
        patch_size: 16,
        workers: 0,
        queue_bytes: 0,
        on_corrupt: OnCorrupt::Stop,
    };
    let found = time_stages(source, transform, 0, config, 0, examples)?;
    let total = found.time.total().cpu;
    for stage in Stage::ALL {
        let time = found.time.of(stage);
        println!(
            "{:9} {:.3} ms on the clock, {:.3} ms of work, {:4.1} %",
            stage.name(),
            time.wall.as_secs_f64() * 1e3 / found.examples as f64,
            time.cpu.as_secs_f64() * 1e3 / found.examples as f64,
            100.0 * time.cpu.as_secs_f64() / total.as_secs_f64(),
        );
    }
    Ok(())
}
