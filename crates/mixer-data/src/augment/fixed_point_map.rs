//! Affine maps with nearest neighbours as Pillow has them: places in fixed point, `affine_fixed` of
//! `libImaging/Geometry.c`.

/// One pixel in the fixed point of places: 16 bits behind the point.
const ONE: f64 = 65_536.0;

/// Maps a picture from corner to corner with nearest neighbours; places outside become `fill`.
///
/// # Shapes
/// - `image`: `[side, side, 3]`
pub(crate) fn nearest(
    image: &mut [u8],
    side: usize,
    [a, b, c, d, e, f]: [f64; 6],
    fill: [u8; 3],
    scratch: &mut Vec<u8>,
) {
    scratch.clear();
    scratch.extend_from_slice(image);
    let (source, _) = scratch.as_chunks::<3>();
    let fixed = |value: f64| (value * ONE + 0.5).floor() as i64;
    // Of the centre of the first pixel, and by what it moves from column to column and row to row.
    let first = [fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5)];
    let (by_column, by_row) = ([fixed(a), fixed(d)], [fixed(b), fixed(e)]);
    let inside = |at: i64| usize::try_from(at >> 16).ok().filter(|&at| at < side);
    for (y, row) in (0i64..).zip(image.chunks_exact_mut(side * 3)) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        for (x, pixel) in (0i64..).zip(pixels) {
            let place = |axis: usize| inside(first[axis] + by_column[axis] * x + by_row[axis] * y);
            *pixel = match (place(0), place(1)) {
                (Some(x), Some(y)) => source[y * side + x],
                _ => fill,
            };
        }
    }
}
