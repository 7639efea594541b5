//! Another look at an update that was not finite: which examples and which parameters it came from.

use mixer_model::Mixer;

use crate::disk::checkpoint::RunState;
use crate::error::{CheckpointFault, TrainError};
use crate::halt::Halt;
use crate::run::divergence::Divergence;
use crate::run::job::{Job, Start};
use crate::run::passes::Passes;
use crate::run::together::Together;
use crate::show::progress::Progress;
use crate::show::visible::visible;
use crate::update::batch_gradient::{Gradient, Microbatch};
use crate::update::optimizer::Clip;

/// Lines of each table of a report.
const MAX_LINES: usize = 20;

/// An update that was done again, and not applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// The update, and what was found of it in the run.
    pub divergence: Divergence,
    /// Mean loss.
    pub loss: f64,
    /// Norm of the whole gradient.
    pub grad_norm: f64,
    /// `true` where the batch holds the examples that the file names.
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

/// Trains from `start` up to the update of `divergence`, does that one again, and reports. Nothing in the run
/// directory is touched.
///
/// # Errors
/// Whatever reading data can raise, and [`TrainError::Checkpoint`] when the checkpoint is younger than the
/// update.
pub fn replay(job: &Job, divergence: Divergence, start: Start) -> Result<Replay, TrainError> {
    let plan = &job.plan;
    let (mut mixer, mut optimizer, mut state) = job.restore(start)?;
    if state.step > divergence.step {
        let (found, at_most) = (state.step, divergence.step);
        let reason = format!("the checkpoint is of step {found}, expected at most {at_most}");
        let path = job.run_dir.checkpoints();
        return Err(TrainError::checkpoint(CheckpointFault::CannotReplay, reason, path));
    }
    let mut progress = Progress::new("step", divergence.step, state.step);
    let (mut passes, mut together) = (Passes::new(job, &state)?, Together::new(job));
    let mut gradient = |mixer: &Mixer, state: &RunState, watch: &mut dyn FnMut(Microbatch)| {
        let joined = passes.next(mixer, state, &mut together, Ok(()), || None, watch);
        joined.map(|joined| joined.gradient).map_err(|halt| match halt {
            Halt::Failed(error) => error,
            Halt::Stop(_) => unreachable!("nobody asks a replay to stop"),
        })
    };
    for step in state.step..divergence.step {
        let Gradient { sum, loss, .. } = gradient(&mixer, &state, &mut |_| ())?;
        let squared_norm = sum.squared_norm().unwrap_or_else(|| loss.zeros_like());
        progress.update(step + 1);
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
            mixer = optimizer.update(mixer, sum, clip.as_ref(), plan.learning_rate().rate(step));
        }
        state.step = step + 1;
    }
    progress.finish();
    let mut examples = Vec::with_capacity(plan.train.batch_size);
    let mut watch = |microbatch: Microbatch<'_>| {
        let losses: Vec<f32> = microbatch.losses.into_data().iter::<f32>().collect();
        for (&index, loss) in microbatch.indices.iter().zip(losses) {
            let name = job.dataset.train.describe(index as usize);
            examples.push(ExampleLoss { index, name, loss });
        }
    };
    let Gradient { sum, loss, indices, .. } = gradient(&mixer, &state, &mut watch)?;
    examples.sort_by(|a, b| finite_last(a.loss.into(), b.loss.into()));
    let mut parameters: Vec<ParameterGradient> = sum
        .norms()
        .into_iter()
        .map(|(path, norm, non_finite)| {
            let name = mixer.config().weights_name(&path).unwrap_or(path);
            ParameterGradient { name, norm, non_finite }
        })
        .collect();
    parameters.sort_by(|a, b| finite_last(a.norm, b.norm));
    Ok(Replay {
        loss: scalar(loss),
        grad_norm: sum.squared_norm().map_or(0.0, scalar).sqrt(),
        is_same_batch: indices == divergence.examples,
        divergence,
        examples,
        parameters,
    })
}

impl Replay {
    /// As a text for people.
    #[must_use]
    pub fn report(&self) -> String {
        let Self { divergence, loss, grad_norm, examples, parameters, .. } = self;
        let step = divergence.step;
        let mut text = format!("update {step}: loss {loss}, gradient norm {grad_norm}\n");
        text += &format!("\n{:>12}  {:>9}  example\n", "loss", "index");
        for ExampleLoss { index, name, loss } in examples.iter().take(MAX_LINES) {
            text += &format!("{loss:>12.4}  {index:>9}  {}\n", visible(name));
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

/// The order of a report: values that are not finite first, then the largest.
fn finite_last(a: f64, b: f64) -> std::cmp::Ordering {
    a.is_finite().cmp(&b.is_finite()).then(b.total_cmp(&a))
}

fn scalar(tensor: burn::tensor::Tensor<1>) -> f64 {
    tensor.into_data().iter::<f32>().next().map_or(f64::NAN, f64::from)
}
