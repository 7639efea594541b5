//! The parameters that are trained, and how fast: frozen ones, and learning rates that fall from layer to
//! layer.
//!
//! Parameters are named as in weights files. What is frozen asks for no gradient at all, so that the
//! backward pass ends where nothing below it is trained.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use mixer_model::{Mixer, MixerConfig, ParameterSpec, parameters};

use crate::error::TrainError;

/// The parameters that are trained, and their learning rates relative to the schedule's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ParameterRates {
    /// Names and beginnings of names, up to a dot, that are not trained.
    freeze: Vec<String>,
    /// Factor of a layer's rate per layer above it; 1 when absent.
    layer_decay: Option<f64>,
    /// Layers below the last: stem and blocks.
    last_layer: usize,
}

impl ParameterRates {
    /// Checks the settings against the names that a network has.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a beginning that no parameter has, with those that there are; when
    /// nothing is left to train; and for a decay outside `(0, 1]`.
    pub fn new(
        freeze: &[String],
        layer_decay: Option<f64>,
        config: &MixerConfig,
    ) -> Result<Self, TrainError> {
        if let Some(decay) = layer_decay.filter(|decay| !(*decay > 0.0 && *decay <= 1.0)) {
            return Err(TrainError::config(format!(
                "`train.layer_decay` is {decay}, expected above 0 and at most 1"
            )));
        }
        let last_layer = config.num_blocks.saturating_add(1);
        let rates = Self { freeze: freeze.to_vec(), layer_decay, last_layer };
        if freeze.is_empty() {
            return Ok(rates);
        }
        let names: Vec<String> =
            parameters(config).into_iter().map(|parameter| parameter.name).collect();
        for prefix in freeze {
            if !names.iter().any(|name| begins(name, prefix)) {
                return Err(TrainError::config(format!(
                    "`train.freeze` has `{prefix}`, which begins the name of no parameter, expected {}",
                    beginnings(config)
                ))
                .with_hint("`mixer weights inspect` prints the names of a weights file"));
            }
        }
        if names.iter().all(|name| rates.is_frozen(name)) {
            return Err(TrainError::config(
                "`train.freeze` has every parameter, expected some that are left to train",
            ));
        }
        Ok(rates)
    }

    /// `true` where the parameter of this name in weights files is not trained.
    #[must_use]
    pub fn is_frozen(&self, name: &str) -> bool {
        self.freeze.iter().any(|prefix| begins(name, prefix))
    }

    /// The factor of a parameter's learning rate: `decay^(L + 1 − layer)`.
    ///
    /// # Source
    /// Bao et al. 2021; `beit/optim_factory.py` (`get_num_layer_for_vit`). PARITY: timm gives the last
    /// normalisation the rate of the last block.
    #[must_use]
    pub fn factor(&self, parameter: &ParameterSpec) -> f64 {
        let Some(decay) = self.layer_decay else { return 1.0 };
        decay.powf(self.last_layer.saturating_sub(parameter.layer) as f64)
    }

    /// Values that are trained, of a network with these dimensions.
    #[must_use]
    pub fn num_trained(&self, config: &MixerConfig) -> u64 {
        let trained = parameters(config).into_iter().filter(|spec| !self.is_frozen(&spec.name));
        trained.map(|spec| spec.num_values()).sum()
    }

    /// The network with what is frozen asking for no gradients.
    #[must_use]
    pub fn frozen(&self, mixer: Mixer) -> Mixer {
        if self.freeze.is_empty() {
            return mixer;
        }
        let config = mixer.config().clone();
        mixer.map(&mut Freezer { path: Vec::new(), config, rates: self })
    }
}

/// `true` where `name` is `prefix` or goes on with a dot after it: `blocks.1` does not begin `blocks.10`.
fn begins(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Parameters that may be frozen, in words.
fn beginnings(config: &MixerConfig) -> String {
    let names: Vec<(usize, String)> =
        parameters(config).into_iter().map(|spec| (spec.layer, spec.name)).collect();
    let mut first_words: Vec<&str> = Vec::new();
    for (_, name) in &names {
        let word = name.split('.').next().unwrap_or_default();
        if !first_words.contains(&word) {
            first_words.push(word);
        }
    }
    let in_layer = |layer| names.iter().filter(move |(of, _)| *of == layer).map(|(_, name)| name);
    // The name of a block ends with its number.
    let block = |layer| {
        let words: Vec<&str> = in_layer(layer).next().map_or("", |name| name).split('.').collect();
        let last = words.iter().rposition(|word| word.parse::<usize>().is_ok());
        words[..last.map_or(0, |last| last + 1)].join(".")
    };
    let blocks = match config.num_blocks {
        0 | 1 => format!("`{}`", block(1)),
        n => format!("`{}` to `{}`", block(1), block(n)),
    };
    let last = in_layer(1).next_back().map_or("", |name| name);
    let module = last.rsplit_once('.').map_or("", |(module, _)| module);
    format!(
        "`{}`, {blocks}, or more of a name, as `{}.norm1`, `{module}` and `{last}`",
        first_words.join("`, `"),
        block(1),
    )
}

struct Freezer<'a> {
    path: Vec<String>,
    config: MixerConfig,
    rates: &'a ParameterRates,
}

impl ModuleMapper for Freezer<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.config.weights_name(&self.path.join(".")) {
            Some(name) if self.rates.is_frozen(&name) => param.set_require_grad(false),
            _ => param,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mixer_model::Gelu;

    fn config() -> MixerConfig {
        MixerConfig {
            image_size: 8,
            patch_size: 4,
            hidden_dim: 6,
            tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 3 },
            channels_mlp_dim: 5,
            num_blocks: 12,
            num_classes: 2,
            gelu: Gelu::Tanh,
        }
    }

    fn freeze(prefixes: &[&str]) -> Result<ParameterRates, TrainError> {
        let prefixes: Vec<String> = prefixes.iter().map(|&prefix| prefix.to_owned()).collect();
        ParameterRates::new(&prefixes, None, &config())
    }

    #[test]
    fn a_prefix_ends_at_a_dot() {
        let rates = freeze(&["stem", "blocks.1", "blocks.2.norm1", "head.bias"]).unwrap();
        for name in [
            "stem.proj.weight",
            "blocks.1.mlp_tokens.fc1.weight",
            "blocks.2.norm1.bias",
            "head.bias",
        ] {
            assert!(rates.is_frozen(name), "{name}");
        }
        for name in ["blocks.10.norm1.weight", "blocks.2.norm2.bias", "norm.weight", "head.weight"]
        {
            assert!(!rates.is_frozen(name), "{name}");
        }
        assert!(!ParameterRates::default().is_frozen("stem.proj.weight"));
    }

    #[test]
    fn frozen_values_are_not_counted() {
        let all = mixer_model::count::num_params(&config());
        assert_eq!(freeze(&[]).unwrap().num_trained(&config()), all);
        // The stem: 4 · 4 · 3 · 6 values and 6 biases.
        assert_eq!(freeze(&["stem"]).unwrap().num_trained(&config()), all - 288 - 6);
        let only_head = freeze(&["stem", "blocks", "norm"]).unwrap();
        assert_eq!(only_head.num_trained(&config()), 6 * 2 + 2);
    }

    #[test]
    fn an_unknown_prefix_lists_the_valid_ones() {
        for prefix in ["block.0", "blocks.12", "blocks.1.", "ste", "", "blocks.0.token_mixing"] {
            let error = freeze(&[prefix]).unwrap_err().to_string();
            for part in [&format!("`{prefix}`"), "`stem`", "`blocks.0` to `blocks.11`", "`head`"] {
                assert!(error.contains(part), "{prefix}: {error}");
            }
        }
        let error = freeze(&["stem", "blocks", "norm", "head"]).unwrap_err().to_string();
        assert!(error.contains("left to train"), "{error}");
    }

    #[test]
    fn stages_are_frozen_by_their_names() {
        let network = mixer_model::Variant::parse("BiT-R50x1").unwrap();
        let network = network.config(32, 2, Gelu::Tanh);
        let freeze = |prefix: &str| ParameterRates::new(&[prefix.to_owned()], None, &network);
        let rates = freeze("stages.1").unwrap();
        assert!(rates.is_frozen("stages.1.blocks.3.conv1.weight"));
        assert!(!rates.is_frozen("stages.0.blocks.1.conv1.weight"));
        let error = freeze("blocks.0").unwrap_err().to_string();
        let expected = "expected `stem`, `stages`, `norm`, `head`, `stages.0.blocks.0` to \
                        `stages.3.blocks.2`, or more of a name, as `stages.0.blocks.0.norm1`, \
                        `stages.0.blocks.0.conv3` and `stages.0.blocks.0.conv3.weight`";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn layer_decay_gives_the_factors_computed_by_hand() {
        let rates = ParameterRates::new(&[], Some(0.75), &config()).unwrap();
        let all = parameters(&config());
        // 12 blocks: 0.75^13 for the stem, 0.75^12 for the first block, 0.75 for the last one.
        for (name, expected) in [
            ("stem.proj.weight", 0.023_757_264_018_058_777),
            ("blocks.0.norm1.weight", 0.031_676_352_024_078_37),
            ("blocks.9.mlp_channels.fc2.bias", 0.421_875),
            ("blocks.10.mlp_tokens.fc1.weight", 0.562_5),
            ("blocks.11.norm2.bias", 0.75),
            ("norm.weight", 1.0),
            ("head.bias", 1.0),
        ] {
            let parameter = all.iter().find(|parameter| parameter.name == name).unwrap();
            let found = rates.factor(parameter);
            assert!((found / expected - 1.0).abs() < 1e-14, "{name}: {found}, not {expected}");
        }
        assert_eq!(ParameterRates::default().factor(&all[0]), 1.0);
        for decay in [0.0, -0.5, 1.01, f64::NAN, f64::INFINITY] {
            assert!(ParameterRates::new(&[], Some(decay), &config()).is_err(), "{decay}");
        }
        assert!(ParameterRates::new(&[], Some(1.0), &config()).is_ok());
    }
}
