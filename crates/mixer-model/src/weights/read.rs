//! Files to weights.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use super::metadata::{Metadata, MixerHeader};
use super::names::Placed;
use super::recognise::recognise;
use super::tensor_info::TensorInfo;
use super::weights::Weights;
use super::weights_file::WeightsFile;
use crate::error::ModelError;
use crate::mixer::config::Gelu;
use crate::tensor::HostTensor;

/// Tensors by name.
type Tensors = BTreeMap<String, HostTensor>;

impl Weights {
    /// The weights in a file: `.npz` of the official JAX code (present and legacy names), `.safetensors` (ours
    /// or timm's), or a PyTorch checkpoint (a state dict, bare or within a training checkpoint); or the folder of the Hugging Face hub that one lies in. The
    /// format is decided by content; the extension means nothing. Any of f16, bf16, f32 and f64 is
    /// read; f64 is rounded.
    ///
    /// `gelu` overrides the activation, where that is a GELU; else it is the file's own metadata, else
    /// [`WeightsFormat::default_gelu`](super::WeightsFormat::default_gelu).
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Unreadable`] for a file that is no weights file or a damaged
    /// one, [`ModelError::NotAMixer`] for another net, [`ModelError::TensorMismatch`] for a nearly
    /// complete Mixer, with every difference.
    ///
    /// Nothing that a file claims is believed: it can neither run code nor make the reader take more memory
    /// than a small multiple of its size.
    pub fn read(path: &Path, gelu: Option<Gelu>) -> Result<Self, ModelError> {
        Ok(Self::read_with_note(path, gelu)?.0)
    }

    /// [`Weights::read`], and what a user should know of the choice where the file holds several
    /// networks: averaged weights and their raw form.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn read_with_note(
        path: &Path,
        gelu: Option<Gelu>,
    ) -> Result<(Self, Option<String>), ModelError> {
        Self::read_open(WeightsFile::open(path)?, gelu)
    }

    /// [`Weights::read`] of a file in memory; `path` is only for messages.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn from_bytes(bytes: &[u8], path: &Path, gelu: Option<Gelu>) -> Result<Self, ModelError> {
        let reader = std::io::Cursor::new(bytes);
        Ok(Self::read_open(WeightsFile::of(reader, bytes.len() as u64, path)?, gelu)?.0)
    }

    fn read_open<R: Read + Seek>(
        mut file: WeightsFile<R>,
        gelu: Option<Gelu>,
    ) -> Result<(Self, Option<String>), ModelError> {
        let listing = file.tensors();
        let header = file.mixer_header()?;
        let (mut config, placed) = recognise(&file, &listing, header.as_ref())?;
        let Placed { placements, note, .. } = placed;
        if config.has_tokens() {
            config.gelu = gelu.unwrap_or(config.gelu);
        }

        file.check_sizes(placements.iter().flat_map(|placement| placement.indices.iter().copied()))
            .map_err(|reason| file.unreadable(reason))?;
        let mut tensors = BTreeMap::new();
        for placement in placements {
            let stored = placement.indices.iter().map(|&index| file.load(index));
            let tensor = placement.assemble(stored.collect::<Result<_, _>>()?);
            tensors.insert(placement.name, tensor);
        }
        let metadata = match header {
            Some(MixerHeader { classes, preprocessing, temperature, provenance, .. }) => {
                Metadata { classes, preprocessing, temperature, provenance }
            }
            None => Metadata::default(),
        };
        let weights = Self { config, tensors, metadata };
        weights.validate().map_err(|error| file.unreadable(error.to_string()))?;
        Ok((weights, note))
    }
}

/// Any tensors of a `.safetensors` file by their names, with its free-text metadata: what
/// [`write_tensors`](super::write_tensors) has written.
///
/// # Errors
/// [`ModelError::Io`], and [`ModelError::Unreadable`] for a file of another format or a damaged one.
pub fn read_tensors(path: &Path) -> Result<(Tensors, BTreeMap<String, String>), ModelError> {
    let mut file = WeightsFile::open(path)?;
    let Some(metadata) = file.metadata().cloned() else {
        return Err(file.unreadable(format!("of format {}, expected safetensors", file.format)));
    };
    let mut tensors = BTreeMap::new();
    for (index, TensorInfo { name, .. }) in file.tensors().into_iter().enumerate() {
        tensors.insert(name, file.load(index)?);
    }
    Ok((tensors, metadata))
}
