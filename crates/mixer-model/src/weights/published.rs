//! Names of published weights, for who types one where a file belongs.

use std::path::Path;

use super::formats::refusal::Refusal;

/// Names, as they begin, and where the weights are. Longer names come before what they begin with.
const PUBLISHED: [(&str, &str); 8] = [
    (
        "mixer_b16_224.goog_in21k_ft",
        "curl -L -o mixer_b16_224.safetensors https://huggingface.co/timm/mixer_b16_224.goog_in21k_ft_in1k/resolve/main/model.safetensors fetches it; docs/weights.md lists all",
    ),
    (
        "mixer_b16_224.goog_in21k",
        "curl -L -o mixer_b16_224_in21k.safetensors https://huggingface.co/timm/mixer_b16_224.goog_in21k/resolve/main/model.safetensors fetches it; docs/weights.md lists all",
    ),
    (
        "mixer_b16_224.miil_in21k_ft",
        "curl -L -o mixer_b16_224_miil.safetensors https://huggingface.co/timm/mixer_b16_224.miil_in21k_ft_in1k/resolve/main/model.safetensors fetches it; docs/weights.md lists all",
    ),
    (
        "mixer_b16_224.miil_in21k",
        "curl -L -o mixer_b16_224_miil_in21k.safetensors https://huggingface.co/timm/mixer_b16_224.miil_in21k/resolve/main/model.safetensors fetches it; docs/weights.md lists all",
    ),
    (
        "mixer_b16_224",
        "curl -L -o mixer_b16_224.safetensors https://huggingface.co/timm/mixer_b16_224.goog_in21k_ft_in1k/resolve/main/model.safetensors fetches it; docs/weights.md lists all",
    ),
    (
        "mixer_l16_224.goog_in21k_ft",
        "curl -L -o mixer_l16_224.safetensors https://huggingface.co/timm/mixer_l16_224.goog_in21k_ft_in1k/resolve/main/model.safetensors fetches it; docs/weights.md lists all",
    ),
    (
        "mixer_l16_224.goog_in21k",
        "curl -L -o mixer_l16_224_in21k.safetensors https://huggingface.co/timm/mixer_l16_224.goog_in21k/resolve/main/model.safetensors fetches it; docs/weights.md lists all",
    ),
    (
        "mixer_l16_224",
        "curl -L -o mixer_l16_224.safetensors https://huggingface.co/timm/mixer_l16_224.goog_in21k_ft_in1k/resolve/main/model.safetensors fetches it; docs/weights.md lists all",
    ),
];

/// The way out for a name that is typed like that of a network and is no file.
const OTHERS: &str =
    "docs/weights.md lists the published weights, with the commands that fetch them";

/// The refusal of a path that is no file but a name of published weights: timm's, with or without its
/// source, or the official one.
pub(super) fn refusal(path: &Path) -> Option<Refusal> {
    let name = path.to_str()?;
    let name =
        name.strip_prefix("hf-hub:").or_else(|| name.strip_prefix("hf_hub:")).unwrap_or(name);
    let name = name.strip_prefix("timm/").unwrap_or(name);
    let is_name = !name.contains(['/', '\\'])
        && (name.starts_with("mixer_") && name.contains("_224") || name.starts_with("Mixer-"));
    let is_file = ["npz", "pth", "pt", "bin", "safetensors", "ckpt"]
        .iter()
        .any(|ending| path.extension().is_some_and(|found| found == *ending));
    if !is_name || is_file {
        return None;
    }
    let hint = PUBLISHED.iter().find(|(known, _)| name.starts_with(known)).map(|(_, hint)| *hint);
    Some(Refusal::with_hint("a name of published weights, expected a file", hint.unwrap_or(OTHERS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_published_weights_come_with_their_address() {
        for (name, address) in [
            ("mixer_b16_224", "timm/mixer_b16_224.goog_in21k_ft_in1k/"),
            ("timm/mixer_b16_224.goog_in21k", "timm/mixer_b16_224.goog_in21k/"),
            ("hf-hub:timm/mixer_b16_224.miil_in21k_ft_in1k", "mixer_b16_224.miil_in21k_ft_in1k/"),
            ("mixer_l16_224.goog_in21k", "timm/mixer_l16_224.goog_in21k/"),
            ("mixer_s32_224", "docs/weights.md"),
            ("Mixer-B_16", "docs/weights.md"),
        ] {
            let hint = refusal(Path::new(name)).unwrap().hint.unwrap();
            assert!(hint.contains(address), "{name}: {hint}");
        }
        for file in ["runs/mixer_b16_224", "mixer_b16_224.pth", "weights", "Mixer-B_16.npz"] {
            assert_eq!(refusal(Path::new(file)), None, "{file}");
        }
    }
}
