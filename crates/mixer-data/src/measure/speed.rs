//! The speed of preparing training examples.

use std::sync::Arc;
use std::time::Instant;

use cpu_time::ProcessTime;

use crate::augment::transform::TrainTransform;
use crate::error::DataError;
use crate::measure::measured::Measured;
use crate::measure::stage::{StageTime, StageTimes};
use crate::order::example_order::Order;
use crate::sources::source::Source;
use crate::stream::loader::{Loader, LoaderConfig, Pipeline};

/// Times a [`Loader`] that trains, workers and batches and all, with a consumer that only takes.
///
/// The first batch is not timed: threads start and memory is touched for the first time. At least
/// `examples` are timed, as whole batches. The time on processors is that of all threads of the
/// process, so nothing else should run in it.
///
/// # Errors
/// As [`Loader::train`] and [`Loader::next_batch`].
pub fn time_loader(
    source: Arc<dyn Source>,
    transform: TrainTransform,
    seed: u64,
    config: LoaderConfig,
    examples: u64,
) -> Result<Measured<StageTime>, DataError> {
    let batches = examples.div_ceil(config.batch_size.max(1) as u64).max(1);
    let mut loader = Loader::train(source, transform, seed, 0, config)?;
    let mut take = || -> Result<u64, DataError> {
        // A training stream does not end.
        let batch = loader.next_batch()?.unwrap_or_default();
        let examples = batch.num_examples as u64;
        loader.recycle(batch);
        Ok(examples)
    };
    take()?;
    let (wall, cpu) = (Instant::now(), ProcessTime::now());
    let mut examples = 0;
    for _ in 0..batches {
        examples += take()?;
    }
    let time = StageTime { wall: wall.elapsed(), cpu: cpu.elapsed() };
    Ok(Measured { time, examples, skipped: loader.skipped() })
}

/// Times each stage of preparing training examples on the calling thread, one example at a time: those
/// of the [`Loader`]'s stream from `start_position` on.
///
/// Asking the clocks takes about 2 µs per example, which is in the times.
///
/// # Errors
/// As [`Loader::train`] and [`Loader::next_batch`], but for the limit of
/// [`OnCorrupt::Skip`](crate::OnCorrupt::Skip), which is that of each example.
pub fn time_stages(
    source: Arc<dyn Source>,
    transform: TrainTransform,
    seed: u64,
    config: LoaderConfig,
    start_position: u64,
    examples: u64,
) -> Result<Measured<StageTimes>, DataError> {
    let pipeline = Pipeline::train(source, transform, seed, Order::Shuffled { seed }, config)?;
    pipeline.time_stages(start_position..start_position.saturating_add(examples))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::transform::TrainCrop;
    use crate::measure::stage::Stage;
    use crate::resample::interpolation::Interpolation;
    use crate::sources::builtin::{BuiltinKind, BuiltinSource, BuiltinSplit};
    use crate::stream::loader::OnCorrupt;

    fn source() -> Arc<dyn Source> {
        let shapes = BuiltinKind::Shapes;
        Arc::new(BuiltinSource::new(shapes, BuiltinSplit::Train, 50, 32, 0).unwrap())
    }

    fn transform() -> TrainTransform {
        TrainTransform {
            image_size: 32,
            crop: TrainCrop::Pad { pixels: 4 },
            flip: true,
            interpolation: Interpolation::Bilinear,
            randaugment: None,
            erasing: None,
            jpeg_scaling: false,
        }
    }

    fn config(workers: usize) -> LoaderConfig {
        LoaderConfig {
            batch_size: 16,
            patch_size: 4,
            workers,
            queue_bytes: 1 << 20,
            on_corrupt: OnCorrupt::Stop,
        }
    }

    #[test]
    fn a_loader_is_timed_in_whole_batches() {
        for workers in [0, 2] {
            let found = time_loader(source(), transform(), 0, config(workers), 40).unwrap();
            assert_eq!((found.examples, found.skipped), (48, 0));
            assert!(!found.time.wall.is_zero() && !found.time.cpu.is_zero(), "{found:?}");
        }
    }

    #[test]
    fn pixels_pass_every_stage_but_decoding() {
        let found = time_stages(source(), transform(), 0, config(1), 7, 60).unwrap();
        assert_eq!((found.examples, found.skipped), (60, 0));
        for stage in Stage::ALL {
            assert_eq!(found.time.of(stage).wall.is_zero(), stage == Stage::Decode, "{stage:?}");
        }
    }
}
