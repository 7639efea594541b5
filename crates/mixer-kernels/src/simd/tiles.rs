//! Products of whole tiles of bf16, where a processor has registers for matrices.

/// Rows of a tile, and words in a row of it.
pub(crate) const TILE: usize = 16;

/// One product of up to 32 rows and 32 columns: `to = left · right`, or `to += left · right`.
///
/// Depth comes in `steps` of `words` words, two bf16 to a word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileProduct {
    /// Rows of 16 words, one behind the other.
    pub(crate) left: *const f32,
    /// Words from one step of the left operand to the next.
    pub(crate) left_step: usize,
    /// Rows of 32 words, one for each word of depth.
    pub(crate) right: *const f32,
    /// Steps of depth, at least one.
    pub(crate) steps: usize,
    /// Words of depth in a step, 1 to 16.
    pub(crate) words: usize,
    /// Rows of 32 floats.
    pub(crate) to: *mut f32,
    /// Floats from one row of the result to the next.
    pub(crate) to_row: usize,
    /// Rows of the result, 1 to 32.
    pub(crate) rows: usize,
    /// True where the product is added to what is there.
    pub(crate) accumulate: bool,
}

/// A processor's registers for matrices; a value is the proof that it has them.
///
/// One step of one element is the "Operation" of TDPBF16PS in the "Intel 64 and IA-32 Architectures
/// Software Developer's Manual", volume 2: the products of the low halves of the words are summed from
/// zero in the order of depth, those of the high halves by themselves, each product and sum in one
/// rounding to the nearest; then the two are added, and that to the result. Subnormal numbers are zero
/// everywhere, whatever MXCSR says. Intel's Intrinsics Guide abridges this to one sum, which begins with the
/// result; that processors do as the manual says is assumed, and compared with none.
pub(crate) trait Tiles: Copy + Send + Sync {
    /// Carries out the product, and leaves no state behind.
    ///
    /// # Safety
    /// All of it must be there.
    unsafe fn product(self, product: &TileProduct);
}

/// The type of a processor without them, of which there is no value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NoTiles {}

impl Tiles for NoTiles {
    unsafe fn product(self, _: &TileProduct) {
        match self {}
    }
}

/// The same arithmetic in plain Rust, for tests on processors without tiles.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Twin;

#[cfg(test)]
impl Tiles for Twin {
    unsafe fn product(self, product: &TileProduct) {
        let TileProduct { left, left_step, right, steps, words, to, to_row, rows, accumulate } =
            *product;
        assert!((1..=TILE).contains(&words) && (1..=2 * TILE).contains(&rows));
        let normal = |x: f32| if x.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(x) } else { x };
        let halves = |word: f32| {
            let bits = word.to_bits();
            [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)].map(normal)
        };
        // f64 holds the product, and enough of the sum for one rounding in the end.
        let multiply_add = |a: f32, b: f32, sum: f32| {
            normal((f64::from(a) * f64::from(b) + f64::from(sum)) as f32)
        };
        for row in 0..rows {
            // SAFETY: the caller's promise.
            unsafe {
                let to = to.add(row * to_row).cast::<[f32; 2 * TILE]>();
                let start = if accumulate { to.read_unaligned() } else { [0.0; 2 * TILE] };
                let mut result = start.map(normal);
                for step in 0..steps {
                    let mut sums = [[0.0; 2]; 2 * TILE];
                    for word in 0..words {
                        let a = halves(*left.add(step * left_step + row * TILE + word));
                        let line = right.add((step * TILE + word) * 2 * TILE);
                        let line = line.cast::<[f32; 2 * TILE]>().read_unaligned();
                        for (sums, b) in sums.iter_mut().zip(line.map(halves)) {
                            *sums = [0, 1].map(|half| multiply_add(a[half], b[half], sums[half]));
                        }
                    }
                    for (result, [low, high]) in result.iter_mut().zip(sums) {
                        *result = normal(*result + normal(low + high));
                    }
                }
                to.write_unaligned(result);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `start` plus words of `[low, high]` times one, by the twin in one step.
    fn sum(start: f32, words: &[[f32; 2]]) -> f32 {
        let word = |[low, high]: [f32; 2]| f32::from_bits(low.to_bits() >> 16 | high.to_bits());
        let left: Vec<f32> = words.iter().copied().map(word).collect();
        let right = vec![word([1.0, 1.0]); words.len() * 2 * TILE];
        let mut to = [start; 2 * TILE];
        let product = TileProduct {
            left: left.as_ptr(),
            left_step: 0,
            right: right.as_ptr(),
            steps: 1,
            words: words.len(),
            to: to.as_mut_ptr(),
            to_row: 0,
            rows: 1,
            accumulate: true,
        };
        // SAFETY: all of it is there.
        unsafe { Twin.product(&product) };
        to[0]
    }

    #[test]
    fn the_twin_sums_in_the_order_of_the_manual() {
        // 2²⁴, to which one adds nothing and two add two.
        const BIG: f32 = 16_777_216.0;
        // The result comes last, the halves are apart, and each is in the order of depth.
        assert_eq!(sum(BIG, &[[1.0, 1.0]]), BIG + 2.0);
        assert_eq!(sum(0.0, &[[BIG, 1.0], [0.0, 1.0]]), BIG + 2.0);
        assert_eq!(sum(0.0, &[[BIG, 0.0], [1.0, 0.0], [1.0, 0.0]]), BIG);
        const SUBNORMAL: f32 = f32::MIN_POSITIVE / 2.0;
        assert_eq!(sum(SUBNORMAL, &[[SUBNORMAL, SUBNORMAL]; 2]), 0.0);
    }
}
