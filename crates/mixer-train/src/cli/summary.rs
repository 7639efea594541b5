//! `mixer summary`.

use clap::Args;
use mixer_model::{Gelu, MixerConfig, VARIANTS, Variant, count};
use serde::Serialize;

use super::Format;
use crate::config::limits;
use crate::config::model::IMAGE_SIZE;
use crate::error::TrainError;

#[derive(Debug, Clone, Args)]
pub(super) struct SummaryArgs {
    /// A variant; may be repeated [default: all that have a name].
    #[arg(
        long = "model",
        value_name = "B/16",
        value_parser = super::suggested::variant(),
        hide_possible_values = true
    )]
    models: Vec<String>,
    /// Side of the input, px.
    #[arg(long, default_value_t = IMAGE_SIZE)]
    image_size: usize,
    /// Outputs of the head.
    #[arg(long, default_value_t = 1000)]
    num_classes: usize,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// One architecture; the JSON form is part of the interface.
#[derive(Debug, Serialize)]
struct Row {
    model: String,
    image_size: usize,
    tokens: usize,
    parameters: u64,
    parameters_without_head: u64,
    macs: u64,
    weights_bytes: u64,
    activation_bytes: u64,
}

pub(super) fn run(args: &SummaryArgs) -> Result<(), TrainError> {
    let names: Vec<String> = match args.models.as_slice() {
        [] => VARIANTS.iter().map(|variant| variant.name.to_owned()).collect(),
        models => models.to_vec(),
    };
    let mut text = format!(
        "{:<6} {:>6} {:>10} {:>12} {:>7} {:>8} {:>11} {:>12}\n",
        "model",
        "tokens",
        "parameters",
        "without head",
        "paper M",
        "GMACs",
        "weights MiB",
        "training MiB"
    );
    let mut rows = Vec::new();
    for name in &names {
        let variant = Variant::parse(name)?;
        let config: MixerConfig = variant.config(args.image_size, args.num_classes, Gelu::Tanh);
        config.validate()?;
        limits::check_image_size("--image-size", args.image_size)?;
        rows.push(Row {
            model: name.clone(),
            image_size: args.image_size,
            tokens: config.num_tokens(),
            parameters: count::num_params(&config),
            parameters_without_head: count::num_params_without_head(&config),
            macs: count::macs(&config),
            weights_bytes: count::weights_bytes(&config),
            activation_bytes: count::activation_bytes(&config),
        });
        let paper = variant
            .paper_millions
            .filter(|_| args.image_size == 224)
            .map_or_else(|| "-".to_owned(), |millions| millions.to_string());
        text += &format!(
            "{:<6} {:>6} {:>10} {:>12} {:>7} {:>8.3} {:>11.1} {:>12.1}\n",
            name,
            config.num_tokens(),
            count::num_params(&config),
            count::num_params_without_head(&config),
            paper,
            count::macs(&config) as f64 / 1e9,
            count::weights_bytes(&config) as f64 / f64::from(1 << 20),
            count::activation_bytes(&config) as f64 / f64::from(1 << 20),
        );
    }
    if args.format == Format::Json {
        return super::print_json(&rows);
    }
    text += &format!(
        "GMACs: multiply-accumulates of one image forward, without head\n\
         training MiB: activations of one image in f32, at {} px",
        args.image_size
    );
    super::print(&text)
}
