//! An evaluation in depth: every example's answer, and what they add up to.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use mixer_analysis::{Measures, Scored, Tally};
use mixer_data::{OnCorrupt, SkippedExample, Source};
use mixer_model::weights::Shuffle;
use mixer_model::{Mixer, MixerConfig};

use crate::classifier::Classifier;
use crate::error::TrainError;

/// An evaluation in depth, as it is to be made.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// The label of each class of the source among the outputs; empty where they are the same.
    pub outputs: Vec<usize>,
    /// `true` to compare only the outputs of classes that occur.
    pub only_present: bool,
    /// `true` to average the logits of a picture and of its mirror image.
    pub flip: bool,
    /// Examples per batch.
    pub batch_size: usize,
    /// Fate of examples that cannot be read.
    pub on_corrupt: OnCorrupt,
}

/// One example's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Index of the example.
    pub index: usize,
    /// Its class, a position in [`Detailed::classes`], as is the prediction.
    pub label: usize,
    /// The answer beside it.
    pub scored: Scored,
}

/// Result of [`Details::run`].
#[derive(Debug, Clone)]
pub struct Detailed {
    /// The outputs that were compared.
    pub outputs: Vec<usize>,
    /// Their names.
    pub classes: Vec<String>,
    /// The measures.
    pub measures: Measures,
    /// The examples, in their order.
    pub rows: Vec<Row>,
    /// Logits of the compared outputs, `[N, K]`, not divided by a temperature.
    pub logits: Vec<f32>,
}

impl Details {
    /// Evaluates a source; `progress` is called with the number of examples done, `skipped` with each example
    /// that is passed over.
    ///
    /// # Errors
    /// [`TrainError::DataMismatch`] for a class without an output, [`TrainError::Data`] when an example cannot
    /// be read.
    pub fn run(
        &self,
        classifier: &Classifier,
        source: &Arc<dyn Source>,
        mut progress: impl FnMut(u64),
        skipped: impl FnMut(&SkippedExample),
    ) -> Result<Detailed, TrainError> {
        let config = classifier.config();
        let num_classes = config.num_classes;
        let output = |class: u32| -> usize {
            self.outputs.get(class as usize).copied().unwrap_or(class as usize)
        };
        let outputs: Vec<usize> = if self.only_present {
            let present: BTreeSet<usize> =
                (0..source.len()).map(|i| output(source.label(i))).collect();
            present.into_iter().collect()
        } else {
            (0..num_classes).collect()
        };
        let mut position = vec![None; num_classes];
        outputs.iter().enumerate().for_each(|(i, output)| position[*output] = Some(i));
        let names = classifier.classes();
        let name = |output: &usize| {
            let known = match names {
                Some(names) => names.get(*output),
                None if self.outputs.is_empty() => source.class_names().get(*output),
                None => None,
            };
            known.map_or_else(|| format!("class {output}"), Clone::clone)
        };
        let temperature = classifier.temperature();
        let mut tally = Tally::new(outputs.len());
        let (mut rows, mut logits) = (Vec::new(), Vec::new());
        let mirror = self.flip.then(|| mirror(config, classifier.preprocessing().shuffle));
        let network = |mixer: &Mixer, patches: Tensor<3>| match &mirror {
            Some(mirror) => {
                let mirrored = moved(patches.clone(), mirror);
                (mixer.forward(patches) + mixer.forward(mirrored)) / 2.0
            }
            None => mixer.forward(patches),
        };
        let each = |index: usize, all: &[f32]| {
            let Some(label) = position[output(source.label(index))] else { return };
            let own: Vec<f32> = outputs.iter().map(|output| all[*output]).collect();
            let cooled: Vec<f32> =
                own.iter().map(|logit| (f64::from(*logit) / temperature) as f32).collect();
            let scored = tally.add(if temperature == 1.0 { &own } else { &cooled }, label);
            rows.push(Row { index, label, scored });
            logits.extend(own);
            progress(rows.len() as u64);
        };
        classifier.for_each(source, (self.batch_size, self.on_corrupt), skipped, network, each)?;
        let classes = outputs.iter().map(name).collect();
        Ok(Detailed { measures: tally.measures(), outputs, classes, rows, logits })
    }
}

/// The pixel of the network's input that each pixel is in the input of the mirror image, `[S·P·P]`.
fn mirror(config: &MixerConfig, shuffle: Shuffle) -> Vec<usize> {
    let (grid, p) = (config.grid_size(), config.patch_size);
    let mirrored = |pixel: usize| {
        let (token, y, x) = (pixel / (p * p), pixel / p % p, pixel % p);
        let token = token / grid * grid + grid - 1 - token % grid;
        (token * p + y) * p + p - 1 - x
    };
    let Some(order) = shuffle.patchwise(config.image_size, p) else {
        return (0..config.num_tokens() * p * p).map(mirrored).collect();
    };
    // Pictures are mirrored before they are shuffled.
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(at, from)| place[*from] = at);
    order.into_iter().map(|from| place[mirrored(from)]).collect()
}

/// Patches with their pixels in another order; the three colours of a pixel stay together.
///
/// # Shapes
/// - `patches` and output: `[B, S, P·P·3]`
/// - `order`: `[S·P·P]`
fn moved(patches: Tensor<3>, order: &[usize]) -> Tensor<3> {
    let (dims, device) = (patches.dims(), patches.device());
    let order: Vec<i32> = order.iter().map(|from| *from as i32).collect();
    let pixels = order.len();
    let order = Tensor::<1, Int>::from_data(TensorData::new(order, [pixels]), &device);
    patches.reshape([dims[0], pixels, 3]).select(1, order).reshape(dims)
}

impl Detailed {
    /// The examples that are wrong, the most confident first.
    #[must_use]
    pub fn mistakes(&self, limit: usize) -> Vec<Row> {
        let mut wrong: Vec<Row> =
            self.rows.iter().filter(|row| row.scored.rank > 0).copied().collect();
        wrong.sort_by(|a, b| b.scored.confidence.total_cmp(&a.scored.confidence));
        wrong.truncate(limit);
        wrong
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn pictures_are_mirrored_patch_by_patch() {
        let config =
            mixer_model::Variant::parse("S/2").unwrap().config(4, 10, mixer_model::Gelu::Tanh);
        // The number of a pixel's column is its value.
        let columns: Vec<f32> = (0..4)
            .flat_map(|token| (0..4).flat_map(move |at| [(token % 2 * 2 + at % 2) as f32; 3]))
            .collect();
        let patches =
            Tensor::from_data(TensorData::new(columns.clone(), [1, 4, 12]), &Device::flex());
        let values = |patches: Tensor<3>| patches.into_data().iter::<f32>().collect::<Vec<f32>>();
        let expected: Vec<f32> = columns.iter().map(|column| 3.0 - column).collect();
        let mirror_of = |shuffle| mirror(&config, shuffle);
        assert_eq!(values(moved(patches.clone(), &mirror_of(Shuffle::None))), expected);
        // Where pictures are shuffled, so are their mirror images.
        let mirrored = moved(patches.clone(), &mirror_of(Shuffle::None));
        for shuffle in [Shuffle::Patches { seed: 1 }, Shuffle::Pixels { seed: 1 }] {
            let order = shuffle.patchwise(4, 2).unwrap();
            let seen = moved(patches.clone(), &order);
            let expected = values(moved(mirrored.clone(), &order));
            assert_eq!(values(moved(seen, &mirror_of(shuffle))), expected);
        }
    }
}
