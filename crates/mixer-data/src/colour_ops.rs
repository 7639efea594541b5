//! Distortions that leave every pixel in its place: tables, histograms, blending and smoothing.
//!
//! Two programs define them, big_vision in TensorFlow and timm in Pillow, and they round
//! differently. [`Arithmetic`] says whose roundings are followed; where none is asked for, both agree.
//! PARITY: `big_vision/pp/archive/autoaugment.py` (big_vision at 3925d42) under TensorFlow 2.21;
//! `ImageOps`, `ImageEnhance` and `ImageFilter.SMOOTH` of Pillow 13.0.0.

/// Whose roundings a distortion follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// float32 in the order of TensorFlow's operations.
    TensorFlow,
    /// Pillow's C code.
    Pillow,
}

/// Replaces every value by its entry in a table.
fn map_values(image: &mut [u8], table: &[u8; 256]) {
    for value in image {
        *value = table[usize::from(*value)];
    }
}

/// Replaces every value by its entry in the table of its channel.
fn map_channels(image: &mut [u8], tables: &[[u8; 256]; 3]) {
    let (pixels, _) = image.as_chunks_mut::<3>();
    let [red, green, blue] = tables;
    for pixel in pixels {
        let [r, g, b] = *pixel;
        *pixel = [red[usize::from(r)], green[usize::from(g)], blue[usize::from(b)]];
    }
}

/// How often each value occurs in each channel.
fn histograms(image: &[u8]) -> [[u32; 256]; 3] {
    // Neighbouring pixels are often equal, and counting one value twice in a row waits for the first
    // count to reach memory: so neighbours count in different tables.
    let mut even = [[0u32; 256]; 3];
    let mut odd = [[0u32; 256]; 3];
    let (pairs, rest) = image.as_chunks::<6>();
    for pair in pairs {
        for channel in 0..3 {
            even[channel][usize::from(pair[channel])] += 1;
            odd[channel][usize::from(pair[3 + channel])] += 1;
        }
    }
    for (channel, &value) in rest.iter().enumerate() {
        even[channel % 3][usize::from(value)] += 1;
    }
    for (even, odd) in even.iter_mut().flatten().zip(odd.iter().flatten()) {
        *even += odd;
    }
    even
}

/// Smallest and largest value of each channel.
fn channel_ranges(image: &[u8]) -> [(u8, u8); 3] {
    // A multiple of three and of sixteen, so that a lane keeps its channel and lanes fill registers.
    const LANES: usize = 48;
    let (mut low, mut high) = ([u8::MAX; LANES], [0u8; LANES]);
    let (blocks, rest) = image.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            low[lane] = low[lane].min(block[lane]);
            high[lane] = high[lane].max(block[lane]);
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        low[lane] = low[lane].min(value);
        high[lane] = high[lane].max(value);
    }
    std::array::from_fn(|channel| {
        (channel..LANES)
            .step_by(3)
            .fold((u8::MAX, 0), |(least, most), lane| (least.min(low[lane]), most.max(high[lane])))
    })
}

/// The table that stretches `low..=high` over all values; TensorFlow computes it in float32, Pillow in
/// float64.
fn stretch(low: u8, high: u8, arithmetic: Arithmetic) -> [u8; 256] {
    let identity = std::array::from_fn(|value| value as u8);
    if high <= low {
        return identity;
    }
    match arithmetic {
        Arithmetic::TensorFlow => {
            let scale = 255.0 / (f32::from(high) - f32::from(low));
            let offset = -f32::from(low) * scale;
            // A cast truncates and saturates, which is the clipping of the reference.
            identity.map(|value| (f32::from(value) * scale + offset) as u8)
        }
        Arithmetic::Pillow => {
            let scale = 255.0 / f64::from(high - low);
            let offset = -f64::from(low) * scale;
            identity.map(|value| (f64::from(value) * scale + offset) as u8)
        }
    }
}

/// Stretches each channel so that its darkest value becomes 0 and its brightest 255.
pub(crate) fn autocontrast(image: &mut [u8], arithmetic: Arithmetic) {
    let tables = channel_ranges(image).map(|(low, high)| stretch(low, high, arithmetic));
    map_channels(image, &tables);
}

/// The table that makes the values of a channel about equally frequent.
fn equalizing_table(histogram: &[u32; 256]) -> [u8; 256] {
    let total: u32 = histogram.iter().sum();
    let most_bright = histogram.iter().rev().find(|&&count| count != 0).copied().unwrap_or(0);
    let step = (total - most_bright) / 255;
    let mut sum = step / 2;
    std::array::from_fn(|value| {
        let mapped = sum.checked_div(step).map_or(value as u32, |mapped| mapped.min(255));
        sum += histogram[value];
        mapped as u8
    })
}

/// Equalizes the histogram of each channel.
pub(crate) fn equalize(image: &mut [u8]) {
    let tables = histograms(image).map(|histogram| equalizing_table(&histogram));
    map_channels(image, &tables);
}

/// Turns the picture into its negative.
pub(crate) fn invert(image: &mut [u8]) {
    for value in image {
        *value = !*value;
    }
}

/// Keeps the `bits` highest bits of every value, at most all of them.
pub(crate) fn posterize(image: &mut [u8], bits: u8) {
    let mask = match bits {
        0 => 0,
        1..8 => u8::MAX << (8 - bits),
        8.. => return,
    };
    for value in image {
        *value &= mask;
    }
}

/// Inverts the values from `threshold` on.
pub(crate) fn solarize(image: &mut [u8], threshold: u16) {
    let Ok(threshold) = u8::try_from(threshold) else {
        return;
    };
    for value in image {
        *value = if *value < threshold { *value } else { !*value };
    }
}

/// Adds to the values below 128.
pub(crate) fn solarize_add(image: &mut [u8], addition: u8) {
    for value in image {
        *value = if *value < 128 { value.saturating_add(addition) } else { *value };
    }
}

/// `from + factor · (to - from)` in float32, clipped to a value and truncated.
///
/// A factor of 0 gives `from`, 1 gives `to`, and above 1 differences grow. Both references compute
/// the same.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let mixed = f32::from(from) + factor * (f32::from(to) - f32::from(from));
    truncate(mixed.clamp(0.0, 255.0))
}

/// The integer part of a number in `[0, 255]`.
///
/// It equals `value as u8`. That cast also defines what becomes of NaN and of overflow, and then the
/// compiler does not find the vector form of the loop around it.
fn truncate(value: f32) -> u8 {
    /// Adding 2²³ rounds to an integer, whose bits are the lowest of the sum.
    const ROUND: f32 = 8_388_608.0;
    let shifted = value + ROUND;
    let above = u32::from(shifted - ROUND > value);
    shifted.to_bits().wrapping_sub(above) as u8
}

fn blend_rows(from: &[u8], to: &mut [u8], factor: f32) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = blend(from, *to, factor);
    }
}

/// The brightness of a pixel, as both references convert RGB to grey.
struct Grey {
    arithmetic: Arithmetic,
    tables: [[f32; 256]; 3],
}

impl Grey {
    fn new(arithmetic: Arithmetic) -> Self {
        let tables = match arithmetic {
            Arithmetic::TensorFlow => [0.2989f32, 0.5870, 0.1140]
                .map(|weight| std::array::from_fn(|value| value as f32 * (1.0 / 255.0) * weight)),
            // Integers below 2²⁴, and so are their sums: nothing is rounded.
            Arithmetic::Pillow => [19_595u32, 38_470, 7_471]
                .map(|weight| std::array::from_fn(|value| (value as u32 * weight) as f32)),
        };
        Self { arithmetic, tables }
    }

    #[inline(always)]
    fn of(&self, [r, g, b]: [u8; 3]) -> u8 {
        let [red, green, blue] = &self.tables;
        let sum = red[usize::from(r)] + green[usize::from(g)] + blue[usize::from(b)];
        match self.arithmetic {
            Arithmetic::TensorFlow => truncate(sum * 255.5),
            Arithmetic::Pillow => truncate((sum + 32_768.0) * (1.0 / 65_536.0)),
        }
    }
}

/// Blends with the grey picture: 0 is grey, 1 is the picture, above 1 is more colourful.
pub(crate) fn colour(image: &mut [u8], side: usize, factor: f32, arithmetic: Arithmetic) {
    if factor == 1.0 {
        return;
    }
    let grey = Grey::new(arithmetic);
    let mut grey_row = vec![0u8; side * 3];
    for row in image.chunks_exact_mut(side * 3) {
        let (pixels, _) = row.as_chunks::<3>();
        let (greys, _) = grey_row.as_chunks_mut::<3>();
        for (grey_pixel, &pixel) in greys.iter_mut().zip(pixels) {
            *grey_pixel = [grey.of(pixel); 3];
        }
        blend_rows(&grey_row, row, factor);
    }
}

/// Blends with the constant picture of the mean brightness.
pub(crate) fn contrast(image: &mut [u8], factor: f32, arithmetic: Arithmetic) {
    if factor == 1.0 {
        return;
    }
    let grey = Grey::new(arithmetic);
    let (pixels, _) = image.as_chunks::<3>();
    let sum: u64 = pixels.iter().map(|&pixel| u64::from(grey.of(pixel))).sum();
    let mean = match arithmetic {
        Arithmetic::TensorFlow => (sum as f32 / pixels.len() as f32) as u8,
        Arithmetic::Pillow => (sum as f64 / pixels.len() as f64 + 0.5) as u8,
    };
    map_values(image, &std::array::from_fn(|value| blend(mean, value as u8, factor)));
}

/// Blends with black: the values times `factor`.
pub(crate) fn brightness(image: &mut [u8], factor: f32) {
    map_values(image, &std::array::from_fn(|value| blend(0, value as u8, factor)));
}

/// Blends with the picture after a 3 × 3 smoothing of weights 1, and 5 in the middle, over 13; 0 is
/// smooth, above 1 is sharper. The outermost pixels stay.
pub(crate) fn sharpness(
    image: &mut [u8],
    side: usize,
    factor: f32,
    arithmetic: Arithmetic,
    scratch: &mut Vec<u8>,
) {
    if factor == 1.0 || side < 3 {
        return;
    }
    let width = side * 3;
    scratch.clear();
    scratch.extend_from_slice(image);
    let mut smooth = vec![0u8; width - 6];
    let mut rows = Vec::new();
    if arithmetic == Arithmetic::TensorFlow {
        rows = scratch.iter().map(|&value| f32::from(value)).collect::<Vec<f32>>();
    }
    for y in 1..side - 1 {
        let start = (y - 1) * width;
        match arithmetic {
            Arithmetic::TensorFlow => smooth_floats(&rows[start..], width, &mut smooth),
            Arithmetic::Pillow => smooth_integers(&scratch[start..], width, &mut smooth),
        }
        let row = &mut image[y * width..(y + 1) * width];
        blend_rows(&smooth, &mut row[3..width - 3], factor);
    }
}

/// Smooths the middle one of three rows of `width` values, without its first and last pixel.
///
/// The sum is added up in the order of TensorFlow's depthwise convolution. Where it is a multiple of
/// 13 the float lies on either side of the integer, and truncation makes a whole level of it.
fn smooth_floats(rows: &[f32], width: usize, smooth: &mut [u8]) {
    const EDGE: f32 = 1.0 / 13.0;
    const MIDDLE: f32 = 5.0 / 13.0;
    let count = smooth.len();
    let tap = |row: usize, column: usize| &rows[row * width + column * 3..][..count];
    let [a, b, c] = [tap(0, 0), tap(0, 1), tap(0, 2)];
    let [d, e, f] = [tap(1, 0), tap(1, 1), tap(1, 2)];
    let [g, h, i] = [tap(2, 0), tap(2, 1), tap(2, 2)];
    for at in 0..count {
        let mut sum = a[at] * EDGE + b[at] * EDGE;
        sum += c[at] * EDGE;
        sum += d[at] * EDGE;
        sum += e[at] * MIDDLE;
        sum += f[at] * EDGE;
        sum += g[at] * EDGE;
        sum += h[at] * EDGE;
        sum += i[at] * EDGE;
        smooth[at] = truncate(sum.clamp(0.0, 255.0));
    }
}

/// The same in integers, rounded to nearest as Pillow's: 13 is odd, so there are no halves.
fn smooth_integers(rows: &[u8], width: usize, smooth: &mut [u8]) {
    let count = smooth.len();
    let tap = |row: usize, column: usize| &rows[row * width + column * 3..][..count];
    let [a, b, c] = [tap(0, 0), tap(0, 1), tap(0, 2)];
    let [d, e, f] = [tap(1, 0), tap(1, 1), tap(1, 2)];
    let [g, h, i] = [tap(2, 0), tap(2, 1), tap(2, 2)];
    for at in 0..count {
        let sum = u16::from(a[at]) + u16::from(b[at]) + u16::from(c[at]);
        let sum = sum + u16::from(d[at]) + 5 * u16::from(e[at]) + u16::from(f[at]);
        let sum = sum + u16::from(g[at]) + u16::from(h[at]) + u16::from(i[at]);
        // ⌊(sum + 6) / 13⌋: 5042 / 2¹⁶ is above 1 / 13 by too little to matter below 2¹².
        smooth[at] = ((u32::from(sum + 6) * 5_042) >> 16) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::ExampleRng;

    fn noise(len: usize) -> Vec<u8> {
        let mut rng = ExampleRng::new(0, 0, 0, 0);
        (0..len).map(|_| rng.next_u64() as u8).collect()
    }

    #[test]
    fn truncation_equals_the_cast() {
        for step in 0..=255 * 1024 {
            let value = step as f32 / 1024.0;
            for value in [value, value.next_down().max(0.0), value.next_up().min(255.0)] {
                assert_eq!(truncate(value), value as u8, "{value}");
            }
        }
    }

    #[test]
    fn thirteenths_by_multiplication_are_exact() {
        for sum in 0..=13 * 255u16 {
            assert_eq!((u32::from(sum + 6) * 5_042) >> 16, u32::from((sum + 6) / 13));
        }
    }

    #[test]
    fn a_factor_of_one_changes_nothing_and_zero_gives_the_other_end() {
        let image = noise(8 * 8 * 3);
        for arithmetic in [Arithmetic::TensorFlow, Arithmetic::Pillow] {
            let mut found = image.clone();
            colour(&mut found, 8, 1.0, arithmetic);
            contrast(&mut found, 1.0, arithmetic);
            brightness(&mut found, 1.0);
            sharpness(&mut found, 8, 1.0, arithmetic, &mut Vec::new());
            assert_eq!(found, image);
            colour(&mut found, 8, 0.0, arithmetic);
            assert!(found.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b));
            contrast(&mut found, 0.0, arithmetic);
            assert!(found.iter().all(|value| *value == found[0]));
            brightness(&mut found, 0.0);
            assert!(found.iter().all(|value| *value == 0));
        }
    }

    #[test]
    fn ranges_and_histograms_count_every_value_once() {
        for pixels in [1, 2, 15, 16, 17, 97] {
            let image = noise(pixels * 3);
            let counts = histograms(&image);
            for (channel, (low, high)) in channel_ranges(&image).into_iter().enumerate() {
                let values: Vec<u8> = image.iter().skip(channel).step_by(3).copied().collect();
                assert_eq!((Some(&low), Some(&high)), (values.iter().min(), values.iter().max()));
                for value in 0..=255u8 {
                    let expected = values.iter().filter(|&&other| other == value).count();
                    assert_eq!(counts[channel][usize::from(value)], expected as u32);
                }
            }
        }
    }

    #[test]
    fn inverting_twice_and_equalizing_a_flat_picture_change_nothing() {
        let image = noise(48);
        let mut found = image.clone();
        invert(&mut found);
        assert_ne!(found, image);
        invert(&mut found);
        assert_eq!(found, image);
        let mut flat = vec![77; 48];
        equalize(&mut flat);
        autocontrast(&mut flat, Arithmetic::Pillow);
        assert_eq!(flat, [77; 48]);
    }
}
