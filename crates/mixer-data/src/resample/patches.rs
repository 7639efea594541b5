//! Pictures to patches.

use crate::error::DataError;

/// Layout of the pixels of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Row by row, `[height, width, 3]`.
    Rows,
    /// As [`patchify`] stores them. The side of a patch divides those of the picture.
    Patches {
        /// Side of a patch, px.
        patch_size: usize,
    },
}

impl Layout {
    /// Stores row `y` of a picture, `[width, 3]`.
    pub(crate) fn store_row(self, row: &[u8], y: usize, out: &mut [u8]) {
        match self {
            Self::Rows => out[y * row.len()..][..row.len()].copy_from_slice(row),
            Self::Patches { patch_size } => {
                // A row of the picture is a row of values of each token of a row of tokens.
                let (segment, token) = (patch_size * 3, patch_size * patch_size * 3);
                let tokens = &mut out[y / patch_size * (row.len() * patch_size)..];
                let start = y % patch_size * segment;
                let tokens = tokens.chunks_exact_mut(token);
                for (source, target) in row.chunks_exact(segment).zip(tokens) {
                    copy_short(source, &mut target[start..start + segment]);
                }
            }
        }
    }
}

/// Copies a few dozen bytes: a call of `memcpy` for each would take as long as resizing a row.
fn copy_short(from: &[u8], to: &mut [u8]) {
    let (from, from_rest) = from.as_chunks::<16>();
    let (to, to_rest) = to.as_chunks_mut::<16>();
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to = *from);
}

/// Memory for a square picture.
pub(crate) struct Destination<'a> {
    /// Layout of its pixels.
    pub(crate) layout: Layout,
    /// Memory for them: as many bytes as it has pixels, times 3.
    pub(crate) out: &'a mut [u8],
}

/// Cuts a square picture into patches.
///
/// # Shapes
/// - `image`: `[image_size, image_size, 3]`
/// - `out`: `[S, P·P·3]`; tokens in raster order, the values of a token in (row, column, colour)
///   order, which is how the rows of a stem convolution kernel `[P, P, 3, C]` are flattened
///
/// # Errors
/// [`DataError::BadSetting`] when the patch side does not divide the picture's side, and
/// [`DataError::BadBuffer`] when a buffer does not hold `image_size² · 3` bytes.
pub fn patchify(
    image: &[u8],
    image_size: u32,
    patch_size: u32,
    out: &mut [u8],
) -> Result<(), DataError> {
    if patch_size == 0 || !image_size.is_multiple_of(patch_size) {
        return Err(DataError::BadSetting {
            setting: "patch_size",
            found: patch_size.to_string(),
            expected: format!("a divisor of the image size {image_size}"),
        });
    }
    let (side, patch_size) = (image_size as usize, patch_size as usize);
    let expected = side * side * 3;
    for (what, found) in [("an image", image.len()), ("a patch buffer", out.len())] {
        if found != expected {
            return Err(DataError::BadBuffer { what, found, expected });
        }
    }

    let layout = Layout::Patches { patch_size };
    image.chunks_exact(side * 3).enumerate().for_each(|(y, row)| layout.store_row(row, y, out));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_raster_and_values_are_row_column_colour() {
        let (side, patch) = (6usize, 2usize);
        let image: Vec<u8> = (0..side * side * 3).map(|i| i as u8).collect();
        let mut out = vec![0; image.len()];
        patchify(&image, side as u32, patch as u32, &mut out).unwrap();
        let mut expected = Vec::new();
        for token_y in 0..side / patch {
            for token_x in 0..side / patch {
                for y in 0..patch {
                    for x in 0..patch {
                        let pixel = (token_y * patch + y) * side + token_x * patch + x;
                        expected.extend_from_slice(&image[pixel * 3..pixel * 3 + 3]);
                    }
                }
            }
        }
        assert_eq!(out, expected);
    }

    #[test]
    fn one_patch_is_the_picture() {
        let image: Vec<u8> = (0..75).collect();
        let mut out = vec![0; 75];
        patchify(&image, 5, 5, &mut out).unwrap();
        assert_eq!(out, image);
    }

    #[test]
    fn patch_size_must_divide_and_buffers_must_fit() {
        let mut out = vec![0; 75];
        let error = patchify(&[0; 75], 5, 2, &mut out).unwrap_err();
        assert_eq!(
            error.to_string(),
            "found `patch_size = 2`, expected a divisor of the image size 5"
        );
        let error = patchify(&[0; 74], 5, 5, &mut out).unwrap_err();
        assert_eq!(error.to_string(), "found an image of 74 bytes, expected 75");
    }
}
