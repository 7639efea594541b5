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
    // Three at a time, which is what the compiler does best with.
    map_channels(image, &[*table; 3]);
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

/// Counts of each value in each channel.
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
#[inline(always)]
pub(crate) fn truncate(value: f32) -> u8 {
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
    let mut smoother = match arithmetic {
        Arithmetic::TensorFlow => Smoother::Floats(vec![0.0; width * 6]),
        Arithmetic::Pillow => Smoother::Integers(vec![0; width]),
    };
    for y in 1..side - 1 {
        smoother.smooth(scratch, width, y, &mut smooth);
        let row = &mut image[y * width..(y + 1) * width];
        blend_rows(&smooth, &mut row[3..width - 3], factor);
    }
}

/// Smooths rows of a picture from top to bottom, with working memory.
enum Smoother {
    /// As TensorFlow's depthwise convolution: three rows times 1 / 13, and three times 5 / 13, each
    /// at the place of its number modulo 3.
    Floats(Vec<f32>),
    /// As Pillow's filter: sums over three rows.
    Integers(Vec<u16>),
}

impl Smoother {
    /// Smooths row `y` of a picture with rows of `width` values, but for its first and last pixel.
    ///
    /// Rows must come one after the other, from 1.
    fn smooth(&mut self, image: &[u8], width: usize, y: usize, smooth: &mut [u8]) {
        match self {
            Self::Floats(scaled) => {
                let new = if y == 1 { 0..3 } else { y + 1..y + 2 };
                for row in new {
                    scale_row(&image[row * width..][..width], row, scaled);
                }
                smooth_floats(scaled, width, y, smooth);
            }
            Self::Integers(sums) => {
                let rows = &image[(y - 1) * width..(y + 2) * width];
                smooth_integers(rows, width, sums, smooth);
            }
        }
    }
}

/// Scales a row by both weights of the smoothing.
fn scale_row(values: &[u8], row: usize, scaled: &mut [f32]) {
    const EDGE: f32 = 1.0 / 13.0;
    const MIDDLE: f32 = 5.0 / 13.0;
    let width = values.len();
    let (edges, middles) = scaled.split_at_mut(3 * width);
    let edges = &mut edges[row % 3 * width..][..width];
    let middles = &mut middles[row % 3 * width..][..width];
    for ((edge, middle), &value) in edges.iter_mut().zip(middles).zip(values) {
        *edge = f32::from(value) * EDGE;
        *middle = f32::from(value) * MIDDLE;
    }
}

/// Adds up nine scaled values in TensorFlow's order.
///
/// Where the sum is a whole number, the float lies on either side of it, and truncation makes a level
/// of that.
fn smooth_floats(scaled: &[f32], width: usize, y: usize, smooth: &mut [u8]) {
    let count = smooth.len();
    let row =
        |above: usize, column: usize| &scaled[(y + 2 + above) % 3 * width + column * 3..][..count];
    let [a, b, c] = [row(0, 0), row(0, 1), row(0, 2)];
    let [d, f] = [row(1, 0), row(1, 2)];
    let [g, h, i] = [row(2, 0), row(2, 1), row(2, 2)];
    let e = &scaled[(3 + y % 3) * width + 3..][..count];
    for at in 0..count {
        let sum = a[at] + b[at] + c[at] + d[at] + e[at] + f[at] + g[at] + h[at] + i[at];
        smooth[at] = truncate(sum.min(255.0));
    }
}

/// Adds up nine values and rounds the thirteenth part to nearest; 13 is odd, so there are no halves.
fn smooth_integers(rows: &[u8], width: usize, sums: &mut [u16], smooth: &mut [u8]) {
    let [above, middle, below] = [0, 1, 2].map(|row| &rows[row * width..][..width]);
    for (at, sum) in sums.iter_mut().enumerate() {
        *sum = u16::from(above[at]) + u16::from(middle[at]) + u16::from(below[at]);
    }
    let count = smooth.len();
    let [left, centre, right] = [0, 3, 6].map(|from| &sums[from..][..count]);
    let middle = &middle[3..][..count];
    for at in 0..count {
        let sum = left[at] + centre[at] + right[at] + 4 * u16::from(middle[at]) + 6;
        smooth[at] = thirteenth(sum) as u8;
    }
}

/// `⌊sum / 13⌋` for sums below 2¹²: 5042 / 2¹⁶ is above 1 / 13 by too little to matter.
#[inline(always)]
fn thirteenth(sum: u16) -> u16 {
    ((u32::from(sum) * 5_042) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::random::ExampleRng;

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
        for sum in 0..1 << 12 {
            assert_eq!(thirteenth(sum), sum / 13);
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
