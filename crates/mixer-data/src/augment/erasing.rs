//! Random erasing (Zhong et al. 2017): rectangles of a picture are covered.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::augment::affine::paint;
use crate::error::DataError;
use crate::order::normal::{NUM_QUANTILES, quantiles};
use crate::order::random::ExampleRng;

/// Tries of a rectangle before it is left out, as in timm.
const ATTEMPTS: usize = 10;

/// Covers rectangles of a picture, after all other augmentation.
///
/// PARITY: the rule is `RandomErasing` of `timm/data/random_erasing.py`. timm erases normalised
/// numbers and here values are bytes, so noise is rounded to a value and cut at 0 and 255.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RandomErasing {
    /// Probability that a picture is touched. timm's recipes use 0.25.
    pub probability: f64,
    /// Smallest and largest part of the picture's area, in `(0, 1]`, shared by the rectangles of a
    /// picture.
    #[serde(default = "default_area")]
    pub area: (f64, f64),
    /// Smallest and largest height ÷ width; its logarithm is even.
    #[serde(default = "default_aspect")]
    pub aspect: (f64, f64),
    /// Colour or noise that the rectangles are covered with.
    #[serde(default)]
    pub fill: ErasingFill,
    /// The most rectangles of a picture; how many is drawn from `1..=count`.
    #[serde(default = "default_count")]
    pub count: u32,
    /// Mean of each channel, in `[0, 1]`: what the model's normalisation makes 0 of.
    #[serde(default = "default_moment")]
    pub mean: [f32; 3],
    /// Standard deviation of each channel, in `[0, 1]`: what it makes 1 of, for noise.
    #[serde(default = "default_moment")]
    pub std: [f32; 3],
}

/// Colour or noise that an erased rectangle is covered with.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ErasingFill {
    /// The mean: timm's `const`.
    #[default]
    Mean,
    /// Normal noise, new for every value: timm's `pixel`.
    Pixel,
    /// One colour of normal noise for each rectangle: timm's `rand`.
    Colour,
}

fn default_area() -> (f64, f64) {
    (0.02, 1.0 / 3.0)
}

fn default_aspect() -> (f64, f64) {
    (0.3, 1.0 / 0.3)
}

fn default_count() -> u32 {
    1
}

fn default_moment() -> [f32; 3] {
    [0.5; 3]
}

impl RandomErasing {
    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// [`DataError::BadSetting`] that names the setting, what it is and what is possible.
    pub fn check(&self) -> Result<(), DataError> {
        let refuse = |setting, found: String, expected: &str| {
            Err(DataError::BadSetting { setting, found, expected: expected.to_owned() })
        };
        let ((area_low, area_high), (aspect_low, aspect_high)) = (self.area, self.aspect);
        if !(0.0..=1.0).contains(&self.probability) {
            return refuse("erasing.probability", self.probability.to_string(), "0 to 1");
        }
        if !(area_low > 0.0 && area_low <= area_high && area_high <= 1.0) {
            let expected = "[low, high] with low above 0, high not below low and at most 1";
            return refuse("erasing.area", format!("[{area_low}, {area_high}]"), expected);
        }
        if !(aspect_low > 0.0 && aspect_low <= aspect_high && aspect_high.is_finite()) {
            let expected = "[low, high] with low above 0 and high not below low";
            return refuse("erasing.aspect", format!("[{aspect_low}, {aspect_high}]"), expected);
        }
        if !(1..=64).contains(&self.count) {
            return refuse("erasing.count", self.count.to_string(), "1 to 64");
        }
        for (setting, values) in [("erasing.mean", self.mean), ("erasing.std", self.std)] {
            if !values.iter().all(|value| (0.0..=1.0).contains(value)) {
                return refuse(setting, format!("{values:?}"), "three numbers from 0 to 1");
            }
        }
        Ok(())
    }

    /// Covers rectangles of a picture in place.
    ///
    /// # Shapes
    /// - `image`: `[side, side, 3]`
    ///
    /// # Determinism
    /// Drawn from `rng`, in this order: whether; how many, if `count` is above 1; for each rectangle
    /// and attempt the area and the aspect, and where it fits the row, the column and the noise, row
    /// by row. Changing the order breaks resume of existing runs.
    ///
    /// # Panics
    /// May, when `image` does not hold `side · side · 3` values.
    pub fn apply(&self, image: &mut [u8], side: usize, rng: &mut ExampleRng) {
        if rng.uniform() >= self.probability {
            return;
        }
        let count = if self.count > 1 { 1 + rng.below(self.count) } else { 1 };
        let (low, high) = (self.aspect.0.ln(), self.aspect.1.ln());
        for _ in 0..count {
            for _ in 0..ATTEMPTS {
                let part = rng.uniform_in(self.area.0, self.area.1) / f64::from(count);
                let (area, aspect) = (part * (side * side) as f64, rng.uniform_in(low, high).exp());
                let height = (area * aspect).sqrt().round_ties_even() as usize;
                let width = (area / aspect).sqrt().round_ties_even() as usize;
                if height < side && width < side {
                    let top = rng.below((side - height + 1) as u32) as usize;
                    let left = rng.below((side - width + 1) as u32) as usize;
                    let rows = image.chunks_exact_mut(side * 3).skip(top).take(height);
                    self.cover(rows.map(|row| &mut row[left * 3..(left + width) * 3]), rng);
                    break;
                }
            }
        }
    }

    /// Covers the rows of a rectangle.
    fn cover<'a>(&self, rows: impl Iterator<Item = &'a mut [u8]>, rng: &mut ExampleRng) {
        let value = |channel: usize, normal: f32| {
            // A cast saturates.
            (255.0 * (self.mean[channel] + self.std[channel] * normal)).round_ties_even() as u8
        };
        let index = |bits: u64| bits as usize % NUM_QUANTILES;
        match self.fill {
            ErasingFill::Mean => {
                let mean = std::array::from_fn(|channel| value(channel, 0.0));
                rows.for_each(|row| paint(row.as_chunks_mut::<3>().0, mean));
            }
            ErasingFill::Colour => {
                let colour = std::array::from_fn(|channel| {
                    value(channel, quantiles()[index(rng.next_u64())])
                });
                rows.for_each(|row| paint(row.as_chunks_mut::<3>().0, colour));
            }
            ErasingFill::Pixel => {
                let tables: [Vec<u8>; 3] = std::array::from_fn(|channel| {
                    quantiles().iter().map(|&normal| value(channel, normal)).collect()
                });
                for row in rows {
                    for pixel in row.as_chunks_mut::<3>().0 {
                        let bits = rng.next_u64();
                        *pixel = std::array::from_fn(|channel| {
                            tables[channel][index(bits >> (16 * channel))]
                        });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 40;

    fn erasing(fill: ErasingFill, count: u32) -> RandomErasing {
        RandomErasing {
            probability: 1.0,
            area: default_area(),
            aspect: default_aspect(),
            fill,
            count,
            mean: [0.2, 0.4, 0.6],
            std: [0.1; 3],
        }
    }

    /// A picture of 255, which no fill gives with these moments.
    fn erase(erasing: &RandomErasing, index: u64) -> Vec<u8> {
        let mut image = vec![255; SIDE * SIDE * 3];
        erasing.apply(&mut image, SIDE, &mut ExampleRng::new(0, 0, index, 0));
        image
    }

    fn erased(image: &[u8]) -> usize {
        image.as_chunks::<3>().0.iter().filter(|pixel| **pixel != [255; 3]).count()
    }

    #[test]
    fn the_area_lies_between_its_bounds_and_is_one_rectangle_of_the_mean() {
        let mut total = 0.0;
        for index in 0..500 {
            let image = erase(&erasing(ErasingFill::Mean, 1), index);
            let (pixels, _) = image.as_chunks::<3>();
            let inside: Vec<usize> =
                (0..SIDE * SIDE).filter(|&at| pixels[at] != [255; 3]).collect();
            assert!(inside.iter().all(|&at| pixels[at] == [51, 102, 153]));
            let rows = inside.iter().map(|at| at / SIDE);
            let columns = inside.iter().map(|at| at % SIDE);
            let height = rows.clone().max().unwrap() - rows.min().unwrap() + 1;
            let width = columns.clone().max().unwrap() - columns.min().unwrap() + 1;
            assert_eq!(inside.len(), height * width);
            let part = inside.len() as f64 / (SIDE * SIDE) as f64;
            assert!((0.01..0.36).contains(&part), "{part}");
            total += part;
        }
        assert!((total / 500.0 - 0.177).abs() < 0.015, "mean part {}", total / 500.0);
    }

    #[test]
    fn several_rectangles_share_the_area_and_the_probability_holds() {
        let several = erasing(ErasingFill::Mean, 4);
        assert!((0..300).all(|index| erased(&erase(&several, index)) < SIDE * SIDE * 4 / 10));
        let rare = RandomErasing { probability: 0.25, ..several };
        let touched = (0..2000).filter(|&index| erased(&erase(&rare, index)) > 0).count();
        assert!((420..580).contains(&touched), "{touched}");
    }

    #[test]
    fn noise_has_the_moments_it_was_given() {
        let mut values = [const { Vec::new() }; 3];
        for index in 0..60 {
            let image = erase(&erasing(ErasingFill::Pixel, 1), index);
            for pixel in image.as_chunks::<3>().0.iter().filter(|pixel| **pixel != [255; 3]) {
                for (values, &value) in values.iter_mut().zip(pixel) {
                    values.push(f64::from(value) / 255.0);
                }
            }
        }
        for (values, expected) in values.iter().zip([0.2, 0.4, 0.6]) {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>()
                / values.len() as f64;
            assert!((mean - expected).abs() < 0.005, "{mean}");
            assert!((variance.sqrt() - 0.1).abs() < 0.01, "{}", variance.sqrt());
        }
        let image = erase(&erasing(ErasingFill::Colour, 1), 3);
        let colours: std::collections::HashSet<_> = image.as_chunks::<3>().0.iter().collect();
        assert_eq!(colours.len(), 2);
    }

    #[test]
    fn an_erased_picture_is_pinned() {
        // Changing this breaks resume of existing runs.
        let image = erase(&erasing(ErasingFill::Pixel, 3), 7);
        let hash = image.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        assert_eq!(hash, 11_277_356_803_648_193_728);
    }

    #[test]
    fn settings_without_a_meaning_are_refused() {
        let good = erasing(ErasingFill::Mean, 1);
        assert!(good.check().is_ok());
        assert_eq!(
            RandomErasing { area: (0.5, 0.2), ..good.clone() }.check().unwrap_err().to_string(),
            "found `erasing.area = [0.5, 0.2]`, expected [low, high] with low above 0, high not \
             below low and at most 1"
        );
        assert!(RandomErasing { probability: 1.5, ..good.clone() }.check().is_err());
        assert!(RandomErasing { aspect: (0.0, 1.0), ..good.clone() }.check().is_err());
        assert!(RandomErasing { count: 0, ..good.clone() }.check().is_err());
        assert!(RandomErasing { mean: [0.5, f32::NAN, 0.5], ..good }.check().is_err());
    }

    #[test]
    fn only_the_probability_has_to_be_given() {
        let parsed: RandomErasing = serde_json::from_str(r#"{"probability": 0.25}"#).unwrap();
        assert_eq!((parsed.area, parsed.fill), (default_area(), ErasingFill::Mean));
        assert!(parsed.check().is_ok());
        assert!(serde_json::from_str::<RandomErasing>(r#"{"probability": 1, "mode": 2}"#).is_err());
    }
}
