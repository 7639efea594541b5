//! Affine maps of a square picture: where the pixels of a distorted picture come from.
//!
//! Two programs define them. [`nearest`] is TensorFlow's `ImageProjectiveTransform` as big_vision
//! calls it through TensorFlow Addons (`image/transform_ops.py`, `image/translate_ops.py`);
//! [`interpolated`] is Pillow's `Image.transform` and `Image.rotate` (`libImaging/Geometry.c`).
//! A map gives the place in the picture for each place in the result:
//! `x_in = a·x + b·y + c`, `y_in = d·x + e·y + f` for `[a, b, c, d, e, f]`.

use std::f64::consts::PI;
use std::ops::Range;

use crate::augment::colour_ops::truncate;
use crate::augment::fixed_point_map;

/// Interpolation of a value between pixels, as in Pillow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// The pixel in which the place lies.
    Nearest,
    /// Linear in both directions.
    Bilinear,
    /// The cubic through four pixels with a = −1, in both directions.
    Bicubic,
}

/// TensorFlow Addons' map that turns a picture of `side` pixels by `degrees`, clockwise where positive.
///
/// PARITY: float32 throughout, as the tensors there.
pub(crate) fn tensorflow_rotation(degrees: f64, side: usize) -> [f32; 6] {
    let radians = degrees as f32 * (PI / 180.0) as f32;
    // Through float64, so that the last bit does not depend on the platform's float32 functions.
    let (sin, cos) = f64::from(radians).sin_cos();
    let (sin, cos) = (sin as f32, cos as f32);
    let last = side as f32 - 1.0;
    let x_offset = (last - (cos * last - sin * last)) / 2.0;
    let y_offset = (last - (sin * last + cos * last)) / 2.0;
    [cos, -sin, x_offset, sin, cos, y_offset]
}

/// Pillow's map that turns a picture of `side` pixels by `degrees` around its centre, counter-clockwise
/// where positive.
pub(crate) fn pillow_rotation(degrees: f64, side: usize) -> [f64; 6] {
    // Pillow rounds to 15 decimals, so that right angles are exact.
    let round = |value: f64| (value * 1e15).round_ties_even() / 1e15;
    let angle = -degrees.rem_euclid(360.0).to_radians();
    let (sin, cos) = (round(angle.sin()), round(angle.cos()));
    let centre = side as f64 / 2.0;
    let x_offset = cos * -centre + sin * -centre + centre;
    let y_offset = -sin * -centre + cos * -centre + centre;
    [cos, sin, x_offset, -sin, cos, y_offset]
}

/// Adding and taking away 2²³ rounds a float32 in `[0, 2²²]` to the nearest integer.
const ROUND: f32 = 8_388_608.0;

/// Rounds a place to the nearest whole one, halves away from zero; places below 0 give 0.
#[inline(always)]
fn nearest_whole(at: f32) -> f32 {
    let at = at.max(0.0);
    let even = (at + ROUND) - ROUND;
    // A half was rounded to even.
    if at - even == 0.5 { even + 1.0 } else { even }
}

/// The integer that a float32 in `[0, 2²³)` is.
#[inline(always)]
fn whole_to_index(whole: f32) -> u32 {
    (whole + ROUND).to_bits() & 0x7f_ffff
}

/// Maps a picture with nearest neighbours; places outside become `fill`.
///
/// # Shapes
/// - `image`: `[side, side, 3]`
pub(crate) fn nearest(
    image: &mut [u8],
    side: usize,
    map: [f32; 6],
    fill: [u8; 3],
    scratch: &mut Vec<u8>,
) {
    // The fill is one more pixel behind the picture, so that every place has an index.
    scratch.clear();
    scratch.extend_from_slice(image);
    scratch.extend_from_slice(&fill);
    let [a, b, c, d, e, f] = map;
    if a == 1.0 && d == 0.0 && e == 1.0 && shift_rows(image, side, map, fill, scratch) {
        return;
    }

    let (source, _) = scratch.as_chunks::<3>();
    let extent = side as f32;
    let inside = |at: f32| (at > -0.5) & (at < extent - 0.5);
    let columns: Vec<f32> = (0..side).map(|x| x as f32).collect();
    let mut places = vec![(0u32, 0u32); side];
    for (y, row) in image.chunks_exact_mut(side * 3).enumerate() {
        // The order of the reference's float32 operations: (a·x + b·y) + c.
        let (by, ey) = (b * y as f32, e * y as f32);
        for (place, &x) in places.iter_mut().zip(&columns) {
            let (x_in, y_in) = ((a * x + by) + c, (d * x + ey) + f);
            let is_inside = inside(x_in) & inside(y_in);
            // The fill stands in the row behind the last one, in column 0.
            let x_in = if is_inside { nearest_whole(x_in) } else { 0.0 };
            let y_in = if is_inside { nearest_whole(y_in) } else { extent };
            *place = (whole_to_index(y_in), whole_to_index(x_in));
        }
        let (pixels, _) = row.as_chunks_mut::<3>();
        for (pixel, &(y, x)) in pixels.iter_mut().zip(&places) {
            *pixel = source[y as usize * side + x as usize];
        }
    }
}

/// Paints pixels in one colour.
pub(crate) fn paint(pixels: &mut [[u8; 3]], colour: [u8; 3]) {
    let [red, green, blue] = colour;
    if red == green && green == blue {
        // Far faster than three bytes at a time.
        pixels.as_flattened_mut().fill(red);
    } else {
        pixels.fill(colour);
    }
}

/// Maps of the form `x_in = x + b·y + c`, `y_in = y + f` move rows as a whole.
///
/// False where `f` is not whole or places are far away; then nothing is written.
fn shift_rows(
    image: &mut [u8],
    side: usize,
    [_, b, c, _, _, f]: [f32; 6],
    fill: [u8; 3],
    source: &[u8],
) -> bool {
    /// Distance from a half beyond which float32 is no danger in coordinates below 2¹³.
    const CLEARANCE: f32 = 1e-2;
    let near = |shift: f32| shift.abs() < 4096.0;
    let shifts = (0..side).map(|y| b * y as f32 + c);
    if !(f.fract() == 0.0 && near(f) && shifts.clone().all(near)) {
        return false;
    }
    let (source, _) = source.as_chunks::<3>();
    let end_of_rows = side as f32 - 0.5;
    for ((y, shift), row) in shifts.enumerate().zip(image.chunks_exact_mut(side * 3)) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        let y_in = y as f32 + f;
        let inside = |x: usize| {
            let x_in = (x as f32 + b * y as f32) + c;
            x_in > -0.5 && x_in < end_of_rows
        };
        if y_in < 0.0 || y_in > end_of_rows {
            paint(pixels, fill);
            continue;
        }
        let row_in = &source[y_in as usize * side..][..side];
        if ((shift - shift.floor()) - 0.5).abs() <= CLEARANCE {
            // Here rounding could differ from pixel to pixel.
            for (x, pixel) in pixels.iter_mut().enumerate() {
                let x_in = (x as f32 + b * y as f32) + c;
                *pixel = if inside(x) { row_in[nearest_whole(x_in) as usize] } else { fill };
            }
            continue;
        }
        // Inside is an interval, because rounding keeps the order. This guesses where it begins and
        // ends from real numbers, and corrects the guess.
        let mut start = ((-0.5 - shift).max(0.0) as usize).min(side);
        while start < side && !inside(start) {
            start += 1;
        }
        let mut end = ((end_of_rows - shift + 2.0).max(0.0) as usize).min(side);
        while end > start && !inside(end - 1) {
            end -= 1;
        }
        let end = end.max(start);
        paint(&mut pixels[..start], fill);
        paint(&mut pixels[end..], fill);
        if start < end {
            let first = (start as f32 + shift).round() as usize;
            pixels[start..end].copy_from_slice(&row_in[first..first + (end - start)]);
        }
    }
    true
}

/// Maps a picture with interpolation; places outside become `fill`.
///
/// Places are computed in float64 as in Pillow, values in float32 and not in float64: about one in
/// ten thousand is one level off.
///
/// # Shapes
/// - `image`: `[side, side, 3]`
pub(crate) fn interpolated(
    image: &mut [u8],
    side: usize,
    map: [f64; 6],
    sampling: Sampling,
    fill: [u8; 3],
    scratch: &mut Vec<u8>,
) {
    if sampling == Sampling::Nearest {
        return fixed_point_map::nearest(image, side, map, fill, scratch);
    }
    let is_cubic = sampling == Sampling::Bicubic;
    scratch.clear();
    match map {
        [1.0, b, c, 0.0, 1.0, 0.0] => {
            scratch.extend_from_slice(image);
            let slide = if is_cubic { slide_along_rows::<4> } else { slide_along_rows::<2> };
            slide(image, side, (b, c), fill, scratch);
        }
        [1.0, 0.0, 0.0, 0.0, 1.0, f] => {
            scratch.extend_from_slice(image);
            let slide = if is_cubic { slide_along_columns::<4> } else { slide_along_columns::<2> };
            slide(image, side, f, fill, scratch);
        }
        _ => {
            // A fourth value makes a pixel as wide as a register of floats.
            let mut wide = Vec::with_capacity(side * side * 4);
            for &[r, g, b] in image.as_chunks::<3>().0 {
                wide.extend([f32::from(r), f32::from(g), f32::from(b), 0.0]);
            }
            let render = if is_cubic { render_places::<4, 16> } else { render_places::<2, 8> };
            render(image, side, map, fill, &wide);
        }
    }
}

/// The whole numbers `i` in `0..side` with `0 ≤ i + ½ + shift < side`: those whose place is inside.
fn inside_after(shift: f64, side: usize) -> (usize, usize) {
    let first_from = |bound: f64| (bound.ceil().max(0.0) as usize).min(side);
    let (start, end) = (first_from(-0.5 - shift), first_from(side as f64 - 0.5 - shift));
    (start, end.max(start))
}

/// The pixel at or before a place, and the fraction behind it.
#[inline(always)]
fn split(at: f64) -> (i64, f32) {
    let whole = at.floor();
    (whole as i64, (at - whole) as f32)
}

/// Taps before the pixel that a place lies behind: none of two, one of four.
const fn before(taps: usize) -> i64 {
    taps as i64 / 2 - 1
}

/// Moves each row by `b · (y + ½) + c`: the fraction between pixels is the same all along a row.
fn slide_along_rows<const TAPS: usize>(
    image: &mut [u8],
    side: usize,
    (b, c): (f64, f64),
    fill: [u8; 3],
    source: &[u8],
) {
    let mut taps: Vec<f32> = Vec::with_capacity((side + TAPS) * 3);
    for (y, row) in image.chunks_exact_mut(side * 3).enumerate() {
        let shift = b * (y as f64 + 0.5) + c;
        let (start, end) = inside_after(shift, side);
        let (pixels, _) = row.as_chunks_mut::<3>();
        paint(&mut pixels[..start], fill);
        paint(&mut pixels[end..], fill);
        if start == end {
            continue;
        }

        // All pixels that are needed, in order; beyond the edges the outermost is repeated.
        let (whole, part) = split(shift);
        let first = start as i64 + whole - before(TAPS);
        let clamped = |at: i64| at.clamp(0, side as i64 - 1) as usize;
        let last = first + (end - start + TAPS - 1) as i64;
        let (from, to) = (clamped(first), clamped(last - 1) + 1);
        let row_in = &source[y * side * 3..(y + 1) * side * 3];
        taps.clear();
        for _ in first..from as i64 {
            taps.extend(row_in[..3].iter().map(|&value| f32::from(value)));
        }
        taps.extend(row_in[from * 3..to * 3].iter().map(|&value| f32::from(value)));
        for _ in to as i64..last {
            taps.extend(row_in[side * 3 - 3..].iter().map(|&value| f32::from(value)));
        }

        let out = &mut row[start * 3..end * 3];
        let count = out.len();
        let taps: [&[f32]; TAPS] = std::array::from_fn(|tap| &taps[tap * 3..][..count]);
        for (at, value) in out.iter_mut().enumerate() {
            *value = to_value(between(taps.map(|tap| tap[at]), part));
        }
    }
}

/// Moves all rows by `f`: the fraction between rows is the same everywhere.
fn slide_along_columns<const TAPS: usize>(
    image: &mut [u8],
    side: usize,
    f: f64,
    fill: [u8; 3],
    source: &[u8],
) {
    let width = side * 3;
    let (start, end) = inside_after(f, side);
    let (whole, part) = split(f);
    for (y, row) in image.chunks_exact_mut(width).enumerate() {
        if !(start..end).contains(&y) {
            paint(row.as_chunks_mut::<3>().0, fill);
            continue;
        }
        let taps: [&[u8]; TAPS] = std::array::from_fn(|tap| {
            let tap = y as i64 + whole - before(TAPS) + tap as i64;
            &source[tap.clamp(0, side as i64 - 1) as usize * width..][..width]
        });
        for (at, value) in row.iter_mut().enumerate() {
            *value = to_value(between(taps.map(|tap| f32::from(tap[at])), part));
        }
    }
}

/// A place between pixels, as what [`render_inner`] needs of it.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Start of the first tap of the first row, in values of the source.
    offset: u32,
    x_part: f32,
    y_part: f32,
}

/// Any map. `LANES` is `4 · TAPS`: the values of the taps in a row.
///
/// Along a row of the result the places move in one direction, and rounding keeps that order. So those
/// inside the picture are neighbours, and so are those all of whose taps are inside: only few at the
/// edges need care.
fn render_places<const TAPS: usize, const LANES: usize>(
    image: &mut [u8],
    side: usize,
    [a, b, c, d, e, f]: [f64; 6],
    fill: [u8; 3],
    source: &[f32],
) {
    let extent = side as f64;
    // A tap before the place and one behind it at the least.
    let (low, high) =
        (before(TAPS) as f64 + 0.5, extent - (TAPS - 1) as f64 + before(TAPS) as f64 + 0.5);
    let columns: Vec<f64> = (0..side).map(|x| x as f64 + 0.5).collect();
    let mut places = vec![Place::default(); side];
    for (y, row) in image.chunks_exact_mut(side * 3).enumerate() {
        let (pixels, _) = row.as_chunks_mut::<3>();
        let y_out = y as f64 + 0.5;
        let (by, ey) = (b * y_out, e * y_out);
        let place = |x_out: f64| (a * x_out + by + c, d * x_out + ey + f);
        let within = |low: f64, high: f64| {
            move |x: usize| {
                let (x_in, y_in) = place(x as f64 + 0.5);
                (x_in >= low) & (x_in < high) & (y_in >= low) & (y_in < high)
            }
        };
        let inside = interval(0..side, within(0.0, extent));
        let inner = interval(inside.clone(), within(low, high));
        paint(&mut pixels[..inside.start], fill);
        paint(&mut pixels[inside.end..], fill);
        for x in (inside.start..inner.start).chain(inner.end..inside.end) {
            pixels[x] = at_edge::<TAPS, LANES>(place(x as f64 + 0.5), side, source);
        }

        let first = before(TAPS) as f64;
        let places = &mut places[inner.clone()];
        for (kept, &x_out) in places.iter_mut().zip(&columns[inner.clone()]) {
            let (x_in, y_in) = place(x_out);
            let (x_at, y_at) = (x_in - 0.5, y_in - 0.5);
            let (x_whole, y_whole) = (floor(x_at), floor(y_at));
            let pixel = (y_whole - first) * extent + (x_whole - first);
            *kept = Place {
                offset: index_of(pixel) * 4,
                x_part: (x_at - x_whole) as f32,
                y_part: (y_at - y_whole) as f32,
            };
        }
        for (pixel, &place) in pixels[inner].iter_mut().zip(&*places) {
            *pixel = in_the_middle::<TAPS, LANES>(place, side * 4, source);
        }
    }
}

/// The part of `range` where `holds`, which must be true of neighbours only.
fn interval(mut range: Range<usize>, holds: impl Fn(usize) -> bool) -> Range<usize> {
    while !range.is_empty() && !holds(range.start) {
        range.start += 1;
    }
    while !range.is_empty() && !holds(range.end - 1) {
        range.end -= 1;
    }
    range
}

/// Adding and taking away 1.5 · 2⁵² rounds a float64 of less than 2⁵¹ to an integer.
const ROUND_F64: f64 = 6_755_399_441_055_744.0;

/// `at.floor()` for places near the picture. Where the processor has no instruction for that function,
/// as the oldest x86-64, it is a call for every place, and the loop around it has no vector form.
#[inline(always)]
fn floor(at: f64) -> f64 {
    let whole = (at + ROUND_F64) - ROUND_F64;
    whole - f64::from(u8::from(whole > at))
}

/// The integer that a float64 in `[0, 2³²)` is.
#[inline(always)]
fn index_of(whole: f64) -> u32 {
    (whole + ROUND_F64).to_bits() as u32
}

/// The pixel at a place all of whose taps are in the picture.
#[inline(always)]
fn in_the_middle<const TAPS: usize, const LANES: usize>(
    Place { offset, x_part, y_part }: Place,
    stride: usize,
    source: &[f32],
) -> [u8; 3] {
    let rows: [[f32; LANES]; TAPS] = std::array::from_fn(|tap| {
        let mut values = [0.0; LANES];
        values.copy_from_slice(&source[offset as usize + tap * stride..][..LANES]);
        values
    });
    between_rows_and_columns(&rows, x_part, y_part)
}

/// The pixel at a place some of whose taps may be outside: there the outermost pixel is repeated.
fn at_edge<const TAPS: usize, const LANES: usize>(
    (x_in, y_in): (f64, f64),
    side: usize,
    source: &[f32],
) -> [u8; 3] {
    let last = side as i64 - 1;
    let (x_whole, x_part) = split(x_in - 0.5);
    let (y_whole, y_part) = split(y_in - 0.5);
    let (left, top) = (x_whole - before(TAPS), y_whole - before(TAPS));
    let rows: [[f32; LANES]; TAPS] = std::array::from_fn(|tap| {
        let start = (top + tap as i64).clamp(0, last) as usize * side * 4;
        let row = &source[start..start + side * 4];
        let mut values = [0.0; LANES];
        for (tap, value) in values.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let at = (left + tap as i64).clamp(0, last) as usize * 4;
            value.copy_from_slice(&row[at..at + 4]);
        }
        values
    });
    between_rows_and_columns(&rows, x_part, y_part)
}

/// First between rows, where all taps of a row are one vector.
#[inline(always)]
fn between_rows_and_columns<const TAPS: usize, const LANES: usize>(
    rows: &[[f32; LANES]; TAPS],
    x_part: f32,
    y_part: f32,
) -> [u8; 3] {
    let column: [f32; LANES] = lanes_between(rows, y_part);
    let mut columns = [[0.0f32; 4]; TAPS];
    columns.as_flattened_mut().copy_from_slice(&column);
    let [r, g, b, _] = lanes_between(&columns, x_part).map(to_value);
    [r, g, b]
}

#[inline(always)]
fn lanes_between<const TAPS: usize, const LANES: usize>(
    taps: &[[f32; LANES]; TAPS],
    part: f32,
) -> [f32; LANES] {
    let mut values = [0.0; LANES];
    for (lane, value) in values.iter_mut().enumerate() {
        *value = between(std::array::from_fn::<_, TAPS, _>(|tap| taps[tap][lane]), part);
    }
    values
}

/// Pillow's polynomials through two or four neighbours.
#[inline(always)]
fn between<const TAPS: usize>(taps: [f32; TAPS], part: f32) -> f32 {
    if TAPS == 2 {
        return taps[0] + (taps[1] - taps[0]) * part;
    }
    let [v1, v2, v3, v4] = std::array::from_fn(|tap| taps[tap % TAPS]);
    let (p2, p3) = (v3 - v1, 2.0 * (v1 - v2) + v3 - v4);
    let p4 = v2 - v1 - v3 + v4;
    v2 + part * (p2 + part * (p3 + part * p4))
}

/// Cuts off what is outside of the values and behind the point.
#[inline(always)]
fn to_value(value: f32) -> u8 {
    truncate(value.clamp(0.0, 255.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::random::ExampleRng;

    const FILL: [u8; 3] = [1, 2, 3];

    fn noise(side: usize) -> Vec<u8> {
        let mut rng = ExampleRng::new(0, 0, 0, 0);
        (0..side * side * 3).map(|_| rng.next_u64() as u8).collect()
    }

    /// One place at a time, with the rounding of the C++ standard.
    fn slow_nearest(image: &[u8], side: usize, [a, b, c, d, e, f]: [f32; 6]) -> Vec<u8> {
        let mut out = Vec::new();
        for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y as f32, x as f32))) {
            let (x_in, y_in) = ((a * x + b * y) + c, (d * x + e * y) + f);
            let (x_in, y_in) = (x_in.round() as i64, y_in.round() as i64);
            if (0..side as i64).contains(&x_in) && (0..side as i64).contains(&y_in) {
                let at = (y_in as usize * side + x_in as usize) * 3;
                out.extend_from_slice(&image[at..at + 3]);
            } else {
                out.extend(FILL);
            }
        }
        out
    }

    #[test]
    fn fast_paths_equal_one_place_at_a_time() {
        let mut scratch = Vec::new();
        for side in [1, 2, 7, 32] {
            let image = noise(side);
            let mut maps = vec![
                [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
                [1.0, 0.5, 0.0, 0.0, 1.0, 0.0],
                [1.0, 0.0, 2.5, 0.0, 1.0, 0.0],
                [1.0, 0.0, 0.0, 0.0, 1.0, -2.5],
                [0.5, 0.0, 0.5, 0.0, 0.5, 0.5],
                [f32::NAN, 0.0, 0.0, 0.0, 1.0, 0.0],
                [1.0, 0.0, f32::INFINITY, 0.0, 1.0, 0.0],
            ];
            for step in -20..=20 {
                let level = step as f32;
                maps.push([1.0, level * 0.03, 0.0, 0.0, 1.0, 0.0]);
                maps.push([1.0, 0.0, 0.0, level * 0.03, 1.0, 0.0]);
                maps.push([1.0, 0.0, level * 10.0, 0.0, 1.0, 0.0]);
                maps.push([1.0, 0.0, level * 1.3, 0.0, 1.0, 0.0]);
                maps.push([1.0, 0.0, 0.0, 0.0, 1.0, level]);
                maps.push(tensorflow_rotation(f64::from(step) * 4.5, side));
            }
            for map in maps {
                let mut found = image.clone();
                nearest(&mut found, side, map, FILL, &mut scratch);
                if map.iter().all(|value| value.is_finite()) {
                    assert_eq!(found, slow_nearest(&image, side, map), "{side} {map:?}");
                }
            }
        }
    }

    #[test]
    fn no_movement_is_the_picture_and_right_angles_turn_it() {
        let side = 6;
        let image = noise(side);
        for sampling in [Sampling::Bilinear, Sampling::Bicubic] {
            for (map, turns) in [(pillow_rotation(0.0, side), 0), (pillow_rotation(90.0, side), 1)]
            {
                let mut found = image.clone();
                interpolated(&mut found, side, map, sampling, FILL, &mut Vec::new());
                for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
                    let from = if turns == 0 { (y, x) } else { (x, side - 1 - y) };
                    let (at, from) = ((y * side + x) * 3, (from.0 * side + from.1) * 3);
                    assert_eq!(found[at..at + 3], image[from..from + 3], "{sampling:?} {turns}");
                }
            }
        }
    }

    #[test]
    fn sliding_equals_one_place_at_a_time() {
        for side in [1, 2, 5, 33] {
            let image = noise(side);
            let pixels = image.as_chunks::<3>().0.iter();
            let wide: Vec<f32> =
                pixels.flat_map(|&[r, g, b]| [r, g, b, 0].map(f32::from)).collect();
            for step in -25..=25 {
                let shift = f64::from(step) * 0.37;
                for map in [
                    [1.0, shift * 0.1, 0.0, 0.0, 1.0, 0.0],
                    [1.0, 0.0, shift, 0.0, 1.0, 0.0],
                    [1.0, 0.0, 0.0, 0.0, 1.0, shift],
                    [1.0, 0.0, 0.0, 0.0, 1.0, f64::from(step)],
                    [1.0, 0.0, f64::from(step) * 0.5, 0.0, 1.0, 0.0],
                ] {
                    for sampling in [Sampling::Bilinear, Sampling::Bicubic] {
                        let (mut found, mut expected) = (image.clone(), image.clone());
                        interpolated(&mut found, side, map, sampling, FILL, &mut Vec::new());
                        match sampling {
                            Sampling::Nearest => continue,
                            Sampling::Bilinear => {
                                render_places::<2, 8>(&mut expected, side, map, FILL, &wide);
                            }
                            Sampling::Bicubic => {
                                render_places::<4, 16>(&mut expected, side, map, FILL, &wide);
                            }
                        }
                        let most = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
                        assert!(most <= Some(1), "{side} {map:?} {sampling:?}: {most:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_flat_picture_stays_flat_inside() {
        let side = 9;
        for sampling in [Sampling::Bilinear, Sampling::Bicubic] {
            let mut found = vec![200; side * side * 3];
            let map = pillow_rotation(17.0, side);
            interpolated(&mut found, side, map, sampling, [200; 3], &mut Vec::new());
            assert!(found.iter().all(|value| *value == 200));
        }
    }
}
