//! Pictures in, classes out: weights on a device, with the preprocessing that they were trained with.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Tensor;
use mixer_data::{
    DataError, DecodeOptions, Example, Loader, OnCorrupt, SkippedExample, Source, read_file,
};
use mixer_model::weights::Preprocessing;
use mixer_model::{Compute, Mixer, MixerConfig, Weights};
use serde::Serialize;

use crate::device::DeviceEntry;
use crate::disk::run_dir;
use crate::error::TrainError;
use crate::halt::never;
use crate::input::loading::Loading;
use crate::input::normaliser::Normaliser;
use crate::input::preprocessing;
use crate::input::stream::{Input, Stream};
use crate::run::evaluation::{Evaluation, Evaluator};
use crate::update::loss::Loss;
use mixer_model::Precision;

/// Pictures that are classified at once; fewer where there are fewer, since a GPU's batch is always full.
const MAX_BATCH: usize = 16;

/// A network that answers what is in a picture.
pub struct Classifier {
    mixer: Mixer,
    device: DeviceEntry,
    classes: Option<Arc<[String]>>,
    preprocessing: Preprocessing,
    temperature: f64,
    loading: Loading,
}

/// A picture that is to be classified.
#[derive(Debug, Clone)]
pub enum Picture {
    /// A file.
    File(PathBuf),
    /// The bytes of a file that was read already, or the reason why it could not be.
    Read {
        /// The name that stands for its path.
        name: String,
        /// The bytes.
        bytes: Result<Arc<[u8]>, DataError>,
    },
}

/// The answer about one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The picture.
    pub path: PathBuf,
    /// Outputs of the network for it, or one line that says why it cannot be read.
    pub scores: Result<Scores, String>,
}

/// The outputs of the network for one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// One for every class.
    pub logits: Vec<f32>,
    classes: Option<Arc<[String]>>,
    temperature: f64,
}

/// A class that a picture may be of; its JSON form is part of the interface.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// Its name, or `class 7` where the weights name none.
    pub class: String,
    /// The output of the network that stands for it.
    pub index: usize,
    /// Its probability.
    pub probability: f64,
}

impl Classifier {
    /// The weights of a run directory, or of a .safetensors, .npz or .pth file, on a device.
    ///
    /// # Errors
    /// [`TrainError::Model`] or [`TrainError::RunDir`] when there are none.
    pub fn open(weights: impl AsRef<Path>, device: &DeviceEntry) -> Result<Self, TrainError> {
        Self::new(run_dir::read_weights(weights.as_ref(), None)?, device)
    }

    /// Weights in memory on a device. Pictures are prepared as the weights say.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the weights are not whole.
    pub fn new(weights: Weights, device: &DeviceEntry) -> Result<Self, TrainError> {
        Ok(Self {
            classes: weights.metadata.classes.clone().map(Arc::from),
            preprocessing: weights.metadata.preprocessing.unwrap_or_default(),
            temperature: weights.metadata.temperature.unwrap_or(1.0),
            mixer: Mixer::from_weights(weights, &device.device)?,
            device: device.clone(),
            loading: Loading::default(),
        })
    }

    /// The same with pictures that are prepared in another way.
    #[must_use]
    pub fn with_preprocessing(self, preprocessing: Preprocessing) -> Self {
        Self { preprocessing, ..self }
    }

    /// The same with the operands of the blocks' products rounded.
    ///
    /// # Errors
    /// [`TrainError::Device`] when the device does not compute in this precision.
    pub fn with_precision(self, precision: Precision) -> Result<Self, TrainError> {
        self.device.check(precision)?;
        let compute = Compute { precision, ..Compute::default() };
        Ok(Self { mixer: self.mixer.with_compute(compute), ..self })
    }

    /// Class names in the order of the outputs, where the weights have them.
    #[must_use]
    pub fn classes(&self) -> Option<&[String]> {
        self.classes.as_deref()
    }

    /// The dimensions of the network.
    #[must_use]
    pub fn config(&self) -> &MixerConfig {
        self.mixer.config()
    }

    /// The preparation of pictures.
    #[must_use]
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// Number that logits are divided by before they become probabilities.
    #[must_use]
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// Side of the network's input, px.
    #[must_use]
    pub fn image_size(&self) -> usize {
        self.mixer.config().image_size
    }

    /// Decoding of pictures as the weights ask for it.
    #[must_use]
    pub fn decode_options(&self) -> DecodeOptions {
        preprocessing::decode_options(&self.preprocessing)
    }

    /// Classifies pictures: answers come in their order, and while the next ones are read, so that few
    /// pictures are in memory at a time. One that cannot be read has an answer that says so.
    ///
    /// # Errors
    /// [`TrainError`] where reading cannot begin, and by the iterator, which ends there, where it cannot go on.
    pub fn classify<P: Into<Picture>>(
        &self,
        pictures: impl IntoIterator<Item = P>,
    ) -> Result<Answers<'_>, TrainError> {
        let pictures: Vec<Picture> = pictures.into_iter().map(Into::into).collect();
        let files = Arc::new(Files { pictures, options: self.decode_options() });
        let stream = if files.is_empty() { None } else { Some(self.stream(&files)?) };
        Ok(Answers { classifier: self, files, stream, ready: VecDeque::new() })
    }

    fn stream(&self, files: &Arc<Files>) -> Result<Stream, TrainError> {
        let config = self.mixer.config();
        let transform = preprocessing::eval_transform(&self.preprocessing, config.image_size);
        let batch_size = files.len().min(MAX_BATCH);
        let skip = OnCorrupt::Skip { at_most: u64::MAX };
        let loading = self.loading.loader(batch_size, config.patch_size, skip);
        let loader = Loader::eval(Arc::clone(files) as Arc<dyn Source>, transform, loading)?;
        let normaliser = Normaliser::new(&self.preprocessing, config, &self.device.device);
        Stream::new(loader, normaliser, |_| Ok(()))
    }

    /// Runs `network` on every example of a split, in their order and in batches of `batch_size`:
    /// `each` is given an example's index and its row, `skipped` each example that is passed over.
    ///
    /// # Errors
    /// [`TrainError::Data`] when an example cannot be read and `on_corrupt` does not let it pass.
    pub(crate) fn for_each(
        &self,
        source: &Arc<dyn Source>,
        (batch_size, on_corrupt): (usize, OnCorrupt),
        mut skipped: impl FnMut(&SkippedExample),
        network: impl Fn(&Mixer, Tensor<3>) -> Tensor<2>,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), TrainError> {
        let config = self.mixer.config();
        let transform = preprocessing::eval_transform(&self.preprocessing, config.image_size);
        let loading = self.loading.loader(batch_size, config.patch_size, on_corrupt);
        let loader = Loader::eval(Arc::clone(source), transform, loading)?;
        let normaliser = Normaliser::new(&self.preprocessing, config, &self.device.device);
        let mut stream = Stream::new(loader, normaliser, |_| Ok(()))?;
        while let Some(Input { patches, batch, .. }) = stream.next(never)? {
            let rows = network(&self.mixer, patches);
            let width = rows.dims()[1];
            // SYNC: one read per batch.
            let rows: Vec<f32> = rows.into_data().iter::<f32>().collect();
            for (row, index) in rows.chunks_exact(width).zip(&batch.indices) {
                each(*index as usize, row);
            }
            batch.skipped.iter().for_each(&mut skipped);
        }
        Ok(())
    }

    /// Loss and accuracy over a whole split whose classes are those of the network, in batches of
    /// `batch_size`; `progress` is called with the number of examples done, `skipped` with each example that
    /// is passed over.
    ///
    /// # Errors
    /// [`TrainError::DataMismatch`] for another number of classes, [`TrainError::Data`] when an example
    /// cannot be read and `on_corrupt` does not let it pass.
    pub fn evaluate(
        &self,
        source: &Arc<dyn Source>,
        batch_size: usize,
        on_corrupt: OnCorrupt,
        mut progress: impl FnMut(u64),
        skipped: impl FnMut(&SkippedExample),
    ) -> Result<Evaluation, TrainError> {
        let config = self.mixer.config();
        let found = source.class_names().len();
        if found != config.num_classes {
            let expected = config.num_classes;
            let classes = if found == 1 { "class" } else { "classes" };
            let message = format!("found {found} {classes}, the weights {expected}");
            return Err(TrainError::data_mismatch(message));
        }
        let evaluator = Evaluator {
            transform: preprocessing::eval_transform(&self.preprocessing, config.image_size),
            preprocessing: self.preprocessing,
            loss: Loss::Softmax,
            batch_size,
            loading: self.loading,
            on_corrupt,
        };
        let go_on = |done| {
            progress(done);
            never()
        };
        Ok(evaluator.run(&self.mixer, &self.device.device, source, go_on, skipped)?)
    }
}

/// Answers about pictures, in their order.
pub struct Answers<'a> {
    classifier: &'a Classifier,
    files: Arc<Files>,
    /// Absent behind the last batch.
    stream: Option<Stream>,
    ready: VecDeque<Answer>,
}

impl Iterator for Answers<'_> {
    type Item = Result<Answer, TrainError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            match self.stream.as_mut()?.next(never) {
                Ok(Some(input)) => self.answer(input),
                Ok(None) => self.stream = None,
                Err(halt) => {
                    self.stream = None;
                    return Some(Err(halt.into()));
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

impl Answers<'_> {
    fn answer(&mut self, Input { patches, batch, .. }: Input) {
        let Classifier { mixer, classes, temperature, .. } = self.classifier;
        let path = |index: u64| self.files.pictures[index as usize].path().to_owned();
        let mut answers: Vec<(u64, Answer)> = Vec::new();
        if batch.num_examples > 0 {
            // SYNC: one read per batch.
            let logits: Vec<f32> = mixer.forward(patches).into_data().iter::<f32>().collect();
            let rows = logits.chunks_exact(mixer.config().num_classes).zip(&batch.indices);
            answers.extend(rows.map(|(logits, &index)| {
                let (logits, classes) = (logits.to_vec(), classes.clone());
                let scores = Scores { logits, classes, temperature: *temperature };
                (index, Answer { path: path(index), scores: Ok(scores) })
            }));
        }
        answers.extend(batch.skipped.into_iter().map(|SkippedExample { index, reason }| {
            let path = path(index);
            // Its path stands beside it.
            let end = format!(": {}", path.display());
            let reason = reason.strip_suffix(&end).unwrap_or(&reason).to_owned();
            (index, Answer { path, scores: Err(reason) })
        }));
        answers.sort_by_key(|(index, _)| *index);
        self.ready.extend(answers.into_iter().map(|(_, answer)| answer));
    }
}

impl Scores {
    /// The `k` most probable classes, the first one first; ties go to the lower class.
    #[must_use]
    pub fn top(&self, k: usize) -> Vec<Prediction> {
        let logits = &self.logits;
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exp: Vec<f64> =
            logits.iter().map(|&logit| (f64::from(logit - max) / self.temperature).exp()).collect();
        let sum: f64 = exp.iter().sum();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let name = |index: usize| self.classes.as_ref().and_then(|classes| classes.get(index));
        let predictions = order.into_iter().take(k).map(|index| Prediction {
            class: name(index).map_or_else(|| format!("class {index}"), Clone::clone),
            index,
            probability: exp[index] / sum,
        });
        predictions.collect()
    }
}

impl Picture {
    fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Read { name, .. } => Path::new(name),
        }
    }
}

impl<P: Into<PathBuf>> From<P> for Picture {
    fn from(path: P) -> Self {
        Self::File(path.into())
    }
}

/// Pictures without labels, so that the loader reads them as it reads everything else.
struct Files {
    pictures: Vec<Picture>,
    options: DecodeOptions,
}

impl Source for Files {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn class_names(&self) -> &[String] {
        &[]
    }

    fn label(&self, _index: usize) -> u32 {
        0
    }

    fn read(&self, index: usize) -> Result<Example, DataError> {
        match &self.pictures[index] {
            Picture::File(path) => read_file(path).map(Example::Encoded),
            Picture::Read { bytes, .. } => {
                bytes.clone().map(|bytes| Example::Encoded(bytes.to_vec()))
            }
        }
    }

    fn decode_options(&self) -> DecodeOptions {
        self.options.clone()
    }

    fn describe(&self, index: usize) -> String {
        self.pictures[index].path().display().to_string()
    }

    fn fingerprint(&self) -> u64 {
        0
    }
}
