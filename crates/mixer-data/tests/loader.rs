//! The loader's promises: the same bytes for any number of workers and any start, every example
//! once, and nothing that goes wrong unseen.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mixer_data::*;
use proptest::prelude::*;

const IMAGE_SIZE: u32 = 8;
const PATCH_SIZE: usize = 4;

/// What happens at some index of a [`TestSource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Unreadable,
    Panic,
}

/// Small pictures that tell which example they are, and that may fail.
struct TestSource {
    len: usize,
    faults: Vec<(usize, Fault)>,
    delay: Duration,
    reads: AtomicUsize,
    classes: Vec<String>,
}

impl TestSource {
    fn new(len: usize) -> Self {
        Self {
            len,
            faults: Vec::new(),
            delay: Duration::ZERO,
            reads: AtomicUsize::new(0),
            classes: ["a", "b", "c"].map(String::from).to_vec(),
        }
    }

    fn with(mut self, fault: Fault, indices: impl IntoIterator<Item = usize>) -> Self {
        self.faults.extend(indices.into_iter().map(|index| (index, fault)));
        self
    }
}

impl Source for TestSource {
    fn len(&self) -> usize {
        self.len
    }

    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        (index % 3) as u32
    }

    fn read(&self, index: usize) -> Result<Example, DataError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.delay);
        match self.faults.iter().find(|(at, _)| *at == index) {
            Some((_, Fault::Panic)) => panic!("broken on purpose"),
            Some((_, Fault::Unreadable)) => {
                return Err(DataError::BadExample {
                    example: self.describe(index),
                    reason: DecodeError::Truncated,
                });
            }
            None => {}
        }
        let (width, height) = (9 + index as u32 % 5, 11);
        let pixels = (0..width as usize * height as usize * 3)
            .map(|at| (at * (index + 3) + index) as u8)
            .collect();
        Ok(Example::Pixels(RgbImage { width, height, pixels }))
    }

    fn describe(&self, index: usize) -> String {
        format!("test/{index}.png")
    }

    fn fingerprint(&self) -> u64 {
        0
    }
}

fn config(batch_size: usize, workers: usize, on_corrupt: OnCorrupt) -> LoaderConfig {
    LoaderConfig { batch_size, patch_size: PATCH_SIZE, workers, queue_bytes: 4096, on_corrupt }
}

fn train_transform() -> TrainTransform {
    TrainTransform {
        image_size: IMAGE_SIZE,
        crop: TrainCrop::Inception { area: (0.2, 1.0), aspect: (0.75, 1.3333) },
        flip: true,
        interpolation: Interpolation::Bilinear,
        randaugment: None,
        erasing: None,
        jpeg_scaling: false,
    }
}

fn eval_transform() -> EvalTransform {
    EvalTransform {
        image_size: IMAGE_SIZE,
        resize: EvalResize::Squash,
        interpolation: Interpolation::Bilinear,
        jpeg_scaling: false,
    }
}

fn train_from(source: TestSource, start: u64, config: LoaderConfig) -> Loader {
    Loader::train(Arc::new(source), train_transform(), 42, start, config).unwrap()
}

fn eval(source: TestSource, config: LoaderConfig) -> Loader {
    Loader::eval(Arc::new(source), eval_transform(), config).unwrap()
}

fn take(loader: &mut Loader, count: usize) -> Vec<Batch> {
    (0..count).map(|_| loader.next_batch().unwrap().unwrap()).collect()
}

fn drain(loader: &mut Loader) -> Vec<Batch> {
    std::iter::from_fn(|| loader.next_batch().unwrap()).collect()
}

#[test]
fn batches_are_the_same_for_any_number_of_workers() {
    let skip = OnCorrupt::Skip { at_most: 5 };
    let source = || TestSource::new(37).with(Fault::Unreadable, [3, 4, 20]);
    let reference = take(&mut train_from(source(), 5, config(7, 0, skip)), 20);
    for workers in [1, 2, 16] {
        let found = take(&mut train_from(source(), 5, config(7, workers, skip)), 20);
        assert!(found == reference, "{workers} workers");
    }
}

#[test]
fn evaluation_is_the_same_for_any_number_of_workers() {
    let reference = drain(&mut eval(TestSource::new(50), config(8, 0, OnCorrupt::Stop)));
    for workers in [1, 2, 16] {
        let found = drain(&mut eval(TestSource::new(50), config(8, workers, OnCorrupt::Stop)));
        assert!(found == reference, "{workers} workers");
    }
}

#[test]
fn recycled_buffers_change_nothing() {
    let mut plain = eval(TestSource::new(45), config(8, 2, OnCorrupt::Stop));
    let mut recycling = eval(TestSource::new(45), config(8, 2, OnCorrupt::Stop));
    while let Some(expected) = plain.next_batch().unwrap() {
        let mut found = recycling.next_batch().unwrap().unwrap();
        assert!(found == expected);
        // What callers leave in the buffer must not show.
        found.patches.fill(0xee);
        recycling.recycle(found);
    }
    assert!(recycling.next_batch().unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_stream_can_start_at_any_batch(
        len in 1usize..40, batch_size in 1usize..12, skipped_batches in 0usize..30,
    ) {
        let config = config(batch_size, 0, OnCorrupt::Stop);
        let all = take(&mut train_from(TestSource::new(len), 0, config.clone()), skipped_batches + 3);
        let start = (skipped_batches * batch_size) as u64;
        let resumed = take(&mut train_from(TestSource::new(len), start, config), 3);
        prop_assert_eq!(&all[skipped_batches..], &resumed[..]);
    }

    #[test]
    fn training_sees_every_example_once_per_epoch(len in 1usize..40, batch_size in 1usize..12) {
        let batches = (3 * len).div_ceil(batch_size);
        let config = config(batch_size, 0, OnCorrupt::Stop);
        let batches = take(&mut train_from(TestSource::new(len), 0, config), batches);
        let stream: Vec<u64> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
        for epoch in stream.chunks_exact(len) {
            let mut seen = epoch.to_vec();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..len as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn evaluation_sees_every_example_once(len in 1usize..40, batch_size in 1usize..12) {
        let batches = drain(&mut eval(TestSource::new(len), config(batch_size, 0, OnCorrupt::Stop)));
        prop_assert_eq!(batches.len(), len.div_ceil(batch_size));
        let seen: Vec<u64> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
        prop_assert_eq!(seen, (0..len as u64).collect::<Vec<_>>());
        let row = (IMAGE_SIZE * IMAGE_SIZE * 3) as usize;
        for batch in &batches {
            prop_assert_eq!(batch.labels.len(), batch_size);
            prop_assert_eq!(batch.patches.len(), batch_size * row);
            prop_assert_eq!(batch.indices.len(), batch.num_examples);
            prop_assert!(batch.patches[batch.num_examples * row..].iter().all(|&value| value == 0));
            prop_assert!(batch.labels[batch.num_examples..].iter().all(|&label| label == 0));
        }
    }
}

#[test]
fn rows_hold_the_patches_and_labels_of_their_examples() {
    let source = TestSource::new(10);
    let mut expected = vec![0; 192];
    let mut square = vec![0; 192];
    let batches = drain(&mut eval(TestSource::new(10), config(4, 2, OnCorrupt::Stop)));
    assert_eq!((batches[0].num_tokens, batches[0].patch_dim), (4, 48));
    assert_eq!(batches[2].num_examples, 2);
    assert_eq!(batches[1].first_position, 4);
    for batch in &batches {
        for (row, &index) in batch.indices.iter().enumerate() {
            let image = source.image(index as usize).unwrap();
            eval_transform().apply(&image, &mut Resampler::new(), &mut square).unwrap();
            patchify(&square, IMAGE_SIZE, PATCH_SIZE as u32, &mut expected).unwrap();
            assert_eq!(batch.patches[row * 192..(row + 1) * 192], expected);
            assert_eq!(batch.labels[row], index as u32 % 3);
        }
    }
}

#[test]
fn epochs_are_shuffled_and_augmented_anew() {
    let batches = take(&mut train_from(TestSource::new(12), 0, config(12, 2, OnCorrupt::Stop)), 3);
    assert_ne!(batches[0].indices, batches[1].indices);
    assert_eq!(batches.iter().map(|batch| batch.epoch).collect::<Vec<_>>(), [0, 1, 2]);
    let row_of = |batch: &Batch, index: u64| {
        let row = batch.indices.iter().position(|&found| found == index).unwrap();
        batch.patches[row * 192..(row + 1) * 192].to_vec()
    };
    let same = (0..12).filter(|&index| row_of(&batches[0], index) == row_of(&batches[1], index));
    assert!(same.count() < 3);
}

/// Ranks that share a stream take its batches between them, wherever it starts; parts of an evaluation are
/// those of the whole one.
#[test]
fn shares_of_a_stream_are_its_batches() {
    let source = || TestSource::new(37);
    let (micro, update, first) = (3, 24, 48);
    let whole = take(&mut train_from(source(), first, config(micro, 2, OnCorrupt::Stop)), 32);
    for ranks in [1, 2, 4, 8] {
        let own = update / ranks;
        let mut found: Vec<Vec<Batch>> = Vec::new();
        for rank in 0..ranks {
            let share = Some(Share { own, of: update });
            let positions = Positions { first: first + rank * own, share, led_in: None };
            let (source, config) = (Arc::new(source()), config(micro, 2, OnCorrupt::Stop));
            let order = Order::Shuffled { seed: 42 };
            let transform = train_transform();
            let loader = Loader::train_in_order(source, transform, 42, order, positions, config);
            found.push(take(&mut loader.unwrap(), 32 / ranks as usize));
        }
        let per_update = own as usize / micro;
        let in_order = (0..32).map(|at| {
            let (step, within) = (at / (update as usize / micro), at % (update as usize / micro));
            &found[within / per_update][step * per_update + within % per_update]
        });
        assert!(in_order.eq(&whole), "{ranks} ranks");
    }
    let whole = drain(&mut eval(source(), config(5, 1, OnCorrupt::Stop)));
    let part = |range| {
        let config = config(5, 1, OnCorrupt::Stop);
        drain(&mut Loader::eval_part(Arc::new(source()), eval_transform(), range, config).unwrap())
    };
    assert_eq!([part(0..15), part(15..30), part(30..40), part(40..60)].concat(), whole);
    let share = Some(Share { own: 4, of: 12 });
    let refused = Loader::train_in_order(
        Arc::new(source()),
        train_transform(),
        42,
        Order::Shuffled { seed: 42 },
        Positions { first: 0, share, led_in: None },
        config(micro, 0, OnCorrupt::Stop),
    );
    let error = refused.err().unwrap().to_string();
    assert!(
        error.contains("share.own") && error.contains("multiple of the batch size 3"),
        "{error}"
    );
}

/// Partners in the whole batch of an update: what it is cut into, and who computes it, changes nothing.
#[test]
fn partners_in_the_batch_are_the_same_for_any_microbatch() {
    let (update, steps) = (12, 3);
    for (mixup_alpha, cutmix_alpha) in [(0.0, 1.0), (0.5, 0.0)] {
        let mix = MixSpec {
            mixup_alpha,
            cutmix_alpha,
            switch_prob: 0.5,
            prob: 0.8,
            flavour: MixFlavour::BigVision,
            partners: MixPartners::Batch,
        };
        mix.check().unwrap();
        // What each example becomes: its label and its partner's, and its pixels, mixed.
        let examples = |micro: usize, ranks: u64| {
            let mut of_steps = vec![Vec::new(); steps];
            for rank in 0..ranks {
                let own = update / ranks;
                let share = (ranks > 1).then_some(Share { own, of: update });
                let positions = Positions { first: rank * own, share, led_in: Some(update) };
                let (source, config) =
                    (Arc::new(TestSource::new(37)), config(micro, 2, OnCorrupt::Stop));
                let order = Order::Shuffled { seed: 42 };
                let transform = train_transform();
                let loader =
                    Loader::train_in_order(source, transform, 42, order, positions, config);
                let mut loader = loader.unwrap();
                for examples in &mut of_steps {
                    for _ in 0..own as usize / micro {
                        let mut batch = loader.next_batch().unwrap().unwrap();
                        let step = batch.first_position / update;
                        mix.apply(&mut batch, 7, step, IMAGE_SIZE).unwrap();
                        let mixed = batch.mix.clone().unwrap();
                        let row = |at: usize| &batch.patches[at * 192..][..192];
                        for (at, partner) in mixed.partners(micro).into_iter().enumerate() {
                            let labels = (batch.labels[at], batch.labels[partner]);
                            let pixels = match mixed.kind {
                                MixKind::Mixup => [row(at), row(partner)].concat(),
                                _ => row(at).to_vec(),
                            };
                            examples.push((batch.indices[at], labels, mixed.lambda, pixels));
                        }
                        loader.recycle(batch);
                    }
                }
            }
            of_steps
        };
        let expected = examples(update as usize, 1);
        assert_eq!(expected[0].len(), update as usize);
        let partners_label = expected[0][0].1.1;
        assert_eq!(partners_label, expected[0][update as usize - 1].1.0, "the first with the last");
        for (micro, ranks) in [(1, 1), (3, 1), (6, 2), (2, 3), (1, 4)] {
            assert!(examples(micro, ranks) == expected, "microbatches of {micro}, {ranks} ranks");
        }
    }
}

#[test]
fn repeats_of_an_example_share_a_batch_and_differ_in_their_augmentation() {
    let order = Order::training(42, 3, 6);
    let batches = |start: u64, workers, count| {
        let (source, config) = (TestSource::new(12), config(6, workers, OnCorrupt::Stop));
        let transform = train_transform();
        let loader = Loader::train_in_order(Arc::new(source), transform, 42, order, start, config);
        take(&mut loader.unwrap(), count)
    };
    let all = batches(0, 2, 12);
    let epochs: Vec<u64> = all.iter().map(|batch| batch.epoch).collect();
    assert_eq!(epochs, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
    let row = |batch: &Batch, slot: usize| batch.patches[slot * 192..(slot + 1) * 192].to_vec();
    let mut same = 0;
    for batch in &all {
        assert_eq!(batch.indices[..2], batch.indices[2..4]);
        assert_eq!(batch.indices[..2], batch.indices[4..]);
        for (a, b) in [(0, 2), (0, 4), (2, 4), (1, 3), (1, 5), (3, 5)] {
            same += usize::from(row(batch, a) == row(batch, b));
        }
    }
    assert!(same < 5, "{same} of 72 pairs are equal");
    for epoch in all.chunks(6) {
        let mut seen: Vec<u64> = epoch.iter().flat_map(|batch| batch.indices.clone()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..36).map(|at| at / 3).collect::<Vec<_>>());
    }
    // A resumed run starts at any position, and the first time is what it is without repeats.
    for workers in [0, 1, 16] {
        assert!(batches(7 * 6, workers, 5) == all[7..]);
    }
    let plain = take(&mut train_from(TestSource::new(12), 0, config(2, 0, OnCorrupt::Stop)), 6);
    for (plain, repeated) in plain.iter().zip(&all) {
        assert_eq!(plain.indices, repeated.indices[..2]);
        assert_eq!(plain.patches, repeated.patches[..2 * 192]);
    }
}

#[test]
fn a_corrupt_example_stops_the_stream_by_default_and_stays_an_error() {
    for workers in [0, 1, 4] {
        let source = TestSource::new(20).with(Fault::Unreadable, [9, 10, 17]);
        let mut loader = eval(source, config(4, workers, OnCorrupt::Stop));
        take(&mut loader, 2);
        for _ in 0..2 {
            assert_eq!(
                loader.next_batch().unwrap_err().to_string(),
                "cannot decode image: the file is truncated: test/9.png"
            );
        }
    }
}

#[test]
fn training_replaces_a_corrupt_example_by_the_next_of_its_epoch() {
    let clean = take(&mut train_from(TestSource::new(10), 0, config(10, 0, OnCorrupt::Stop)), 2);
    // Two neighbours in the order of the first epoch, so that the first skips over both.
    let (first, second) = (clean[0].indices[4], clean[0].indices[5]);
    let source = TestSource::new(10).with(Fault::Unreadable, [first as usize, second as usize]);
    let mut loader = train_from(source, 0, config(10, 2, OnCorrupt::Skip { at_most: 2 }));
    let batches = take(&mut loader, 2);
    let mut expected = clean[0].indices.clone();
    expected[4] = expected[6];
    expected[5] = expected[6];
    assert_eq!(batches[0].indices, expected);
    assert_eq!(batches[0].num_examples, 10);
    assert_eq!(
        batches[0].skipped,
        [first, second].map(|index| SkippedExample {
            index,
            reason: format!("cannot decode image: the file is truncated: test/{index}.png"),
        })
    );
    // The same two again in the next epoch: reported once, counted once.
    assert!(batches[1].skipped.is_empty());
    assert_eq!(loader.skipped(), 2);
}

#[test]
fn the_last_example_of_an_epoch_is_replaced_by_its_first() {
    let clean = take(&mut train_from(TestSource::new(10), 0, config(10, 0, OnCorrupt::Stop)), 1);
    let last = clean[0].indices[9];
    let source = TestSource::new(10).with(Fault::Unreadable, [last as usize]);
    let mut loader = train_from(source, 0, config(10, 0, OnCorrupt::Skip { at_most: 1 }));
    assert_eq!(take(&mut loader, 1)[0].indices[9], clean[0].indices[0]);
}

#[test]
fn evaluation_leaves_a_corrupt_example_out() {
    let source = TestSource::new(10).with(Fault::Unreadable, [1, 3, 8, 9]);
    let mut loader = eval(source, config(4, 2, OnCorrupt::Skip { at_most: 4 }));
    let batches = drain(&mut loader);
    let indices: Vec<_> = batches.iter().map(|batch| batch.indices.clone()).collect();
    assert_eq!(indices, [vec![0, 2], vec![4, 5, 6, 7], vec![]]);
    let clean = drain(&mut eval(TestSource::new(10), config(4, 0, OnCorrupt::Stop)));
    assert_eq!(batches[0].num_examples, 2);
    assert_eq!(batches[0].patches[192..384], clean[0].patches[384..576]);
    assert_eq!(batches[0].labels, [0, 2, 0, 0]);
    assert!(batches[0].patches[384..].iter().all(|&value| value == 0));
    assert_eq!(loader.skipped(), 4);
}

#[test]
fn more_corrupt_examples_than_allowed_are_an_error_that_names_the_last() {
    for workers in [0, 3] {
        let source = TestSource::new(30).with(Fault::Unreadable, [2, 3, 11]);
        let mut loader = eval(source, config(4, workers, OnCorrupt::Skip { at_most: 2 }));
        take(&mut loader, 2);
        assert_eq!(
            loader.next_batch().unwrap_err().to_string(),
            "found 3 unreadable examples, expected at most 2; the last: cannot decode image: the \
             file is truncated: test/11.png"
        );
    }
}

#[test]
fn training_on_nothing_readable_is_an_error_however_much_may_be_skipped() {
    for at_most in [3, 1000] {
        let source = TestSource::new(5).with(Fault::Unreadable, 0..5);
        let mut loader = train_from(source, 0, config(4, 2, OnCorrupt::Skip { at_most }));
        let error = loader.next_batch().unwrap_err();
        match at_most {
            3 => assert!(matches!(error, DataError::TooManyCorrupt { skipped: 4, .. }), "{error}"),
            _ => assert!(matches!(error, DataError::NoExamples { .. }), "{error}"),
        }
    }
}

#[test]
fn a_panic_in_a_source_is_an_error_and_never_skipped() {
    for workers in [0, 2] {
        for on_corrupt in [OnCorrupt::Stop, OnCorrupt::Skip { at_most: 100 }] {
            let source = TestSource::new(20).with(Fault::Panic, [6]);
            let mut loader = eval(source, config(4, workers, on_corrupt));
            take(&mut loader, 1);
            assert_eq!(
                loader.next_batch().unwrap_err().to_string(),
                "a loader worker panicked: broken on purpose: example 6"
            );
        }
    }
}

#[test]
fn dropping_a_busy_loader_takes_no_longer_than_an_example() {
    let mut source = TestSource::new(100_000);
    source.delay = Duration::from_millis(100);
    let mut loader = train_from(source, 0, config(64, 4, OnCorrupt::Stop));
    // Let the workers begin, without waiting for a whole batch.
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    loader.recycle(Batch::default());
    drop(loader);
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
}

#[test]
fn batches_in_flight_are_bounded_by_their_bytes() {
    // A batch has 4 · 192 bytes, so 4096 bytes hold five of them.
    let source = Arc::new(TestSource::new(10_000));
    let mut loader = Loader::train(
        Arc::clone(&source) as Arc<dyn Source>,
        train_transform(),
        42,
        0,
        config(4, 2, OnCorrupt::Stop),
    )
    .unwrap();
    let settled_reads = |expected: usize| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while source.reads.load(Ordering::Relaxed) < expected && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Workers that do not stop here would go on reading meanwhile.
        std::thread::sleep(Duration::from_millis(100));
        source.reads.load(Ordering::Relaxed)
    };
    assert_eq!(settled_reads(5 * 4), 5 * 4);
    take(&mut loader, 3);
    assert_eq!(settled_reads(8 * 4), 8 * 4);
}

#[test]
fn settings_without_a_meaning_are_refused() {
    let open = |config: LoaderConfig, len| {
        Loader::eval(Arc::new(TestSource::new(len)), eval_transform(), config).err()
    };
    let good = config(4, 0, OnCorrupt::Stop);
    assert!(open(good.clone(), 5).is_none());
    let message = |config: LoaderConfig, len| open(config, len).unwrap().to_string();
    let no_batch = LoaderConfig { batch_size: 0, ..good.clone() };
    assert_eq!(message(no_batch, 5), "found `batch_size = 0`, expected at least 1");
    let no_divisor = LoaderConfig { patch_size: 3, ..good.clone() };
    assert_eq!(
        message(no_divisor, 5),
        "found `patch_size = 3`, expected a divisor of the image size 8"
    );
    assert_eq!(message(good, 0), "found no example, expected at least one: the source of a loader");
}

#[test]
fn on_corrupt_reads_as_it_is_documented() {
    let parse = |text: &str| serde_json::from_str::<OnCorrupt>(text);
    assert_eq!(parse(r#""stop""#).unwrap(), OnCorrupt::Stop);
    assert_eq!(parse(r#"{"skip": {"at_most": 10}}"#).unwrap(), OnCorrupt::Skip { at_most: 10 });
    assert!(parse(r#"{"skip": {"at_mots": 10}}"#).is_err());
    let crop: TrainCrop = serde_json::from_str(r#"{"pad": {"pixels": 4}}"#).unwrap();
    assert_eq!(crop, TrainCrop::Pad { pixels: 4 });
    let resize: EvalResize =
        serde_json::from_str(r#"{"resmall_crop": {"fraction": 0.875}}"#).unwrap();
    assert_eq!(resize, EvalResize::ResmallCrop { fraction: 0.875 });
}
