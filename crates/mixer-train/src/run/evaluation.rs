//! Loss and accuracy over a split, counting every example once.

use std::sync::Arc;

use burn::tensor::Device;
use mixer_analysis::rank;
use mixer_data::{EvalTransform, Loader, OnCorrupt, SkippedExample, Source};
use mixer_model::Mixer;
use mixer_model::weights::Preprocessing;
use serde::{Deserialize, Deserializer, Serialize};

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

impl Evaluation {
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
    /// Examples per batch; the last one is padded, so that shapes never change.
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
        mut stop: impl FnMut(u64) -> Option<S>,
        mut skipped: impl FnMut(&SkippedExample),
    ) -> Result<Evaluation, Halt<S>> {
        let (patch_size, num_classes) = (mixer.config().patch_size, mixer.config().num_classes);
        let config = self.loading.loader(self.batch_size, patch_size, self.on_corrupt);
        let loader = Loader::eval(Arc::clone(source), self.transform.clone(), config)?;
        let normaliser = Normaliser::new(&self.preprocessing, mixer.config(), device);
        let mut stream = Stream::new(loader, normaliser, |_| Ok(()))?;
        let mut sum = Evaluation { loss: 0.0, top1: 0.0, top5: 0.0, n: 0 };
        while let Some(Input { patches, batch, .. }) = stream.next(|| stop(sum.n))? {
            let logits = mixer.forward(patches);
            let targets = smoothed_targets(&batch.labels, num_classes, 0.0);
            let targets = stream.normaliser().matrix(targets, batch.labels.len());
            let losses = self.loss.per_example(logits.clone(), targets);
            // SYNC: one read of the losses and one of the logits per batch.
            let losses: Vec<f32> = losses.into_data().iter::<f32>().collect();
            let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
            for i in 0..batch.num_examples {
                let logits = &logits[i * num_classes..(i + 1) * num_classes];
                let rank = rank(logits, batch.labels[i] as usize);
                sum.loss += f64::from(losses[i]);
                sum.top1 += f64::from(u8::from(rank < 1));
                sum.top5 += f64::from(u8::from(rank < 5));
                sum.n += 1;
            }
            batch.skipped.iter().for_each(&mut skipped);
        }
        let n = (sum.n as f64).max(1.0);
        let Evaluation { loss, top1, top5, n: count } = sum;
        Ok(Evaluation { loss: loss / n, top1: top1 / n, top5: top5 / n, n: count })
    }
}
