//! Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): settings, draws, and the pasting of boxes.
//!
//! One draw holds for a whole batch. CutMix copies bytes, so it is done here; mixup averages numbers,
//! so it is left to the device, which needs the share and the partners only.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::order::random::ExampleRng;
use crate::stream::batch::Batch;
use crate::stream::batch_mix::{BatchMix, MixFlavour, MixKind, MixPartners};

/// The stream of [`ExampleRng`] that mixing draws from.
const MIX_STREAM: u64 = 0x006d_6978;

/// Mixing of batches: `{ mixup_alpha = 0.5 }` is the paper's ImageNet recipe.
///
/// PARITY: the rule is that of `Mixup` in `timm/data/mixup.py` in its mode `batch`, of which
/// big_vision's `get_mixup` (`big_vision/utils.py`) is the part without CutMix.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct MixSpec {
    /// Both parameters of mixup's beta distribution, 0 to 100; 0 is no mixup. The paper uses 0.2 and
    /// 0.5.
    #[serde(default)]
    pub mixup_alpha: f64,
    /// Both parameters of CutMix's beta distribution, 0 to 100; 0 is no CutMix. Usual is 1.
    #[serde(default)]
    pub cutmix_alpha: f64,
    /// Probability of CutMix where both are on.
    #[serde(default = "default_switch_prob")]
    pub switch_prob: f64,
    /// Probability that a batch is mixed at all.
    #[serde(default = "default_prob")]
    pub prob: f64,
    /// Whose pairs.
    #[serde(default)]
    pub flavour: MixFlavour,
    /// The examples among which a partner is sought: in the microbatch, or in the whole batch of an update.
    #[serde(default)]
    pub partners: MixPartners,
}

fn default_switch_prob() -> f64 {
    0.5
}

fn default_prob() -> f64 {
    1.0
}

impl MixSpec {
    /// Refuses settings without a meaning.
    ///
    /// # Errors
    /// [`DataError::BadSetting`] that names the setting, what it is and what is possible.
    pub fn check(&self) -> Result<(), DataError> {
        for (setting, found, high) in [
            ("mix.mixup_alpha", self.mixup_alpha, 100.0),
            ("mix.cutmix_alpha", self.cutmix_alpha, 100.0),
            ("mix.switch_prob", self.switch_prob, 1.0),
            ("mix.prob", self.prob, 1.0),
        ] {
            if !(0.0..=high).contains(&found) {
                return Err(DataError::BadSetting {
                    setting,
                    found: found.to_string(),
                    expected: format!("0 to {high}"),
                });
            }
        }
        if self.partners == MixPartners::Batch && self.flavour == MixFlavour::Timm {
            return Err(DataError::BadSetting {
                setting: "mix.partners",
                found: "batch".to_owned(),
                expected: "\"microbatch\" with the flavour \"timm\", which pairs the first example with the last"
                    .to_owned(),
            });
        }
        Ok(())
    }

    /// Draws the mixing of the update `step`, pastes the boxes of CutMix into the batch, and leaves the
    /// draw in [`Batch::mix`], for targets and for mixup. The microbatches of an update have one draw.
    ///
    /// # Errors
    /// [`DataError::BadBuffer`] when the patches of the batch do not make up squares.
    pub fn apply(
        &self,
        batch: &mut Batch,
        seed: u64,
        step: u64,
        image_size: u32,
    ) -> Result<(), DataError> {
        let mix = self.draw(seed, step, image_size);
        mix.apply_cutmix(batch)?;
        if batch.is_led && mix.kind != MixKind::Mixup {
            // Its pixels are in the picture of who needs them.
            batch.patches.truncate((batch.num_examples - 1) * batch.num_tokens * batch.patch_dim);
        }
        batch.mix = Some(mix);
        Ok(())
    }

    /// The mixing of the batch of a step.
    ///
    /// # Determinism
    /// A function of the seed, the step and the size, drawn in this order: whether; which of the two,
    /// where both are on; λ; the row and the column of a box. Changing it breaks resume of existing
    /// runs.
    pub fn draw(&self, seed: u64, step: u64, image_size: u32) -> BatchMix {
        let mut rng = ExampleRng::new(seed, 0, step, MIX_STREAM);
        let (has_mixup, has_cutmix) = (self.mixup_alpha > 0.0, self.cutmix_alpha > 0.0);
        let is_mixed = rng.uniform() < self.prob;
        if !is_mixed || !(has_mixup || has_cutmix) {
            return self.drawn(MixKind::None, 1.0);
        }
        let is_cutmix =
            if has_mixup && has_cutmix { rng.uniform() < self.switch_prob } else { has_cutmix };
        if is_cutmix {
            let drawn = symmetric_beta(self.cutmix_alpha, &mut rng);
            let (rows, columns, lambda) = cutmix_box(drawn, image_size, &mut rng);
            let kind = MixKind::CutMix { rows, columns };
            return self.drawn(kind, lambda);
        }
        let drawn = symmetric_beta(self.mixup_alpha, &mut rng);
        let lambda = match self.flavour {
            MixFlavour::BigVision => drawn.max(1.0 - drawn),
            MixFlavour::Timm => drawn,
        };
        self.drawn(MixKind::Mixup, lambda as f32)
    }

    fn drawn(&self, kind: MixKind, lambda: f32) -> BatchMix {
        BatchMix { kind, lambda, flavour: self.flavour, partners: self.partners }
    }
}

/// A box of about the part `1 - drawn` of a picture, cut off at the edges, and what is left outside
/// of it as a share.
///
/// PARITY: timm's `rand_bbox`, and its correction of λ.
fn cutmix_box(drawn: f64, image_size: u32, rng: &mut ExampleRng) -> (Range<u32>, Range<u32>, f32) {
    let half_side = (f64::from(image_size) * (1.0 - drawn).max(0.0).sqrt()) as u32 / 2;
    let mut extent = || {
        let centre = rng.below(image_size);
        centre.saturating_sub(half_side)..(centre + half_side).min(image_size)
    };
    let (rows, columns) = (extent(), extent());
    let covered = f64::from(rows.end - rows.start) * f64::from(columns.end - columns.start);
    let whole = f64::from(image_size) * f64::from(image_size);
    (rows, columns, (1.0 - covered / whole) as f32)
}

/// A number with the distribution Beta(alpha, alpha), by rejection and so without approximation.
fn symmetric_beta(alpha: f64, rng: &mut ExampleRng) -> f64 {
    loop {
        // In (0, 1], for the logarithm.
        let (u, v) = (1.0 - rng.uniform(), 1.0 - rng.uniform());
        if alpha < 1.0 {
            // Jöhnk 1964, in logarithms, because powers of 1 / alpha underflow.
            let (x, y) = (u.ln() / alpha, v.ln() / alpha);
            let most = x.max(y);
            let log_sum = most + ((x - most).exp() + (y - most).exp()).ln();
            if log_sum <= 0.0 {
                return (x - log_sum).exp();
            }
        } else if v <= (4.0 * u * (1.0 - u)).powf(alpha - 1.0) {
            // The density over its maximum, which is in the middle.
            return u;
        }
    }
}

impl BatchMix {
    /// Pastes the boxes of CutMix into the patches of a batch; without CutMix, does nothing.
    ///
    /// Labels are left as they are: λ and [`partners`](Self::partners) say how to mix them. Rows from
    /// `num_examples` on are not touched and are nobody's partner.
    ///
    /// # Errors
    /// [`DataError::BadBuffer`] when the patches of the batch do not make up squares.
    pub fn apply_cutmix(&self, batch: &mut Batch) -> Result<(), DataError> {
        let MixKind::CutMix { rows, columns } = &self.kind else {
            return Ok(());
        };
        let segments = box_segments(batch, rows, columns)?;
        let (count, len) = (batch.num_examples, batch.num_tokens * batch.patch_dim);
        match self.flavour {
            MixFlavour::BigVision if count > 1 => {
                // From the end, so that a partner is still as it was; only the last one is not. Where it is the
                // partner from another microbatch, it is no example of this one, and what it becomes is not used.
                let last = batch.patches[(count - 1) * len..count * len].to_vec();
                for example in (1..count).rev() {
                    let (before, from) = batch.patches.split_at_mut(example * len);
                    let partner = &before[(example - 1) * len..];
                    for segment in &segments {
                        from[segment.clone()].copy_from_slice(&partner[segment.clone()]);
                    }
                }
                for segment in &segments {
                    batch.patches[segment.clone()].copy_from_slice(&last[segment.clone()]);
                }
            }
            MixFlavour::BigVision => {}
            MixFlavour::Timm => {
                for example in 0..count / 2 {
                    let partner = count - 1 - example;
                    let (before, from) = batch.patches.split_at_mut(partner * len);
                    let own = &mut before[example * len..];
                    for segment in &segments {
                        own[segment.clone()].swap_with_slice(&mut from[segment.clone()]);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Places of the bytes of a box in the patches of an example.
fn box_segments(
    batch: &Batch,
    rows: &Range<u32>,
    columns: &Range<u32>,
) -> Result<Vec<Range<usize>>, DataError> {
    let (patch, grid) = ((batch.patch_dim / 3).isqrt(), batch.num_tokens.isqrt());
    let side = patch * grid;
    let expected = batch.num_examples * side * side * 3;
    let is_square = patch * patch * 3 == batch.patch_dim && grid * grid == batch.num_tokens;
    if !is_square || batch.patches.len() < expected || rows.end.max(columns.end) as usize > side {
        let found = batch.patches.len();
        return Err(DataError::BadBuffer { what: "the patches of a batch", found, expected });
    }
    let (left, right) = (columns.start as usize, columns.end as usize);
    let mut segments = Vec::new();
    if left >= right {
        return Ok(segments);
    }
    for y in rows.start as usize..rows.end as usize {
        for token_x in left / patch..right.div_ceil(patch) {
            let from = left.max(token_x * patch) - token_x * patch;
            let to = right.min((token_x + 1) * patch) - token_x * patch;
            let token = y / patch * grid + token_x;
            let start = token * batch.patch_dim + y % patch * patch * 3;
            segments.push(start + from * 3..start + to * 3);
        }
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resample::patches::patchify;

    fn spec(mixup_alpha: f64, cutmix_alpha: f64, flavour: MixFlavour) -> MixSpec {
        MixSpec {
            mixup_alpha,
            cutmix_alpha,
            switch_prob: 0.5,
            prob: 1.0,
            flavour,
            partners: MixPartners::Microbatch,
        }
    }

    fn draws(alpha: f64, count: usize) -> Vec<f64> {
        let mut rng = ExampleRng::new(1, 0, 0, 0);
        (0..count).map(|_| symmetric_beta(alpha, &mut rng)).collect()
    }

    #[test]
    fn beta_numbers_have_the_moments_of_their_distribution() {
        for alpha in [0.01, 0.2, 0.5, 0.8, 1.0, 2.0, 20.0] {
            let values = draws(alpha, 40_000);
            assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let moment = |power: i32| {
                values.iter().map(|value| (value - 0.5).powi(power)).sum::<f64>()
                    / values.len() as f64
            };
            let variance = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            let kurtosis = 3.0 - 6.0 / (2.0 * alpha + 3.0);
            assert!((mean - 0.5).abs() < 0.01, "{alpha}: mean {mean}");
            assert!((moment(2) / variance - 1.0).abs() < 0.03, "{alpha}: {}", moment(2));
            let found = moment(4) / (variance * variance);
            assert!((found / kurtosis - 1.0).abs() < 0.06, "{alpha}: kurtosis {found}");
        }
    }

    #[test]
    fn beta_one_is_uniform_and_beta_half_is_the_arcsine_distribution() {
        for (alpha, cumulative) in [
            (1.0, (|x| x) as fn(f64) -> f64),
            (0.5, |x| 2.0 / std::f64::consts::PI * x.sqrt().asin()),
            (2.0, |x| x * x * (3.0 - 2.0 * x)),
        ] {
            let mut values = draws(alpha, 20_000);
            values.sort_by(f64::total_cmp);
            let distance = values.iter().enumerate().map(|(at, &value)| {
                (cumulative(value) - (at as f64 + 0.5) / values.len() as f64).abs()
            });
            // The Kolmogorov distance that one sample in ten thousand exceeds is 0.0157.
            let distance = distance.fold(0.0, f64::max);
            assert!(distance < 0.0157, "{alpha}: {distance}");
        }
    }

    #[test]
    fn big_vision_mixes_every_batch_by_the_larger_share() {
        let spec: MixSpec = serde_json::from_str(r#"{"mixup_alpha": 0.5}"#).unwrap();
        for step in 0..1000 {
            let mix = spec.draw(3, step, 32);
            assert_eq!(mix.kind, MixKind::Mixup);
            assert!((0.5..=1.0).contains(&mix.lambda));
            assert_eq!(mix, spec.draw(3, step, 32));
        }
        assert_eq!(spec.draw(3, 0, 32).partners(4), [3, 0, 1, 2]);
        let timm = MixSpec { flavour: MixFlavour::Timm, ..spec };
        assert_eq!(timm.draw(3, 0, 32).partners(5), [4, 3, 2, 1, 0]);
        assert!((0..100).any(|step| timm.draw(3, step, 32).lambda < 0.5));
    }

    #[test]
    fn probabilities_of_mixing_and_of_switching_hold() {
        let spec = MixSpec { prob: 0.6, switch_prob: 0.25, ..spec(0.8, 1.0, MixFlavour::Timm) };
        let (mut none, mut cutmix) = (0, 0);
        for step in 0..10_000 {
            match spec.draw(0, step, 224).kind {
                MixKind::None => none += 1,
                MixKind::CutMix { .. } => cutmix += 1,
                MixKind::Mixup => {}
            }
        }
        assert!((3_800..4_200).contains(&none), "{none}");
        assert!((1_350..1_650).contains(&cutmix), "{cutmix}");
        let off = self::spec(0.0, 0.0, MixFlavour::Timm).draw(0, 0, 224);
        assert_eq!(
            (off.kind.clone(), off.lambda, off.partners(3)),
            (MixKind::None, 1.0, vec![0, 1, 2])
        );
    }

    #[test]
    fn mixes_of_steps_are_pinned() {
        // Changing this breaks resume of existing runs.
        let spec = spec(0.8, 1.0, MixFlavour::Timm);
        let mixup = |lambda: f32| (MixKind::Mixup, lambda);
        let cutmix = |rows, columns, lambda: f32| (MixKind::CutMix { rows, columns }, lambda);
        let expected = [
            mixup(0.872_455),
            mixup(0.226_340_4),
            cutmix(97..224, 0..189, 0.521_623_9),
            cutmix(52..224, 12..194, 0.376_116_1),
            cutmix(180..204, 115..139, 0.988_520_4),
            cutmix(55..165, 74..184, 0.758_848_9),
        ];
        for (step, (kind, lambda)) in expected.into_iter().enumerate() {
            let mix = spec.draw(42, step as u64, 224);
            assert_eq!(mix.kind, kind);
            assert!((mix.lambda - lambda).abs() < 1e-6, "{}", mix.lambda);
        }
    }

    proptest! {
        #[test]
        fn the_share_is_exactly_what_the_box_leaves(seed: u64, size in 1u32..300, drawn in 0.0..=1.0) {
            let mut rng = ExampleRng::new(seed, 0, 0, 0);
            let (rows, columns, lambda) = cutmix_box(drawn, size, &mut rng);
            prop_assert!(rows.start <= rows.end && rows.end <= size);
            prop_assert!(columns.start <= columns.end && columns.end <= size);
            let covered = rows.len() * columns.len();
            let expected = 1.0 - covered as f64 / f64::from(size * size);
            prop_assert_eq!(lambda, expected as f32);
        }

        #[test]
        fn pasting_patches_equals_pasting_pictures(
            grid in 1usize..5, patch in 1usize..5, count in 0usize..6, padding in 0usize..2,
            seed: u64, timm: bool,
        ) {
            let side = grid * patch;
            let mut rng = ExampleRng::new(seed, 1, 0, 0);
            let pictures: Vec<Vec<u8>> = (0..count)
                .map(|_| (0..side * side * 3).map(|_| rng.next_u64() as u8).collect())
                .collect();
            let cut = |picture: &[u8]| {
                let mut out = vec![0; picture.len()];
                patchify(picture, side as u32, patch as u32, &mut out).unwrap();
                out
            };
            let flavour = if timm { MixFlavour::Timm } else { MixFlavour::BigVision };
            let mix = spec(0.0, 1.0, flavour).draw(seed, 0, side as u32);
            let MixKind::CutMix { rows, columns } = mix.kind.clone() else { panic!("{mix:?}") };

            let len = side * side * 3;
            let mut batch = Batch {
                patches: pictures.iter().flat_map(|picture| cut(picture)).collect(),
                num_examples: count,
                num_tokens: grid * grid,
                patch_dim: patch * patch * 3,
                ..Batch::default()
            };
            batch.patches.resize((count + padding) * len, 0);
            mix.apply_cutmix(&mut batch).unwrap();

            for example in 0..count {
                let mut expected = pictures[example].clone();
                let partner = &pictures[mix.partner(example, count)];
                for (y, x) in rows.clone().flat_map(|y| columns.clone().map(move |x| (y, x))) {
                    let at = (y as usize * side + x as usize) * 3;
                    expected[at..at + 3].copy_from_slice(&partner[at..at + 3]);
                }
                prop_assert_eq!(&batch.patches[example * len..(example + 1) * len], cut(&expected));
            }
            prop_assert!(batch.patches[count * len..].iter().all(|&value| value == 0));
        }
    }

    #[test]
    fn mixup_does_not_touch_the_bytes_and_a_wrong_batch_is_refused() {
        let mut batch = Batch {
            patches: (0..24).collect(),
            num_examples: 2,
            num_tokens: 1,
            patch_dim: 12,
            ..Batch::default()
        };
        let before = batch.clone();
        spec(0.5, 0.0, MixFlavour::Timm).draw(0, 0, 2).apply_cutmix(&mut batch).unwrap();
        assert_eq!(batch, before);
        let cutmix = spec(0.0, 1.0, MixFlavour::Timm).draw(0, 0, 2);
        batch.patches.pop();
        let error = cutmix.apply_cutmix(&mut batch).unwrap_err().to_string();
        assert_eq!(error, "found the patches of a batch of 23 bytes, expected 24");
    }

    #[test]
    fn settings_without_a_meaning_are_refused() {
        assert!(spec(0.5, 1.0, MixFlavour::Timm).check().is_ok());
        assert_eq!(
            spec(-0.5, 1.0, MixFlavour::Timm).check().unwrap_err().to_string(),
            "found `mix.mixup_alpha = -0.5`, expected 0 to 100"
        );
        assert!(MixSpec { prob: f64::NAN, ..spec(0.5, 1.0, MixFlavour::Timm) }.check().is_err());
    }
}
