//! Difference of the pictures that evaluation sees between two copies of a split, for example between
//! original files and shards of smaller pictures.
//!
//! ```sh
//! mixer data shard DIR --split val --max-short-side 256 --jpeg-quality 90 --out SHARDS
//! cargo run --release -p mixer-data --example compare_splits -- DIR val SHARDS 'val-*.tar' [SIDE]
//! ```
//!
//! Both copies hold the same examples in the same order, as `mixer data shard` writes them. A picture
//! has its shorter side brought to SIDE ÷ 0.875 and its centre cut out, SIDE (224) px.

use mixer_data::{DecodeOptions, EvalResize, EvalTransform, Interpolation, Resampler, open_split};

/// Differences of some pictures, in grey levels.
#[derive(Default)]
struct Difference {
    values: u64,
    sum: u64,
    sum_of_squares: u64,
    greatest: u8,
}

impl Difference {
    fn of(a: &[u8], b: &[u8]) -> Self {
        let mut found = Self { values: a.len() as u64, ..Self::default() };
        for difference in a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)) {
            found.sum += u64::from(difference);
            found.sum_of_squares += u64::from(difference) * u64::from(difference);
            found.greatest = found.greatest.max(difference);
        }
        found
    }

    fn add(&mut self, other: &Self) {
        self.values += other.values;
        self.sum += other.sum;
        self.sum_of_squares += other.sum_of_squares;
        self.greatest = self.greatest.max(other.greatest);
    }

    fn mean(&self) -> f64 {
        self.sum as f64 / self.values as f64
    }

    /// Peak signal-to-noise ratio, dB.
    fn psnr(&self) -> f64 {
        10.0 * (255.0 * 255.0 * self.values as f64 / self.sum_of_squares as f64).log10()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (splits, image_size) = match arguments.as_slice() {
        [a, b, c, d] => ([(a, b), (c, d)], 224),
        [a, b, c, d, side] => ([(a, b), (c, d)], side.parse()?),
        _ => return Err("expected DIR SPLIT DIR SPLIT [SIDE]".into()),
    };
    let open = |(root, split): (&String, &String)| {
        open_split(None, root.as_ref(), split, None, &DecodeOptions::default())
    };
    let (originals, others) = (open(splits[0])?, open(splits[1])?);
    if originals.len() != others.len() {
        return Err(format!("{} examples and {}", originals.len(), others.len()).into());
    }
    let transform = EvalTransform {
        image_size,
        resize: EvalResize::ResmallCrop { fraction: 0.875 },
        interpolation: Interpolation::Bilinear,
        jpeg_scaling: false,
    };
    let mut resampler = Resampler::new();
    let bytes = image_size as usize * image_size as usize * 3;
    let (mut a, mut b) = (vec![0; bytes], vec![0; bytes]);
    let mut all = Difference::default();
    let (mut means, mut psnrs) = (Vec::new(), Vec::new());
    for index in 0..originals.len() {
        transform.apply(&originals.image(index)?, &mut resampler, &mut a)?;
        transform.apply(&others.image(index)?, &mut resampler, &mut b)?;
        let difference = Difference::of(&a, &b);
        means.push(difference.mean());
        psnrs.push(difference.psnr());
        all.add(&difference);
    }
    means.sort_by(f64::total_cmp);
    psnrs.sort_by(f64::total_cmp);
    let at = |values: &[f64], part: f64| values[(part * (values.len() - 1) as f64) as usize];
    println!("{} pictures at {image_size} px", originals.len());
    println!("mean absolute difference  {:.2} grey levels", all.mean());
    println!(
        "  of a picture            median {:.2}, worst {:.2}",
        at(&means, 0.5),
        at(&means, 1.0)
    );
    println!("greatest difference       {} grey levels", all.greatest);
    println!("PSNR over all             {:.1} dB", all.psnr());
    println!(
        "  of a picture            median {:.1}, worst {:.1} dB",
        at(&psnrs, 0.5),
        at(&psnrs, 0.0)
    );
    Ok(())
}
