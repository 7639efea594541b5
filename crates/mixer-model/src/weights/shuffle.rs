//! The paper's test of what a network knows of space (section 3.4, Figure 4): every picture is shuffled by one
//! order, as the last step of its preparation.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::weights::Weights;
use crate::error::ModelError;
use crate::parameters::{Axis, parameters};
use crate::split_mix::SplitMix;
use crate::tensor::HostTensor;

/// The stream of a seed that the order of patches is drawn from, and that of the order of pixels.
const PATCHES: u64 = 1 << 32;
const PIXELS: u64 = PATCHES + 1;

/// The order that the pixels of every picture are put in; the three colours of a pixel stay together.
///
/// # Determinism
/// A function of the seed and the network's sizes, in integers. Changing it changes what weights mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Shuffle {
    /// As they are.
    #[default]
    None,
    /// Patches in a random order, and the pixels of every patch in another. An MLP-Mixer learns as well.
    Patches {
        /// Seed of both orders.
        seed: u32,
    },
    /// All pixels of the picture in a random order. It learns less well.
    Pixels {
        /// Seed of the order.
        seed: u32,
    },
}

impl fmt::Display for Shuffle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Patches { seed } => write!(f, "patches of seed {seed}"),
            Self::Pixels { seed } => write!(f, "pixels of seed {seed}"),
        }
    }
}

impl Shuffle {
    /// `true` where nothing is shuffled.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// The orders of patches and of the pixels in a patch, where these are shuffled: patch `i` of what the
    /// network sees is patch `patches[i]` of the picture, and so with pixels.
    ///
    /// # Shapes
    /// - output: `[S]` and `[P·P]`
    #[must_use]
    pub fn within_patches(self, image_size: usize, patch_size: usize) -> Option<[Vec<usize>; 2]> {
        let Self::Patches { seed } = self else { return None };
        let order = |stream, len| SplitMix::new(seed.into(), stream).order(len);
        let grid = image_size / patch_size;
        Some([order(PATCHES, grid * grid), order(PIXELS, patch_size * patch_size)])
    }

    /// The order for pictures that are cut into patches: pixel `i` of what the network sees, counted patch by
    /// patch, is pixel `order[i]` of the picture, counted so too. Absent where nothing is shuffled.
    ///
    /// # Shapes
    /// - output: `[S · P·P]`
    #[must_use]
    pub fn patchwise(self, image_size: usize, patch_size: usize) -> Option<Vec<usize>> {
        if let Some([patches, pixels]) = self.within_patches(image_size, patch_size) {
            let of_patch = |patch: &usize| -> Vec<usize> {
                pixels.iter().map(|pixel| patch * pixels.len() + pixel).collect()
            };
            return Some(patches.iter().flat_map(of_patch).collect());
        }
        let order = self.raster(image_size, patch_size)?;
        let mut patchwise = vec![0; order.len()];
        for (to, from) in order.into_iter().enumerate() {
            patchwise[place(to, image_size, patch_size)] = place(from, image_size, patch_size);
        }
        Some(patchwise)
    }

    /// The same order for pictures row by row: pixel `i` of what the network sees is pixel `order[i]` of the
    /// picture.
    ///
    /// # Shapes
    /// - output: `[image_size · image_size]`
    #[must_use]
    pub fn raster(self, image_size: usize, patch_size: usize) -> Option<Vec<usize>> {
        match self {
            Self::None => None,
            Self::Patches { .. } => {
                let order = self.patchwise(image_size, patch_size)?;
                let mut rows = vec![0; order.len()];
                (0..rows.len()).for_each(|at| rows[place(at, image_size, patch_size)] = at);
                let to = |at| place(at, image_size, patch_size);
                Some((0..order.len()).map(|at| rows[order[to(at)]]).collect())
            }
            Self::Pixels { seed } => {
                Some(SplitMix::new(seed.into(), PIXELS).order(image_size * image_size))
            }
        }
    }

    /// Refuses another image size than the one that weights are for: their order means nothing there.
    ///
    /// # Errors
    /// [`ModelError::ShuffledResolution`] where pictures are shuffled and the size is another one.
    pub fn check_resolution(self, found: usize, image_size: usize) -> Result<(), ModelError> {
        if self.is_none() || found == image_size {
            return Ok(());
        }
        Err(ModelError::ShuffledResolution { shuffle: self, found, image_size })
    }
}

/// The place of a pixel when they are counted patch by patch; `at` counts row by row.
fn place(at: usize, image_size: usize, patch_size: usize) -> usize {
    let (y, x) = (at / image_size, at % image_size);
    let patch = y / patch_size * (image_size / patch_size) + x / patch_size;
    (patch * patch_size + y % patch_size) * patch_size + x % patch_size
}

impl Weights {
    /// The shuffling of pictures that these weights are for.
    #[must_use]
    pub fn shuffle(&self) -> Shuffle {
        self.metadata.preprocessing.map_or(Shuffle::None, |preprocessing| preprocessing.shuffle)
    }

    /// The weights that answer of pictures as they are what these answer of pictures with shuffled patches:
    /// the order moves into the embedding and into token mixing, and logits differ by rounding. `why` is
    /// the reason why nothing shuffles pictures.
    ///
    /// # Errors
    /// [`ModelError::Shuffled`] where pixels leave their patches, and [`ModelError::NotForNetwork`] of a
    /// BiT-ResNet: no weights are equal to that.
    pub fn in_order(&self, why: &'static str) -> Result<Cow<'_, Self>, ModelError> {
        let (shuffle, config) = (self.shuffle(), &self.config);
        if !shuffle.is_none() {
            self.refuse_resnet("a file for pictures that nothing shuffles")?;
        }
        let Some([patches, pixels]) = shuffle.within_patches(config.image_size, config.patch_size)
        else {
            return match shuffle {
                Shuffle::Pixels { .. } => Err(ModelError::Shuffled { why }),
                _ => Ok(Cow::Borrowed(self)),
            };
        };
        let mut ordered = self.clone();
        for spec in parameters(config) {
            let Some(tensor) = ordered.tensors.get_mut(&spec.name) else { continue };
            if let Some(axis) = spec.axes.iter().position(|axis| *axis == Axis::Tokens) {
                move_back(tensor, axis, &patches);
            } else if let Some(axis) = spec.axes.iter().position(|axis| *axis == Axis::Positions) {
                // The class token, which comes first, is no patch.
                let before = config.num_positions() - config.num_tokens();
                let order =
                    (0..before).chain(patches.iter().map(|at| before + at)).collect::<Vec<_>>();
                move_back(tensor, axis, &order);
            } else if let Some(axis) = spec.axes.iter().position(|axis| *axis == Axis::Patch) {
                // Rows and columns of a patch are neighbours, and so one axis of its pixels.
                move_back(tensor, axis, &pixels);
            }
        }
        if let Some(preprocessing) = &mut ordered.metadata.preprocessing {
            preprocessing.shuffle = Shuffle::None;
        }
        Ok(Cow::Owned(ordered))
    }
}

/// Moves what stands at `i` of an axis to `order[i]`. The axis may be several neighbours as one.
fn move_back(tensor: &mut HostTensor, axis: usize, order: &[usize]) {
    let outer: usize = tensor.shape[..axis].iter().product();
    let inner = tensor.data.len() / (outer * order.len()).max(1);
    let from = tensor.data.clone();
    for block in 0..outer {
        let start = block * order.len();
        for (at, to) in order.iter().enumerate() {
            let (from_at, to_at) = ((start + at) * inner, (start + to) * inner);
            tensor.data[to_at..to_at + inner].copy_from_slice(&from[from_at..from_at + inner]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCHES: Shuffle = Shuffle::Patches { seed: 7 };
    const PIXELS: Shuffle = Shuffle::Pixels { seed: 7 };

    #[test]
    fn the_orders_of_a_seed_are_pinned() {
        // Changing them changes what every file of weights for shuffled pictures means.
        assert_eq!(
            PATCHES.within_patches(6, 2).unwrap(),
            [vec![6, 2, 1, 7, 0, 4, 5, 3, 8], vec![0, 2, 3, 1]]
        );
        assert_eq!(
            PIXELS.raster(4, 2).unwrap(),
            [11, 1, 2, 12, 9, 5, 3, 14, 13, 15, 8, 0, 4, 10, 7, 6]
        );
        assert_eq!(
            PATCHES.raster(4, 2).unwrap(),
            [0, 4, 8, 12, 5, 1, 13, 9, 2, 6, 10, 14, 7, 3, 15, 11]
        );
        assert!(Shuffle::None.raster(4, 2).is_none() && Shuffle::None.patchwise(4, 2).is_none());
    }

    #[test]
    fn both_ways_to_count_pixels_are_the_same_order() {
        for shuffle in [PATCHES, PIXELS] {
            let (raster, patchwise) = (shuffle.raster(12, 3).unwrap(), shuffle.patchwise(12, 3));
            let patchwise = patchwise.unwrap();
            for at in 0..144 {
                assert_eq!(patchwise[place(at, 12, 3)], place(raster[at], 12, 3));
            }
            let mut sorted = raster;
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..144));
        }
        // Pixels of a patch stay together in the one, and not in the other.
        let stays =
            |order: Vec<usize>| order.chunks(9).all(|p| p.iter().all(|i| i / 9 == p[0] / 9));
        assert!(stays(PATCHES.patchwise(12, 3).unwrap()));
        assert!(!stays(PIXELS.patchwise(12, 3).unwrap()));
    }

    #[test]
    fn it_is_written_as_documented() {
        let json = |shuffle| serde_json::to_string(&shuffle).unwrap();
        assert_eq!(json(Shuffle::None), r#""none""#);
        assert_eq!(json(PATCHES), r#"{"patches":{"seed":7}}"#);
        assert!(serde_json::from_str::<Shuffle>(r#"{"patches":{"seed":-1}}"#).is_err());
        assert!(serde_json::from_str::<Shuffle>(r#"{"patches":{}}"#).is_err());
    }
}
