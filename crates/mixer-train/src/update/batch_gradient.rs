//! One batch of training: examples in, loss and gradient out, a microbatch at a time. Of several processes
//! each has its share of the batch.

use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Tensor;
use mixer_data::{Batch, BatchMix, Loader, MixKind, Positions, Share, SkippedExample};
use mixer_model::Mixer;

use crate::error::TrainError;
use crate::halt::Halt;
use crate::input::normaliser::{Normaliser, Pixels};
use crate::input::stream::{Stream, Uploaded};
use crate::run::job::Job;
use crate::update::loss::{mixed_targets, smoothed_targets};
use crate::update::optimizer::{GradientSum, GradientTree};

/// Computes the gradient of one batch after another.
pub(crate) struct BatchGradient<'a> {
    job: &'a Job,
    stream: Stream,
    /// The microbatches of the last batch, where it is computed with again.
    kept: Vec<Prepared>,
}

/// A microbatch, and what its teacher says of it once it was asked.
struct Prepared {
    pixels: Pixels,
    batch: Batch,
    /// Logarithms of the teacher's probabilities, `[B, K]`.
    teacher: Option<Tensor<2>>,
}

/// The gradient of a process's share of a batch, and what else is known of it.
pub(crate) struct Gradient {
    pub(crate) sum: GradientSum,
    /// Its part of the mean loss of the batch, `[1]`.
    pub(crate) loss: Tensor<1>,
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
        let (batch, ranks) = (plan.train.batch_size as u64, job.group.size() as u64);
        let own = batch / ranks;
        let first = step * batch + job.group.rank() as u64 * own;
        let share = (ranks > 1).then_some(Share { own, of: batch });
        let loader = Loader::train_in_order(
            Arc::clone(&job.dataset.train),
            plan.train_transform().clone(),
            plan.seed,
            plan.order(),
            Positions { first, share, led_in: plan.data.leads_microbatches().then_some(batch) },
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
        Ok(Self { job, stream, kept: Vec::new() })
    }

    /// The gradient of this process's share of the next batch, by way of a loss that is multiplied by `loss_scale`.
    /// `stop` is asked before each microbatch and while data is waited for; asked to stop, the batch is lost, and the
    /// weights are those before it. `watch` sees each microbatch. What is to be kept is there for
    /// [`BatchGradient::again`].
    pub(crate) fn next<S>(
        &mut self,
        mixer: &Mixer,
        loss_scale: f64,
        is_kept: bool,
        stop: impl Fn() -> Option<S>,
        mut watch: impl FnMut(Microbatch),
    ) -> Result<Gradient, Halt<S>> {
        let plan = &self.job.plan;
        let own = self.own_microbatches();
        let mut tree = GradientTree::new(loss_scale, self.job.device.is_gpu());
        let (mut indices, mut skipped) = (Vec::with_capacity(plan.train.batch_size), Vec::new());
        let mut waited = Duration::ZERO;
        self.kept.clear();
        for _ in 0..own {
            let Some((uploaded, waited_now)) = self.stream.next_uploaded(&stop)? else {
                unreachable!("a training stream does not end");
            };
            let Uploaded { pixels, mut batch } = uploaded;
            waited += waited_now;
            skipped.append(&mut batch.skipped);
            // Behind them there may be a partner that another microbatch has.
            let own = batch.indices[..plan.train.microbatch_size].to_vec();
            let mut prepared = Prepared { pixels, batch, teacher: None };
            let losses = self.add(mixer, &mut prepared, &mut tree);
            watch(Microbatch { indices: &own, losses });
            indices.extend(own);
            if is_kept {
                self.kept.push(prepared);
            }
        }
        let (loss, sum) = finished(tree);
        Ok(Gradient { sum, loss, indices, skipped, waited })
    }

    /// The gradient of the batch that was kept once more, with the same draws, for other weights; it is kept no longer.
    /// Otherwise as [`BatchGradient::next`].
    pub(crate) fn again<S>(
        &mut self,
        mixer: &Mixer,
        loss_scale: f64,
        stop: impl Fn() -> Option<S>,
    ) -> Result<Gradient, Halt<S>> {
        let mut tree = GradientTree::new(loss_scale, self.job.device.is_gpu());
        for mut prepared in std::mem::take(&mut self.kept) {
            if let Some(stop) = stop() {
                return Err(Halt::Stop(stop));
            }
            self.add(mixer, &mut prepared, &mut tree);
        }
        let (loss, sum) = finished(tree);
        let (indices, skipped, waited) = (Vec::new(), Vec::new(), Duration::ZERO);
        Ok(Gradient { sum, loss, indices, skipped, waited })
    }

    /// Microbatches of a batch that are this process's.
    fn own_microbatches(&self) -> usize {
        let train = &self.job.plan.train;
        train.batch_size / train.microbatch_size / self.job.group.size()
    }

    /// Adds a microbatch to a sum. Returns the loss of each example, `[B]`, without autodiff.
    fn add(
        &self,
        mixer: &Mixer,
        Prepared { pixels, batch, teacher: known }: &mut Prepared,
        tree: &mut GradientTree,
    ) -> Tensor<1> {
        let plan = &self.job.plan;
        let normaliser = self.stream.normaliser();
        let mut patches = normaliser.normalised(pixels);
        let microbatches = plan.train.batch_size / plan.train.microbatch_size;
        let (rows, num_classes) = (plan.train.microbatch_size, plan.model.network.num_classes);
        let mut targets = smoothed_targets(&batch.labels, num_classes, plan.train.label_smoothing);
        let partners = batch.mix.as_ref().map_or(Vec::new(), |mix| mix.partners(rows));
        if let Some(mix) = &batch.mix {
            targets = mixed_targets(&targets, num_classes, &partners, mix.lambda);
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
        let teacher = self.job.teacher.as_ref().zip(plan.train.teacher.as_ref());
        let taught = teacher.map(|(teacher, rule)| {
            let of_teacher = || teacher.log_probabilities(patches.clone().inner());
            (rule, known.get_or_insert_with(of_teacher).clone().autodiff())
        });
        let logits = mixer.forward_training(patches, scales);
        let targets = normaliser.matrix(targets, rows);
        let losses = plan.train.loss.per_example(logits.clone(), targets);
        let losses = match taught {
            Some((rule, teacher)) => rule.losses(losses, logits, teacher),
            None => losses,
        };
        let of_examples = losses.clone().inner();
        let loss = losses.mean() / microbatches as f64;
        let value = loss.clone().inner();
        let loss_scale = tree.loss_scale();
        let scaled = if loss_scale == 1.0 { loss } else { loss * loss_scale };
        tree.add(mixer, value, &scaled.backward());
        of_examples
    }
}

fn finished(tree: GradientTree) -> (Tensor<1>, GradientSum) {
    tree.finish().unwrap_or_else(|| unreachable!("a batch has a microbatch for every process"))
}
