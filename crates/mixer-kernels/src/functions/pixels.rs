//! Pixels in the program's own memory, on their way to a network on the CPU: one pass where Burn's operations
//! make three.

use rayon::prelude::*;

/// `pixel · scale + shift`, in two roundings.
///
/// # Shapes
/// - `pixels` and result: `[N, D]`
/// - `scale`, `shift`: `[D]`
#[must_use]
pub fn normalise_pixels(pixels: &[u8], scale: &[f32], shift: &[f32]) -> Vec<f32> {
    let mut values = vec![0.0f32; pixels.len()];
    if scale.is_empty() {
        return values;
    }
    let rows = values.par_chunks_exact_mut(scale.len()).zip(pixels.par_chunks_exact(scale.len()));
    rows.for_each(|(to, row)| {
        for ((to, &pixel), (scale, shift)) in to.iter_mut().zip(row).zip(scale.iter().zip(shift)) {
            *to = f32::from(pixel) * scale + shift;
        }
    });
    values
}

/// `own · share + other · (1 − share)`, each row with that of its partner.
///
/// # Shapes
/// - `rows`: `[M, D]`, of which the first `N` are mixed; `width`: `D`
/// - `partners`: `[N]`, each below `M`
/// - result: `[N, D]`
#[must_use]
pub fn mix_rows(rows: &[f32], width: usize, partners: &[usize], share: f32) -> Vec<f32> {
    let mut mixed = vec![0.0f32; width * partners.len()];
    if width == 0 {
        return mixed;
    }
    let rest = 1.0 - share;
    let own = mixed.par_chunks_exact_mut(width).zip(rows.par_chunks_exact(width));
    own.zip(partners).for_each(|((to, own), &partner)| {
        let other = &rows[partner * width..][..width];
        for ((to, own), other) in to.iter_mut().zip(own).zip(other) {
            *to = own * share + other * rest;
        }
    });
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_normalised_and_rows_mixed() {
        let values = normalise_pixels(&[0, 255, 51, 102], &[2.0, 0.5], &[-1.0, 1.0]);
        assert_eq!(values, [-1.0, 128.5, 101.0, 52.0]);
        assert_eq!(mix_rows(&[1.0, 2.0, 5.0, 6.0], 2, &[1, 1], 0.75), [2.0, 3.0, 5.0, 6.0]);
        assert_eq!(mix_rows(&[1.0, 2.0, 5.0, 6.0], 2, &[1], 0.75), [2.0, 3.0]);
        assert!(
            normalise_pixels(&[], &[], &[]).is_empty() && mix_rows(&[], 0, &[], 0.5).is_empty()
        );
    }
}
