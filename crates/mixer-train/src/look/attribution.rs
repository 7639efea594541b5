//! The patches that a prediction rests on: integrated gradients and occlusion.

use burn::tensor::{Tensor, TensorData};
use mixer_data::{Batch, Resampler, RgbImage, patchify};
use mixer_model::weights::{Preprocessing, Shuffle};
use mixer_model::{Mixer, Weights};

use crate::device::DeviceEntry;
use crate::draw::canvas::{Canvas, blend, diverging};
use crate::error::TrainError;
use crate::input::normaliser::Normaliser;
use crate::input::preprocessing::eval_transform;

/// Steps of the integral; twice as many, and again, where the shares do not add up.
const STEPS: usize = 64;
const MAX_STEPS: usize = 512;

/// Pictures at once.
const BATCH: usize = 16;

/// The share of each patch in a logit, by two methods; the baseline of both is mid grey (0 after
/// normalisation).
#[derive(Debug, Clone)]
pub struct Attribution {
    /// The class whose logit it is.
    pub class: usize,
    /// The logit of the picture.
    pub logit: f64,
    /// The logit of the baseline.
    pub baseline: f64,
    /// Integrated gradients (Sundararajan et al. 2017), `[S]`; they add up to `logit − baseline`.
    pub integrated_gradients: Vec<f64>,
    /// The logit less the logit with the patch set to the baseline, `[S]`.
    pub occlusion: Vec<f64>,
    /// The picture as the network sees it, `[image_size, image_size, 3]`.
    pub seen: RgbImage,
}

impl Attribution {
    /// Attributes the logit of `class` (the predicted one, where it is `None`) of one picture.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the weights are not whole, [`TrainError::Usage`] for a class that they do
    /// not have.
    pub fn new(
        weights: Weights,
        device: &DeviceEntry,
        picture: &RgbImage,
        class: Option<usize>,
    ) -> Result<Self, TrainError> {
        let preprocessing = weights.metadata.preprocessing.unwrap_or_default();
        let config = weights.config.clone();
        if let Some(class) = class.filter(|class| *class >= config.num_classes) {
            let message = format!("class {class}, the weights have {} classes", config.num_classes);
            return Err(TrainError::usage(message));
        }
        let (side, patch) = (config.image_size, config.patch_size);
        let transform = eval_transform(&preprocessing, side);
        // The size is what a file claims.
        transform.check()?;
        let mut seen = vec![0; side * side * 3];
        transform.apply(picture, &mut Resampler::default(), &mut seen)?;
        let mut patches = vec![0; seen.len()];
        patchify(&seen, side as u32, patch as u32, &mut patches)?;
        let device = device.device.clone().autodiff();
        let mixer = Mixer::from_weights(weights, &device)?;
        let (tokens, patch_dim) = (config.num_tokens(), config.patch_dim());
        // The shares are those of the patches of the picture: pixels are shuffled on their way into the network.
        let order = preprocessing.shuffle.patchwise(side, patch);
        let preprocessing = Preprocessing { shuffle: Shuffle::None, ..preprocessing };
        let normaliser = Normaliser::new(&preprocessing, &config, &device);
        let batch = Batch {
            patches,
            labels: vec![0],
            num_examples: 1,
            num_tokens: tokens,
            patch_dim,
            ..Batch::default()
        };
        let x: Vec<f32> =
            normaliser.normalised(&normaliser.upload(&batch)).into_data().iter::<f32>().collect();
        let tensor = |rows: &[Vec<f32>]| {
            let values = match &order {
                None => rows.concat(),
                Some(order) => rows.iter().flat_map(|row| shuffled(row, order)).collect(),
            };
            let data = TensorData::new(values, [rows.len(), tokens, patch_dim]);
            Tensor::<3>::from_data(data, &device)
        };
        let logits_of = |rows: &[Vec<f32>]| -> Vec<f32> {
            mixer.forward(tensor(rows)).into_data().iter::<f32>().collect()
        };
        let logits = logits_of(&[x.clone(), vec![0.0; x.len()]]);
        let (own, of_baseline) = logits.split_at(config.num_classes);
        let class = class.unwrap_or_else(|| {
            (0..own.len()).fold(0, |best, i| if own[i] > own[best] { i } else { best })
        });
        let gap = f64::from(own[class]) - f64::from(of_baseline[class]);
        let mut steps = STEPS;
        let integrated_gradients = loop {
            let mut products = vec![0.0f64; x.len()];
            // Pieces of the line from the baseline to the picture, short ones first: a network that
            // normalises changes most near the baseline.
            let bound = |piece: usize| (piece as f64 / steps as f64).powi(3);
            let pieces: Vec<(f32, f64)> = (0..steps)
                .map(|k| {
                    let middle = ((k as f64 + 0.5) / steps as f64).powi(3);
                    (middle as f32, bound(k + 1) - bound(k))
                })
                .collect();
            for pieces in pieces.chunks(BATCH) {
                let rows: Vec<Vec<f32>> = pieces
                    .iter()
                    .map(|(point, _)| x.iter().map(|value| value * point).collect())
                    .collect();
                let input = tensor(&rows).require_grad();
                let sum = mixer.forward(input.clone()).narrow(1, class, 1).sum();
                let Some(found) = input.grad(&sum.backward()) else { continue };
                let found: Vec<f32> = found.into_data().iter::<f32>().collect();
                for (row, (_, length)) in found.chunks_exact(x.len()).zip(pieces) {
                    let row = match &order {
                        None => row.to_vec(),
                        Some(order) => put_back(row, order),
                    };
                    for ((product, g), x) in products.iter_mut().zip(row).zip(&x) {
                        *product += f64::from(g) * length * f64::from(*x);
                    }
                }
            }
            let shares: Vec<f64> =
                products.chunks_exact(patch_dim).map(|patch| patch.iter().sum()).collect();
            let missing = (shares.iter().sum::<f64>() - gap).abs();
            if missing <= 0.005 * gap.abs() || steps >= MAX_STEPS {
                break shares;
            }
            steps *= 2;
        };
        let mut occlusion = Vec::with_capacity(tokens);
        let all: Vec<usize> = (0..tokens).collect();
        for hidden in all.chunks(BATCH) {
            let rows: Vec<Vec<f32>> = hidden
                .iter()
                .map(|token| {
                    let mut row = x.clone();
                    row[token * patch_dim..(token + 1) * patch_dim].fill(0.0);
                    row
                })
                .collect();
            let logits = logits_of(&rows);
            for row in logits.chunks_exact(config.num_classes) {
                occlusion.push(f64::from(own[class]) - f64::from(row[class]));
            }
        }
        Ok(Self {
            class,
            logit: f64::from(own[class]),
            baseline: f64::from(of_baseline[class]),
            integrated_gradients,
            occlusion,
            seen: RgbImage { width: side as u32, height: side as u32, pixels: seen },
        })
    }

    /// The picture, and beside it in grey with the patches for the class in red and those against it in
    /// blue: integrated gradients, then occlusion.
    #[must_use]
    pub fn drawn(&self) -> Canvas {
        const GAP: usize = 8;
        let side = self.seen.width as usize;
        let scale = 224usize.div_ceil(side);
        let step = side * scale + GAP;
        let mut canvas = Canvas::new(3 * step - GAP, side * scale);
        let pixel =
            |at: usize| -> [u8; 3] { std::array::from_fn(|c| self.seen.pixels[at * 3 + c]) };
        canvas.tile((0, 0), side, scale, pixel);
        for (panel, shares) in [&self.integrated_gradients, &self.occlusion].into_iter().enumerate()
        {
            let grid = shares.len().isqrt();
            let patch = side / grid;
            let largest = shares.iter().fold(f64::MIN_POSITIVE, |l, share| l.max(share.abs()));
            canvas.tile(((panel + 1) * step, 0), side, scale, |at| {
                let [r, g, b] = pixel(at).map(f64::from);
                let grey = (0.299 * r + 0.587 * g + 0.114 * b).round() as u8;
                let share = shares[at / side / patch * grid + at % side / patch] / largest;
                let colour = diverging(share);
                colour.map(|colour| blend(grey, colour, 0.15 + 0.6 * share.abs()))
            });
        }
        canvas
    }
}

/// The pixels of a picture in the order that the network sees them.
fn shuffled(values: &[f32], order: &[usize]) -> Vec<f32> {
    let (pixels, _) = values.as_chunks::<3>();
    order.iter().flat_map(|&from| pixels[from]).collect()
}

/// The input of the network in the order of the picture.
fn put_back(values: &[f32], order: &[usize]) -> Vec<f32> {
    let mut back = vec![0.0; values.len()];
    for (pixel, &to) in values.as_chunks::<3>().0.iter().zip(order) {
        back[3 * to..3 * to + 3].copy_from_slice(pixel);
    }
    back
}
