//! The folder that timm loads weights from by `local-dir:`, with what it needs to classify as we do.
//!
//! # Source
//! `timm/models/_hub.py` (`_parse_model_cfg`), `timm/models/mlp_mixer.py` and
//! `timm/models/vision_transformer.py` (architectures),
//! `timm/data/transforms_factory.py` (`crop_mode`), `timm/data/readers/class_map.py`.

use std::io::Write;
use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};

use crate::error::ModelError;
use crate::mixer::config::{Gelu, MixerConfig, Pool, TokenLayer};
use crate::weights::metadata::{Interpolation, Preprocessing, ResizeRule};
use crate::weights::weights::Weights;
use crate::weights::write_atomically::write_atomically;

/// timm's architectures: name, patch size, hidden width, blocks. Everything else is an argument of theirs.
const ARCHITECTURES: [(&str, usize, usize, usize); 6] = [
    ("mixer_s32_224", 32, 512, 8),
    ("mixer_s16_224", 16, 512, 8),
    ("mixer_b32_224", 32, 768, 12),
    ("mixer_b16_224", 16, 768, 12),
    ("mixer_l32_224", 32, 1024, 24),
    ("mixer_l16_224", 16, 1024, 24),
];

/// timm's Vision Transformers. They take every dimension as an argument.
const VISION_TRANSFORMERS: [(&str, usize, usize, usize); 8] = [
    ("vit_tiny_patch16_224", 16, 192, 12),
    ("vit_small_patch32_224", 32, 384, 12),
    ("vit_small_patch16_224", 16, 384, 12),
    ("vit_base_patch32_224", 32, 768, 12),
    ("vit_base_patch16_224", 16, 768, 12),
    ("vit_large_patch32_224", 32, 1024, 24),
    ("vit_large_patch16_224", 16, 1024, 24),
    ("vit_huge_patch14_224", 14, 1280, 32),
];

/// timm's BiT-ResNets, by the name here. Their factories fix depths, widths and groups.
const BIT_RESNETS: [(&str, &str); 6] = [
    ("BiT-R50x1", "resnetv2_50x1_bit"),
    ("BiT-R50x3", "resnetv2_50x3_bit"),
    ("BiT-R101x1", "resnetv2_101x1_bit"),
    ("BiT-R101x3", "resnetv2_101x3_bit"),
    ("BiT-R152x2", "resnetv2_152x2_bit"),
    ("BiT-R152x4", "resnetv2_152x4_bit"),
];

/// The architecture that [`MODULE`] registers.
const OWN: &str = "mixer_own";

/// A module for dimensions that none of timm's architectures takes.
const MODULE: &str = "\
\"\"\"Registers an MLP-Mixer of any dimensions with timm. Import it before `timm.create_model`.\"\"\"
from timm.layers import GELUTanh
from timm.models import build_model_with_cfg, register_model
from timm.models.mlp_mixer import MlpMixer


@register_model
def mixer_own(pretrained=False, gelu_tanh=False, **kwargs):
    if gelu_tanh:
        kwargs.setdefault('act_layer', GELUTanh)
    return build_model_with_cfg(MlpMixer, 'mixer_own', pretrained, **kwargs)
";

impl Weights {
    /// Writes a new folder (and those above it) for `timm.create_model('local-dir:FOLDER', pretrained=True)`: `config.json`
    /// with architecture, classes and preparation of pictures, `model.safetensors`, `class_map.txt` with
    /// the order of the classes, and a `README.md`, the model card: the commands, the preparation of pictures,
    /// the origin of the weights. Dimensions that no architecture of timm takes come with `mixer_timm.py`, to
    /// be imported before. Weights for shuffled patches are put in order. `more` is Markdown that ends the card; it is given the written file of weights.
    ///
    /// # Errors
    /// [`ModelError::Io`] where the folder exists or cannot be written; those of
    /// [`Weights::write_safetensors`]; [`ModelError::ClassName`] for a name that cannot stand on a line;
    /// [`ModelError::Shuffled`] for shuffled pixels; [`ModelError::NotForNetwork`] for a BiT-ResNet that timm has
    /// no name for.
    pub fn write_timm_folder(
        &self,
        folder: &Path,
        more: impl FnOnce(&Path) -> std::io::Result<String>,
    ) -> Result<(), ModelError> {
        let io = |source| ModelError::Io { source };
        self.validate()?;
        self.check_finite()?;
        let classes = self.metadata.classes.as_deref().unwrap_or_default();
        if let Some(name) =
            classes.iter().find(|name| name.trim() != *name || name.contains(['\n', '\r']))
        {
            return Err(ModelError::ClassName { name: name.clone() });
        }
        let architecture = architecture(&self.config);
        if architecture.is_none() {
            self.refuse_resnet("a folder of timm, which has no such dimensions,")?;
        }
        let config = serde_json::to_string_pretty(&self.timm_config(architecture))
            .map_err(|error| ModelError::Io { source: error.into() })?;
        let in_order = self.in_order("which timm does not shuffle")?;
        if let Some(above) = folder.parent() {
            fs::create_dir_all(above).map_err(io)?;
        }
        fs::create_dir(folder).map_err(io)?;
        let file = folder.join("model.safetensors");
        in_order.write_safetensors(&file)?;
        let write = |name: &str, text: &str| {
            write_atomically(&folder.join(name), |out| out.write_all(text.as_bytes())).map_err(io)
        };
        if architecture.is_none() {
            write("mixer_timm.py", MODULE)?;
        }
        if !classes.is_empty() {
            write("class_map.txt", &(classes.join("\n") + "\n"))?;
        }
        let card = self.timm_readme(architecture, folder) + &more(&file).map_err(io)?;
        write("README.md", &card)?;
        // Last, since timm looks for it first.
        write("config.json", &(config + "\n"))
    }

    fn timm_config(&self, architecture: Option<&str>) -> Value {
        let MixerConfig { image_size, patch_size, hidden_dim, num_blocks, num_classes, .. } =
            self.config;
        let Preprocessing { mean, std, resize, interpolation, .. } =
            self.metadata.preprocessing.unwrap_or_default();
        let (crop_pct, crop_mode) = match resize {
            ResizeRule::ResmallCrop { fraction } => (fraction, "center"),
            ResizeRule::Squash => (1.0, "squash"),
        };
        let interpolation = match interpolation {
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
            Interpolation::Box => "box",
        };
        let ratio = |width| ratio(width, hidden_dim);
        let channels = ratio(self.config.channels_mlp_dim);
        let mut arguments = json!({});
        if !matches!(self.config.tokens, TokenLayer::Convolution { .. }) {
            arguments["img_size"] = json!(image_size);
        }
        let (first_conv, classifier) = match self.config.tokens {
            // All of it is in the name.
            TokenLayer::Convolution { .. } => ("stem.conv", "head.fc"),
            TokenLayer::Mlp { tokens_mlp_dim } => {
                arguments["mlp_ratio"] = json!([ratio(tokens_mlp_dim), channels]);
                if architecture.is_none() {
                    arguments["patch_size"] = json!(patch_size);
                    arguments["embed_dim"] = json!(hidden_dim);
                    arguments["num_blocks"] = json!(num_blocks);
                    arguments["gelu_tanh"] = json!(self.config.gelu == Gelu::Tanh);
                }
                ("stem.proj", "head")
            }
            TokenLayer::Attention { num_heads, pool } => {
                arguments["patch_size"] = json!(patch_size);
                arguments["embed_dim"] = json!(hidden_dim);
                arguments["depth"] = json!(num_blocks);
                arguments["num_heads"] = json!(num_heads);
                arguments["mlp_ratio"] = json!(channels);
                if self.config.gelu == Gelu::Tanh {
                    arguments["act_layer"] = json!("gelu_tanh");
                }
                if pool == Pool::Average {
                    arguments["class_token"] = json!(false);
                    arguments["global_pool"] = json!("avg");
                    arguments["fc_norm"] = json!(false);
                }
                ("patch_embed.proj", "head")
            }
        };
        let mut config = json!({
            "architecture": architecture.unwrap_or(OWN),
            "num_classes": num_classes,
            "num_features": hidden_dim,
            "model_args": arguments,
            "pretrained_cfg": {
                "num_classes": num_classes,
                "input_size": [3, image_size, image_size],
                "fixed_input_size": arguments.get("img_size").is_some(),
                "crop_pct": crop_pct,
                "crop_mode": crop_mode,
                "interpolation": interpolation,
                "mean": mean.map(decimal),
                "std": std.map(decimal),
                "first_conv": first_conv,
                "classifier": classifier,
            },
        });
        if let Some(classes) = &self.metadata.classes {
            config["label_names"] = json!(classes);
        }
        config
    }

    fn timm_readme(&self, architecture: Option<&str>, folder: &Path) -> String {
        let folder = folder.display();
        let (import, run) = if architecture.is_some() {
            ("import timm", "python validate.py".to_owned())
        } else {
            (
                "import mixer_timm, timm",
                format!(
                    "PYTHONPATH={folder} python -c \"import mixer_timm, runpy; \
                     runpy.run_path('validate.py', run_name='__main__')\""
                ),
            )
        };
        let path =
            if architecture.is_some() { String::new() } else { format!("PYTHONPATH={folder} ") };
        let class_map = match self.metadata.classes {
            Some(_) => format!(" --class-map {folder}/class_map.txt"),
            None => String::new(),
        };
        let (is_mixer, tag) = match self.config.tokens {
            TokenLayer::Mlp { .. } => (true, "mlp-mixer"),
            TokenLayer::Attention { .. } => (false, "vision-transformer"),
            TokenLayer::Convolution { .. } => (false, "resnet"),
        };
        let gelu = match (architecture, self.config.gelu) {
            // That of a Vision Transformer is an argument in `config.json`.
            (Some(_), Gelu::Tanh) if is_mixer => {
                "\nThese weights are for the tanh form of GELU, timm's architecture has the erf form: \
                 logits differ by some thousandths. `timm.create_model(..., \
                 act_layer=timm.layers.GELUTanh)` gives the same ones.\n"
            }
            _ => "",
        };
        let preparation = self.preparation();
        format!(
            "---\n\
             library_name: timm\n\
             pipeline_tag: image-classification\n\
             tags:\n- image-classification\n- timm\n- {tag}\n\
             ---\n\
             # {network}, for timm\n\n\
             Load it:\n\n\
             ```sh\n{path}python -c \"{import}; \
             print(timm.create_model('local-dir:{folder}', pretrained=True).pretrained_cfg)\"\n```\n\n\
             Measure it on a folder of classes, with `validate.py` of timm:\n\n\
             ```sh\n{run} DATA --model local-dir:{folder} --pretrained{class_map}\n```\n\n\
             Without `--class-map` timm numbers the folders in its own order, which is another one than that \
             of the outputs where names have upper case or numbers in them.\n{gelu}\n\
             ## Preparation of pictures\n\n{preparation}",
            network = self.config,
        )
    }

    /// The preparation of pictures, as a list in Markdown.
    fn preparation(&self) -> String {
        let side = self.config.image_size;
        let known = self.metadata.preprocessing;
        // Of what was shuffled the weights in the folder have the order.
        let Preprocessing {
            mean,
            std,
            resize,
            interpolation,
            apply_exif_orientation,
            jpeg_scaling,
            shuffle: _,
        } = known.unwrap_or_default();
        let colours = |values: [f32; 3]| values.map(|value| value.to_string()).join(", ");
        let size = match resize {
            ResizeRule::ResmallCrop { fraction } => format!(
                "the shorter side is resized to {side} ÷ {fraction} px, then {side} × {side} px are cut \
                 from the centre"
            ),
            ResizeRule::Squash => {
                format!("resized to {side} × {side} px, whatever the shape of the picture")
            }
        };
        let kernel = match interpolation {
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
            Interpolation::Box => "box",
        };
        let exif = if apply_exif_orientation { "followed" } else { "not followed" };
        let mut text = String::new();
        if known.is_none() {
            text += "The weights do not say how pictures are prepared. This is what is usual for them:\n\n";
        }
        text += &format!(
            "- size: {size}; {kernel}, antialiased\n\
             - colours: red, green and blue from 0 to 1, less {}, divided by {}\n\
             - orientation in EXIF: {exif}\n",
            colours(mean),
            colours(std)
        );
        if jpeg_scaling {
            text += "- JPEGs: decoded at 1/2, 1/4 or 1/8 where that is still large enough, as by `Image.draft` of \
                     Pillow\n";
        }
        if let Some(temperature) = self.metadata.temperature {
            text += &format!(
                "- temperature: `mixer` divides logits by {temperature} before they become probabilities; \
                 timm does not\n"
            );
        }
        text
    }
}

/// The architecture of timm with these dimensions.
fn architecture(config: &MixerConfig) -> Option<&'static str> {
    let dimensions = (config.patch_size, config.hidden_dim, config.num_blocks);
    let is_it = |(_, p, c, l): &&(&str, usize, usize, usize)| (*p, *c, *l) == dimensions;
    match config.tokens {
        TokenLayer::Mlp { .. } => ARCHITECTURES.iter().find(is_it).map(|(name, ..)| *name),
        TokenLayer::Attention { .. } => {
            let known = VISION_TRANSFORMERS.iter().find(is_it);
            Some(known.map_or("vit_base_patch16_224", |(name, ..)| *name))
        }
        TokenLayer::Convolution { .. } => {
            let name = config.variant_name()?;
            BIT_RESNETS.iter().find(|(own, _)| *own == name).map(|(_, timms)| *timms)
        }
    }
}

/// The ratio from which timm, which multiplies and cuts off, gets `width`.
fn ratio(width: usize, hidden_dim: usize) -> f64 {
    let (width, hidden_dim) = (width as f64, hidden_dim as f64);
    let ratio = width / hidden_dim;
    if (ratio * hidden_dim).trunc() == width { ratio } else { (width + 0.5) / hidden_dim }
}

/// The number as it was typed, rather than with the digits of its `f32`.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixer::variants::VARIANTS;

    #[test]
    fn timm_gets_the_widths_from_the_ratios() {
        for hidden_dim in 1..200 {
            for width in 1..300 {
                let product = ratio(width, hidden_dim) * hidden_dim as f64;
                assert_eq!(product.trunc(), width as f64, "{width} of {hidden_dim}");
            }
        }
        assert_eq!((ratio(384, 768), ratio(3072, 768)), (0.5, 4.0));
    }

    #[test]
    fn variants_that_timm_has_are_found() {
        let of = |name: &str| {
            let variant = VARIANTS.iter().find(|variant| variant.name == name).unwrap();
            architecture(&variant.config(448, 10, Gelu::Erf))
        };
        assert_eq!(of("B/16"), Some("mixer_b16_224"));
        assert_eq!(of("L/32"), Some("mixer_l32_224"));
        assert_eq!(of("H/14"), None);
        assert_eq!(decimal(0.485), 0.485);
    }
}
