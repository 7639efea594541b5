//! The content of a weights file, Mixer or not.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use super::format::WeightsFormat;
use super::recognise::recognise;
use super::tensor_info::TensorInfo;
use super::weights::{Weights, count_non_finite};
use super::weights_file::WeightsFile;
use crate::error::ModelError;
use crate::mixer::config::MixerConfig;

/// The content of a weights file, by its own words.
#[derive(Debug)]
pub struct FileInfo {
    /// Format, decided by content.
    pub format: WeightsFormat,
    /// Every tensor, in the order of the file.
    pub tensors: Vec<TensorInfo>,
    /// Values that are NaN or infinite, per tensor; `None` where the type has none or the tensor was
    /// not read.
    pub non_finite: Vec<Option<usize>>,
    /// Free-text metadata of a safetensors header, raw.
    pub metadata: BTreeMap<String, String>,
    /// The network in the file, or why it holds none.
    pub architecture: Result<MixerConfig, ModelError>,
    /// The choice among several networks in the file.
    pub note: Option<String>,
}

impl Weights {
    /// The content of a file, Mixer or not: names, shapes, types, metadata.
    ///
    /// # Errors
    /// [`ModelError::Io`] and [`ModelError::Unreadable`].
    pub fn file_info(path: &Path) -> Result<FileInfo, ModelError> {
        Self::info_open(WeightsFile::open(path)?)
    }

    /// [`Weights::file_info`] of a file in memory; `path` is only for messages.
    ///
    /// # Errors
    /// As [`Weights::file_info`].
    pub fn bytes_info(bytes: &[u8], path: &Path) -> Result<FileInfo, ModelError> {
        let reader = std::io::Cursor::new(bytes);
        Self::info_open(WeightsFile::of(reader, bytes.len() as u64, path)?)
    }

    fn info_open<R: Read + Seek>(mut file: WeightsFile<R>) -> Result<FileInfo, ModelError> {
        let tensors = file.tensors();
        let recognised =
            file.mixer_header().and_then(|header| recognise(&file, &tensors, header.as_ref()));
        let (architecture, note) = match recognised {
            Ok((config, placed)) => (Ok(config), placed.note),
            Err(error) => (Err(error), None),
        };
        // Only tensors that can lie in the file are read; the listing itself needs none of them.
        let readable = file.check_sizes(0..tensors.len()).is_ok();
        let mut non_finite = Vec::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            let is_float = matches!(tensor.dtype.as_str(), "f16" | "bf16" | "f32" | "f64");
            non_finite.push(if readable && is_float {
                Some(count_non_finite(&file.load(index)?.data))
            } else {
                None
            });
        }
        Ok(FileInfo {
            format: file.format,
            tensors,
            non_finite,
            metadata: file.metadata().cloned().unwrap_or_default(),
            architecture,
            note,
        })
    }
}
