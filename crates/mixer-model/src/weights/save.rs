//! Weights to files: `.safetensors` under timm's names, with our metadata in the header, and `.npz` under
//! the official ones.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::formats::{npz, safetensors};
use super::metadata::{FORMAT_VERSION, HEADER_KEY, Metadata, MixerHeader};
use super::names;
use super::weights::Weights;
use super::write_atomically::write_atomically;
use crate::error::ModelError;
use crate::mixer::config::TokenLayer;
use crate::parameters::Table;
use crate::tensor::HostTensor;

impl Weights {
    /// Writes a `.safetensors` file that timm loads as it is: its names and layouts, `f32`. Metadata
    /// lies as JSON under `mixer` in the header, where other programs ignore it.
    ///
    /// The file appears whole or not at all: it is written beside `path`, synced and renamed.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Mismatch`], [`ModelError::ClassCount`] and
    /// [`ModelError::NotFinite`] before anything is written.
    ///
    /// # Determinism
    /// The bytes are a function of the weights.
    pub fn write_safetensors(&self, path: &Path) -> Result<(), ModelError> {
        self.validate()?;
        self.check_finite()?;
        let header = self.header()?;
        write_atomically(path, |out| safetensors::write(out, &self.tensors, &header, |_| false))
            .map_err(|source| ModelError::Io { source })
    }

    /// Writes an `.npz` file that the official JAX code loads: its names and layouts, `f32`. The format has
    /// no place for metadata: class names and preprocessing are left out, and a reader takes the official
    /// form of GELU, [`Gelu::Tanh`](crate::Gelu::Tanh). Weights for shuffled patches are put in order.
    ///
    /// The file appears whole or not at all.
    ///
    /// # Errors
    /// As [`Weights::write_safetensors`]; [`ModelError::Shuffled`] for shuffled pixels,
    /// [`ModelError::NotForNetwork`] of a BiT-ResNet.
    ///
    /// # Determinism
    /// The bytes are a function of the weights.
    pub fn write_npz(&self, path: &Path) -> Result<(), ModelError> {
        self.refuse_resnet("an `.npz` file of the official code")?;
        self.validate()?;
        self.check_finite()?;
        let in_order = self.in_order("and `.npz` files cannot say so")?;
        // A whole set has tensors of the table and no others.
        let table = Table::of(&self.config);
        let arrays = in_order
            .tensors
            .iter()
            .flat_map(|(name, tensor)| names::to_flax(self.config.tokens, table, name, tensor));
        write_atomically(path, |out| npz::write(out, arrays))
            .map_err(|source| ModelError::Io { source })
    }

    /// The bytes that [`Weights::write_safetensors`] writes; values that are not finite among them.
    ///
    /// # Errors
    /// As [`Weights::write_safetensors`].
    pub fn to_safetensors_bytes(&self) -> Result<Vec<u8>, ModelError> {
        let mut bytes = Vec::new();
        self.write_safetensors_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the same bytes to `out`, a piece at a time: they are never in memory as a whole.
    ///
    /// # Errors
    /// As [`Weights::write_safetensors`].
    pub fn write_safetensors_to(&self, out: &mut impl Write) -> Result<(), ModelError> {
        self.validate()?;
        safetensors::write(out, &self.tensors, &self.header()?, |_| false)
            .map_err(|source| ModelError::Io { source })
    }

    /// Refuses a BiT-ResNet, for which `subject` cannot be written.
    pub(super) fn refuse_resnet(&self, subject: &'static str) -> Result<(), ModelError> {
        match self.config.tokens {
            TokenLayer::Convolution { .. } => {
                Err(ModelError::NotForNetwork { subject, network: self.config.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Metadata of the safetensors header.
    fn header(&self) -> Result<BTreeMap<&'static str, String>, ModelError> {
        let Metadata { classes, preprocessing, temperature, provenance } = self.metadata.clone();
        let header = MixerHeader {
            format_version: FORMAT_VERSION,
            config: self.config.clone(),
            classes,
            preprocessing,
            temperature,
            provenance,
        };
        let json = serde_json::to_string(&header)
            .map_err(|error| ModelError::Io { source: error.into() })?;
        // `format` is what Hugging Face's loaders look for.
        Ok(BTreeMap::from([("format", "pt".to_owned()), (HEADER_KEY, json)]))
    }
}

/// Writes any tensors as `.safetensors`, with free-text metadata: as `F32`, and those whose names `in_bf16`
/// chooses as `BF16`, rounded to the nearest.
///
/// # Errors
/// Those of `out`.
///
/// # Determinism
/// The bytes are a function of the arguments.
pub fn write_tensors(
    out: &mut impl Write,
    tensors: &BTreeMap<String, HostTensor>,
    metadata: &BTreeMap<&str, String>,
    in_bf16: impl Fn(&str) -> bool,
) -> std::io::Result<()> {
    safetensors::write(out, tensors, metadata, in_bf16)
}
