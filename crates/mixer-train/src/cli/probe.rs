//! `mixer probe`.

use std::path::PathBuf;

use clap::Args;
use mixer_data::Source;
use serde::Serialize;

use super::features::{features, split_at};
use super::{ClassifierArgs, DeviceArg, Format};
use crate::error::TrainError;
use crate::look::probe::{NeighboursResult, ProbeResult, few_shot, neighbours};
use crate::show::progress::say;

#[derive(Debug, Clone, Args)]
pub(super) struct ProbeArgs {
    #[command(flatten)]
    classifier: ClassifierArgs,
    /// The split that shots come from: a folder of classes, a list, or a pattern of shards, with an
    /// optional range: `pets/train[:65000]`.
    #[arg(long, value_name = "DIR")]
    train: PathBuf,
    /// The split that is predicted, of the same classes.
    #[arg(long, value_name = "DIR")]
    test: PathBuf,
    /// Examples of each class that a probe is fitted to.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 5, 10, 25],
          value_parser = clap::value_parser!(u32).range(1..))]
    shots: Vec<u32>,
    /// Selections of examples: seeds 0 to N − 1.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    seeds: u32,
    /// Let the K nearest examples vote, too.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    knn: Option<u32>,
    /// Examples per batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    device: DeviceArg,
}

/// An entry of the JSON.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Entry {
    Probe(ProbeResult),
    Neighbours(NeighboursResult),
}

pub(super) fn run(args: &ProbeArgs) -> Result<(), TrainError> {
    let classifier = args.classifier.open(&args.device.open()?)?;
    let train = split_at(&args.train, None, &classifier)?;
    let classes = train.class_names().to_vec();
    let test = split_at(&args.test, Some(&classes), &classifier)?;
    let shots: Vec<usize> = args.shots.iter().map(|shots| *shots as usize).collect();
    check_classes(args, &*train, &*test, shots.iter().copied().max().unwrap_or(1))?;
    let batch_size = usize::from(args.batch_size);
    let train = features(&classifier, &train, batch_size)?;
    let test = features(&classifier, &test, batch_size)?;
    let mut probes = Vec::new();
    for &shots in &shots {
        for seed in 0..u64::from(args.seeds) {
            probes.push(few_shot(&train, &test, classes.len(), seed, shots)?);
        }
    }
    let votes = args.knn.map(|k| neighbours(&train, &test, classes.len(), k as usize));
    match args.format {
        Format::Json => {
            let probes = probes.into_iter().map(Entry::Probe);
            let entries: Vec<Entry> = probes.chain(votes.map(Entry::Neighbours)).collect();
            super::print_json(&entries)
        }
        Format::Table => {
            let mut text = format!(
                "{} examples of {} classes to learn from, {} to predict\n\
                 shots     mean    least  largest  (top-1, %, over {} selections)\n",
                train.labels.len(),
                classes.len(),
                test.labels.len(),
                args.seeds
            );
            for of_shots in probes.chunks(args.seeds as usize) {
                let found = || of_shots.iter().map(|probe| 100.0 * probe.accuracy);
                text += &format!(
                    "{:>5}  {:7.2}  {:7.2}  {:7.2}\n",
                    of_shots[0].shots,
                    found().sum::<f64>() / f64::from(args.seeds),
                    found().fold(f64::INFINITY, f64::min),
                    found().fold(0.0, f64::max)
                );
            }
            if let Some(votes) = votes {
                text +=
                    &format!("{} nearest neighbours: {:.2} %\n", votes.knn, 100.0 * votes.accuracy);
            }
            super::print(&text)
        }
    }
}

/// Refuses classes that are missing in one of the splits, and says which have fewer examples than shots.
fn check_classes(
    args: &ProbeArgs,
    train: &dyn Source,
    test: &dyn Source,
    shots: usize,
) -> Result<(), TrainError> {
    let classes = train.class_names();
    if let [only] = classes {
        let message = format!(
            "found the class `{}` alone, expected at least two: {}",
            only.escape_debug(),
            args.train.display()
        );
        return Err(TrainError::data_mismatch(message).with_hint(
            "`--train` is a folder with a folder for each class, or a list with labels",
        ));
    }
    if let Some(k) = args.knn.filter(|k| *k as usize > train.len()) {
        say(format!(
            "warning: `--knn` is {k}, more than the {} examples: all of them vote",
            train.len()
        ));
    }
    let counts = |source: &dyn Source| {
        let mut counts = vec![0usize; classes.len()];
        (0..source.len()).for_each(|i| counts[source.label(i) as usize] += 1);
        counts
    };
    let of_train = counts(train);
    for (counts, path) in [(&of_train, &args.train), (&counts(test), &args.test)] {
        let missing: Vec<&str> = classes
            .iter()
            .zip(counts)
            .filter(|(_, count)| **count == 0)
            .map(|(class, _)| class.as_str())
            .collect();
        if let Some(first) = missing.first() {
            let message = format!(
                "{} of {} classes have no example, the first is `{}`: {}",
                missing.len(),
                classes.len(),
                first.escape_debug(),
                path.display()
            );
            return Err(TrainError::data_mismatch(message)
                .with_hint("a probe needs the same classes in `--train` and `--test`"));
        }
    }
    let few = of_train.iter().filter(|count| **count < shots).count();
    if few > 0 {
        let least = of_train.iter().min().copied().unwrap_or(0);
        say(format!(
            "warning: {few} of {} classes have fewer than {shots} examples (the fewest: {least}); of these \
             all are taken",
            classes.len()
        ));
    }
    Ok(())
}
