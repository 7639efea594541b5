//! The network that a student learns from: what it makes of the pictures that the student sees, changed as they are.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use mixer_model::weights::Preprocessing;
use mixer_model::{Compute, Mixer, MixerConfig, Precision, Weights};

use crate::error::TrainError;
use crate::update::distillation::Distillation;

/// A network that is not trained, and the way of a student's input into it.
#[derive(Debug)]
pub struct Teacher {
    mixer: Mixer,
    /// Factor and summand of every value of a patch, `[1, 1, P·P·3]`, from the student's normalisation to the
    /// teacher's; absent where it is the same.
    normalisation: Option<[Tensor<3>; 2]>,
    /// Patch sides of student and teacher; absent where they are the same.
    patch_sizes: Option<[usize; 2]>,
    /// The teacher's output of each class of the student, `[K]`; absent where the order is the same.
    classes: Option<Tensor<1, Int>>,
    temperature: f64,
}

/// The student, as far as a teacher has to know it.
#[derive(Debug, Clone, Copy)]
pub struct Student<'a> {
    /// Its network.
    pub network: &'a MixerConfig,
    /// The preparation of its pictures.
    pub preprocessing: &'a Preprocessing,
    /// Its classes.
    pub classes: &'a [String],
}

impl Teacher {
    /// Weights that fit a student, on a device.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the weights are not whole.
    pub fn new(
        weights: Weights,
        rule: &Distillation,
        student: Student<'_>,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let own = weights.metadata.preprocessing.unwrap_or_default();
        let patch_size = student.network.patch_size;
        let of_teacher = weights.config.patch_size;
        let classes = weights.metadata.classes.as_deref();
        let classes = classes.and_then(|own| order(student.classes, own)).map(|order| {
            Tensor::from_data(TensorData::new(order, [student.classes.len()]), device)
        });
        let precision = rule.precision.unwrap_or(Precision::F32);
        let compute = Compute { precision, ..Compute::default() };
        Ok(Self {
            normalisation: between(student.preprocessing, &own, student.network, device),
            patch_sizes: (patch_size != of_teacher).then_some([patch_size, of_teacher]),
            classes,
            temperature: rule.temperature,
            mixer: Mixer::from_weights(weights, device)?.no_grad().with_compute(compute),
        })
    }

    /// The logarithms of its probabilities at the temperature of the distillation.
    ///
    /// # Shapes
    /// - `patches`: `[B, S, P·P·3]`, the student's input without autodiff
    /// - output: `[B, K]`, in the order of the student's classes
    #[must_use]
    pub fn log_probabilities(&self, patches: Tensor<3>) -> Tensor<2> {
        // Mixing pictures and normalising them in another way give the same in either order.
        let patches = match &self.normalisation {
            Some([scale, shift]) => patches * scale.clone() + shift.clone(),
            None => patches,
        };
        let patches = match self.patch_sizes {
            Some([from, to]) => recut(patches, from, to),
            None => patches,
        };
        let logits = self.mixer.forward(patches);
        let logits = match &self.classes {
            Some(order) => logits.select(1, order.clone()),
            None => logits,
        };
        activation::log_softmax(logits / self.temperature, 1)
    }
}

/// The place in `own` of each class of a student; `None` where each stands at its own.
fn order(student: &[String], own: &[String]) -> Option<Vec<i32>> {
    let place = |class| own.iter().position(|other| other == class);
    let order: Vec<usize> = student.iter().map(place).collect::<Option<_>>()?;
    let is_same = order.iter().enumerate().all(|(at, place)| at == *place);
    (!is_same).then(|| order.into_iter().map(|place| place as i32).collect())
}

/// Factor and summand that make what is normalised by `from` what is normalised by `to`.
fn between(
    from: &Preprocessing,
    to: &Preprocessing,
    network: &MixerConfig,
    device: &Device,
) -> Option<[Tensor<3>; 2]> {
    if (from.mean, from.std) == (to.mean, to.std) {
        return None;
    }
    let row = |of_colour: &dyn Fn(usize) -> f32| {
        let values: Vec<f32> = (0..network.patch_dim()).map(|i| of_colour(i % 3)).collect();
        Tensor::from_data(TensorData::new(values, [1, 1, network.patch_dim()]), device)
    };
    let scale = row(&|colour| from.std[colour] / to.std[colour]);
    let shift = row(&|colour| (from.mean[colour] - to.mean[colour]) / to.std[colour]);
    Some([scale, shift])
}

/// The same pictures in patches of another side.
///
/// # Shapes
/// - `patches`: `[B, S, P·P·3]` of a square picture, patches and pixels row by row
/// - output: `[B, S', P'·P'·3]`
fn recut(patches: Tensor<3>, from: usize, to: usize) -> Tensor<3> {
    let [examples, tokens, _] = patches.dims();
    let grid = tokens.isqrt();
    let side = grid * from;
    let cut = side / to;
    let rows = patches.reshape([examples, grid, grid, from, from * 3]).swap_dims(2, 3);
    let rows = rows.reshape([examples, cut, to, cut, to * 3]).swap_dims(2, 3);
    rows.reshape([examples, cut * cut, to * to * 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_of_another_side_hold_the_same_pixels() {
        // Pixel (y, x) of example b is 1000 b + 10 y + x, in three colours.
        const SIDE: usize = 8;
        let patches = |patch: usize| {
            let grid = SIDE / patch;
            let mut values = Vec::new();
            for (b, row, column) in
                (0..2).flat_map(|b| (0..grid * grid).map(move |i| (b, i / grid, i % grid)))
            {
                for (y, x) in (0..patch * patch).map(|i| (i / patch, i % patch)) {
                    let pixel = 1000 * b + 10 * (row * patch + y) + column * patch + x;
                    values.extend((0..3).map(|colour| pixel as f32 + 0.1 * colour as f32));
                }
            }
            TensorData::new(values, [2, grid * grid, patch * patch * 3])
        };
        for (from, to) in [(2, 4), (4, 2), (8, 1), (2, 8)] {
            let found = recut(Tensor::from_data(patches(from), &Device::flex()), from, to);
            assert_eq!(found.into_data(), patches(to), "{from} to {to}");
        }
    }

    #[test]
    fn classes_are_found_by_their_names() {
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let student = names(&["ant", "bee", "cat"]);
        assert_eq!(order(&student, &student), None);
        assert_eq!(order(&student, &names(&["cat", "ant", "bee"])), Some(vec![1, 2, 0]));
    }
}
