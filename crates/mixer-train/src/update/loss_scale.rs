//! Dynamic loss scaling: in f16, gradients of a loss as it is fall below what the type can hold. So the loss
//! is multiplied by a factor, and the gradients are divided by it in f32. The factor is halved when gradients
//! overflow, and doubled when none has for long.
//!
//! # Source
//! Micikevicius et al. 2018, section 3.2; the constants are those of PyTorch's `GradScaler`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The lowest factor: gradients that overflow without any are no matter of scaling.
const LOWEST: f64 = 1.0;

/// Rule by which the factor changes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LossScaling {
    /// The factor at first: a power of two, so that multiplying by it rounds nothing. Default 65536.
    #[serde(default = "initial")]
    pub initial: f64,
    /// Updates in a row without an overflow after which it is doubled. Default 2000.
    #[serde(default = "growth_every_steps")]
    pub growth_every_steps: u64,
}

fn initial() -> f64 {
    65536.0
}

fn growth_every_steps() -> u64 {
    2000
}

impl Default for LossScaling {
    fn default() -> Self {
        Self { initial: initial(), growth_every_steps: growth_every_steps() }
    }
}

impl LossScaling {
    /// # Errors
    /// Values that `initial` was expected to have.
    pub fn check(&self) -> Result<(), &'static str> {
        // f32 has to hold it and what undoes it.
        let is_power = self.initial.log2().fract() == 0.0;
        let is_sound = (LOWEST..=2.0_f64.powi(126)).contains(&self.initial) && is_power;
        if is_sound { Ok(()) } else { Err("a power of two from 1 to 2^126") }
    }
}

/// The factor; part of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    /// Factor of the loss.
    pub factor: f64,
    /// Updates without an overflow since it changed.
    pub steps: u64,
}

impl LossScale {
    /// That of the first update.
    #[must_use]
    pub fn start(rule: LossScaling) -> Self {
        Self { factor: rule.initial, steps: 0 }
    }

    /// After an update without an overflow. Returns whether the factor has changed.
    pub fn applied(&mut self, rule: LossScaling) -> bool {
        self.steps += 1;
        let grows = self.steps >= rule.growth_every_steps;
        if grows {
            *self = Self { factor: 2.0 * self.factor, steps: 0 };
        }
        grows
    }

    /// After gradients that overflowed. Returns whether the factor could be lowered.
    pub fn overflowed(&mut self) -> bool {
        let falls = self.factor > LOWEST;
        if falls {
            *self = Self { factor: self.factor / 2.0, steps: 0 };
        }
        falls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_falls_with_every_overflow_and_grows_after_a_row_of_updates() {
        let rule = LossScaling { initial: 4.0, growth_every_steps: 3 };
        let mut scale = LossScale::start(rule);
        assert!(scale.overflowed() && scale.overflowed());
        assert!(!scale.overflowed(), "it does not fall below 1");
        let mut factors = Vec::new();
        for _ in 0..6 {
            scale.applied(rule);
            factors.push(scale.factor);
        }
        assert_eq!(factors, [1.0, 1.0, 2.0, 2.0, 2.0, 4.0]);
        // An overflow in between starts the count anew.
        scale.applied(rule);
        scale.applied(rule);
        scale.overflowed();
        scale.applied(rule);
        assert_eq!(scale, LossScale { factor: 2.0, steps: 1 });
    }

    #[test]
    fn only_powers_of_two_are_taken() {
        for (initial, is_sound) in [
            (65536.0, true),
            (1.0, true),
            (0.5, false),
            (3.0, false),
            (0.0, false),
            (-2.0, false),
            (f64::NAN, false),
            (f64::INFINITY, false),
        ] {
            let rule = LossScaling { initial, ..LossScaling::default() };
            assert_eq!(rule.check().is_ok(), is_sound, "{initial}");
        }
    }
}
