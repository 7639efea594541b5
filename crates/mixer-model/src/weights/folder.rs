//! The weights file that a folder stands for: those of the Hugging Face hub, and its cache.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::error::ModelError;

/// Names of a weights file in a folder of the hub, in the order in which they are taken.
const FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The weights file that a folder stands for; `None` for one that has nothing to do with weights.
///
/// # Errors
/// [`ModelError::Unreadable`] for a folder of weights in a form that is not read, with what it is.
pub fn weights_in_folder(path: &Path) -> Result<Option<PathBuf>, ModelError> {
    let folder = snapshot(path).unwrap_or_else(|| path.to_owned());
    if let Some(file) = FILES.iter().map(|name| folder.join(name)).find(|file| file.exists()) {
        return Ok(Some(file));
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|source| ModelError::Io { source })? {
        let entry = entry.map_err(|source| ModelError::Io { source })?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    let ends = |end: &str| names.iter().any(|name| name.ends_with(end));
    let has = |name: &str| names.iter().any(|found| found == name);
    let (reason, hint) = if ends(".distcp") {
        (
            "a checkpoint directory of `torch.distributed`, expected a file",
            "in PyTorch: `python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR OUT.pth`",
        )
    } else if ends(".index.json") {
        (
            "a folder whose weights lie in several files, expected one",
            "load it in PyTorch and save `model.state_dict()` in one file",
        )
    } else if has("_METADATA") || has("_CHECKPOINT_METADATA") || has("manifest.ocdbt") {
        (
            "a checkpoint directory of Orbax, expected a file",
            "in JAX, restore it and write its arrays with `numpy.savez`, named as in `MixerBlock_0/LayerNorm_0/scale`",
        )
    } else if has("saved_model.pb") {
        (
            "a `SavedModel` of TensorFlow, expected weights",
            "write its arrays with `numpy.savez`, named as in `MixerBlock_0/LayerNorm_0/scale`",
        )
    } else if has("zero_to_fp32.py") || ends("_model_states.pt") {
        (
            "a checkpoint directory of DeepSpeed, expected a file",
            "`python zero_to_fp32.py DIR OUT` in it writes one",
        )
    } else {
        return Ok(None);
    };
    Err(ModelError::Unreadable {
        format: "npz, safetensors or pth",
        reason: reason.to_owned(),
        path: path.to_owned(),
        hint: Some(hint),
    })
}

/// The present version in a cache of the hub: `refs/main` names a folder in `snapshots`.
fn snapshot(folder: &Path) -> Option<PathBuf> {
    let version = fs::read_to_string(folder.join("refs/main")).ok()?;
    let snapshot = folder.join("snapshots").join(Path::new(version.trim()).file_name()?);
    snapshot.is_dir().then_some(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }

    #[test]
    fn folders_of_the_hub_stand_for_their_weights() {
        for (files, expected) in [
            (vec![("config.json", "{}"), ("model.safetensors", "")], "model.safetensors"),
            (vec![("config.json", "{}"), ("pytorch_model.bin", "")], "pytorch_model.bin"),
            (
                vec![("refs/main", "abc\n"), ("snapshots/abc/model.safetensors", "")],
                "snapshots/abc/model.safetensors",
            ),
        ] {
            let folder = folder(&files);
            let file = weights_in_folder(folder.path()).unwrap();
            assert_eq!(file, Some(folder.path().join(expected)));
        }
    }

    #[test]
    fn other_folders_are_named() {
        for (file, expected) in [
            ("__0_0.distcp", "torch.distributed"),
            ("model.safetensors.index.json", "several files"),
            ("_METADATA", "Orbax"),
            ("saved_model.pb", "TensorFlow"),
            ("zero_to_fp32.py", "DeepSpeed"),
        ] {
            let error = weights_in_folder(folder(&[(file, "")]).path()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(matches!(error, ModelError::Unreadable { hint: Some(_), .. }));
        }
        assert_eq!(weights_in_folder(folder(&[("a.txt", "")]).path()).unwrap(), None);
    }
}
