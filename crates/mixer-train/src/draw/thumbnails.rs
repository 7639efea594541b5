//! Small pictures of examples, and sheets of them.

use mixer_data::{DataError, EvalResize, EvalTransform, Interpolation, Resampler, RgbImage};

use crate::draw::canvas::Canvas;

/// Side of a thumbnail, px.
const SIDE: u32 = 96;

/// Thumbnails in a row of a sheet.
const COLUMNS: usize = 6;

/// Gap between them, px.
const GAP: usize = 4;

/// A picture of 96 px a side.
///
/// # Errors
/// [`DataError::BadBuffer`] for a picture whose pixels are not as many as its sides say.
pub fn thumbnail(picture: &RgbImage) -> Result<RgbImage, DataError> {
    let transform = EvalTransform {
        image_size: SIDE,
        resize: EvalResize::Squash,
        interpolation: Interpolation::Bilinear,
        jpeg_scaling: false,
    };
    let mut pixels = vec![0; (SIDE * SIDE * 3) as usize];
    transform.apply(picture, &mut Resampler::default(), &mut pixels)?;
    Ok(RgbImage { width: SIDE, height: SIDE, pixels })
}

/// Thumbnails in rows of six.
#[must_use]
pub fn sheet(thumbnails: &[RgbImage]) -> Canvas {
    let (side, step) = (SIDE as usize, SIDE as usize + GAP);
    let rows = thumbnails.len().div_ceil(COLUMNS).max(1);
    let mut canvas = Canvas::new(COLUMNS * step - GAP, rows * step - GAP);
    for (i, picture) in thumbnails.iter().enumerate() {
        let corner = (i % COLUMNS * step, i / COLUMNS * step);
        canvas.tile(corner, side, 1, |at| std::array::from_fn(|c| picture.pixels[at * 3 + c]));
    }
    canvas
}
