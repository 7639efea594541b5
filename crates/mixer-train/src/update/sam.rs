//! Sharpness-aware minimisation: the gradient is taken a second time, for the same batch, at weights that were moved
//! uphill along the first one. The weights themselves stay untouched: what was moved is another network, and is gone
//! after the second pass.
//!
//! The first gradient is that of the whole batch, of all its microbatches and processes. (The published recipes
//! move each device's weights along the gradient of that device's share, which is called m-sharpness and is a noisier
//! thing: with a large batch here the radius may have to be larger.)

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use mixer_kernels::{AnyTensor, squared_norm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::update::optimizer::GradientSum;
use crate::update::schedule::LearningRate;

/// Added to norms that something is divided by, so that a gradient of zeros moves nothing.
const EPSILON: f64 = 1e-12;

/// Sharpness-aware minimisation: SAM, and with its options ASAM and GSAM.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sam {
    /// Radius: the length of the way uphill.
    pub rho: f64,
    /// Radius at the end of the decay of the learning rate, which it follows in between, as in GSAM. Default `rho`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rho_min: Option<f64>,
    /// Every weight moves in proportion to its own size: ASAM. Default false.
    #[serde(default)]
    pub adaptive: bool,
    /// Updates from one with two passes to the next; those in between have one. Default 1.
    #[serde(default = "every")]
    pub every: u64,
    /// Share of the first gradient, as far as it is orthogonal to the second, that is taken off it: GSAM. Default 0.
    #[serde(default)]
    pub alpha: f64,
}

fn every() -> u64 {
    1
}

impl Sam {
    /// # Errors
    /// The first option that is out of range: its name, its value, and what was expected.
    pub fn check(&self) -> Result<(), (&'static str, String, String)> {
        let Self { rho, rho_min, every, alpha, adaptive: _ } = *self;
        let refused = |name, found: &dyn ToString, expected: &str| {
            Err((name, found.to_string(), expected.to_owned()))
        };
        // f32 holds no more.
        if !(rho > 0.0 && rho <= f64::from(f32::MAX)) {
            return refused("rho", &rho, "a finite value above 0");
        }
        if let Some(least) = rho_min.filter(|least| !(0.0..rho).contains(least)) {
            return refused("rho_min", &least, &format!("at least 0 and below `rho`, {rho}"));
        }
        if every == 0 {
            return refused("every", &every, "at least 1");
        }
        if !(0.0..=f64::from(f32::MAX)).contains(&alpha) {
            return refused("alpha", &alpha, "a finite value of at least 0");
        }
        Ok(())
    }

    /// `true` where update `step`, counted from 0, takes a second pass.
    #[must_use]
    pub fn acts(&self, step: u64) -> bool {
        step.is_multiple_of(self.every)
    }

    /// Forward and backward passes per update, in the mean.
    #[must_use]
    pub fn passes(&self) -> f64 {
        1.0 + 1.0 / self.every as f64
    }

    /// The radius in update `step`: `ρ_min + (ρ − ρ_min) (η − η_min) / (η_max − η_min)`.
    ///
    /// # Source
    /// Zhuang et al. 2022, algorithm 1. PARITY: big_vision's goes below `ρ_min`, and below 0, while a warm-up is below
    /// the last rate; this stays at `ρ_min`.
    #[must_use]
    pub fn radius(&self, step: u64, rates: &LearningRate) -> f64 {
        let Some(least) = self.rho_min else { return self.rho };
        let (low, high) = rates.ends(step);
        let share = ((rates.rate(step) - low) / (high - low)).clamp(0.0, 1.0);
        if high > low { least + (self.rho - least) * share } else { self.rho }
    }

    /// The network at the end of the way uphill from another one: weights `w` with gradients `g` become
    /// `w + ρ g / ‖g‖`, with `adaptive` `w + ρ w² g / ‖w g‖`. What has no gradient stays.
    ///
    /// `agreed` gives what all processes have for a number that each has found, `[1]`.
    ///
    /// # Source
    /// Foret et al. 2021, equation 2; Kwon et al. 2021, equation 12 with `T = |w|`. PARITY: big_vision's
    /// `adaptive_perturbation` divides by `‖g‖` instead.
    #[must_use]
    pub fn ascended<M: Module>(
        &self,
        network: &M,
        gradient: &GradientSum,
        radius: f64,
        agreed: impl Fn(Tensor<1>) -> Tensor<1>,
    ) -> M {
        let squares = if self.adaptive {
            let mut weighted = Weighted { path: Vec::new(), gradient, products: Vec::new() };
            network.visit(&mut weighted);
            gradient.unscaled(squared_norm(&weighted.products))
        } else {
            gradient.squared_norm()
        };
        let Some(squares) = squares else { return network.clone() };
        let norm = agreed(squares).sqrt() + EPSILON;
        // The gradients have the factor of the loss in them.
        let factor = norm.recip() * (radius / gradient.loss_scale());
        network.clone().map(&mut Ascent {
            path: Vec::new(),
            gradient,
            factor,
            adaptive: self.adaptive,
        })
    }

    /// The gradient that is applied, of the one at the weights and the one at the end of the way uphill:
    /// `g_p − α (g − ⟨g, g_p⟩ g_p / ‖g_p‖²)`.
    ///
    /// # Source
    /// Zhuang et al. 2022, algorithm 1; `big_vision/trainers/proj/gsam/gsam.py@0a83553` with `minimize_fp`.
    #[must_use]
    pub fn descent(
        &self,
        plain: Option<GradientSum>,
        perturbed: GradientSum,
        agreed: impl Fn(Tensor<1>) -> Tensor<1>,
    ) -> GradientSum {
        match plain {
            Some(plain) if self.alpha > 0.0 => {
                perturbed.less_orthogonal_of(plain, self.alpha, agreed)
            }
            _ => perturbed,
        }
    }
}

/// Collects `w g` of every weight that has a gradient.
struct Weighted<'a> {
    path: Vec<String>,
    gradient: &'a GradientSum,
    products: Vec<AnyTensor>,
}

impl ModuleVisitor for Weighted<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradient.of_parameter::<D>(&self.path.join(".")) {
            self.products.push((param.val().inner() * gradient).into());
        }
    }
}

/// Moves weights uphill.
struct Ascent<'a> {
    path: Vec<String>,
    gradient: &'a GradientSum,
    /// Radius by norm, `[1]`.
    factor: Tensor<1>,
    adaptive: bool,
}

impl ModuleMapper for Ascent<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradient.of_parameter::<D>(&self.path.join(".")) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let weight = tensor.inner();
        let way = if self.adaptive { gradient * weight.clone() * weight.clone() } else { gradient };
        let moved = weight + way * self.factor.clone().reshape([1; D]);
        Param::from_mapped_value(id, moved.autodiff().require_grad(), mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::schedule::{Decay, Schedule};

    const SAM: Sam = Sam { rho: 0.6, rho_min: Some(0.1), adaptive: false, every: 1, alpha: 0.0 };

    fn rates(decay: Decay, linear_end: f64) -> LearningRate {
        let schedule =
            Schedule { base: 0.003, decay, warmup_steps: 10, total_steps: 110, linear_end };
        LearningRate::of(schedule)
    }

    #[test]
    fn the_radius_follows_the_learning_rate_and_never_falls_below_its_least() {
        let linear = rates(Decay::Linear, 0.01);
        for (step, expected) in [(0, 0.1), (10, 0.6), (60, 0.35), (110, 0.1)] {
            let found = SAM.radius(step, &linear);
            assert!((found - expected).abs() < 1e-12, "{step}: {found}, not {expected}");
        }
        assert!((SAM.radius(60, &rates(Decay::Cosine, 0.0)) - 0.35).abs() < 1e-12);
        let fixed = Sam { rho_min: None, ..SAM };
        assert_eq!(fixed.radius(0, &linear), 0.6);
        assert_eq!(SAM.radius(0, &rates(Decay::Constant, 0.0)), 0.6);
    }

    #[test]
    fn some_updates_have_two_passes() {
        let sam = Sam { every: 3, ..SAM };
        let acting: Vec<u64> = (0..8).filter(|step| sam.acts(*step)).collect();
        assert_eq!(acting, [0, 3, 6]);
        assert!((sam.passes() - 4.0 / 3.0).abs() < 1e-12);
        assert_eq!(SAM.passes(), 2.0);
    }

    #[test]
    fn options_out_of_range_are_named() {
        for (sam, name) in [
            (Sam { rho: 0.0, ..SAM }, "rho"),
            (Sam { rho: -0.1, ..SAM }, "rho"),
            (Sam { rho: f64::NAN, ..SAM }, "rho"),
            (Sam { rho: f64::INFINITY, ..SAM }, "rho"),
            (Sam { rho_min: Some(0.6), ..SAM }, "rho_min"),
            (Sam { rho_min: Some(-0.1), ..SAM }, "rho_min"),
            (Sam { rho_min: Some(f64::NAN), ..SAM }, "rho_min"),
            (Sam { every: 0, ..SAM }, "every"),
            (Sam { alpha: -0.1, ..SAM }, "alpha"),
            (Sam { alpha: f64::NAN, ..SAM }, "alpha"),
        ] {
            assert_eq!(sam.check().unwrap_err().0, name, "{sam:?}");
        }
        assert!(SAM.check().is_ok());
    }
}
