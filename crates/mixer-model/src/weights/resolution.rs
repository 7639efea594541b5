//! The same weights at another image size.
//!
//! In a Mixer only token mixing depends on the number of tokens. When the image side grows by an integer factor
//! K, the paper's expansion keeps the function: each of the K² tiles of the large image is mixed by
//! the old weights, and the tiles do not see each other until training changes that. Any other ratio
//! is an extension of this project: the weights are interpolated over the grid.
//!
//! In a Vision Transformer only the positions do, and they are interpolated as in the official code, whatever
//! the ratio. In a BiT-ResNet nothing does.

use std::fmt;

use super::weights::Weights;
use crate::count;
use crate::error::ModelError;
use crate::mixer::config::{MixerConfig, TokenLayer};
use crate::parameters::{Axis, ParameterSpec, parameters};
use crate::tensor::HostTensor;

/// Parameters above which a network is refused: 16 GiB in `f32`, ten times the largest variant.
pub const MAX_PARAMS: u64 = 1 << 32;

/// The way of weights to another image size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeMethod {
    /// The size stays.
    Unchanged,
    /// Block-diagonal expansion. The logits of an image are exactly the mean of the old network's
    /// logits over its `factor²` tiles.
    Exact {
        /// New image side ÷ old image side, at least 2.
        factor: usize,
    },
    /// Interpolation over the grid of tokens. An approximation, to be fine-tuned; all other dimensions stay.
    Interpolated,
}

impl fmt::Display for ResizeMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => f.write_str("unchanged"),
            Self::Exact { factor } => write!(f, "exact ×{factor}"),
            Self::Interpolated => f.write_str("interpolated"),
        }
    }
}

impl ResizeMethod {
    /// The method for a change of image size: exact where it can be, which needs token mixing. The weights of a
    /// BiT-ResNet are the same at any size.
    #[must_use]
    pub fn between(from: &MixerConfig, to_image_size: usize) -> Self {
        let from_image_size = from.image_size;
        if from_image_size == to_image_size || matches!(from.tokens, TokenLayer::Convolution { .. })
        {
            Self::Unchanged
        } else if matches!(from.tokens, TokenLayer::Mlp { .. })
            && from_image_size > 0
            && to_image_size > from_image_size
            && to_image_size.is_multiple_of(from_image_size)
        {
            Self::Exact { factor: to_image_size / from_image_size }
        } else {
            Self::Interpolated
        }
    }

    /// The architecture after the change.
    ///
    /// # Errors
    /// [`ModelError::ZeroDimension`], [`ModelError::IndivisibleImage`], and
    /// [`ModelError::ResizeTooLarge`] for a network that no machine holds.
    pub fn config(from: &MixerConfig, image_size: usize) -> Result<MixerConfig, ModelError> {
        let mut config = MixerConfig { image_size, ..from.clone() };
        config.validate()?;
        let max_params = MAX_PARAMS;
        let too_large =
            |num_params| ModelError::ResizeTooLarge { image_size, num_params, max_params };
        // The products below must not overflow before they are counted.
        if image_size > 1 << 20 {
            return Err(too_large(u64::MAX));
        }
        if let Self::Exact { factor } = Self::between(from, image_size)
            && let TokenLayer::Mlp { tokens_mlp_dim } = &mut config.tokens
        {
            *tokens_mlp_dim = tokens_mlp_dim.saturating_mul(factor * factor);
        }
        let num_params = count::num_params(&config);
        if num_params > MAX_PARAMS {
            return Err(too_large(num_params));
        }
        Ok(config)
    }
}

impl Weights {
    /// The same weights for another image size; see [`ResizeMethod`]. What was done is added to the
    /// provenance under `resolution`. The same size changes nothing.
    ///
    /// # Errors
    /// As [`ResizeMethod::config`]; [`ModelError::ShuffledResolution`] where pictures are shuffled.
    ///
    /// # Source
    /// Tolstikhin et al. 2021, section 3 and appendix C. The paper orders the tokens of the large
    /// image tile by tile; here the blocks sit at the raster positions of their tiles, so the model
    /// needs no permutation. Positions: `vit_jax/checkpoint.py@c6de1e5` (`interpolate_posembed`).
    pub fn resized(&self, image_size: usize) -> Result<Self, ModelError> {
        let method = ResizeMethod::between(&self.config, image_size);
        let config = ResizeMethod::config(&self.config, image_size)?;
        if self.config.image_size == image_size {
            return Ok(self.clone());
        }
        self.shuffle().check_resolution(self.config.image_size, image_size)?;
        self.check_fits(&self.config)?;

        let (grid, new_grid) = (self.config.grid_size(), config.grid_size());
        let mut resized = self.clone();
        for spec in parameters(&self.config) {
            let Some(tensor) = resized.tensors.get_mut(&spec.name) else { continue };
            *tensor = match method {
                ResizeMethod::Unchanged => continue,
                ResizeMethod::Exact { factor } => expanded(tensor, &spec, grid, factor),
                ResizeMethod::Interpolated => interpolated(tensor, &spec, grid, new_grid),
            };
        }
        let done = format!("{method} from {} px", self.config.image_size);
        resized
            .metadata
            .provenance
            .entry("resolution".to_owned())
            .and_modify(|history| *history = format!("{history}, then {done}"))
            .or_insert(done);
        resized.config = config;
        resized.check_fits(&resized.config)?;
        Ok(resized)
    }
}

/// Raster position in the large image of token `s` of tile `t`; both count in raster order, tiles on a
/// `factor × factor` grid, tokens on a `grid × grid` one.
fn raster_position(t: usize, s: usize, grid: usize, factor: usize) -> usize {
    let (tile_y, tile_x) = (t / factor, t % factor);
    let (y, x) = (s / grid, s % grid);
    (tile_y * grid + y) * (factor * grid) + tile_x * grid + x
}

/// A parameter of token mixing, `K²` times, each copy at the raster positions of its tile and among the
/// hidden units of its tile, and zero between tiles. Parameters of anything else stay.
///
/// # Shapes
/// S becomes `K² S`, and D_S `K² D_S`.
fn expanded(tensor: &HostTensor, spec: &ParameterSpec, grid: usize, factor: usize) -> HostTensor {
    let grows = |axis: &Axis| matches!(axis, Axis::Tokens | Axis::TokensHidden);
    if !spec.axes.iter().any(grows) {
        return tensor.clone();
    }
    let num_tiles = factor * factor;
    let shape: Vec<usize> = spec
        .axes
        .iter()
        .zip(&tensor.shape)
        .map(|(axis, &size)| if grows(axis) { num_tiles * size } else { size })
        .collect();
    let mut wide = HostTensor::filled(&shape, 0.0);
    for tile in 0..num_tiles {
        for (i, &value) in tensor.data.iter().enumerate() {
            // From the last axis to the first: the position along it, here and in the large tensor.
            let (mut rest, mut at, mut stride) = (i, 0, 1);
            for (axis, (&size, &wide_size)) in
                spec.axes.iter().zip(tensor.shape.iter().zip(&shape)).rev()
            {
                let position = rest % size;
                rest /= size;
                at += stride
                    * match axis {
                        Axis::Tokens => raster_position(tile, position, grid, factor),
                        Axis::TokensHidden => tile * size + position,
                        _ => position,
                    };
                stride *= wide_size;
            }
            wide.data[at] = value;
        }
    }
    wide
}

/// A parameter interpolated over the grid where it has an axis of tokens, or positions.
///
/// Where tokens are inputs, it is scaled by `S / S'`, so that a sum over more (or fewer) tokens of the
/// same picture keeps its magnitude. Where they are outputs, there is one value per token and no scale.
fn interpolated(
    tensor: &HostTensor,
    spec: &ParameterSpec,
    grid: usize,
    new_grid: usize,
) -> HostTensor {
    if spec.axes.contains(&Axis::Positions) {
        return moved_positions(tensor, grid, new_grid);
    }
    let Some(axis) = spec.axes.iter().position(|axis| *axis == Axis::Tokens) else {
        return tensor.clone();
    };
    let resample = Resample::new(grid, new_grid);
    let (s_old, s_new) = (grid * grid, new_grid * new_grid);
    let scale = if axis == 0 { 1.0 } else { s_old as f64 / s_new as f64 };
    // With the tokens as the inner axis. Exchanging two axes twice changes nothing.
    let mut axes: Vec<usize> = (0..spec.axes.len()).collect();
    let last = axes.len() - 1;
    axes.swap(axis, last);
    let by_plane = tensor.permuted(&axes);
    let mut shape = by_plane.shape;
    shape[last] = s_new;
    let planes = by_plane.data.chunks_exact(s_old).map(|plane| resample.plane(plane));
    let data = planes.flatten().map(|value| (value * scale) as f32).collect();
    HostTensor { shape, data }.permuted(&axes)
}

/// Positions `[1, T, C]` of another grid; that of a class token, which comes first, stays.
fn moved_positions(tensor: &HostTensor, grid: usize, new_grid: usize) -> HostTensor {
    let (s_old, s_new) = (grid * grid, new_grid * new_grid);
    let (tokens, channels) = (tensor.shape[1], tensor.shape[2]);
    let (class_token, of_grid) = tensor.data.split_at((tokens - s_old) * channels);
    let of_grid = HostTensor { shape: vec![s_old, channels], data: of_grid.to_vec() };
    let resample = Resample::between_corners(grid, new_grid);
    let planes = of_grid.permuted(&[1, 0]).data;
    let data = planes.chunks_exact(s_old).flat_map(|plane| resample.plane(plane));
    let data = data.map(|value| value as f32).collect();
    let moved = HostTensor { shape: vec![channels, s_new], data }.permuted(&[1, 0]);
    let shape = vec![1, tokens - s_old + s_new, channels];
    HostTensor { shape, data: [class_token, &moved.data].concat() }
}

/// Separable bilinear resampling of a square grid.
///
/// Of weights, sampling positions are half-pixel centred (as Pillow and PyTorch's `align_corners=False`), and the
/// triangle widens when the grid shrinks, so no token is skipped. Weights at the border are
/// normalised: a constant stays constant.
struct Resample {
    grid: usize,
    /// Per output position: first input position, and the weights from there on.
    taps: Vec<(usize, Vec<f64>)>,
}

impl Resample {
    fn new(grid: usize, new_grid: usize) -> Self {
        let ratio = grid as f64 / new_grid as f64;
        let radius = ratio.max(1.0);
        let taps = (0..new_grid)
            .map(|i| {
                let centre = (i as f64 + 0.5) * ratio;
                let weight = |j: usize| (1.0 - ((j as f64 + 0.5) - centre).abs() / radius).max(0.0);
                let first = (0..grid).find(|&j| weight(j) > 0.0).unwrap_or(0);
                let weights: Vec<f64> =
                    (first..grid).map(weight).take_while(|&weight| weight > 0.0).collect();
                let total: f64 = weights.iter().sum();
                (first, weights.iter().map(|weight| weight / total).collect())
            })
            .collect();
        Self { grid, taps }
    }

    /// Linear, with the corners of one grid on those of the other and no wider for a smaller grid.
    ///
    /// PARITY: `scipy.ndimage.zoom(order=1)`, which the official code resizes positions with. timm's is
    /// another way, bicubic and antialiased.
    fn between_corners(grid: usize, new_grid: usize) -> Self {
        let step = if new_grid > 1 { (grid - 1) as f64 / (new_grid - 1) as f64 } else { 0.0 };
        let taps = (0..new_grid)
            .map(|i| {
                let at = i as f64 * step;
                let first = (at.floor() as usize).min(grid.saturating_sub(2));
                let share = at - first as f64;
                let weights = if grid > 1 { vec![1.0 - share, share] } else { vec![1.0] };
                (first, weights)
            })
            .collect();
        Self { grid, taps }
    }

    /// `[grid, grid]` to `[new_grid, new_grid]`, in raster order, summed in `f64`.
    fn plane(&self, values: &[f32]) -> Vec<f64> {
        let new_grid = self.taps.len();
        // Rows first: [grid, new_grid].
        let mut narrow = Vec::with_capacity(self.grid * new_grid);
        for row in values.chunks_exact(self.grid) {
            for (first, weights) in &self.taps {
                let inputs = &row[*first..];
                narrow
                    .push(weights.iter().zip(inputs).map(|(w, &v)| w * f64::from(v)).sum::<f64>());
            }
        }
        let mut plane = Vec::with_capacity(new_grid * new_grid);
        for (first, weights) in &self.taps {
            for x in 0..new_grid {
                plane.push(
                    weights
                        .iter()
                        .enumerate()
                        .map(|(k, w)| w * narrow[(first + k) * new_grid + x])
                        .sum::<f64>(),
                );
            }
        }
        plane
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixer::config::Gelu;
    use crate::mixer::variants::Variant;

    #[test]
    fn raster_positions_of_all_tiles_cover_the_image_once() {
        let mut seen: Vec<usize> =
            (0..9).flat_map(|t| (0..16).map(move |s| raster_position(t, s, 4, 3))).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..144).collect::<Vec<_>>());
        // Tile 1 of a 2 × 2 tiling starts one grid to the right in the same row.
        assert_eq!(raster_position(1, 0, 4, 2), 4);
        assert_eq!(raster_position(2, 5, 4, 2), (4 + 1) * 8 + 1);
    }

    #[test]
    fn integer_growth_is_exact_and_everything_else_interpolates() {
        let between = |name: &str, from, to| {
            let config = Variant::parse(name).unwrap().config(from, 10, Gelu::Tanh);
            ResizeMethod::between(&config, to)
        };
        assert_eq!(between("S/16", 224, 448), ResizeMethod::Exact { factor: 2 });
        assert_eq!(between("S/16", 224, 224), ResizeMethod::Unchanged);
        assert_eq!(between("S/16", 224, 336), ResizeMethod::Interpolated);
        assert_eq!(between("S/16", 448, 224), ResizeMethod::Interpolated);
        assert_eq!(between("ViT-S/16", 224, 448), ResizeMethod::Interpolated);
        assert_eq!(between("ViT-S/16", 224, 224), ResizeMethod::Unchanged);
        assert_eq!(between("BiT-R50x1", 224, 448), ResizeMethod::Unchanged);
    }

    #[test]
    fn the_paper_s_cost_of_doubling_the_resolution() {
        let config = Variant::parse("B/16").unwrap().config(224, 1000, Gelu::Tanh);
        let doubled = ResizeMethod::config(&config, 448).unwrap();
        assert_eq!(doubled.tokens.mlp_dim(), Some(4 * 384));
        let added = count::num_params(&doubled) - count::num_params(&config);
        assert_eq!((added as f64 / 1e5).round(), 271.0, "+27.1 M");
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let config = Variant::parse("B/16").unwrap().config(224, 1000, Gelu::Tanh);
        let error = |image_size| ResizeMethod::config(&config, image_size).unwrap_err();
        assert!(matches!(error(0), ModelError::ZeroDimension { .. }));
        assert!(matches!(error(230), ModelError::IndivisibleImage { .. }));
        assert!(matches!(error(224 * 64), ModelError::ResizeTooLarge { .. }));
        assert!(matches!(error(16 << 50), ModelError::ResizeTooLarge { .. }));
    }

    #[test]
    fn resampling_keeps_constants_and_linear_ramps() {
        for (grid, new_grid) in [(4, 6), (6, 4), (3, 7), (14, 24), (5, 1), (1, 5)] {
            let resample = Resample::new(grid, new_grid);
            for value in resample.plane(&vec![2.5; grid * grid]) {
                assert!((value - 2.5).abs() < 1e-12, "{grid} to {new_grid}");
            }
        }
        // Inside, away from the clamped border, a ramp stays the ramp.
        let ramp: Vec<f32> = (0..64).map(|i| (i % 8) as f32 + 0.5).collect();
        let plane = Resample::new(8, 12).plane(&ramp);
        for x in 1..11 {
            let expected = (x as f64 + 0.5) * 8.0 / 12.0;
            assert!((plane[12 * 5 + x] - expected).abs() < 1e-12, "{x}");
        }
    }
}
