//! Loss and accuracy over a split, counting every example once.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Device;
use mixer_analysis::rank;
use mixer_data::{EvalTransform, Loader, OnCorrupt, SkippedExample, Source};
use mixer_model::Mixer;
use mixer_model::weights::Preprocessing;
use serde::{Deserialize, Deserializer, Serialize};

use crate::group::Group;
use crate::halt::Halt;
use crate::input::loading::Loading;
use crate::input::normaliser::Normaliser;
use crate::input::stream::{Input, Stream};
use crate::update::loss::{Loss, smoothed_targets};

/// Loss and accuracy over a split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean loss, without label smoothing.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Fraction of examples whose most probable class is theirs.
    pub top1: f64,
    /// Fraction of examples whose class is among the five most probable.
    pub top5: f64,
    /// Examples counted.
    pub n: u64,
}

/// The result of one example.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Its loss.
    pub loss: f32,
    /// Classes that are more probable than its own.
    pub rank: u32,
}

impl Evaluation {
    /// The means over examples, summed in their order in f64.
    #[must_use]
    pub fn of(scores: &[Score]) -> Self {
        let n = (scores.len() as f64).max(1.0);
        let below = |limit| scores.iter().filter(|score| score.rank < limit).count() as f64;
        let loss: f64 = scores.iter().map(|score| f64::from(score.loss)).sum();
        let n_scores = scores.len() as u64;
        Self { loss: loss / n, top1: below(1) / n, top5: below(5) / n, n: n_scores }
    }

    /// `true` where the top-5 accuracy says something that is worth a look: of five classes or fewer, the five
    /// most probable are all.
    #[must_use]
    pub fn has_top5(num_classes: usize) -> bool {
        num_classes > 5
    }
}

/// JSON has no number for a loss that is not finite: it is written as `null`.
pub(crate) fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// An evaluation as it is to be made.
#[derive(Debug, Clone)]
pub struct Evaluator {
    /// Preprocessing of pictures.
    pub transform: EvalTransform,
    /// Normalisation of their pixels.
    pub preprocessing: Preprocessing,
    /// Loss that is reported.
    pub loss: Loss,
    /// Examples per batch; on a GPU the last one is padded, so that shapes never change.
    pub batch_size: usize,
    /// Threads and memory that read them.
    pub loading: Loading,
    /// Fate of examples that cannot be read.
    pub on_corrupt: OnCorrupt,
}

impl Evaluator {
    /// Evaluates a network without autodiff over a whole source; `stop` is called with the number of
    /// examples done, `skipped` is told of every example that is passed over.
    ///
    /// # Errors
    /// `Halt::Stop` with what `stop` answers; `Halt::Failed` when an example cannot be read.
    pub fn run<S>(
        &self,
        mixer: &Mixer,
        device: &Device,
        source: &Arc<dyn Source>,
        stop: impl FnMut(u64) -> Option<S>,
        skipped: impl FnMut(&SkippedExample),
    ) -> Result<Evaluation, Halt<S>> {
        let scores = self.scores(mixer, device, source, 0..source.len(), stop, skipped)?;
        Ok(Evaluation::of(&scores))
    }

    /// The share of the examples of a source that a process evaluates: whole batches, one process's behind
    /// the other's.
    #[must_use]
    pub fn share(&self, examples: usize, group: &dyn Group) -> Range<usize> {
        let batches = examples.div_ceil(self.batch_size);
        let start = |rank: usize| {
            (batches as u128 * rank as u128 / group.size() as u128) as usize * self.batch_size
        };
        start(group.rank()).min(examples)..start(group.rank() + 1).min(examples)
    }

    /// Evaluates a network on some examples of a source, each as [`Score`].
    ///
    /// # Errors
    /// Those of [`Evaluator::run`].
    pub fn scores<S>(
        &self,
        mixer: &Mixer,
        device: &Device,
        source: &Arc<dyn Source>,
        part: Range<usize>,
        mut stop: impl FnMut(u64) -> Option<S>,
        mut skipped: impl FnMut(&SkippedExample),
    ) -> Result<Vec<Score>, Halt<S>> {
        let (patch_size, num_classes) = (mixer.config().patch_size, mixer.config().num_classes);
        let config = self.loading.loader(self.batch_size, patch_size, self.on_corrupt);
        let part = part.start as u64..part.end as u64;
        let loader = Loader::eval_part(Arc::clone(source), self.transform.clone(), part, config)?;
        let normaliser = Normaliser::new(&self.preprocessing, mixer.config(), device);
        let mut stream = Stream::new(loader, normaliser, |_| Ok(()))?;
        let mut scores = Vec::new();
        while let Some(Input { patches, batch, .. }) = stream.next(|| stop(scores.len() as u64))? {
            let rows = patches.dims()[0];
            let logits = mixer.forward(patches);
            let targets = smoothed_targets(&batch.labels[..rows], num_classes, 0.0);
            let targets = stream.normaliser().matrix(targets, rows);
            let losses = self.loss.per_example(logits.clone(), targets);
            // SYNC: one read of the losses and one of the logits per batch.
            let losses: Vec<f32> = losses.into_data().iter::<f32>().collect();
            let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
            for i in 0..batch.num_examples {
                let logits = &logits[i * num_classes..(i + 1) * num_classes];
                let rank = rank(logits, batch.labels[i] as usize);
                let rank = u32::try_from(rank).unwrap_or(u32::MAX);
                scores.push(Score { loss: losses[i], rank });
            }
            batch.skipped.iter().for_each(&mut skipped);
        }
        Ok(scores)
    }
}
