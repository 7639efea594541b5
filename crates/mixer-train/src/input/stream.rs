//! Batches of pictures as the network's input: for training, evaluation and classification alike. The next
//! one is on its way to the device while the one before is computed with.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use burn::tensor::{StreamId, Tensor};
use mixer_data::{Batch, DataError, Loader};

use crate::error::TrainError;
use crate::halt::Halt;
use crate::input::normaliser::{Normaliser, Pixels};

/// Time between two looks whether to stop while data is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);

/// Takes batches from a loader and uploads them, one ahead, on a thread of its own. On a GPU they go by
/// another stream than the step that runs, so that neither waits for the other.
pub(crate) struct Stream {
    normaliser: Normaliser,
    /// Whatever ended the thread comes last; `None` only while this is dropped.
    uploaded: Option<Receiver<Result<Uploaded, DataError>>>,
    is_stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A batch as the network takes it.
pub(crate) struct Input {
    /// The network's input, `[B, S, P·P·3]`; on a CPU without rows that are no examples.
    pub(crate) patches: Tensor<3>,
    /// All else; its `patches` are empty.
    pub(crate) batch: Batch,
}

/// A batch whose pixels are on the device; its `patches` are empty.
pub(crate) struct Uploaded {
    pub(crate) pixels: Pixels,
    pub(crate) batch: Batch,
}

impl Stream {
    /// The batches of `loader`, each changed by `prepare` first.
    pub(crate) fn new(
        loader: Loader,
        normaliser: Normaliser,
        prepare: impl FnMut(&mut Batch) -> Result<(), DataError> + Send + 'static,
    ) -> Result<Self, TrainError> {
        // A batch waits in the hands of the thread, not in the channel.
        let (sender, uploaded) = sync_channel(0);
        let is_stopping = Arc::new(AtomicBool::new(false));
        let (stopping, uploader) = (Arc::clone(&is_stopping), normaliser.clone());
        let thread = std::thread::Builder::new()
            .name("upload".to_owned())
            .spawn(move || upload_all(loader, &uploader, prepare, &sender, &stopping))
            .map_err(|source| TrainError::Thread { source })?;
        Ok(Self { normaliser, uploaded: Some(uploaded), is_stopping, thread: Some(thread) })
    }

    /// The maker of its tensors.
    pub(crate) fn normaliser(&self) -> &Normaliser {
        &self.normaliser
    }

    /// The next batch, or `None` behind the last one of an evaluation. `stop` is asked first and while this
    /// waits.
    ///
    /// # Errors
    /// [`Halt::Stop`] with what `stop` answers; [`Halt::Failed`] when an example cannot be read.
    pub(crate) fn next<S>(
        &mut self,
        stop: impl FnMut() -> Option<S>,
    ) -> Result<Option<Input>, Halt<S>> {
        let Some((Uploaded { pixels, batch }, _)) = self.next_uploaded(stop)? else {
            return Ok(None);
        };
        Ok(Some(Input { patches: self.normaliser.normalised(&pixels), batch }))
    }

    /// The next batch before it is normalised, and the time that was spent waiting for it; otherwise as
    /// [`Stream::next`].
    pub(crate) fn next_uploaded<S>(
        &mut self,
        mut stop: impl FnMut() -> Option<S>,
    ) -> Result<Option<(Uploaded, Duration)>, Halt<S>> {
        let Some(uploaded) = &self.uploaded else { return Ok(None) };
        let started = Instant::now();
        loop {
            if let Some(stop) = stop() {
                return Err(Halt::Stop(stop));
            }
            match uploaded.recv_timeout(PATIENCE) {
                Ok(uploaded) => return Ok(Some((uploaded?, started.elapsed()))),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
                        resume_unwind(panic);
                    }
                    return Ok(None);
                }
            }
        }
    }
}

fn upload_all(
    mut loader: Loader,
    normaliser: &Normaliser,
    mut prepare: impl FnMut(&mut Batch) -> Result<(), DataError>,
    sender: &SyncSender<Result<Uploaded, DataError>>,
    is_stopping: &AtomicBool,
) {
    while !is_stopping.load(Ordering::Relaxed) {
        if !loader.wait(PATIENCE) {
            continue;
        }
        let prepared = loader.next_batch().and_then(|batch| {
            let Some(mut batch) = batch else { return Ok(None) };
            prepare(&mut batch)?;
            Ok(Some(batch))
        });
        let uploaded = match prepared {
            Ok(None) => return,
            Ok(Some(mut batch)) => {
                let pixels = stream().executes(|| normaliser.upload(&batch));
                let patches = std::mem::take(&mut batch.patches);
                loader.recycle(Batch { patches, ..Batch::default() });
                Ok(Uploaded { pixels, batch })
            }
            Err(error) => Err(error),
        };
        let is_last = uploaded.is_err();
        // Nobody waits for it any more where this fails.
        if sender.send(uploaded).is_err() || is_last {
            return;
        }
    }
}

/// The stream of every upload. One for all: memory that a GPU's stream was given stays with that stream.
fn stream() -> StreamId {
    static STREAM: OnceLock<StreamId> = OnceLock::new();
    *STREAM.get_or_init(StreamId::allocate)
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.uploaded = None;
        if let Some(thread) = self.thread.take() {
            // What it panicked on has no one to be told to.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use burn::tensor::Device;
    use mixer_data::{
        BuiltinKind, BuiltinSource, BuiltinSplit, EvalResize, EvalTransform, Interpolation,
        LoaderConfig, OnCorrupt,
    };
    use mixer_model::weights::Preprocessing;
    use mixer_model::{Gelu, MixerConfig, Variant};

    use super::*;
    use crate::halt::never;

    /// Twenty examples in batches of eight: the last one is filled up.
    fn loader(workers: usize) -> Loader {
        let source = BuiltinSource::new(BuiltinKind::Shapes, BuiltinSplit::Val, 20, 32, 0).unwrap();
        let config = LoaderConfig {
            batch_size: 8,
            patch_size: 4,
            workers,
            queue_bytes: 1 << 20,
            on_corrupt: OnCorrupt::Stop,
        };
        let (image_size, interpolation) = (32, Interpolation::Bilinear);
        let transform = EvalTransform {
            image_size,
            resize: EvalResize::Squash,
            interpolation,
            jpeg_scaling: false,
        };
        Loader::eval(Arc::new(source), transform, config).unwrap()
    }

    fn normaliser() -> Normaliser {
        let network = Variant::parse("S/16").unwrap().config(32, 10, Gelu::Tanh);
        let network = MixerConfig { patch_size: 4, ..network };
        Normaliser::new(&Preprocessing::default(), &network, &Device::flex())
    }

    /// The next batch, however long it takes.
    fn next(stream: &mut Stream) -> Result<Option<Input>, TrainError> {
        Ok(stream.next(never)?)
    }

    #[test]
    fn batches_arrive_prepared_and_in_order() {
        let brighten = |batch: &mut Batch| {
            batch.patches.iter_mut().for_each(|value| *value ^= 0xff);
            Ok(())
        };
        for workers in [0, 2] {
            let mut expected = loader(workers);
            let mut stream = Stream::new(loader(workers), normaliser(), brighten).unwrap();
            let mut sizes = Vec::new();
            while let Some(Input { patches, batch, .. }) = next(&mut stream).unwrap() {
                let mut whole = expected.next_batch().unwrap().unwrap();
                brighten(&mut whole).unwrap();
                let wanted = normaliser().normalised(&normaliser().upload(&whole));
                assert_eq!(patches.into_data(), wanted.into_data());
                whole.patches.clear();
                assert_eq!(batch, whole);
                sizes.push(batch.num_examples);
            }
            assert_eq!(sizes, [8, 8, 4]);
            assert!(next(&mut stream).unwrap().is_none(), "it stays at its end");
        }
    }

    #[test]
    fn who_stops_need_not_wait() {
        let slow = |_: &mut Batch| {
            std::thread::sleep(4 * PATIENCE);
            Ok(())
        };
        let mut stream = Stream::new(loader(1), normaliser(), slow).unwrap();
        let mut asked = 0;
        let stopped = stream.next(|| {
            asked += 1;
            (asked == 3).then_some("enough")
        });
        assert!(matches!(stopped, Err(Halt::Stop("enough"))));
        assert_eq!(asked, 3);
    }

    #[test]
    fn an_error_arrives_once_and_a_panic_goes_on_here() {
        let fails = |_: &mut Batch| Err(DataError::NoSuchDirectory { path: "too/dark".into() });
        let mut stream = Stream::new(loader(1), normaliser(), fails).unwrap();
        let error = next(&mut stream).err().unwrap();
        assert!(error.to_string().contains("too/dark"), "{error}");
        assert!(next(&mut stream).unwrap().is_none());

        let panics = |_: &mut Batch| panic!("too bright");
        let mut stream = Stream::new(loader(1), normaliser(), panics).unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| next(&mut stream).is_ok())).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"too bright"));
    }
}
