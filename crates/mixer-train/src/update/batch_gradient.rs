//! One batch of training: examples in, loss and gradient out, a microbatch at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use mixer_data::{Batch, BatchMix, Loader, LoaderConfig, MixKind, SkippedExample};
use mixer_model::Mixer;

use crate::error::TrainError;
use crate::input::normaliser::Normaliser;
use crate::input::uploads::{Uploaded, Uploads};
use crate::run::stop::Stop;
use crate::run::trainer::Trainer;
use crate::update::loss::{mixed_targets, smoothed_targets};
use crate::update::optimizer::GradientSum;

/// Computes the gradient of one batch after another.
pub(crate) struct BatchGradient<'a> {
    trainer: &'a Trainer,
    uploads: Uploads,
    normaliser: Normaliser,
}

/// What a batch gave.
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
    /// Of the stream of a run's training examples, from the batch of update `step` on. Those of `skipped`
    /// were passed over before.
    pub(crate) fn new(
        trainer: &'a Trainer,
        step: u64,
        skipped: impl IntoIterator<Item = u64>,
        device: &Device,
    ) -> Result<BatchGradient<'a>, TrainError> {
        let plan = &trainer.plan;
        let loader = Loader::train_in_order(
            Arc::clone(&trainer.dataset.train),
            plan.train_transform(),
            plan.seed,
            plan.order(),
            step * plan.train.batch_size as u64,
            LoaderConfig {
                batch_size: plan.train.microbatch_size,
                patch_size: plan.model.network.patch_size,
                workers: trainer.workers,
                queue_bytes: trainer.queue_bytes,
                on_corrupt: plan.data.on_corrupt,
            },
        )?;
        let normaliser =
            Normaliser::new(&plan.preprocessing(), plan.model.network.patch_size, device);
        let (mix, seed) = (plan.data.mix.clone(), plan.seed);
        let (batch_size, image_size) =
            (plan.train.batch_size as u64, plan.model.network.image_size as u32);
        let cutmix = move |batch: &mut Batch| match &mix {
            Some(mix) => {
                let step = batch.first_position / batch_size;
                mix.draw(seed, step, image_size).apply_cutmix(batch)
            }
            None => Ok(()),
        };
        let uploads = Uploads::new(loader.with_skipped(skipped), normaliser.clone(), cutmix)?;
        Ok(BatchGradient { trainer, uploads, normaliser })
    }

    /// The gradient of the next batch, that of update `step` (from 0), by way of a loss that is multiplied
    /// by `loss_scale`. `stop` is asked before each microbatch and while data is waited for; what it
    /// answers is passed on, and then the batch is lost. `watch` sees each microbatch.
    pub(crate) fn next(
        &mut self,
        mixer: &Mixer,
        step: u64,
        loss_scale: f64,
        stop: impl Fn() -> Option<Stop>,
        mut watch: impl FnMut(Microbatch),
    ) -> Result<Result<Gradient, Stop>, TrainError> {
        let plan = &self.trainer.plan;
        let device = &self.trainer.device.device;
        let microbatches = plan.train.batch_size / plan.train.microbatch_size;
        let mut sum = GradientSum::scaled(loss_scale);
        let mut loss_sum = Tensor::<1>::zeros([1], device);
        let (mut indices, mut skipped) = (Vec::with_capacity(plan.train.batch_size), Vec::new());
        let mut waited = Duration::ZERO;
        let mix = plan
            .data
            .mix
            .as_ref()
            .map(|mix| mix.draw(plan.seed, step, plan.model.network.image_size as u32));
        for _ in 0..microbatches {
            let waiting = Instant::now();
            let Uploaded { pixels, mut batch } = match self.uploads.next(&stop)? {
                Ok(Some(uploaded)) => uploaded,
                Ok(None) => unreachable!("a training stream does not end"),
                Err(stop) => return Ok(Err(stop)),
            };
            waited += waiting.elapsed();
            indices.extend_from_slice(&batch.indices);
            skipped.append(&mut batch.skipped);
            let rows = plan.train.microbatch_size;
            let mut targets = smoothed_targets(
                &batch.labels,
                plan.model.network.num_classes,
                plan.train.label_smoothing,
            );
            let partners = mix.as_ref().map_or(Vec::new(), |mix| mix.partners(rows));
            if let Some(mix) = &mix {
                targets = mixed_targets(&targets, &partners, mix.lambda);
            }
            let positions = batch.first_position..batch.first_position + rows as u64;
            let scales = plan
                .model
                .drop_path()
                .branch_scales(plan.model.network.num_blocks, plan.seed, positions)
                .map(|scales| self.normaliser.matrix(scales, 2 * plan.model.network.num_blocks));
            let mut patches = self.normaliser.normalised(pixels);
            if let Some(BatchMix { kind: MixKind::Mixup, lambda, .. }) = &mix {
                patches = self.normaliser.mixed(patches, &partners, *lambda);
            }
            let logits = mixer.forward_training(patches, scales);
            let targets = self.normaliser.matrix(targets, rows);
            let losses = plan.train.loss.per_example(logits, targets);
            watch(Microbatch { indices: &batch.indices, losses: losses.clone().inner() });
            let loss = losses.mean() / microbatches as f64;
            loss_sum = loss_sum + loss.clone().inner();
            let scaled = if loss_scale == 1.0 { loss } else { loss * loss_scale };
            sum.add(mixer, &scaled.backward());
        }
        let squared_norm = sum.squared_norm().unwrap_or_else(|| Tensor::zeros([1], device));
        Ok(Ok(Gradient { sum, loss: loss_sum, squared_norm, indices, skipped, waited }))
    }
}
