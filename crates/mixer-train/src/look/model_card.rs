//! The end of a model card: results and origin of weights, as far as they are known.

use std::io::Read;
use std::path::Path;

use fs_err as fs;
use mixer_model::Weights;
use sha2::{Digest, Sha256};

use crate::disk::checkpoint::hexadecimal;
use crate::disk::metrics::Metric;
use crate::disk::run_dir::{self, RunDir};
use crate::error::TrainError;
use crate::look::run_record::{RunRecord, percent};
use crate::show::visible::visible;

/// The run that weights come from.
#[derive(Debug, Clone)]
pub struct Origin {
    run: RunRecord,
    /// `true` for the moving average of the run's weights.
    is_average: bool,
}

impl Origin {
    /// The origin of what a user named: a run directory, a sweep's, or a file in one. `None` where it is no
    /// run.
    ///
    /// # Errors
    /// Those of [`RunRecord::read`], and of [`run_dir::weights_file`].
    pub fn of(path: &Path) -> Result<Option<Self>, TrainError> {
        let file = run_dir::weights_file(path)?;
        let Some(folder) = file.parent().filter(|folder| RunDir::new(*folder).exists()) else {
            return Ok(None);
        };
        let run = RunRecord::read(folder)?;
        let is_average =
            run.plan.train.ema_decay.is_some() && file != RunDir::new(folder).last_unaveraged();
        Ok(Some(Self { run, is_average }))
    }
}

/// Results and origin in Markdown. `file` is the written file of weights, whose hash is told.
///
/// # Errors
/// The file or the plan cannot be read.
pub fn model_card(
    weights: &Weights,
    origin: Option<&Origin>,
    file: &Path,
) -> std::io::Result<String> {
    let mut text = "\n## Results\n\n".to_owned();
    let found = origin.map_or_else(Vec::new, |origin| results(weights, origin));
    if found.is_empty() {
        text += "None are known.\n";
    } else {
        text += "| split | examples | top-1, % | top-5, % | loss |\n|---|---|---|---|---|\n";
        for line in found {
            text += &format!("{line}\n");
        }
        text += "\nBy the run's own evaluation. Behind ± stands half of the 95 % interval.\n";
    }
    text += "\n## Origin\n\n";
    text += &format!("- SHA-256 of `model.safetensors`: `{}`\n", sha256(file)?);
    for (key, value) in &weights.metadata.provenance {
        text += &format!("- {}: {}\n", code(key), code(value));
    }
    let Some(Origin { run, .. }) = origin else { return Ok(text) };
    let facts = &run.plan.facts;
    text += &format!("- run: {}\n", code(&run.name));
    if let Some(environment) = &run.environment {
        text += &format!("- started: {}\n", code(&environment.started));
        text += &format!("- device: {}\n", code(&environment.device));
    }
    text += &format!(
        "- training data: {} examples, fingerprint `{}`\n\
         - evaluation data: {} examples of split {}, fingerprint `{}`\n",
        facts.train_examples,
        facts.train_fingerprint,
        facts.val_examples,
        code(&facts.val_split),
        facts.val_fingerprint
    );
    let plan = run.plan.to_toml().map_err(std::io::Error::other)?;
    // A fence that nothing in it ends.
    text += &format!("\nIts configuration, every value resolved:\n\n~~~~~~toml\n{plan}\n~~~~~~\n");
    Ok(text)
}

/// Lines of the table: the run's evaluations of exactly these weights.
fn results(weights: &Weights, origin: &Origin) -> Vec<String> {
    let Origin { run, is_average } = origin;
    let Some(of_step) = weights.metadata.provenance.get("step") else { return Vec::new() };
    // Changed since then, in what decides a prediction.
    let network = &run.plan.model.network;
    if weights.config != *network {
        return Vec::new();
    }
    let line = |metric: &Metric| match metric {
        Metric::Eval { step, split, weights, loss, top1, top5, n, .. }
            if step.to_string() == *of_step && weights.is_some() == *is_average =>
        {
            let top5 = if network.num_classes > 5 { percent(*top5, *n) } else { "–".to_owned() };
            let top1 = percent(*top1, *n);
            Some(format!("| {} | {n} | {top1} | {top5} | {loss:.4} |", code(split)))
        }
        _ => None,
    };
    run.metrics.iter().filter_map(line).collect()
}

/// Text that means nothing in Markdown, nor in a table of it.
fn code(text: &str) -> String {
    format!("`{}`", visible(text).replace('`', "'").replace('|', "¦"))
}

/// SHA-256 of a file, hexadecimal.
fn sha256(file: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(file)?;
    let mut bytes = vec![0; 1 << 16];
    loop {
        match file.read(&mut bytes)? {
            0 => break,
            n => hash.update(&bytes[..n]),
        }
    }
    Ok(hexadecimal(hash))
}
