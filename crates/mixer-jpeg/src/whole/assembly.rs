//! From the coefficients of all components to pixels.

use super::coefficients::Coefficients;
use crate::pixels::{Kernels, Target};
use crate::plane::{Pending, fill_flat};
use crate::portable::Rounding;
use crate::region_job::MAX_UNFILTERED_WIDTH;
use crate::scale::Scale;

/// Colour space of the components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    Grey,
    YCbCr,
    Rgb,
    /// Inverted, as Adobe's programs write it.
    Cmyk,
    /// CMYK whose first three are stored as YCbCr.
    Ycck,
}

/// The samples of a component.
struct Samples {
    width: usize,
    height: usize,
    steps: (usize, usize),
    stride: usize,
    samples: Vec<u8>,
    /// Two rows with a margin, for the filter.
    near: Vec<u8>,
    far: Vec<u8>,
    /// The last row that was asked for, as wide as the picture or wider.
    row: Vec<u8>,
}

impl Samples {
    #[inline(always)]
    fn new<K: Kernels>(kernels: K, component: &Coefficients) -> Self {
        let ((across, down), side) = (component.used_blocks(), component.side);
        let stride = across * side;
        let mut samples = vec![0; stride * down * side];
        let steps = component.quantisation.unwrap_or([1; 64]);
        let mut pending = Pending::new(side);
        for (y, row) in component.rows().take(down).enumerate() {
            for (x, block) in row.iter().take(across).enumerate() {
                let target = Target { offset: (y * stride + x) * side, stride };
                let to = pending.next();
                // PARITY: products of damaged data wrap, as in libjpeg-turbo's vector instructions.
                for ((to, &coefficient), &step) in to.iter_mut().zip(block).zip(&steps) {
                    *to = coefficient.wrapping_mul(step.cast_signed());
                }
                match *to {
                    [dc, ref ac @ ..] if side == 1 || ac.iter().all(|&value| value == 0) => {
                        fill_flat(dc, side, target, &mut samples);
                    }
                    _ => pending.push(kernels, target, &mut samples),
                }
            }
        }
        pending.finish(kernels, &mut samples);
        let (width, height, steps) = (component.width, component.height, component.steps);
        let margins = || vec![0; width + 2];
        let (near, far, row) = (margins(), margins(), vec![0; width * steps.0]);
        Self { width, height, steps, stride, samples, near, far, row }
    }

    /// Makes a row of the picture from those of the component.
    ///
    /// PARITY: libjpeg filters where samples are doubled, in components of more than two columns or
    /// in columns alone, and repeats them elsewhere.
    #[inline(always)]
    fn enlarge<K: Kernels>(&mut self, kernels: K, scale: Scale, y: usize) {
        let (stride, height, width) = (self.stride, self.height, self.width);
        let source = &self.samples;
        let row = |y: usize| &source[y.min(height - 1) * stride..][..width];
        let (across, down) = self.steps;
        let at = y / down;
        let other = if y.is_multiple_of(2) { at.saturating_sub(1) } else { at + 1 };
        match self.steps {
            (1, 1) => self.row.copy_from_slice(row(at)),
            (2, 1 | 2) if scale.is_filtered() && width > MAX_UNFILTERED_WIDTH => {
                let (other, rounding) = match down {
                    1 => (at, Rounding::WIDTH),
                    _ => (other, Rounding::BOTH),
                };
                for (margins, row) in [(&mut self.near, row(at)), (&mut self.far, row(other))] {
                    margins[0] = row[0];
                    margins[1..=width].copy_from_slice(row);
                    margins[width + 1] = row[width - 1];
                }
                kernels.upsample(&self.near, &self.far, rounding, &mut self.row);
            }
            (1, 2) if scale.is_filtered() => {
                let rounding = if y.is_multiple_of(2) { 1 } else { 2 };
                for ((to, &near), &far) in self.row.iter_mut().zip(row(at)).zip(row(other)) {
                    *to = ((3 * u16::from(near) + u16::from(far) + rounding) >> 2) as u8;
                }
            }
            _ => {
                for (to, &sample) in self.row.chunks_exact_mut(across).zip(row(at)) {
                    to.fill(sample);
                }
            }
        }
    }
}

/// Writes the pixels of a picture of `width` into `out`, which has as many rows as the picture at `scale`.
#[inline(always)]
pub(crate) fn assemble<K: Kernels>(
    kernels: K,
    components: Vec<Coefficients>,
    colours: Colours,
    scale: Scale,
    width: usize,
    out: &mut [u8],
) {
    // Each component's coefficients are dropped when its samples are there.
    let mut planes: Vec<Samples> =
        components.into_iter().map(|component| Samples::new(kernels, &component)).collect();
    for (y, out) in out.chunks_exact_mut(width * 3).enumerate() {
        planes.iter_mut().for_each(|plane| plane.enlarge(kernels, scale, y));
        let row = |at: usize| planes.get(at).map_or(&[][..], |plane| &plane.row[..width]);
        let pixels = || [row(0), row(1), row(2)];
        match colours {
            Colours::Grey => {
                for (pixel, &level) in out.as_chunks_mut::<3>().0.iter_mut().zip(row(0)) {
                    *pixel = [level; 3];
                }
            }
            Colours::YCbCr | Colours::Ycck => kernels.colour(row(0), row(1), row(2), out),
            Colours::Rgb | Colours::Cmyk => {
                let [first, second, third] = pixels();
                let channels = first.iter().zip(second).zip(third);
                for (pixel, ((&a, &b), &c)) in out.as_chunks_mut::<3>().0.iter_mut().zip(channels) {
                    *pixel = [a, b, c];
                }
            }
        }
        if matches!(colours, Colours::Cmyk | Colours::Ycck) {
            // YCbCr gives what CMYK is the complement of.
            let is_ink = colours == Colours::Cmyk;
            for (pixel, &black) in out.as_chunks_mut::<3>().0.iter_mut().zip(row(3)) {
                *pixel =
                    pixel.map(|value| printed(if is_ink { 255 - value } else { value }, black));
            }
        }
    }
}

/// A channel of RGB, from the ink that takes of it and from the inverted black.
///
/// PARITY: Pillow's `cmyk2rgb`, with its division by 255.
fn printed(ink: u8, black: u8) -> u8 {
    let product = u32::from(ink) * u32::from(black) + 128;
    // At most `black`.
    black - (((product >> 8) + product) >> 8) as u8
}
