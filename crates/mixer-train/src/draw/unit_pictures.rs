//! Pictures of what units look for: the hidden units of token mixing (Figures 5 and 6 of the paper) and the
//! embedding (Figure 7).

use mixer_analysis::filters::pairs;
use mixer_model::{Weights, parameters};

use crate::draw::canvas::{Canvas, diverging};
use crate::error::TrainError;

/// The most pairs of units in a row.
const PAIRS: usize = 16;

/// Least side of a tile, px.
const TILE: usize = 42;

/// Gap between the units of a pair, and between pairs and rows, px.
const GAP: usize = 1;
const PAIR_GAP: usize = 5;

/// Every hidden unit of a block's token mixing, as `grid × grid` weights, in pairs of a unit and the one that
/// is closest to its inverse, low frequencies first. Blue is below 0, red above; a unit's largest weight has
/// the full colour. Shuffled patches are put back.
///
/// # Errors
/// [`TrainError::Model`] when the network has no such block.
pub fn token_mixing(weights: &Weights, block: usize) -> Result<Canvas, TrainError> {
    let tensor = tensor(weights, &format!("blocks.{block}.mlp_tokens.fc1.weight"))?;
    let grid = weights.config.grid_size();
    let order = orders(weights).map(|[patches, _]| patches);
    let units: Vec<Vec<f32>> =
        tensor.chunks_exact(grid * grid).map(|unit| put_back(unit, order.as_deref())).collect();
    let pairs = pairs(&units, grid);
    let scale = TILE.div_ceil(grid);
    let (tile, columns) = (grid * scale, pairs.len().isqrt().clamp(1, PAIRS));
    let pair = 2 * tile + GAP + PAIR_GAP;
    let rows = pairs.len().div_ceil(columns);
    let mut canvas = Canvas::new(columns * pair - PAIR_GAP, rows * (tile + PAIR_GAP) - PAIR_GAP);
    for (i, found) in pairs.iter().enumerate() {
        let corner = (i % columns * pair, i / columns * (tile + PAIR_GAP));
        draw(&mut canvas, corner, &units[found.unit], grid, scale);
        if let Some((inverse, _)) = found.inverse {
            draw(&mut canvas, (corner.0 + tile + GAP, corner.1), &units[inverse], grid, scale);
        }
    }
    Ok(canvas)
}

fn draw(canvas: &mut Canvas, corner: (usize, usize), unit: &[f32], grid: usize, scale: usize) {
    let largest = unit.iter().fold(0.0f32, |largest, w| largest.max(w.abs()));
    let largest = f64::from(if largest > 0.0 { largest } else { 1.0 });
    canvas.tile(corner, grid, scale, |i| diverging(f64::from(unit[i]) / largest));
}

/// Every unit of the embedding as a `patch × patch` tile of colours, of a BiT-ResNet of the first convolution
/// as a tile of its kernel: mid grey is 0, and a unit's largest weight has the full colour. Shuffled pixels
/// of patches are put back.
///
/// # Errors
/// [`TrainError::Model`] when the network has no embedding of patches.
pub fn embedding(weights: &Weights) -> Result<Canvas, TrainError> {
    let first = parameters(&weights.config).into_iter().next();
    let side = first.as_ref().and_then(|spec| spec.shape.last().copied()).unwrap_or(1);
    let tensor = tensor(weights, &first.map(|spec| spec.name).unwrap_or_default())?;
    let (values, scale) = (side * side * 3, TILE.div_ceil(side));
    let (tile, units) = (side * scale, tensor.len() / values);
    let columns = (2 * units).isqrt().clamp(1, 2 * PAIRS);
    let step = tile + GAP;
    let rows = units.div_ceil(columns);
    let mut canvas = Canvas::new(columns * step - GAP, rows * step - GAP);
    // A kernel moves over the picture, and knows no pixels of patches.
    let has_patches = weights.config.has_tokens();
    let order = orders(weights).filter(|_| has_patches).map(|[_, pixels]| pixels);
    for (i, unit) in tensor.chunks_exact(values).enumerate() {
        let colours = unit.chunks_exact(side * side);
        let unit: Vec<f32> =
            colours.flat_map(|colour| put_back(colour, order.as_deref())).collect();
        let largest = unit.iter().fold(f32::MIN_POSITIVE, |largest, w| largest.max(w.abs()));
        let grey = |w: f32| (127.5 + 127.5 * w / largest).round() as u8;
        canvas.tile((i % columns * step, i / columns * step), side, scale, |at| {
            std::array::from_fn(|colour| grey(unit[colour * side * side + at]))
        });
    }
    Ok(canvas)
}

/// The orders of patches and of their pixels, where pictures are shuffled within patches.
fn orders(weights: &Weights) -> Option<[Vec<usize>; 2]> {
    weights.shuffle().within_patches(weights.config.image_size, weights.config.patch_size)
}

/// Values that stand at `i` where those of the picture's own order stand at `order[i]`, in that order.
fn put_back(values: &[f32], order: Option<&[usize]>) -> Vec<f32> {
    let mut back = values.to_vec();
    for (value, to) in values.iter().zip(order.unwrap_or_default()) {
        back[*to] = *value;
    }
    back
}

fn tensor<'a>(weights: &'a Weights, name: &str) -> Result<&'a [f32], TrainError> {
    let blocks = weights.config.num_blocks;
    weights.tensors.get(name).map(|tensor| tensor.data.as_slice()).ok_or_else(|| {
        TrainError::usage(format!(
            "`{name}` is missing; the network has blocks 0 to {}",
            blocks - 1
        ))
    })
}

#[cfg(test)]
mod tests {
    use mixer_model::weights::{Preprocessing, Shuffle};
    use mixer_model::{Gelu, MixerConfig};

    use super::*;

    #[test]
    fn units_for_shuffled_patches_are_drawn_in_the_order_of_the_picture() {
        let config = MixerConfig {
            image_size: 12,
            patch_size: 3,
            hidden_dim: 6,
            tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 8 },
            channels_mlp_dim: 12,
            num_blocks: 1,
            num_classes: 2,
            gelu: Gelu::Tanh,
        };
        let mut weights = mixer_model::init::weights(&config, 0, 0.0).unwrap();
        let shuffle = Shuffle::Patches { seed: 1 };
        weights.metadata.preprocessing = Some(Preprocessing { shuffle, ..Default::default() });
        let in_order = weights.in_order("-").unwrap().into_owned();
        assert_eq!(token_mixing(&weights, 0).unwrap(), token_mixing(&in_order, 0).unwrap());
        assert_eq!(embedding(&weights).unwrap(), embedding(&in_order).unwrap());
        weights.metadata.preprocessing = None;
        assert_ne!(token_mixing(&weights, 0).unwrap(), token_mixing(&in_order, 0).unwrap());
        assert_ne!(embedding(&weights).unwrap(), embedding(&in_order).unwrap());
    }
}
