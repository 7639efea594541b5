//! Ordered batches, decoded on threads of their own.
//!
//! The loader numbers the examples of its stream with positions and cuts the positions into
//! batches. A few batches are in flight at a time. Workers claim runs of neighbouring positions,
//! decode and transform them to patches in their own memory, and then lock the batch only to copy
//! these. The consumer takes batches from
//! the front, in order. Everything that depends on the outcome of an example (skipping, counting,
//! stopping) happens there, so that it does not depend on the number of workers either.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::augment::transform::{EvalTransform, TrainTransform};
use crate::decode::part::PartDecoder;
use crate::error::DataError;
use crate::measure::measured::Measured;
use crate::measure::stage::{Laps, Stage, StageTimes, Stopwatch};
use crate::order::example_order::{Location, Order};
use crate::order::random::ExampleRng;
use crate::resample::patches::{Destination, Layout};
use crate::resample::resampler::Resampler;
use crate::sources::passed_over::PassedOver;
use crate::sources::source::{Example, Source};
use crate::stream::batch::{Batch, SkippedExample};

/// The stream of [`ExampleRng`] that augmentation draws from. Repeats of an example add their number
/// above [`REPEAT_SHIFT`] bits, far from the streams of others.
const AUGMENTATION_STREAM: u64 = 0;
const REPEAT_SHIFT: u32 = 32;

/// The most examples that a worker claims at once. It keeps small pictures from fighting over the
/// locks, and large ones from filling the worker's memory.
const MAX_CLAIM: usize = 8;

/// The most batches in flight, however small they are: more would only take longer to start.
const MAX_IN_FLIGHT: usize = 64;

/// Time that a dropped loader waits for its workers to finish the example that they are at.
const PATIENCE: Duration = Duration::from_secs(1);

/// Settings of a [`Loader`]. Nothing here but `on_corrupt` and the shapes changes what it delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Examples per batch, `B`.
    pub batch_size: usize,
    /// Side of a patch, px, `P`.
    pub patch_size: usize,
    /// Threads that decode. With 0, [`Loader::next_batch`] decodes on the calling thread.
    pub workers: usize,
    /// Memory for batches in flight, bytes: room for two is always taken, and never for more than
    /// 64.
    pub queue_bytes: usize,
    /// Fate of an example that cannot be read.
    pub on_corrupt: OnCorrupt,
}

/// Fate of an example that cannot be read.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OnCorrupt {
    /// Stop with its path and the reason.
    #[default]
    Stop,
    /// Leave it out and report it. In training the next readable example in the order of the epoch
    /// takes its place; in evaluation the batch becomes shorter.
    Skip {
        /// Number of different examples that may be left out before it is an error after all.
        at_most: u64,
    },
}

/// The positions of a training stream that a loader takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// The first one.
    pub first: u64,
    /// Part of the stream that is taken: all of it, when absent.
    pub share: Option<Share>,
    /// Examples of an update, where each batch has one more row behind its own: the example that is before its
    /// first one in the update, and before the first of the update the last.
    pub led_in: Option<u64>,
}

/// A part of a stream that several loaders take together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Neighbouring positions that are taken, a multiple of the batch size.
    pub own: u64,
    /// Those that all take before it goes on with its own.
    pub of: u64,
}

impl From<u64> for Positions {
    /// All from the first one on.
    fn from(first: u64) -> Self {
        Self { first, share: None, led_in: None }
    }
}

impl Positions {
    /// The position before that of a batch, within its update.
    fn lead(self, first: u64) -> Option<u64> {
        let update = self.led_in?;
        Some(if first.is_multiple_of(update) { first + update - 1 } else { first - 1 })
    }

    /// The position behind a batch that ends before `end`.
    fn after(self, end: u64) -> u64 {
        match self.share {
            Some(Share { own, of }) if (end - self.first) % of >= own => end + of - own,
            _ => end,
        }
    }
}

/// A stream of batches.
///
/// # Determinism
/// The content of the stream is a function of the source, the transform, the seed, the start and the
/// batch shape. The number of workers does not enter.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use mixer_data::*;
///
/// let source = BuiltinSource::new(BuiltinKind::Shapes, BuiltinSplit::Train, 100, 32, 0)?;
/// let transform = TrainTransform {
///     image_size: 32,
///     crop: TrainCrop::Pad { pixels: 4 },
///     flip: true,
///     interpolation: Interpolation::Bilinear,
///     randaugment: None,
///     erasing: None,
///     jpeg_scaling: false,
/// };
/// let config = LoaderConfig {
///     batch_size: 16,
///     patch_size: 4,
///     workers: 2,
///     queue_bytes: 1 << 20,
///     on_corrupt: OnCorrupt::Stop,
/// };
/// let mut loader = Loader::train(Arc::new(source), transform, 42, 0, config)?;
/// let batch = loader.next_batch()?.ok_or("a training stream does not end")?;
/// assert_eq!(batch.patches.len(), 16 * 64 * 48);
/// loader.recycle(batch);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Does the work where there are no threads.
    own_worker: Worker,
    /// Distinct examples that were left out.
    skipped: HashSet<u64>,
    /// Error that ended the stream.
    failure: Option<DataError>,
}

impl Loader {
    /// The endless stream of training.
    ///
    /// Position `p` is example `permutation(seed, p / n)[p % n]`, so that each is seen exactly once
    /// per epoch; the first batch holds positions `start_position ..`, and batches may straddle
    /// epochs. Starting anywhere takes no time: to resume, pass the position that comes next.
    ///
    /// # Errors
    /// When a setting has no meaning or the source is empty.
    pub fn train(
        source: Arc<dyn Source>,
        transform: TrainTransform,
        seed: u64,
        start_position: u64,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        let order = Order::Shuffled { seed };
        Self::train_in_order(source, transform, seed, order, start_position, config)
    }

    /// The endless stream of training in another order, such as [`Order::Repeated`].
    ///
    /// `seed` is that of augmentation. Of a stream that several loaders share, each takes its positions.
    ///
    /// # Errors
    /// When a setting has no meaning or the source is empty.
    pub fn train_in_order(
        source: Arc<dyn Source>,
        transform: TrainTransform,
        seed: u64,
        order: Order,
        positions: impl Into<Positions>,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        let positions = positions.into();
        if let Some(Share { own, of }) = positions.share
            && (own == 0 || own > of || !own.is_multiple_of(config.batch_size.max(1) as u64))
        {
            let expected = format!("a multiple of the batch size {} up to {of}", config.batch_size);
            return Err(DataError::BadSetting {
                setting: "share.own",
                found: own.to_string(),
                expected,
            });
        }
        let pipeline = Pipeline::train(source, transform, seed, order, config)?;
        Self::new(pipeline, positions, u64::MAX)
    }

    /// One pass in the order of the source.
    ///
    /// The last batch is padded with zeros; `num_examples` says how many rows are real.
    ///
    /// # Errors
    /// When a setting has no meaning or the source is empty.
    pub fn eval(
        source: Arc<dyn Source>,
        transform: EvalTransform,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        Self::eval_part(source, transform, 0..u64::MAX, config)
    }

    /// One pass over the examples of `part`, in the order of the source; what is behind its end is left out.
    ///
    /// # Errors
    /// When a setting has no meaning or the source is empty.
    pub fn eval_part(
        source: Arc<dyn Source>,
        transform: EvalTransform,
        part: Range<u64>,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        transform.check()?;
        let image_size = transform.image_size;
        let transform = Transform::Eval(transform);
        let pipeline = Pipeline::new(source, transform, image_size, Order::Sequential, config)?;
        let end = part.end.min(pipeline.len);
        Self::new(pipeline, part.start.into(), end)
    }

    fn new(pipeline: Pipeline, positions: Positions, end: u64) -> Result<Self, DataError> {
        let config = &pipeline.config;
        let rows = config.batch_size + usize::from(positions.led_in.is_some());
        let batch_bytes = rows * pipeline.image_bytes();
        let max_in_flight = match config.workers {
            0 => 1,
            _ => (config.queue_bytes / batch_bytes).clamp(2, MAX_IN_FLIGHT),
        };
        let workers = config.workers;
        let shared = Arc::new(Shared {
            pipeline,
            max_in_flight,
            rows,
            positions,
            end,
            queue: Mutex::new(Queue {
                batches: VecDeque::with_capacity(max_in_flight),
                next_position: positions.first,
                spare: Vec::new(),
            }),
            room: Condvar::new(),
            closed: AtomicBool::new(false),
        });
        shared.open_batches(&mut lock(&shared.queue));

        let mut loader = Self {
            shared,
            threads: Vec::with_capacity(workers),
            own_worker: Worker::default(),
            skipped: HashSet::new(),
            failure: None,
        };
        for number in 0..workers {
            let shared = Arc::clone(&loader.shared);
            let thread = std::thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || shared.work(&mut Worker::default()))
                .map_err(|source| DataError::Thread { source: Arc::new(source) })?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// The same stream where these examples of the source were met as unreadable before: they are not
    /// reported again, and count for [`OnCorrupt::Skip`].
    #[must_use]
    pub fn with_skipped(mut self, indices: impl IntoIterator<Item = u64>) -> Self {
        self.skipped.extend(indices);
        self
    }

    /// Waits until the next batch is there, at most for `timeout`. Whether [`Loader::next_batch`] would
    /// now answer without waiting for a worker; true where there are none.
    pub fn wait(&self, timeout: Duration) -> bool {
        let front =
            lock(&self.shared.queue).batches.front().map(|claims| Arc::clone(&claims.batch));
        match front {
            Some(front) if self.failure.is_none() && !self.threads.is_empty() => {
                front.wait_at_most(timeout)
            }
            _ => true,
        }
    }

    /// The next batch, or `None` behind the last one of an evaluation.
    ///
    /// # Errors
    /// When an example cannot be read and [`OnCorrupt`] does not let it pass, or when code panicked
    /// on it. An error ends the stream: later calls give the same error.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, DataError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let front =
            lock(&self.shared.queue).batches.front().map(|claims| Arc::clone(&claims.batch));
        let Some(front) = front else {
            return Ok(None);
        };
        if self.threads.is_empty() {
            while let Some((batch, slots)) = lock(&self.shared.queue).claim(usize::MAX) {
                self.shared.fill(&batch, slots, &mut self.own_worker);
            }
        }
        let assembly = front.wait();
        {
            let mut queue = lock(&self.shared.queue);
            queue.batches.pop_front();
            self.shared.open_batches(&mut queue);
        }
        self.shared.room.notify_all();

        let finished = self.settle(assembly);
        if let Err(failure) = &finished {
            self.failure = Some(failure.clone());
            self.shared.close();
        }
        finished.map(Some)
    }

    /// Hands a batch back, so that its memory is used again.
    pub fn recycle(&mut self, batch: Batch) {
        let mut queue = lock(&self.shared.queue);
        if queue.spare.len() < self.shared.max_in_flight {
            queue.spare.push(batch.patches);
        }
    }

    /// Number of different examples that could not be read and were left out so far.
    pub fn skipped(&self) -> u64 {
        self.skipped.len() as u64
    }

    /// Turns an assembled batch into a batch or an error, in the order of its examples.
    fn settle(&mut self, assembly: Assembly) -> Result<Batch, DataError> {
        let Assembly { mut batch, mut failures, mut gaps, .. } = assembly;
        // Workers finish in any order; within a slot the sort keeps the order of the attempts.
        failures.sort_by_key(|failure| failure.slot);
        gaps.sort_unstable();
        for failure in &failures {
            let at_most = match (self.shared.pipeline.config.on_corrupt, &failure.error) {
                (OnCorrupt::Stop, error) | (_, error @ DataError::WorkerPanicked { .. }) => {
                    return Err(error.clone());
                }
                (OnCorrupt::Skip { at_most }, _) => at_most,
            };
            if !self.skipped.insert(failure.index) {
                continue;
            }
            if self.skipped.len() as u64 > at_most {
                return Err(DataError::TooManyCorrupt {
                    skipped: self.skipped.len() as u64,
                    at_most,
                    last: Box::new(failure.error.clone()),
                });
            }
            batch
                .skipped
                .push(SkippedExample { index: failure.index, reason: failure.error.to_string() });
        }
        if let (Transform::Train { .. }, [_, ..], Some(last)) =
            (&self.shared.pipeline.transform, gaps.as_slice(), failures.last())
        {
            // More may be skipped than there are examples, and none could be read.
            return Err(DataError::NoExamples {
                description: format!("nothing can be read; the last failure: {}", last.error),
                passed_over: PassedOver::default(),
            });
        }
        close_gaps(&mut batch, &gaps);
        Ok(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.close();
        // A worker may hang in a read that never ends, such as that of a network disk that is gone. It is
        // left to itself then: it holds nothing that anybody else needs.
        let deadline = Instant::now() + PATIENCE;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                // A worker catches its panics, and here nobody could be told.
                drop(thread.join());
            }
        }
    }
}

/// Removes rows that were not filled, and pads at the end instead. `gaps` ascends.
fn close_gaps(batch: &mut Batch, gaps: &[usize]) {
    let row = batch.num_tokens * batch.patch_dim;
    for &slot in gaps.iter().rev() {
        let rows = batch.num_examples;
        batch.patches.copy_within((slot + 1) * row..rows * row, slot * row);
        batch.patches[(rows - 1) * row..rows * row].fill(0);
        batch.labels.copy_within(slot + 1..rows, slot);
        batch.labels[rows - 1] = 0;
        batch.indices.remove(slot);
        batch.num_examples -= 1;
    }
}

/// Transform of a position into pixels.
enum Transform {
    Train { transform: TrainTransform, seed: u64 },
    Eval(EvalTransform),
}

/// Everything that decides what a position of the stream holds.
pub(crate) struct Pipeline {
    source: Arc<dyn Source>,
    transform: Transform,
    image_size: u32,
    order: Order,
    /// Examples in the source.
    len: u64,
    config: LoaderConfig,
}

/// Result of preparing a position.
struct Outcome {
    /// Index and label of the example that was written, if any.
    example: Option<(u64, u32)>,
    /// Examples that could not be read on the way.
    failures: Vec<(u64, DataError)>,
}

impl Pipeline {
    /// That of training.
    pub(crate) fn train(
        source: Arc<dyn Source>,
        transform: TrainTransform,
        seed: u64,
        order: Order,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        transform.check()?;
        let image_size = transform.image_size;
        Self::new(source, Transform::Train { transform, seed }, image_size, order, config)
    }

    fn new(
        source: Arc<dyn Source>,
        transform: Transform,
        image_size: u32,
        order: Order,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        let refuse = |setting, found: usize, expected: String| {
            Err(DataError::BadSetting { setting, found: found.to_string(), expected })
        };
        let side = image_size as usize;
        if config.batch_size == 0 {
            return refuse("batch_size", 0, "at least 1".to_owned());
        }
        if config.patch_size == 0 || !side.is_multiple_of(config.patch_size) {
            let expected = format!("a divisor of the image size {side}");
            return refuse("patch_size", config.patch_size, expected);
        }
        if config.workers > 1024 {
            return refuse("workers", config.workers, "at most 1024".to_owned());
        }
        if source.is_empty() {
            return Err(DataError::NoExamples {
                description: "the source of a loader".to_owned(),
                passed_over: PassedOver::default(),
            });
        }
        Ok(Self { len: source.len() as u64, source, transform, image_size, order, config })
    }

    fn image_bytes(&self) -> usize {
        self.image_size as usize * self.image_size as usize * 3
    }

    /// Writes the patches of the example at `position` to `out` (`[S, P·P·3]`).
    ///
    /// Where training may skip, an unreadable example is replaced by the next one of its epoch in
    /// the order of the stream, again and again; behind the last comes the first.
    fn produce(
        &self,
        position: u64,
        tools: &mut Tools,
        out: &mut [u8],
        laps: &mut impl Laps,
    ) -> Outcome {
        let epoch_len = self.order.epoch_len(self.len);
        let attempts = match (&self.transform, self.config.on_corrupt) {
            (Transform::Train { .. }, OnCorrupt::Skip { at_most }) => {
                // One more failure than is allowed ends the run, so nothing beyond is looked at.
                // With repeats, an unreadable example is met as often as it is repeated.
                at_most.saturating_add(1).saturating_mul(epoch_len / self.len).min(epoch_len)
            }
            _ => 1,
        };
        let epoch_start = position - position % epoch_len;
        let mut failures = Vec::new();
        for attempt in 0..attempts {
            let within = (position % epoch_len + attempt) % epoch_len;
            let location = self.order.location(epoch_start + within, self.len);
            let index = location.index;
            let result = catch_unwind(AssertUnwindSafe(|| self.write(location, tools, out, laps)));
            let error = match result {
                Ok(Ok(label)) => {
                    return Outcome { example: Some((index, label)), failures };
                }
                Ok(Err(error)) => error,
                Err(payload) => {
                    *tools = Tools::default();
                    DataError::WorkerPanicked {
                        message: panic_message(payload.as_ref()),
                        // Not described by the source, which may be what panicked.
                        example: format!("example {index}"),
                    }
                }
            };
            let is_bug = matches!(error, DataError::WorkerPanicked { .. });
            failures.push((index, error));
            if is_bug {
                break;
            }
        }
        Outcome { example: None, failures }
    }

    /// Writes the patches of an example to `out` and returns its label. Of a file only what the transform looks at is
    /// decoded.
    fn write(
        &self,
        Location { epoch, index, repeat }: Location,
        Tools { decoder, resampler }: &mut Tools,
        out: &mut [u8],
        laps: &mut impl Laps,
    ) -> Result<u32, DataError> {
        let stream = AUGMENTATION_STREAM + (repeat << REPEAT_SHIFT);
        let at = index as usize;
        let undecodable =
            |reason| DataError::BadExample { example: self.source.describe(at), reason };
        let layout = Layout::Patches { patch_size: self.config.patch_size };
        let to = Destination { layout, out };
        let example = self.source.read(at)?;
        laps.lap(Stage::Read);
        match (example, &self.transform) {
            (Example::Pixels(image), Transform::Train { transform, seed }) => {
                let mut rng = ExampleRng::new(*seed, epoch, index, stream);
                let region = transform.choose_region(image.width, image.height, &mut rng);
                transform.apply_to(&image, region.into(), &mut rng, resampler, to, laps)?;
            }
            (Example::Pixels(image), Transform::Eval(transform)) => {
                transform.apply_to(&image, resampler, to)?;
                laps.lap(Stage::Resize);
            }
            (Example::Encoded(bytes), Transform::Train { transform, seed }) => {
                let mut rng = ExampleRng::new(*seed, epoch, index, stream);
                let choose = |width, height| transform.choose_view(width, height, &mut rng);
                let options = self.source.decode_options();
                let part = decoder.decode(&bytes, &options, choose).map_err(undecodable)?;
                laps.lap(Stage::Decode);
                transform.apply_to(&part.image, part.crop(), &mut rng, resampler, to, laps)?;
                decoder.recycle(part);
            }
            (Example::Encoded(bytes), Transform::Eval(transform)) => {
                let choose = |width, height| transform.choose_view(width, height);
                let options = self.source.decode_options();
                let part = decoder.decode(&bytes, &options, choose).map_err(undecodable)?;
                laps.lap(Stage::Decode);
                transform.apply_to_part_in(&part, resampler, to)?;
                decoder.recycle(part);
                laps.lap(Stage::Resize);
            }
        }
        Ok(self.source.label(at))
    }

    /// Times the stages of some positions on the calling thread. Of a position where nothing can be
    /// read, the last failure is returned.
    pub(crate) fn time_stages(
        &self,
        positions: Range<u64>,
    ) -> Result<Measured<StageTimes>, DataError> {
        let mut tools = Tools::default();
        let mut image = vec![0; self.image_bytes()];
        // As large as a batch, so that a row is as far from the processor as that of a batch.
        let mut patches = vec![0; self.config.batch_size * self.image_bytes()];
        let mut skipped = HashSet::new();
        let examples = positions.end - positions.start;
        let mut watch = Stopwatch::start();
        for position in positions {
            let Outcome { example, failures } =
                self.produce(position, &mut tools, &mut image, &mut watch);
            for (index, error) in failures {
                if example.is_none() {
                    return Err(error);
                }
                skipped.insert(index);
            }
            let slot = position as usize % self.config.batch_size;
            patches[slot * image.len()..][..image.len()].copy_from_slice(&image);
            watch.lap(Stage::Patchify);
        }
        Ok(Measured { time: watch.times, examples, skipped: skipped.len() as u64 })
    }
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(message) = payload.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message.clone()
    } else {
        "no message".to_owned()
    }
}

/// State that the consumer and the workers share.
struct Shared {
    pipeline: Pipeline,
    max_in_flight: usize,
    /// Rows of a batch.
    rows: usize,
    positions: Positions,
    /// Position behind the last one.
    end: u64,
    queue: Mutex<Queue>,
    /// Signalled when there is something to claim.
    room: Condvar,
    /// Tells the workers to stop.
    closed: AtomicBool,
}

/// The batches in flight, in order.
struct Queue {
    batches: VecDeque<Claims>,
    /// Position of the first example of the next batch to open.
    next_position: u64,
    /// Memory of batches that were handed back.
    spare: Vec<Vec<u8>>,
}

/// A batch in flight, and how many of its examples workers have taken.
struct Claims {
    batch: Arc<InFlight>,
    claimed: usize,
}

/// A batch that workers fill.
struct InFlight {
    first_position: u64,
    /// Position of the last row, where it is not behind those of the others.
    lead: Option<u64>,
    num_examples: usize,
    assembly: Mutex<Assembly>,
    /// Signalled when nothing remains.
    finished: Condvar,
}

/// The state of a batch that is being filled.
#[derive(Default)]
struct Assembly {
    batch: Batch,
    /// Examples that are not there yet.
    remaining: usize,
    failures: Vec<Failure>,
    /// Slots that nothing was written to.
    gaps: Vec<usize>,
}

/// An example that could not be read.
struct Failure {
    slot: usize,
    index: u64,
    error: DataError,
}

/// Decoder and resampler, with their working memory.
#[derive(Default)]
struct Tools {
    decoder: PartDecoder,
    resampler: Resampler,
}

/// Working memory of one thread.
#[derive(Default)]
struct Worker {
    tools: Tools,
    /// Patches of the examples of a claim.
    images: Vec<u8>,
}

/// Takes a lock. A poisoned one is taken too: workers catch panics around foreign code, so that what
/// is behind the lock is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Assembly {
    /// Copies the patches of an example to its row, and notes what failed on the way.
    fn write(&mut self, slot: usize, patches: &[u8], outcome: Outcome) {
        match outcome.example {
            Some((index, label)) => {
                self.batch.patches[slot * patches.len()..][..patches.len()]
                    .copy_from_slice(patches);
                self.batch.labels[slot] = label;
                self.batch.indices[slot] = index;
            }
            None => self.gaps.push(slot),
        }
        let with_slot = outcome.failures.into_iter();
        self.failures.extend(with_slot.map(|(index, error)| Failure { slot, index, error }));
    }
}

impl InFlight {
    /// Waits until every example is there, but not longer than `timeout`. Whether they are.
    fn wait_at_most(&self, timeout: Duration) -> bool {
        let assembly = lock(&self.assembly);
        let is_unfinished = |assembly: &mut Assembly| assembly.remaining > 0;
        let waited = self.finished.wait_timeout_while(assembly, timeout, is_unfinished);
        waited.unwrap_or_else(PoisonError::into_inner).0.remaining == 0
    }

    /// Waits until every example is there, and takes the batch.
    fn wait(&self) -> Assembly {
        let mut assembly = lock(&self.assembly);
        while assembly.remaining > 0 {
            assembly = self.finished.wait(assembly).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut *assembly)
    }
}

impl Queue {
    /// Takes up to `at_most` neighbouring slots of the first batch that has any left.
    fn claim(&mut self, at_most: usize) -> Option<(Arc<InFlight>, Range<usize>)> {
        let claims =
            self.batches.iter_mut().find(|claims| claims.claimed < claims.batch.num_examples)?;
        let start = claims.claimed;
        claims.claimed = (start.saturating_add(at_most)).min(claims.batch.num_examples);
        Some((Arc::clone(&claims.batch), start..claims.claimed))
    }
}

impl Shared {
    /// Opens batches until as many are in flight as may be.
    fn open_batches(&self, queue: &mut Queue) {
        let Pipeline { len, config, order, .. } = &self.pipeline;
        while queue.batches.len() < self.max_in_flight {
            let first_position = queue.next_position;
            let left = self.end.saturating_sub(first_position);
            let own = left.min(config.batch_size as u64) as usize;
            if own == 0 {
                return;
            }
            let lead = self.positions.lead(first_position);
            let num_examples = own + usize::from(lead.is_some());
            let image_bytes = self.pipeline.image_bytes();
            let mut patches = queue.spare.pop().unwrap_or_default();
            patches.resize(self.rows * image_bytes, 0);
            patches[num_examples * image_bytes..].fill(0);
            let patch_dim = config.patch_size * config.patch_size * 3;
            let batch = Batch {
                patches,
                labels: vec![0; self.rows],
                num_examples,
                indices: vec![0; num_examples],
                first_position,
                epoch: first_position / order.epoch_len(*len),
                num_tokens: image_bytes / patch_dim,
                patch_dim,
                mix: None,
                is_led: lead.is_some(),
                skipped: Vec::new(),
            };
            queue.batches.push_back(Claims {
                batch: Arc::new(InFlight {
                    first_position,
                    lead,
                    num_examples,
                    assembly: Mutex::new(Assembly {
                        batch,
                        remaining: num_examples,
                        ..Assembly::default()
                    }),
                    finished: Condvar::new(),
                }),
                claimed: 0,
            });
            queue.next_position = self.positions.after(first_position + own as u64);
        }
    }

    /// The life of a worker thread.
    fn work(&self, worker: &mut Worker) {
        let config = &self.pipeline.config;
        let at_most = (config.batch_size / (4 * config.workers)).clamp(1, MAX_CLAIM);
        loop {
            let mut queue = lock(&self.queue);
            let (batch, slots) = loop {
                if self.closed.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(claim) = queue.claim(at_most) {
                    break claim;
                }
                queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
            };
            drop(queue);
            self.fill(&batch, slots, worker);
        }
    }

    /// Decodes the claimed examples, a few at a time, and writes them to their rows.
    fn fill(&self, batch: &InFlight, slots: Range<usize>, worker: &mut Worker) {
        let pipeline = &self.pipeline;
        let bytes = pipeline.image_bytes();
        for start in slots.clone().step_by(MAX_CLAIM) {
            let slots = start..slots.end.min(start + MAX_CLAIM);
            worker.images.resize(MAX_CLAIM * bytes, 0);
            let mut outcomes = Vec::with_capacity(slots.len());
            for (slot, image) in slots.clone().zip(worker.images.chunks_exact_mut(bytes)) {
                if self.closed.load(Ordering::Relaxed) {
                    return;
                }
                let position = match batch.lead {
                    Some(lead) if slot + 1 == batch.num_examples => lead,
                    _ => batch.first_position + slot as u64,
                };
                outcomes.push(pipeline.produce(position, &mut worker.tools, image, &mut ()));
            }

            let mut assembly = lock(&batch.assembly);
            let images = worker.images.chunks_exact(bytes);
            for ((slot, image), outcome) in slots.clone().zip(images).zip(outcomes) {
                assembly.write(slot, image, outcome);
            }
            assembly.remaining -= slots.len();
            if assembly.remaining == 0 {
                batch.finished.notify_all();
            }
        }
    }

    /// Stops the workers.
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // Under the lock, so that no worker is between looking and waiting.
        drop(lock(&self.queue));
        self.room.notify_all();
    }
}
