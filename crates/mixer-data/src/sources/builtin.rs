//! A data set that needs no download.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decode::rgb_image::RgbImage;
use crate::error::DataError;
use crate::order::random::ExampleRng;
use crate::sources::fingerprint::Fingerprint;
use crate::sources::source::{Example, Source};

/// Standard deviation of the noise, in parts of full scale.
const NOISE: f32 = 0.06;

/// Streams of [`ExampleRng`] that draw what is shown, and the noise on top.
const SCENE_STREAM: u64 = 1;
const NOISE_STREAM: u64 = 2;

/// Kind of procedural set.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum BuiltinKind {
    /// Ten shapes and textures, see [`BuiltinSource`].
    #[default]
    Shapes,
}

/// A part of a procedural set. No two parts share an example.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum BuiltinSplit {
    /// For training.
    #[default]
    Train,
    /// For evaluation.
    Val,
}

/// Pictures that are drawn on demand.
///
/// Each shows one of ten shapes or textures at a random place, scale and angle, in two random
/// colours, over a gradient and under noise. Either colour may be the brighter one, so that the mean
/// picture of every class is the same grey and a linear classifier on pixels has little to hold on
/// to; a small network learns the set.
///
/// Classes are balanced: the label is `index % 10`. A scene is drawn in coordinates of the unit
/// square, so that the same example at another image size is the same scene.
///
/// # Determinism
/// An example is a function of (kind, split, image size, seed, index), in arithmetic that is exact
/// on every machine.
pub struct BuiltinSource {
    kind: BuiltinKind,
    split: BuiltinSplit,
    len: usize,
    image_size: u32,
    seed: u64,
    class_names: Vec<String>,
}

/// Shape or texture that a class shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Circle,
    Ring,
    Square,
    Triangle,
    Cross,
    HorizontalStripes,
    VerticalStripes,
    DiagonalStripes,
    Checkerboard,
    Dots,
}

/// Label order. Changing it changes the meaning of trained weights.
const FIGURES: [(Figure, &str); 10] = [
    (Figure::Circle, "circle"),
    (Figure::Ring, "ring"),
    (Figure::Square, "square"),
    (Figure::Triangle, "triangle"),
    (Figure::Cross, "cross"),
    (Figure::HorizontalStripes, "horizontal stripes"),
    (Figure::VerticalStripes, "vertical stripes"),
    (Figure::DiagonalStripes, "diagonal stripes"),
    (Figure::Checkerboard, "checkerboard"),
    (Figure::Dots, "dots"),
];

/// The number of classes.
pub(crate) const NUM_FIGURES: usize = FIGURES.len();

impl BuiltinSource {
    /// A procedural set of `len` pictures of `image_size × image_size` px.
    ///
    /// # Errors
    /// [`DataError::BadSetting`] when `len` or `image_size` is 0, or `image_size` above 4096.
    pub fn new(
        kind: BuiltinKind,
        split: BuiltinSplit,
        len: usize,
        image_size: u32,
        seed: u64,
    ) -> Result<Self, DataError> {
        let bad = |setting, found: String, expected: &str| DataError::BadSetting {
            setting,
            found,
            expected: expected.to_owned(),
        };
        if len == 0 {
            return Err(bad("len", len.to_string(), "at least 1 example"));
        }
        if !(1..=4096).contains(&image_size) {
            return Err(bad("image_size", image_size.to_string(), "1 to 4096 px"));
        }
        Ok(Self {
            kind,
            split,
            len,
            image_size,
            seed,
            class_names: FIGURES.iter().map(|(_, name)| (*name).to_owned()).collect(),
        })
    }

    fn rng(&self, index: usize, stream: u64) -> ExampleRng {
        ExampleRng::new(self.seed, self.split as u64, index as u64, stream)
    }
}

impl Source for BuiltinSource {
    fn len(&self) -> usize {
        self.len
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> u32 {
        (index % FIGURES.len()) as u32
    }

    fn read(&self, index: usize) -> Result<Example, DataError> {
        let (figure, _) = FIGURES[index % FIGURES.len()];
        let scene = Scene::draw(figure, &mut self.rng(index, SCENE_STREAM));
        let pixels = scene.render(self.image_size, &mut self.rng(index, NOISE_STREAM));
        let (width, height) = (self.image_size, self.image_size);
        Ok(Example::Pixels(RgbImage { width, height, pixels }))
    }

    fn describe(&self, index: usize) -> String {
        format!("builtin example {index}")
    }

    fn fingerprint(&self) -> u64 {
        Fingerprint::new()
            .string("builtin")
            .number(self.kind as u64)
            .number(self.split as u64)
            .number(self.len as u64)
            .number(u64::from(self.image_size))
            .number(self.seed)
            .finish()
    }
}

/// Everything about a picture but its noise, in coordinates of the unit square.
struct Scene {
    figure: Figure,
    /// Centre of a shape, phase of a texture.
    x: f32,
    y: f32,
    /// Radius of a shape, period of a texture.
    scale: f32,
    /// Rotation of a shape; the sign of the slope of diagonal stripes.
    cos: f32,
    sin: f32,
    background: [f32; 3],
    foreground: [f32; 3],
    /// Change of brightness across the picture.
    gradient: (f32, f32),
}

impl Scene {
    fn draw(figure: Figure, rng: &mut ExampleRng) -> Self {
        let mut draw = |low: f64, high: f64| rng.uniform_in(low, high) as f32;
        let is_shape = matches!(
            figure,
            Figure::Circle | Figure::Ring | Figure::Square | Figure::Triangle | Figure::Cross
        );
        let (x, y, scale) = match is_shape {
            true => (draw(0.35, 0.65), draw(0.35, 0.65), draw(0.2, 0.34)),
            false => (draw(0.0, 1.0), draw(0.0, 1.0), draw(0.18, 0.34)),
        };
        // A rotation by up to 15 degrees from the tangent of half the angle: no trigonometric
        // functions, which differ between machines.
        let half_tangent = draw(-0.13, 0.13);
        let norm = 1.0 + half_tangent * half_tangent;
        let (cos, sin) = ((1.0 - half_tangent * half_tangent) / norm, 2.0 * half_tangent / norm);

        let mut colours = || [(); 2].map(|()| [(); 3].map(|()| draw(0.1, 0.9)));
        let mut pair = colours();
        while (luminance(pair[0]) - luminance(pair[1])).abs() < 0.25 {
            pair = colours();
        }
        Self {
            figure,
            x,
            y,
            scale,
            cos,
            sin,
            background: pair[0],
            foreground: pair[1],
            gradient: (draw(-0.2, 0.2), draw(-0.2, 0.2)),
        }
    }

    /// Part of the pixel at (u, v) that the figure covers; `pixel` is the pixel's side.
    fn coverage(&self, u: f32, v: f32, pixel: f32) -> f32 {
        let edge = |distance: f32| (0.5 - distance / pixel).clamp(0.0, 1.0);
        // Stripes across a coordinate, half of each period.
        let stripes = |coordinate: f32, phase: f32, period: f32| {
            let turn = coordinate / period + phase;
            let from_middle = (turn - turn.floor() - 0.5).abs();
            edge((from_middle - 0.25) * period)
        };
        let (dx, dy) = (u - self.x, v - self.y);
        let (x, y) = (self.cos * dx + self.sin * dy, self.cos * dy - self.sin * dx);
        let radius = (dx * dx + dy * dy).sqrt();
        let r = self.scale;
        match self.figure {
            Figure::Circle => edge(radius - r),
            Figure::Ring => edge((radius - 0.75 * r).abs() - 0.25 * r),
            Figure::Square => edge(x.abs().max(y.abs()) - 0.88 * r),
            Figure::Triangle => {
                let slope = 0.866 * x.abs() - 0.5 * y;
                edge(slope.max(y) - 0.62 * r)
            }
            Figure::Cross => {
                let (long, short) = (x.abs().max(y.abs()), x.abs().min(y.abs()));
                edge((long - r).max(short - 0.32 * r))
            }
            Figure::HorizontalStripes => stripes(v, self.y, r),
            Figure::VerticalStripes => stripes(u, self.x, r),
            Figure::DiagonalStripes => {
                let across = match self.sin > 0.0 {
                    true => u + v,
                    false => u - v,
                };
                stripes(across * std::f32::consts::FRAC_1_SQRT_2, self.x, r)
            }
            Figure::Checkerboard => {
                let (a, b) = (stripes(u, self.x, 1.4 * r), stripes(v, self.y, 1.4 * r));
                a + b - 2.0 * a * b
            }
            Figure::Dots => {
                let local = |coordinate: f32, phase: f32| {
                    let turn = coordinate / r + phase;
                    (turn - turn.floor() - 0.5) * r
                };
                let (x, y) = (local(u, self.x), local(v, self.y));
                edge((x * x + y * y).sqrt() - 0.3 * r)
            }
        }
    }

    /// Draws the scene as `[size, size, 3]`.
    fn render(&self, size: u32, noise: &mut ExampleRng) -> Vec<u8> {
        let pixel = 1.0 / size as f32;
        let mut pixels = Vec::with_capacity(size as usize * size as usize * 3);
        for row in 0..size {
            let v = (row as f32 + 0.5) * pixel;
            for column in 0..size {
                let u = (column as f32 + 0.5) * pixel;
                let cover = self.coverage(u, v, pixel);
                let light = self.gradient.0 * (u - 0.5) + self.gradient.1 * (v - 0.5);
                let noises = three_noises(noise.next_u64());
                let colours = self.background.into_iter().zip(self.foreground);
                for ((background, foreground), noise) in colours.zip(noises) {
                    let value = background + cover * (foreground - background) + light;
                    // The cast saturates.
                    pixels.push(((value + NOISE * noise) * 255.0 + 0.5) as u8);
                }
            }
        }
        pixels
    }
}

fn luminance(colour: [f32; 3]) -> f32 {
    0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
}

/// Three values of mean 0 and standard deviation 1 from 63 random bits: sums of three uniform ones
/// each, close to a bell.
fn three_noises(bits: u64) -> [f32; 3] {
    [0, 21, 42].map(|shift| {
        let part = bits >> shift;
        let sum = (part & 127) + (part >> 7 & 127) + (part >> 14 & 127);
        // The sum of three uniforms over 0..=127 has mean 190.5 and deviation 64.0.
        (sum as f32 - 190.5) / 64.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builtin(split: BuiltinSplit, len: usize, image_size: u32) -> BuiltinSource {
        BuiltinSource::new(BuiltinKind::Shapes, split, len, image_size, 0).unwrap()
    }

    #[test]
    fn examples_are_repeatable_and_differ_between_splits_and_seeds() {
        let train = builtin(BuiltinSplit::Train, 100, 32);
        let val = builtin(BuiltinSplit::Val, 100, 32);
        let other =
            BuiltinSource::new(BuiltinKind::Shapes, BuiltinSplit::Train, 100, 32, 1).unwrap();
        for index in 0..100 {
            let image = train.image(index).unwrap();
            assert_eq!(image, train.image(index).unwrap());
            assert_ne!(image, val.image(index).unwrap());
            assert_ne!(image, other.image(index).unwrap());
        }
        assert_ne!(train.fingerprint(), val.fingerprint());
        assert_ne!(train.fingerprint(), other.fingerprint());
    }

    #[test]
    fn classes_are_balanced_and_named() {
        let source = builtin(BuiltinSplit::Train, 100, 8);
        for label in 0..10 {
            assert_eq!((0..100).filter(|&index| source.label(index) == label).count(), 10);
        }
        assert_eq!(source.class_names()[1], "ring");
        assert_eq!(source.describe(17), "builtin example 17");
    }

    #[test]
    fn an_example_shows_the_same_scene_at_every_size() {
        let (small, large) =
            (builtin(BuiltinSplit::Train, 20, 32), builtin(BuiltinSplit::Train, 20, 64));
        for index in 0..20 {
            let (small, large) = (small.image(index).unwrap(), large.image(index).unwrap());
            let mut difference = 0.0;
            for (at, &value) in small.pixels.iter().enumerate() {
                let (y, x, colour) = (at / 96, at / 3 % 32, at % 3);
                let sum: u32 = [(0, 0), (0, 1), (1, 0), (1, 1)]
                    .iter()
                    .map(|(dy, dx)| {
                        u32::from(large.pixels[((2 * y + dy) * 64 + 2 * x + dx) * 3 + colour])
                    })
                    .sum();
                difference += (f64::from(sum) / 4.0 - f64::from(value)).abs();
            }
            let mean = difference / small.pixels.len() as f64;
            // The noise alone accounts for about 13 grey levels.
            assert!(mean < 20.0, "example {index}: mean difference {mean}");
        }
    }

    #[test]
    fn a_picture_is_pinned() {
        // Changing this changes the data that published results were measured on.
        let image = builtin(BuiltinSplit::Train, 20, 16).image(13).unwrap();
        let hash = image.pixels.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        assert_eq!(hash, 1_126_763_535_378_641_425);
    }

    /// Softmax regression on pixels by stochastic gradient descent, held-out accuracy.
    fn linear_accuracy(num_train: usize, num_val: usize, epochs: usize) -> f64 {
        const PIXELS: usize = 32 * 32 * 3;
        let load = |split, len| -> Vec<Vec<f32>> {
            let source = builtin(split, len, 32);
            let centred = |image: RgbImage| {
                image.pixels.iter().map(|&value| f32::from(value) / 127.5 - 1.0).collect()
            };
            (0..len).map(|index| centred(source.image(index).unwrap())).collect()
        };
        let (train, val) = (load(BuiltinSplit::Train, num_train), load(BuiltinSplit::Val, num_val));
        let mut weights = vec![[0.0f32; PIXELS]; 10];
        let logits = |weights: &[[f32; PIXELS]], x: &[f32]| -> Vec<f32> {
            let dot = |row: &[f32; PIXELS]| row.iter().zip(x).map(|(w, x)| w * x).sum();
            weights.iter().map(dot).collect()
        };
        for epoch in 0..epochs {
            let order = crate::Permutation::new(1, epoch as u64, num_train as u64);
            let rate = 0.003 * (1.0 - epoch as f32 / epochs as f32);
            for position in 0..num_train as u64 {
                let index = order.get(position) as usize;
                let x = &train[index];
                let logits = logits(&weights, x);
                let largest = logits.iter().copied().fold(f32::MIN, f32::max);
                let exps: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
                let total: f32 = exps.iter().sum();
                for (label, (row, exp)) in weights.iter_mut().zip(&exps).enumerate() {
                    let gradient = exp / total - f32::from(u8::from(label == index % 10));
                    row.iter_mut().zip(x).for_each(|(w, x)| *w -= rate * gradient * x);
                }
            }
        }
        let correct = val.iter().enumerate().filter(|(index, x)| {
            let logits = logits(&weights, x);
            let best = (0..10).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            best == index % 10
        });
        correct.count() as f64 / num_val as f64
    }

    #[test]
    fn a_linear_classifier_stays_below_60_percent() {
        let accuracy = linear_accuracy(5000, 1000, 8);
        println!("held-out accuracy of softmax regression: {accuracy:.3}");
        assert!(accuracy < 0.6, "{accuracy}");
        // It must beat chance clearly, or this test would prove nothing.
        assert!(accuracy > 0.13, "{accuracy}");
    }
}
