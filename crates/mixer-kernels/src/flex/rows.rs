//! Layer normalisation and copies, row by row, between row-major tensors and panels.

use super::format::{PANEL, padded};
use crate::simd::Simd;

/// One row with its statistics, filled up to whole panels with its mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    values: *const f32,
    mean: f32,
    /// `1 / √(var + epsilon)`.
    inverse_deviation: f32,
}

/// Reads a row of `channels` floats; `spare` has room for a padded one.
///
/// # Safety
/// All of it must be there, and `spare` must not be written to while the row is used.
#[inline(always)]
pub(super) unsafe fn read_row<S: Simd>(
    s: S,
    from: *const f32,
    channels: usize,
    spare: *mut f32,
    epsilon: f32,
) -> Row {
    let width = padded(channels);
    let scale = 1.0 / channels as f32;
    // SAFETY: the caller's promise.
    unsafe {
        let mut values = from;
        if width != channels {
            std::ptr::copy_nonoverlapping(from, spare, channels);
            spare.add(channels).write_bytes(0, width - channels);
            values = spare;
        }
        let mut sums = [s.splat(0.0); 2];
        for i in (0..width).step_by(2 * S::LANES) {
            sums[0] = s.add(sums[0], s.load(values.add(i)));
            sums[1] = s.add(sums[1], s.load(values.add(i + S::LANES)));
        }
        let mean = s.sum(s.add(sums[0], sums[1])) * scale;
        // So that the padding adds nothing to the variance.
        for i in channels..width {
            *spare.add(i) = mean;
        }
        // NUMERICS: the two-pass variance; E[x²] − E[x]² cancels when the mean is large.
        let centre = s.splat(mean);
        let mut sums = [s.splat(0.0); 2];
        for i in (0..width).step_by(2 * S::LANES) {
            let a = s.sub(s.load(values.add(i)), centre);
            let b = s.sub(s.load(values.add(i + S::LANES)), centre);
            sums = [s.mul_add(a, a, sums[0]), s.mul_add(b, b, sums[1])];
        }
        let variance = s.sum(s.add(sums[0], sums[1])) * scale;
        Row { values, mean, inverse_deviation: 1.0 / (variance + epsilon).sqrt() }
    }
}

/// Scale and shift of a normalisation, filled up with zeros.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    pub(super) gamma: *const f32,
    pub(super) beta: *const f32,
}

/// Writes `normal(row) · gamma + beta` to a row of panels that are `stride` floats apart.
///
/// # Safety
/// All of it must be there.
#[inline(always)]
pub(super) unsafe fn normalise<S: Simd>(
    s: S,
    row: Row,
    affine: Affine,
    channels: usize,
    to: *mut f32,
    stride: usize,
) {
    let (mean, inverse) = (s.splat(row.mean), s.splat(row.inverse_deviation));
    // SAFETY: the caller's promise.
    unsafe {
        for panel in 0..padded(channels) / PANEL {
            for lane in (0..PANEL).step_by(S::LANES) {
                let i = panel * PANEL + lane;
                let normal = s.mul(s.sub(s.load(row.values.add(i)), mean), inverse);
                let y = s.mul_add(normal, s.load(affine.gamma.add(i)), s.load(affine.beta.add(i)));
                s.store(to.add(panel * stride + lane), y);
            }
        }
    }
}

/// The places that one row of a gradient needs on its way through the normalisation.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowGradient {
    /// Gradient of the normalised row, in panels `stride` floats apart.
    pub(super) of_output: *const f32,
    pub(super) stride: usize,
    /// Gradient of the residual stream after the branch, `[channels]`.
    pub(super) of_residual: *const f32,
    /// The place of the gradient of the row, `[channels]`.
    pub(super) to: *mut f32,
    /// Sums over rows, padded.
    pub(super) dgamma: *mut f32,
    pub(super) dbeta: *mut f32,
}

/// `dx = (h − mean(h) − n · mean(h n)) / √(var + epsilon) + residual`, `h = dy · gamma`, `n` the
/// normalised row; adds `dy n` to `dgamma` and `dy` to `dbeta`.
///
/// # Safety
/// All of it must be there.
#[inline(always)]
pub(super) unsafe fn normalise_backward<S: Simd>(
    s: S,
    row: Row,
    gamma: *const f32,
    channels: usize,
    gradient: RowGradient,
) {
    let panels = padded(channels) / PANEL;
    let (mean, inverse) = (s.splat(row.mean), s.splat(row.inverse_deviation));
    let scale = 1.0 / channels as f32;
    // SAFETY: the caller's promise.
    unsafe {
        let (mut sum_h, mut sum_hn) = (s.splat(0.0), s.splat(0.0));
        for panel in 0..panels {
            for lane in (0..PANEL).step_by(S::LANES) {
                let i = panel * PANEL + lane;
                let normal = s.mul(s.sub(s.load(row.values.add(i)), mean), inverse);
                let dy = s.load(gradient.of_output.add(panel * gradient.stride + lane));
                let h = s.mul(dy, s.load(gamma.add(i)));
                sum_h = s.add(sum_h, h);
                sum_hn = s.mul_add(h, normal, sum_hn);
                let (dgamma, dbeta) = (gradient.dgamma.add(i), gradient.dbeta.add(i));
                s.store(dgamma, s.mul_add(dy, normal, s.load(dgamma)));
                s.store(dbeta, s.add(s.load(dbeta), dy));
            }
        }
        let mean_h = s.splat(s.sum(sum_h) * scale);
        let mean_hn = s.splat(s.sum(sum_hn) * scale);
        for panel in 0..panels {
            let first = panel * PANEL;
            let count = (channels - first).min(PANEL);
            // The last panel may reach beyond the row: through a piece of its own.
            let mut piece = [0.0f32; PANEL];
            let (mut residual, mut to) = (gradient.of_residual.add(first), gradient.to.add(first));
            let end = to;
            if count < PANEL {
                std::ptr::copy_nonoverlapping(residual, piece.as_mut_ptr(), count);
                to = piece.as_mut_ptr();
                residual = to;
            }
            for lane in (0..PANEL).step_by(S::LANES) {
                let i = first + lane;
                let normal = s.mul(s.sub(s.load(row.values.add(i)), mean), inverse);
                let dy = s.load(gradient.of_output.add(panel * gradient.stride + lane));
                let h = s.sub(s.mul(dy, s.load(gamma.add(i))), mean_h);
                let h = s.sub(h, s.mul(normal, mean_hn));
                s.store(to.add(lane), s.mul_add(h, inverse, s.load(residual.add(lane))));
            }
            if count < PANEL {
                std::ptr::copy_nonoverlapping(to, end, count);
            }
        }
    }
}

/// Writes `scale · from` to a row of panels, filled up with zeros.
///
/// # Safety
/// All of it must be there.
#[inline(always)]
pub(super) unsafe fn to_panels<S: Simd>(
    s: S,
    from: *const f32,
    channels: usize,
    scale: f32,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for panel in 0..padded(channels) / PANEL {
            let (from, to) = (from.add(panel * PANEL), to.add(panel * stride));
            let count = (channels - panel * PANEL).min(PANEL);
            if count == PANEL {
                for lane in (0..PANEL).step_by(S::LANES) {
                    s.store(to.add(lane), s.mul(s.load(from.add(lane)), s.splat(scale)));
                }
            } else {
                for lane in 0..count {
                    *to.add(lane) = *from.add(lane) * scale;
                }
                to.add(count).write_bytes(0, PANEL - count);
            }
        }
    }
}

/// `to = residual + scale · (branch + bias)` for one panel of one row.
///
/// # Safety
/// `count` floats of `residual` and `to`, 32 of `branch` and `bias` must be there.
#[inline(always)]
pub(super) unsafe fn add_branch<S: Simd>(
    s: S,
    residual: *const f32,
    branch: *const f32,
    bias: impl Fn(usize) -> S::V,
    scale: f32,
    to: *mut f32,
    count: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut piece = [0.0f32; PANEL];
        let (mut from, mut into) = (residual, to);
        if count < PANEL {
            std::ptr::copy_nonoverlapping(residual, piece.as_mut_ptr(), count);
            into = piece.as_mut_ptr();
            from = into;
        }
        for lane in (0..PANEL).step_by(S::LANES) {
            let branch = s.add(s.load(branch.add(lane)), bias(lane));
            s.store(into.add(lane), s.mul_add(branch, s.splat(scale), s.load(from.add(lane))));
        }
        if count < PANEL {
            std::ptr::copy_nonoverlapping(into, to, count);
        }
    }
}
