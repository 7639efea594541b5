//! Pictures that are drawn: tiles and colours.

use mixer_data::{DataError, RgbImage, png_bytes};

/// Eleven colours from blue by white to red.
///
/// # Source
/// ColorBrewer 2.0 (Harrower & Brewer 2003), `RdBu`, from its last to its first colour.
const BLUE_TO_RED: [[u8; 3]; 11] = [
    [5, 48, 97],
    [33, 102, 172],
    [67, 147, 195],
    [146, 197, 222],
    [209, 229, 240],
    [247, 247, 247],
    [253, 219, 199],
    [244, 165, 130],
    [214, 96, 77],
    [178, 24, 43],
    [103, 0, 31],
];

/// The colour of a value in `[-1, 1]`: blue below 0, red above. What lies outside has the colour of the end,
/// and what is no number is white.
#[must_use]
pub fn diverging(value: f64) -> [u8; 3] {
    let value = if value.is_nan() { 0.0 } else { value.clamp(-1.0, 1.0) };
    let position = (value + 1.0) / 2.0 * (BLUE_TO_RED.len() - 1) as f64;
    let below = (position.floor() as usize).min(BLUE_TO_RED.len() - 2);
    let share = position - below as f64;
    let (from, to) = (BLUE_TO_RED[below], BLUE_TO_RED[below + 1]);
    std::array::from_fn(|i| blend(from[i], to[i], share))
}

/// `share` of `to`, and the rest of `from`.
#[must_use]
pub fn blend(from: u8, to: u8, share: f64) -> u8 {
    (f64::from(from) + share * (f64::from(to) - f64::from(from))).round() as u8
}

/// A picture to draw on, white at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvas {
    image: RgbImage,
}

impl Canvas {
    /// A white one, sides in px.
    #[must_use]
    pub fn new(width: usize, height: usize) -> Self {
        let pixels = vec![255; width * height * 3];
        Self { image: RgbImage { width: width as u32, height: height as u32, pixels } }
    }

    /// Width and height, px.
    #[must_use]
    pub fn sides(&self) -> (u32, u32) {
        (self.image.width, self.image.height)
    }

    /// Draws a square tile of `side × side` colours, each enlarged to `scale × scale` px, with its corner at
    /// (`left`, `top`). What lies outside is left out.
    pub fn tile(
        &mut self,
        (left, top): (usize, usize),
        side: usize,
        scale: usize,
        colour: impl Fn(usize) -> [u8; 3],
    ) {
        let (width, height) = (self.image.width as usize, self.image.height as usize);
        for y in 0..side * scale {
            for x in 0..side * scale {
                if top + y < height && left + x < width {
                    let at = ((top + y) * width + left + x) * 3;
                    let colour = colour(y / scale * side + x / scale);
                    self.image.pixels[at..at + 3].copy_from_slice(&colour);
                }
            }
        }
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// [`DataError`] when it cannot be encoded.
    pub fn png(&self) -> Result<Vec<u8>, DataError> {
        png_bytes(&self.image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_from_blue_by_white_to_red() {
        assert_eq!(diverging(-1.0), [5, 48, 97]);
        assert_eq!(diverging(0.0), [247, 247, 247]);
        assert_eq!(diverging(1.0), [103, 0, 31]);
        assert_eq!(diverging(0.1), [250, 233, 223]);
        assert_eq!((diverging(7.0), diverging(f64::NAN)), (diverging(1.0), diverging(0.0)));
    }

    #[test]
    fn tiles_are_enlarged_and_cut_at_the_edge() {
        let mut canvas = Canvas::new(5, 4);
        canvas.tile((1, 0), 2, 2, |i| [i as u8; 3]);
        canvas.tile((4, 3), 1, 9, |_| [9; 3]);
        let row = |y: usize| -> Vec<u8> {
            (0..5).map(|x| canvas.image.pixels[(y * 5 + x) * 3]).collect()
        };
        assert_eq!(row(0), [255, 0, 0, 1, 1]);
        assert_eq!(row(3), [255, 2, 2, 3, 9]);
    }
}
