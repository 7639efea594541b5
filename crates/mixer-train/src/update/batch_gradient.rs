//! One batch of training: examples in, loss and gradient out, a microbatch at a time.

use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Tensor;
use mixer_data::{Batch, BatchMix, Loader, MixKind, SkippedExample};
use mixer_model::Mixer;

use crate::error::TrainError;
use crate::halt::Halt;
use crate::input::normaliser::Normaliser;
use crate::input::stream::{Input, Stream};
use crate::run::job::Job;
use crate::update::loss::{mixed_targets, smoothed_targets};
use crate::update::optimizer::GradientSum;

/// Computes the gradient of one batch after another.
pub(crate) struct BatchGradient<'a> {
    job: &'a Job,
    stream: Stream,
}

/// The gradient of one batch, and what else is known of it.
pub(crate) struct Gradient {
    pub(crate) sum: GradientSum,
    /// Mean loss of the batch, `[1]`.
    pub(crate) loss: Tensor<1>,
    /// Squared norm of the gradient, `[1]`.
    pub(crate) squared_norm: Tensor<1>,
    /// Index of each example.
    pub(crate) indices: Vec<u64>,
    /// Examples that were passed over for the first time.
    pub(crate) skipped: Vec<SkippedExample>,
    /// Time spent waiting for data.
    pub(crate) waited: Duration,
}

/// A microbatch, for somebody who watches.
pub(crate) struct Microbatch<'a> {
    /// Index of each example.
    pub(crate) indices: &'a [u64],
    /// Loss of each example, `[B]`, without autodiff.
    pub(crate) losses: Tensor<1>,
}

impl<'a> BatchGradient<'a> {
    /// The stream of a run's training examples from the batch of update `step` on. Those of `skipped` were
    /// passed over before.
    pub(crate) fn new(
        job: &'a Job,
        step: u64,
        skipped: impl IntoIterator<Item = u64>,
    ) -> Result<Self, TrainError> {
        let plan = &job.plan;
        let loader = Loader::train_in_order(
            Arc::clone(&job.dataset.train),
            plan.train_transform().clone(),
            plan.seed,
            plan.order(),
            step * plan.train.batch_size as u64,
            job.loading.loader(
                plan.train.microbatch_size,
                plan.model.network.patch_size,
                plan.data.on_corrupt,
            ),
        )?;
        let (network, device) = (&plan.model.network, job.autodiff_device());
        let normaliser = Normaliser::new(&plan.preprocessing(), network, &device);
        let (mix, seed) = (plan.data.mix.clone(), plan.seed);
        let (batch_size, image_size) =
            (plan.train.batch_size as u64, plan.model.network.image_size as u32);
        let apply_mix = move |batch: &mut Batch| match &mix {
            Some(mix) => mix.apply(batch, seed, batch.first_position / batch_size, image_size),
            None => Ok(()),
        };
        let stream = Stream::new(loader.with_skipped(skipped), normaliser, apply_mix)?;
        Ok(Self { job, stream })
    }

    /// The gradient of the next batch, by way of a loss that is multiplied by `loss_scale`. `stop` is asked before each microbatch and while data is waited for; asked to stop, the
    /// batch is lost, and the weights are those before it. `watch` sees each microbatch.
    pub(crate) fn next<S>(
        &mut self,
        mixer: &Mixer,
        loss_scale: f64,
        stop: impl Fn() -> Option<S>,
        mut watch: impl FnMut(Microbatch),
    ) -> Result<Gradient, Halt<S>> {
        let plan = &self.job.plan;
        let device = &self.job.device.device;
        let microbatches = plan.train.batch_size / plan.train.microbatch_size;
        let mut sum = GradientSum::scaled(loss_scale);
        let mut loss_sum = Tensor::<1>::zeros([1], device);
        let (mut indices, mut skipped) = (Vec::with_capacity(plan.train.batch_size), Vec::new());
        let mut waited = Duration::ZERO;
        for _ in 0..microbatches {
            let Some(input) = self.stream.next(&stop)? else {
                unreachable!("a training stream does not end");
            };
            let Input { mut patches, mut batch, waited: waited_now } = input;
            let normaliser = self.stream.normaliser();
            waited += waited_now;
            indices.extend_from_slice(&batch.indices);
            skipped.append(&mut batch.skipped);
            let rows = plan.train.microbatch_size;
            let mut targets = smoothed_targets(
                &batch.labels,
                plan.model.network.num_classes,
                plan.train.label_smoothing,
            );
            let partners = batch.mix.as_ref().map_or(Vec::new(), |mix| mix.partners(rows));
            if let Some(mix) = &batch.mix {
                targets = mixed_targets(&targets, &partners, mix.lambda);
            }
            let positions = batch.first_position..batch.first_position + rows as u64;
            let scales = plan
                .model
                .drop_path()
                .branch_scales(plan.model.network.num_blocks, plan.seed, positions)
                .map(|scales| normaliser.matrix(scales, 2 * plan.model.network.num_blocks));
            if let Some(BatchMix { kind: MixKind::Mixup, lambda, .. }) = &batch.mix {
                patches = normaliser.mixed(patches, &partners, *lambda);
            }
            let logits = mixer.forward_training(patches, scales);
            let targets = normaliser.matrix(targets, rows);
            let losses = plan.train.loss.per_example(logits, targets);
            watch(Microbatch { indices: &batch.indices, losses: losses.clone().inner() });
            let loss = losses.mean() / microbatches as f64;
            loss_sum = loss_sum + loss.clone().inner();
            let scaled = if loss_scale == 1.0 { loss } else { loss * loss_scale };
            sum.add(mixer, &scaled.backward());
        }
        let squared_norm = sum.squared_norm().unwrap_or_else(|| Tensor::zeros([1], device));
        Ok(Gradient { sum, loss: loss_sum, squared_norm, indices, skipped, waited })
    }
}
