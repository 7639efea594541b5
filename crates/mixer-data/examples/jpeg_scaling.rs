//! Measures `data.jpeg_scaling` on a folder of JPEGs: what it saves, and how different the pixels are.
//!
//! ```sh
//! cargo run --release -p mixer-data --example jpeg_scaling -- FOLDER [IMAGE_SIZE]
//! ```
//!
//! Each picture is decoded and resized for training (an Inception crop) and for evaluation (÷ 0.875), with
//! and without scaling in turn. Printed are the share of pictures that are decoded at each scale, processor
//! time of a picture both ways, and the mean and the largest difference in grey levels: over all, and
//! over the pictures that are not decoded in full.

use std::time::Duration;

use cpu_time::ThreadTime;
use mixer_data::{
    DecodeOptions, EvalResize, EvalTransform, ExampleRng, Interpolation, PartDecoder, Resampler,
    Scale, TrainCrop, TrainTransform,
};

/// Findings of one of the transforms.
#[derive(Default)]
struct Found {
    scales: [u32; 4],
    time: [Duration; 2],
    sum: u64,
    values: u64,
    scaled_values: u64,
    max: u8,
}

impl Found {
    fn add(&mut self, scale: Scale, [exact, scaled]: &[Vec<u8>; 2]) {
        self.scales[scale as usize] += 1;
        for (a, b) in exact.iter().zip(scaled) {
            self.sum += u64::from(a.abs_diff(*b));
            self.max = self.max.max(a.abs_diff(*b));
        }
        self.values += exact.len() as u64;
        self.scaled_values += if scale == Scale::Full { 0 } else { exact.len() as u64 };
    }

    fn print(&self, name: &str) {
        let pictures: u32 = self.scales.iter().sum();
        let millis = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(pictures);
        println!(
            "{name}: {:?} of {pictures} pictures in full, at 1/2, 1/4, 1/8; {:.3} ms -> {:.3} ms; difference \
             {:.3} over all, {:.3} over those not in full, at most {}",
            self.scales,
            millis(self.time[0]),
            millis(self.time[1]),
            self.sum as f64 / self.values.max(1) as f64,
            self.sum as f64 / self.scaled_values.max(1) as f64,
            self.max,
        );
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected a folder of JPEGs")?;
    let image_size: u32 = arguments.next().map_or(Ok(224), |text| text.parse())?;
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder)?.collect();
    let mut paths: Vec<_> = entries?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let (mut decoder, mut resampler) = (PartDecoder::new(), Resampler::new());
    let options = DecodeOptions::default();
    let (mut training, mut evaluation) = (Found::default(), Found::default());
    for (index, path) in paths.iter().enumerate() {
        let bytes = std::fs::read(path)?;
        let empty = || vec![0; image_size as usize * image_size as usize * 3];
        let (mut seen, mut shown) = ([empty(), empty()], [empty(), empty()]);
        let mut scales = [Scale::Full; 2];
        for (way, jpeg_scaling) in [false, true].into_iter().enumerate() {
            let interpolation = Interpolation::Bilinear;
            let train = TrainTransform {
                image_size,
                crop: TrainCrop::Inception { area: (0.05, 1.0), aspect: (0.75, 4.0 / 3.0) },
                flip: true,
                interpolation,
                randaugment: None,
                erasing: None,
                jpeg_scaling,
            };
            let resize = EvalResize::ResmallCrop { fraction: 0.875 };
            let eval = EvalTransform { image_size, resize, interpolation, jpeg_scaling };

            let start = ThreadTime::now();
            let mut rng = ExampleRng::new(0, 0, index as u64, 0);
            let choose = |width, height| train.choose_view(width, height, &mut rng);
            let part = decoder.decode(&bytes, &options, choose)?;
            train.apply_to_part(&part, &mut rng, &mut resampler, &mut seen[way])?;
            scales[0] = part.scale;
            decoder.recycle(part);
            training.time[way] += start.elapsed();

            let start = ThreadTime::now();
            let choose = |width, height| eval.choose_view(width, height);
            let part = decoder.decode(&bytes, &options, choose)?;
            eval.apply_to_part(&part, &mut resampler, &mut shown[way])?;
            scales[1] = part.scale;
            decoder.recycle(part);
            evaluation.time[way] += start.elapsed();
        }
        training.add(scales[0], &seen);
        evaluation.add(scales[1], &shown);
    }
    training.print("training");
    evaluation.print("evaluation");
    Ok(())
}
