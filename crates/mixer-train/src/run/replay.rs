//! Looks again at an update that was not finite: which examples and which parameters it came from.

use mixer_model::{Mixer, Weights};

use crate::disk::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::run::divergence::Divergence;
use crate::run::stop::Stop;
use crate::run::trainer::Trainer;
use crate::show::progress::Progress;
use crate::update::batch_gradient::{BatchGradient, Gradient};
use crate::update::optimizer::Clip;

/// Lines of each table of a report.
const MAX_LINES: usize = 20;

/// What an update gave when it was done again; it was not applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// The update, from 0.
    pub step: u64,
    /// Mean loss.
    pub loss: f64,
    /// Norm of the whole gradient.
    pub grad_norm: f64,
    /// Whether the batch holds the examples that the file names.
    pub is_same_batch: bool,
    /// The examples, highest loss first, before them those without a finite one.
    pub examples: Vec<ExampleLoss>,
    /// The parameters, largest gradient first, before them those without a finite one.
    pub parameters: Vec<ParameterGradient>,
}

/// The loss of one example.
#[derive(Debug, Clone, PartialEq)]
pub struct ExampleLoss {
    /// Its index in the training split.
    pub index: u64,
    /// Its path, or whatever its source calls it.
    pub name: String,
    /// Its loss.
    pub loss: f32,
}

/// The gradient of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterGradient {
    /// Its name in weights files.
    pub name: String,
    /// Norm of its gradient.
    pub norm: f64,
    /// Values of its gradient that are not finite.
    pub non_finite: usize,
}

impl Trainer {
    /// Trains from a checkpoint (or the first update) up to the update of `divergence`, does that one
    /// again, and reports. Nothing in the run directory is touched.
    ///
    /// # Errors
    /// Whatever reading data can raise, and [`TrainError::Checkpoint`] when the checkpoint is younger
    /// than the update.
    pub fn replay(
        &self,
        divergence: &Divergence,
        initial: impl FnOnce() -> Result<Weights, TrainError>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Replay, TrainError> {
        let plan = &self.plan;
        let (mut mixer, mut optimizer, mut state) = self.restore(initial, checkpoint)?;
        if state.step > divergence.step {
            return Err(TrainError::Checkpoint {
                action: "cannot replay",
                reason: format!(
                    "the checkpoint is of step {}, expected at most {}",
                    state.step, divergence.step
                ),
                path: self.run_dir.checkpoints(),
            });
        }
        let mut progress = Progress::new("step", divergence.step, state.step);
        let device = self.autodiff_device();
        let mut batches =
            BatchGradient::new(self, state.step, state.skipped_train.clone(), &device)?;
        let never = || None::<Stop>;
        for step in state.step..divergence.step {
            let Ok(Gradient { sum, loss, squared_norm, .. }) =
                batches.next(&mixer, step, state.loss_factor(), never, |_| ())?
            else {
                unreachable!("nobody asks it to stop");
            };
            progress.update(step + 1, String::new);
            // An update that was left out, is left out.
            let is_finite = scalar(loss).is_finite() && scalar(squared_norm.clone()).is_finite();
            if let (Some(rule), Some(scale)) = (plan.train.loss_scale, &mut state.loss_scale) {
                if is_finite {
                    scale.applied(rule)
                } else {
                    scale.overflowed()
                };
            }
            if is_finite {
                let clip = plan.train.clip_norm.map(|limit| Clip { squared_norm, limit });
                mixer =
                    optimizer.update(mixer, sum, clip.as_ref(), plan.learning_rate().rate(step));
            }
        }
        progress.finish();
        let mut examples = Vec::with_capacity(plan.train.batch_size);
        let found =
            batches.next(&mixer, divergence.step, state.loss_factor(), never, |microbatch| {
                let losses: Vec<f32> = microbatch.losses.into_data().iter::<f32>().collect();
                for (&index, loss) in microbatch.indices.iter().zip(losses) {
                    let name = self.dataset.train.describe(index as usize);
                    examples.push(ExampleLoss { index, name, loss });
                }
            })?;
        let Ok(Gradient { sum, loss, squared_norm, indices, .. }) = found else {
            unreachable!("nobody asks it to stop");
        };
        examples.sort_by(|a, b| finite_last(a.loss.into(), b.loss.into()));
        let mut parameters: Vec<ParameterGradient> = sum
            .norms()
            .into_iter()
            .map(|(path, norm, non_finite)| {
                let name = Mixer::weights_name(&path).unwrap_or(path);
                ParameterGradient { name, norm, non_finite }
            })
            .collect();
        parameters.sort_by(|a, b| finite_last(a.norm, b.norm));
        Ok(Replay {
            step: divergence.step,
            loss: scalar(loss),
            grad_norm: scalar(squared_norm).sqrt(),
            is_same_batch: indices == divergence.examples,
            examples,
            parameters,
        })
    }
}

impl Replay {
    /// As a text for people.
    #[must_use]
    pub fn report(&self) -> String {
        let Replay { step, loss, grad_norm, examples, parameters, .. } = self;
        let mut text = format!("update {step}: loss {loss}, gradient norm {grad_norm}\n");
        text += &format!("\n{:>12}  {:>9}  example\n", "loss", "index");
        for ExampleLoss { index, name, loss } in examples.iter().take(MAX_LINES) {
            text += &format!("{loss:>12.4}  {index:>9}  {name}\n");
        }
        text += &more(examples.len());
        text += &format!("\n{:>12}  {:>10}  parameter\n", "gradient", "not finite");
        for ParameterGradient { name, norm, non_finite } in parameters.iter().take(MAX_LINES) {
            text += &format!("{norm:>12.4e}  {non_finite:>10}  {name}\n");
        }
        text + &more(parameters.len())
    }
}

fn more(lines: usize) -> String {
    match lines.saturating_sub(MAX_LINES) {
        0 => String::new(),
        more => format!("… and {more} more\n"),
    }
}

/// What is not finite comes first, then the largest.
fn finite_last(a: f64, b: f64) -> std::cmp::Ordering {
    a.is_finite().cmp(&b.is_finite()).then(b.total_cmp(&a))
}

fn scalar(tensor: burn::tensor::Tensor<1>) -> f64 {
    tensor.into_data().iter::<f32>().next().map_or(f64::NAN, f64::from)
}
