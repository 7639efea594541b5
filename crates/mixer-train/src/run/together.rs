//! Work that the processes of a run do together: each brings its own share, and all have the same result. They come
//! to these functions in the same order, as they have the same state.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use burn::tensor::{Tensor, TensorData};
use mixer_data::{OnCorrupt, SkippedExample};
use mixer_model::{Metadata, Mixer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::group::verdict::{self, agree};
use crate::halt::Halt;
use crate::run::evaluation::{Evaluation, Score};
use crate::run::interrupt;
use crate::run::job::Job;
use crate::update::batch_gradient::Gradient;

/// Events of a process that others have to know.
#[derive(Debug, Default, Serialize, Deserialize)]
struct News {
    /// A checkpoint was asked for.
    save: bool,
    /// Index and reason of each example that it passed over.
    skipped: Vec<(u64, String)>,
    /// Time that it waited for data.
    waited: Duration,
}

/// The results of a process's share of an evaluation: of the weights, and of their average where one is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Scores {
    /// Bits of the loss, which JSON would change, and the rank.
    of: Vec<Vec<(u32, u32)>>,
    skipped: Vec<(u64, String)>,
}

/// The gradient of a whole batch.
pub(crate) struct Joined {
    pub(crate) gradient: Gradient,
    /// Some process was asked for a checkpoint.
    pub(crate) is_save_asked: bool,
    /// Time that this process spent on it with the others.
    pub(crate) time: Duration,
}

/// This process among those of its run.
pub(crate) struct Together<'a> {
    job: &'a Job,
    /// All know that the run is over.
    is_end_agreed: bool,
}

impl<'a> Together<'a> {
    /// The process that does a job.
    pub(crate) fn new(job: &'a Job) -> Self {
        Self { job, is_end_agreed: false }
    }

    /// The gradient of the whole batch, from that of this process's share, where every process has one. `known` are
    /// the examples that were passed over before.
    ///
    /// # Errors
    /// The halt that is the same for all: one has failed, or was asked to stop, or more examples cannot be read than
    /// may be passed over.
    pub(crate) fn gradient(
        &mut self,
        mut own: Result<Gradient, Halt>,
        known: &BTreeSet<u64>,
    ) -> Result<Joined, Halt> {
        let started = Instant::now();
        let mut news = News { save: interrupt::take_save_request(), ..News::default() };
        if let Ok(own) = &mut own {
            news.skipped = words(std::mem::take(&mut own.skipped));
            news.waited = own.waited;
        }
        let (mut gradient, news) = self.agree(own, news)?;
        let mut is_save_asked = false;
        for News { save, skipped, waited } in news {
            is_save_asked |= save;
            gradient.skipped.extend(in_full(skipped));
            gradient.waited = gradient.waited.max(waited);
        }
        if !gradient.skipped.is_empty() {
            // A process meets some for the first time that another has met before.
            let mut seen = known.clone();
            gradient.skipped.retain(|example| seen.insert(example.index));
            check_skipped(self.job, seen.len(), gradient.skipped.last())?;
        }
        let precision = self.job.plan.train.exchange_precision;
        let (sum, loss) = gradient.sum.sum_over(&*self.job.group, gradient.loss, precision);
        let gradient = Gradient { sum, loss, ..gradient };
        Ok(Joined { gradient, is_save_asked, time: started.elapsed() })
    }

    /// A number that all processes go by, such as the squared norm that they clip by, `[1]`: their own, where all have
    /// the same, else that of rank 0.
    pub(crate) fn number(&self, own: Tensor<1>) -> Tensor<1> {
        let Job { group, device, .. } = self.job;
        if group.size() == 1 || device.sums_alike() {
            return own;
        }
        let device = own.device();
        // SYNC: one number, which such a device is waited for anyway.
        let bytes = own.into_data().iter::<f32>().next().unwrap_or(f32::NAN).to_le_bytes();
        let bytes = group.broadcast(bytes.to_vec());
        let number = bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
        Tensor::from_data(TensorData::new(vec![number], [1]), &device)
    }

    /// The evaluations of the whole split, of the weights and of their average where one is kept, and the examples
    /// that were passed over; from the scores of this process's share. Each example is counted once, in the order of
    /// the source.
    ///
    /// # Errors
    /// As of [`gradient`].
    pub(crate) fn evaluations(
        &mut self,
        own: Result<Vec<Vec<Score>>, Halt>,
        skipped: Vec<SkippedExample>,
    ) -> Result<(Vec<Evaluation>, Vec<SkippedExample>), Halt> {
        let bits = |score: &Score| (score.loss.to_bits(), score.rank);
        let news = own.as_ref().map_or_else(
            |_| Scores::default(),
            |own| Scores {
                of: own.iter().map(|scores| scores.iter().map(bits).collect()).collect(),
                skipped: words(skipped),
            },
        );
        let (own, news) = self.agree(own, news)?;
        let skipped: Vec<SkippedExample> =
            news.iter().flat_map(|news| in_full(news.skipped.clone())).collect();
        check_skipped(self.job, skipped.len(), skipped.last())?;
        let evaluation = |which: usize| {
            let of_all = news.iter().filter_map(|news| news.of.get(which)).flatten();
            let score = |&(loss, rank): &(u32, u32)| Score { loss: f32::from_bits(loss), rank };
            Evaluation::of(&of_all.map(score).collect::<Vec<_>>())
        };
        Ok(((0..own.len()).map(evaluation).collect(), skipped))
    }

    /// The examples of all processes.
    ///
    /// # Errors
    /// [`TrainError::Elsewhere`] where another one has failed.
    pub(crate) fn indices(&mut self, own: Vec<u64>) -> Result<Vec<u64>, TrainError> {
        self.tell(own).map(|all| all.concat())
    }

    /// Refuses weights of processes that are no longer the same after `step` updates: each applies the same updates
    /// to its own.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] with the first process whose weights are not those of rank 0.
    pub(crate) fn check_replicas(&mut self, mixer: &Mixer, step: u64) -> Result<(), TrainError> {
        let group = &*self.job.group;
        if group.size() == 1 {
            return Ok(());
        }
        let mut hasher = DefaultHasher::new();
        for tensor in mixer.to_weights(Metadata::default())?.tensors.values() {
            tensor.data.iter().for_each(|value| hasher.write_u32(value.to_bits()));
        }
        let hashes = self.tell(hasher.finish())?;
        match hashes.iter().position(|hash| Some(hash) != hashes.first()) {
        None => Ok(()),
        Some(rank) => Err(TrainError::ranks(format!(
            "the weights of rank {rank} on {} are not those of rank 0 after update {step}",
            group.host(rank)
        ))
        .with_hint(
            "processors that round differently, or a faulty one; the checkpoint before is sound",
        )),
    }
    }

    /// An error of which all know: what this process has met by itself, the others hear where they agree next.
    pub(crate) fn told(&mut self, error: TrainError) -> TrainError {
        if self.is_end_agreed {
            return error;
        }
        match self.agree(Err::<Infallible, _>(error.into()), ()) {
            Err(Halt::Failed(error)) => error,
            Err(Halt::Stop(_)) => unreachable!("a failure comes before a stop"),
            Ok((never, _)) => match never {},
        }
    }

    /// As [`agree`], and remembers an end.
    fn agree<T, P: Serialize + DeserializeOwned>(
        &mut self,
        own: Result<T, Halt>,
        news: P,
    ) -> Result<(T, Vec<P>), Halt> {
        let agreed = agree(&*self.job.group, own, news);
        self.is_end_agreed |= agreed.is_err();
        agreed
    }

    /// The news of all processes, in order.
    fn tell<P: Serialize + DeserializeOwned>(&mut self, news: P) -> Result<Vec<P>, TrainError> {
        let told = verdict::tell(&*self.job.group, Ok(()), news);
        self.is_end_agreed |= told.is_err();
        told.map(|((), all)| all)
    }
}

/// Refuses more examples that cannot be read than may be passed over: of several processes, none has met them
/// all.
fn check_skipped(job: &Job, found: usize, last: Option<&SkippedExample>) -> Result<(), TrainError> {
    match (job.plan.data.on_corrupt, last) {
        (OnCorrupt::Skip { at_most }, Some(last)) if found as u64 > at_most => {
            let message = format!(
                "found {found} unreadable examples, expected at most {at_most}; the last: {}",
                last.reason
            );
            Err(TrainError::data_mismatch(message)
                .with_hint("remove or repair the files, or raise `data.on_corrupt.skip.at_most`"))
        }
        _ => Ok(()),
    }
}

/// Examples as they are told to others.
fn words(skipped: Vec<SkippedExample>) -> Vec<(u64, String)> {
    skipped.into_iter().map(|SkippedExample { index, reason }| (index, reason)).collect()
}

/// Examples as others have told of them.
fn in_full(skipped: Vec<(u64, String)>) -> impl Iterator<Item = SkippedExample> {
    skipped.into_iter().map(|(index, reason)| SkippedExample { index, reason })
}
