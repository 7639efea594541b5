//! `mixer visualise`.

use std::path::PathBuf;

use clap::Args;
use fs_err as fs;
use mixer_data::read_image;
use mixer_model::weights::Shuffle;

use super::{DeviceArg, WeightsArg, target};
use crate::disk::atomic;
use crate::draw::unit_pictures::{embedding, token_mixing};
use crate::error::TrainError;
use crate::input::preprocessing::decode_options;
use crate::look::attribution::Attribution;
use crate::look::report::escaped;

#[derive(Debug, Clone, Args)]
pub(super) struct VisualiseArgs {
    #[command(flatten)]
    weights: WeightsArg,
    /// The folder to write PNG files and a page into; an existing one is refused.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Blocks whose token mixing is drawn, from the first.
    #[arg(long, value_name = "N", default_value_t = 3)]
    blocks: usize,
    /// Pictures whose predictions are explained, patch by patch.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pictures: Vec<PathBuf>,
    /// The class that is explained, by its name or number [default: the predicted one].
    #[arg(long, value_name = "CLASS", requires = "pictures")]
    class: Option<String>,
    #[command(flatten)]
    device: DeviceArg,
}

/// A picture of the page.
struct Figure {
    file: String,
    caption: String,
}

pub(super) fn run(args: &VisualiseArgs) -> Result<(), TrainError> {
    target::new_folder(&args.out, "--out")?;
    let weights = args.weights.read()?;
    let class = match &args.class {
        Some(name) => {
            Some(class_named(name, weights.metadata.classes.as_deref(), &weights.config)?)
        }
        None => None,
    };
    let note = match weights.shuffle() {
        Shuffle::None => "",
        Shuffle::Patches { .. } => {
            " Pictures are shuffled for these weights; here they are put back."
        }
        Shuffle::Pixels { .. } => {
            " All pixels of pictures are shuffled for these weights: a place here is none of a picture."
        }
    };
    let mut figures = Vec::new();
    let mut files = Vec::new();
    let mut add = |file: String, png: Vec<u8>, caption: String| {
        figures.push(Figure { file: file.clone(), caption });
        files.push((file, png));
    };
    // A Vision Transformer has no weights between places.
    let mixing = weights.config.tokens.mlp_dim().map_or(0, |_| weights.config.num_blocks);
    for block in 0..args.blocks.min(mixing) {
        let png = token_mixing(&weights, block)?.png()?;
        let caption = format!(
            "Token mixing of block {block}: every hidden unit with the one that is closest to its inverse, low \
             frequencies first. Blue weights are below 0, red ones above; each unit has its own scale.{note}"
        );
        add(format!("token_mixing_{block}.png"), png, caption);
    }
    let caption = format!(
        "The embedding: every unit as a patch. Mid grey is 0; each unit has its own scale.{note}"
    );
    add("embedding.png".to_owned(), embedding(&weights)?.png()?, caption);
    if !args.pictures.is_empty() {
        let device = args.device.open()?;
        let classes = weights.metadata.classes.clone();
        let options = decode_options(&weights.metadata.preprocessing.unwrap_or_default());
        for (i, path) in args.pictures.iter().enumerate() {
            let picture = read_image(path, &options)?;
            let found = Attribution::new(weights.clone(), &device, &picture, class)?;
            let name = classes.as_ref().and_then(|classes| classes.get(found.class)).map_or_else(
                || format!("class {}", found.class),
                |name| name.escape_debug().to_string(),
            );
            let sum: f64 = found.integrated_gradients.iter().sum();
            let caption = format!(
                "{}: {name}, logit {:.3}, {:.3} above a grey picture. Patches for it are red, against it blue: \
                 by integrated gradients (their sum: {sum:.3}), and by hiding each.",
                path.display(),
                found.logit,
                found.logit - found.baseline,
            );
            add(format!("picture_{i}.png"), found.drawn().png()?, caption);
        }
    }
    fs::create_dir_all(&args.out)?;
    for (file, png) in &files {
        atomic::write(&args.out.join(file), png)?;
    }
    atomic::write(&args.out.join("index.html"), page(&figures).as_bytes())?;
    let mut text = String::new();
    for figure in &figures {
        text += &format!("{}\n", args.out.join(&figure.file).display());
    }
    super::print(&(text + &format!("page: {}", args.out.join("index.html").display())))
}

fn class_named(
    name: &str,
    classes: Option<&[String]>,
    config: &mixer_model::MixerConfig,
) -> Result<usize, TrainError> {
    if let Some(index) = classes.and_then(|classes| classes.iter().position(|class| class == name))
    {
        return Ok(index);
    }
    name.parse().ok().filter(|index| *index < config.num_classes).ok_or_else(|| {
        let message = format!("`--class {}` is no class of the weights", name.escape_debug());
        TrainError::usage(message).with_hint(format!(
            "they have {} classes; `mixer weights inspect` lists them",
            config.num_classes
        ))
    })
}

fn page(figures: &[Figure]) -> String {
    let mut page = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; img-src 'self' file: data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>What the weights look for</title>\n\
         <style>:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }\n\
         body { max-width: 100rem; margin: 2rem auto; padding: 0 1rem }\n\
         img { max-width: 100%; image-rendering: pixelated; background: white }\n\
         figure { margin: 0 0 2.5rem } figcaption, p { max-width: 44rem }</style>\n\
         <h1>What the weights look for</h1>\n\
         <p>Expect structure in the first three blocks of networks that were trained on much data and without \
         strong augmentation; with RandAugment pictures look different, and deeper blocks show none. After a \
         change of resolution, token mixing is made of blocks, and they are visible.</p>\n"
        .to_owned();
    for Figure { file, caption } in figures {
        let (file, caption) = (escaped(file), escaped(caption));
        page += &format!(
            "<figure><img src=\"{file}\" alt=\"{caption}\"><figcaption>{caption}</figcaption></figure>\n"
        );
    }
    page + "</html>\n"
}
