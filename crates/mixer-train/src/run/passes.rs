//! The gradient of an update: of one pass over its batch, or of two, where it is sharpness-aware. Training and
//! replaying come by it in the same way.

use mixer_model::Mixer;

use crate::disk::checkpoint::RunState;
use crate::error::TrainError;
use crate::halt::{Halt, Stop};
use crate::run::job::Job;
use crate::run::together::{Joined, Together};
use crate::update::batch_gradient::{BatchGradient, Gradient, Microbatch};

/// Computes the gradient of one update after another.
pub(crate) struct Passes<'a> {
    job: &'a Job,
    batches: BatchGradient<'a>,
}

impl<'a> Passes<'a> {
    /// The updates of a run from a state on.
    pub(crate) fn new(job: &'a Job, state: &RunState) -> Result<Self, TrainError> {
        let skipped = state.skipped_train.iter().copied();
        Ok(Self { job, batches: BatchGradient::new(job, state.step, skipped)? })
    }

    /// The gradient that the next update applies, and the loss at the weights themselves. `ready` is the reason for
    /// which this process takes no part, `stop` the question whether to stop, and `watch` sees each microbatch of the
    /// first pass.
    ///
    /// # Errors
    /// Those of [`Together::gradient`].
    pub(crate) fn next(
        &mut self,
        mixer: &Mixer,
        state: &RunState,
        together: &mut Together,
        ready: Result<(), TrainError>,
        stop: impl Fn() -> Option<Stop>,
        watch: impl FnMut(Microbatch),
    ) -> Result<Joined, Halt> {
        let plan = &self.job.plan;
        let (step, factor, known) = (state.step, state.loss_factor(), &state.skipped_train);
        let sam = plan.optimizer.sam.filter(|sam| sam.acts(step));
        let batches = &mut self.batches;
        let own = ready
            .map_err(Halt::Failed)
            .and_then(|()| batches.next(mixer, factor, sam.is_some(), &stop, watch));
        let mut first = together.gradient(own, known)?;
        let Some(sam) = sam else { return Ok(first) };
        let radius = sam.radius(step, &plan.learning_rate());
        let Gradient { sum, .. } = first.gradient;
        let moved = sam.ascended(mixer, &sum, radius, |number| together.number(number));
        // Where it is not needed, it is gone before the second one is there.
        let plain = (sam.alpha > 0.0).then_some(sum);
        let second = together.gradient(batches.again(&moved, factor, &stop), known)?;
        drop(moved);
        let sum = sam.descent(plain, second.gradient.sum, |number| together.number(number));
        first.gradient = Gradient { sum, ..first.gradient };
        first.is_save_asked |= second.is_save_asked;
        first.time += second.time;
        Ok(first)
    }
}
