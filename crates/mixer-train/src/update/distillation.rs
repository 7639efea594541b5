//! Distillation: the loss of a student that learns from labels and from a teacher's probabilities.

use std::path::PathBuf;

use burn::tensor::{Tensor, activation};
use mixer_model::Precision;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A teacher, and how much it counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// The teacher's weights: a run directory, or a `.safetensors`, `.npz` or `.pth` file.
    #[schemars(extend("x-resume" = "free"))]
    pub weights: PathBuf,
    /// Number that the logits of both are divided by: above 1, what the teacher holds for unlikely counts more.
    /// Default 1.
    #[serde(default = "temperature")]
    pub temperature: f64,
    /// The teacher's part of the loss; the rest is that of the labels. Default 0.5.
    #[serde(default = "weight")]
    pub weight: f64,
    /// Precision of the teacher's products. Default `train.precision`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub precision: Option<Precision>,
}

fn temperature() -> f64 {
    1.0
}

fn weight() -> f64 {
    0.5
}

impl Distillation {
    /// # Errors
    /// The first option that is out of range: its name, its value, and what was expected.
    pub fn check(&self) -> Result<(), (&'static str, f64, &'static str)> {
        // Their squares and inverses are numbers that f32 has.
        if !(1e-3..=1e6).contains(&self.temperature) {
            return Err(("temperature", self.temperature, "at least 0.001 and at most 1000000"));
        }
        if !(self.weight > 0.0 && self.weight <= 1.0) {
            return Err(("weight", self.weight, "above 0 and at most 1"));
        }
        Ok(())
    }

    /// The loss of each example: `(1 − w) hard + w T² KL(p ‖ q)`, where `p` and `q` are the probabilities of teacher
    /// and student at temperature `T`. The square of `T` keeps the size of the gradient what it is at `T = 1`.
    ///
    /// # Shapes
    /// - `hard`: `[B]`, the losses by the labels; `logits`: `[B, K]`, the student's
    /// - `teacher`: `[B, K]`, logarithms of the teacher's probabilities at this temperature
    /// - output: `[B]`
    ///
    /// # Source
    /// Hinton et al. 2015, section 2.
    #[must_use]
    pub fn losses(&self, hard: Tensor<1>, logits: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
        let student = activation::log_softmax(logits / self.temperature, 1);
        let divergence =
            (teacher.clone().exp() * (teacher - student)).sum_dim(1).squeeze_dim::<1>(1);
        let soft = divergence * (self.weight * self.temperature * self.temperature);
        if self.weight < 1.0 { hard * (1.0 - self.weight) + soft } else { soft }
    }
}
