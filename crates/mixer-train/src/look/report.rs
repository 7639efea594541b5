//! A page about runs that opens from disk: curves, what differs, results, pictures.
//!
//! It needs no network, and says so: a content-security policy forbids it.

use mixer_analysis::{CalibrationBin, ClassMeasure, Confusion};
use mixer_model::Weights;
use serde::Serialize;

use crate::disk::run_dir::{self, RunDir};
use crate::draw::canvas::{Canvas, blend};
use crate::draw::unit_pictures::{embedding, token_mixing};
use crate::error::TrainError;
use crate::look::curves::{Chart, charts};
use crate::look::pareto::Figure;
use crate::look::run_record::{RunRecord, differences, percent};
use crate::look::saved_evaluation::SavedEvaluation;

/// The most classes whose confusion is a picture.
const MOST_PIXELS: usize = 2000;

/// Pairs of classes that are listed.
const CONFUSED: usize = 20;

/// Classes that are listed, those with the least accuracy.
const WORST: usize = 20;

/// The most classes whose confusion is a table.
const MOST_CELLS: usize = 50;

#[derive(Debug, Serialize)]
struct Page<'a> {
    columns: Vec<&'static str>,
    /// Columns that are numbers.
    numbers: Vec<usize>,
    winner: Option<usize>,
    runs: Vec<Run>,
    differences: Vec<Difference>,
    charts: Vec<Chart>,
    figures: &'a [Figure],
}

#[derive(Debug, Serialize)]
struct Run {
    name: String,
    steps_per_epoch: f64,
    batch_size: usize,
    row: Vec<String>,
    facts: Vec<(&'static str, String)>,
    plan: String,
    notes: Option<String>,
    evaluation: Option<Evaluation>,
    pictures: Vec<Picture>,
}

#[derive(Debug, Serialize)]
struct Picture {
    data: String,
    caption: String,
}

#[derive(Debug, Serialize)]
struct Evaluation {
    measures: Vec<(&'static str, String)>,
    classes: Vec<String>,
    /// Absent for many classes, of which there is a picture.
    confusion: Option<Confusion>,
    confusion_picture: Option<Picture>,
    confused: Vec<[String; 4]>,
    /// Name, examples and accuracy of the classes with the least.
    worst: Vec<[String; 3]>,
    calibration: Vec<CalibrationBin>,
    mistakes: Vec<Picture>,
}

#[derive(Debug, Serialize)]
struct Difference {
    key: String,
    values: Vec<Option<String>>,
}

/// The page about `runs`, the first of which has the first colour, with figures of accuracy and cost before
/// the curves. `with_pictures` draws the weights of the runs, where they have some.
///
/// # Errors
/// [`TrainError::Model`] for weights that cannot be read.
pub fn report(
    runs: &[RunRecord],
    figures: &[Figure],
    with_pictures: bool,
) -> Result<String, TrainError> {
    let best = |run: &RunRecord| run.best().map_or(f64::NEG_INFINITY, |best| best.top1);
    let winner = (0..runs.len())
        .reduce(|found, i| if best(&runs[i]) > best(&runs[found]) { i } else { found })
        .filter(|i| runs[*i].best().is_some());
    let page = Page {
        columns: COLUMNS.to_vec(),
        numbers: vec![3, 4, 5, 6, 7, 8],
        winner,
        runs: runs.iter().map(|run| self::run(run, with_pictures)).collect::<Result<_, _>>()?,
        differences: differences(runs)
            .into_iter()
            .map(|(key, values)| Difference { key, values })
            .collect(),
        charts: charts(runs),
        figures,
    };
    let title = match runs {
        [] => "Accuracy and cost".to_owned(),
        [run] => run.name.clone(),
        runs => format!("{} runs", runs.len()),
    };
    let version = env!("CARGO_PKG_VERSION");
    let subtitle = format!("Written by mixer {version} on {}.", crate::disk::environment::now());
    let data = serde_json::to_string(&page).map_err(std::io::Error::other)?;
    // Nothing of a run may end the element that it stands in.
    let data = data.replace('<', "\\u003c");
    let template = include_str!("report/page.html");
    // The data last: what stands in it is no placeholder.
    Ok(template
        .replace("{{style}}", include_str!("report/page.css"))
        .replace("{{script}}", SCRIPT)
        .replace("{{title}}", &escaped(&title))
        .replace("{{subtitle}}", &escaped(&subtitle))
        .replacen("{{data}}", &data, 1))
}

/// The script of the page: what figures share, their kinds, the sections.
const SCRIPT: &str = concat!(
    include_str!("report/figure.js"),
    include_str!("report/curves.js"),
    include_str!("report/points.js"),
    include_str!("report/page.js"),
);

const COLUMNS: [&str; 10] = [
    "run",
    "state",
    "step",
    "best top-1, %",
    "at step",
    "last top-1, %",
    "last loss",
    "images/s",
    "time",
    "device",
];

/// Text of a page: what has a meaning in HTML is written so that it has none.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn run(record: &RunRecord, with_pictures: bool) -> Result<Run, TrainError> {
    let (best, last) = (record.best(), record.evaluations().next_back());
    let text = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let environment = record.environment.as_ref();
    let row = vec![
        record.state().name().to_owned(),
        format!("{}/{}", record.steps(), record.plan.train.steps),
        text(best.map(|best| percent(best.top1, best.n))),
        text(best.map(|best| best.step.to_string())),
        text(last.map(|last| percent(last.top1, last.n))),
        text(last.map(|last| format!("{:.4}", last.loss))),
        text(record.images_per_sec().map(|speed| format!("{speed:.0}"))),
        text(record.seconds().map(|seconds| {
            let seconds = std::time::Duration::from_secs(seconds.round() as u64);
            humantime::format_duration(seconds).to_string()
        })),
        text(environment.map(|environment| environment.device.clone())),
    ];
    let mut facts = vec![("directory", record.path.display().to_string())];
    let network = &record.plan.model.network;
    facts.push(("network", network.to_string()));
    facts.push((
        "data",
        format!(
            "{} training and {} evaluation examples, {} classes",
            record.plan.facts.train_examples,
            record.plan.facts.val_examples,
            record.plan.facts.classes.len()
        ),
    ));
    if let Some(environment) = environment {
        facts.push(("command", environment.command.join(" ")));
        facts.push(("started", environment.started.clone()));
        facts.push(("threads", environment.threads.to_string()));
        facts.push(("version", environment.version.clone()));
        for (name, value) in [
            ("host", &environment.host),
            ("processor", &environment.processor),
            ("commit", &environment.commit),
        ] {
            facts.extend(value.clone().map(|value| (name, value)));
        }
    }
    let read = |name: &str| std::fs::read_to_string(record.path.join(name)).ok();
    Ok(Run {
        name: record.name.clone(),
        steps_per_epoch: record.plan.steps_per_epoch(),
        batch_size: record.plan.train.batch_size,
        row,
        facts,
        plan: record.plan.to_toml()?,
        notes: read("notes.md"),
        evaluation: SavedEvaluation::read(&RunDir::new(&record.path))?
            .map(evaluation)
            .transpose()?,
        pictures: if with_pictures { pictures(record)? } else { Vec::new() },
    })
}

fn evaluation(saved: SavedEvaluation) -> Result<Evaluation, TrainError> {
    let SavedEvaluation { split, classes, measures, mistakes } = saved;
    let n = measures.n;
    let lines = vec![
        ("split", split),
        ("examples", n.to_string()),
        ("top-1, %", percent(measures.top1, n)),
        ("top-5, %", percent(measures.top5, n)),
        ("mean of classes, %", format!("{:.2}", 100.0 * measures.mean_per_class())),
        ("loss", format!("{:.4}", measures.loss)),
        ("expected calibration error, 15 bins", format!("{:.4}", measures.ece)),
        ("maximum calibration error", format!("{:.4}", measures.mce)),
        ("Brier score", format!("{:.4}", measures.brier)),
    ];
    let pairs = measures.confusion.most_confused(CONFUSED).into_iter().map(|pair| {
        let name = |class: usize| classes.get(class).cloned().unwrap_or_default();
        [name(pair.truth), name(pair.prediction), pair.n.to_string(), pair.reverse.to_string()]
    });
    let mut by_accuracy: Vec<(f64, ClassMeasure)> = measures
        .per_class
        .iter()
        .filter_map(|class| class.top1.filter(|top1| *top1 < 1.0).map(|top1| (top1, *class)))
        .collect();
    by_accuracy.sort_by(|a, b| a.0.total_cmp(&b.0));
    let worst = by_accuracy.into_iter().take(WORST).map(|(top1, class)| {
        let name = classes.get(class.class).cloned().unwrap_or_default();
        [name, class.n.to_string(), percent(top1, class.n)]
    });
    let confusion_picture = match classes.len() {
        k if (MOST_CELLS + 1..=MOST_PIXELS).contains(&k) => {
            Some(confusion_picture(&measures.confusion)?)
        }
        _ => None,
    };
    Ok(Evaluation {
        measures: lines,
        confusion_picture,
        confused: pairs.collect(),
        worst: worst.collect(),
        calibration: measures.calibration,
        confusion: (classes.len() <= MOST_CELLS).then_some(measures.confusion),
        mistakes: mistakes
            .into_iter()
            .map(|mistake| Picture {
                data: data_uri(&mistake.thumbnail),
                caption: format!(
                    "{} for {}, {:.1} %: {}",
                    mistake.prediction,
                    mistake.label,
                    100.0 * mistake.confidence,
                    mistake.path
                ),
            })
            .collect(),
        classes,
    })
}

/// A square for each cell, darker on a logarithmic scale of its share of the row.
fn confusion_picture(confusion: &Confusion) -> Result<Picture, TrainError> {
    let k = confusion.num_classes();
    let scale = (600 / k).max(1);
    let mut canvas = Canvas::new(k * scale, k * scale);
    for truth in 0..k {
        let row = confusion.row(truth);
        let total: u64 = row.iter().sum();
        for (prediction, &n) in row.iter().enumerate() {
            let shade = ((n + 1) as f64).ln() / ((total + 1) as f64).ln().max(1e-9);
            canvas.tile((prediction * scale, truth * scale), 1, scale, |_| {
                [255, 255, 255].map(|white| blend(white, 20, shade))
            });
        }
    }
    let caption = "confusion: rows are truth, columns predictions, both in the order of the \
                   outputs; dark is much of a row, on a logarithmic scale"
        .to_owned();
    Ok(Picture { data: data_uri(&canvas.png()?), caption })
}

fn pictures(record: &RunRecord) -> Result<Vec<Picture>, TrainError> {
    let run_dir = RunDir::new(&record.path);
    if ![run_dir.best(), run_dir.last()].iter().any(|file| file.exists()) {
        return Ok(Vec::new());
    }
    let weights: Weights = run_dir::read_weights(&record.path, None)?;
    let mut pictures = Vec::new();
    if weights.config.tokens.mlp_dim().is_some() {
        let caption =
            "hidden units of token mixing in block 0, each with the one closest to its inverse";
        pictures.push(Picture {
            data: data_uri(&token_mixing(&weights, 0)?.png()?),
            caption: caption.to_owned(),
        });
    }
    let caption = "units of the embedding".to_owned();
    pictures.push(Picture { data: data_uri(&embedding(&weights)?.png()?), caption });
    Ok(pictures)
}

/// A PNG file as an address that holds it.
fn data_uri(png: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = "data:image/png;base64,".to_owned();
    for three in png.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for digit in 0..4 {
            let six = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= three.len() { char::from(DIGITS[six as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_addresses() {
        for (bytes, expected) in [(&b"Man"[..], "TWFu"), (b"Ma", "TWE="), (b"M", "TQ=="), (b"", "")]
        {
            assert_eq!(data_uri(bytes), format!("data:image/png;base64,{expected}"));
        }
    }

    #[test]
    fn the_confusion_of_many_classes_is_a_picture() {
        let mut tally = mixer_analysis::Tally::new(60);
        for label in 0..60 {
            let mut logits = vec![0.0; 60];
            logits[label / 2 * 2] = 9.0;
            tally.add(&logits, label);
        }
        let saved = |measures| SavedEvaluation {
            split: "val".to_owned(),
            classes: (0..60).map(|class| class.to_string()).collect(),
            measures,
            mistakes: Vec::new(),
        };
        let page = evaluation(saved(tally.measures())).unwrap();
        assert!(page.confusion.is_none());
        let picture = confusion_picture(&tally.measures().confusion).unwrap();
        assert_eq!(page.confusion_picture.unwrap().data, picture.data);
        assert_eq!(page.worst.len(), WORST);
        assert_eq!(page.worst[0], ["1", "1", "0.0 ± 39.7"]);
    }
}
