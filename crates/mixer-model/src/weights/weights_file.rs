//! An open weights file of any format: its listing, and one tensor at a time.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::container::{Container, container};
use super::folder::weights_in_folder;
use super::format::WeightsFormat;
use super::formats::npz::NpzFile;
use super::formats::pytorch::PytorchFile;
use super::formats::refusal::Refusal;
use super::formats::safetensors::SafetensorsFile;
use super::formats::zip::Archive;
use super::metadata::{HEADER_KEY, MixerHeader};
use super::one_line::one_line;
use super::published;
use super::tensor_info::TensorInfo;
use crate::error::ModelError;
use crate::tensor::HostTensor;

/// The hint for a file that is of a known format, and broken.
const DAMAGED: &str = "the file is incomplete, damaged or made to do harm; compare its checksum with that of its source";

/// An open weights file of any format.
pub(super) struct WeightsFile<R> {
    pub(super) path: PathBuf,
    pub(super) format: WeightsFormat,
    bytes: u64,
    reader: Reader<R>,
}

enum Reader<R> {
    Npz(NpzFile<R>),
    Safetensors(SafetensorsFile<R>),
    Pytorch(PytorchFile<R>),
}

impl WeightsFile<BufReader<fs::File>> {
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { source };
        let in_folder = if path.is_dir() { weights_in_folder(path)? } else { None };
        let path = in_folder.as_deref().unwrap_or(path);
        let file = fs::File::open(path).map_err(|source| match published::refusal(path) {
            Some(Refusal { reason, hint }) if source.kind() == std::io::ErrorKind::NotFound => {
                let format = "npz, safetensors or pth";
                ModelError::Unreadable { format, reason, path: path.to_owned(), hint }
            }
            _ => ModelError::Io { source },
        })?;
        let bytes = file.metadata().map_err(io)?.len();
        Self::of(BufReader::new(file), bytes, path)
    }
}

impl<R: Read + Seek> WeightsFile<R> {
    /// The file behind a reader, of whatever format, with what comes before the tensors read.
    pub(super) fn of(mut reader: R, bytes: u64, path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { source };
        let mut start = Vec::new();
        reader.by_ref().take(512).read_to_end(&mut start).map_err(io)?;
        reader.seek(SeekFrom::Start(0)).map_err(io)?;

        let refused = |format: &'static str, refusal: Refusal| ModelError::Unreadable {
            format,
            reason: one_line(&refusal.reason),
            path: path.to_owned(),
            hint: refusal.hint,
        };
        let damaged = |format: &'static str, reason: String| {
            refused(format, Refusal::with_hint(reason, DAMAGED))
        };
        let pytorch = |opened: Result<PytorchFile<R>, Refusal>| {
            let Refusal { reason, hint } = match opened {
                Ok(file) => return Ok((WeightsFormat::Pytorch, Reader::Pytorch(file))),
                Err(refusal) => refusal,
            };
            Err(refused("pth", Refusal { reason, hint: hint.or(Some(DAMAGED)) }))
        };
        let (format, reader) = match container(&start, bytes) {
            Ok(Container::Zip) => {
                let archive =
                    Archive::open(reader, bytes).map_err(|reason| damaged("npz or pth", reason))?;
                let has = |end: &str| archive.members().iter().any(|m| m.name.ends_with(end));
                if has("data.pkl") {
                    pytorch(PytorchFile::open_archive(archive))?
                } else if has(".npy") {
                    let file = NpzFile::open(archive, bytes).map_err(|r| damaged("npz", r))?;
                    (WeightsFormat::Npz, Reader::Npz(file))
                } else {
                    let reason = "a zip archive with neither .npy members nor data.pkl";
                    let hint = "the arrays of NumPy are members `*.npy`, a checkpoint of PyTorch has a \
                                member `data.pkl`";
                    return Err(refused("npz or pth", Refusal::with_hint(reason, hint)));
                }
            }
            Ok(Container::Safetensors) => {
                let file = SafetensorsFile::open(reader, bytes)
                    .map_err(|reason| damaged("safetensors", reason))?;
                (WeightsFormat::Safetensors, Reader::Safetensors(file))
            }
            Ok(Container::Pickle) => pytorch(PytorchFile::open_legacy(reader, bytes))?,
            Err(refusal) => return Err(refused("npz, safetensors or pth", refusal)),
        };
        Ok(Self { path: path.to_owned(), format, bytes, reader })
    }

    /// The listing, in the order of the file.
    pub(super) fn tensors(&self) -> Vec<TensorInfo> {
        match &self.reader {
            Reader::Npz(file) => file.tensors(),
            Reader::Safetensors(file) => file.tensors(),
            Reader::Pytorch(file) => file.tensors(),
        }
    }

    /// Checks that tensors could lie in a file of this size; an error says why not.
    pub(super) fn check_sizes(&self, indices: impl Iterator<Item = usize>) -> Result<(), String> {
        match &self.reader {
            Reader::Pytorch(file) => file.check_sizes(indices, self.bytes),
            // Checked when they were opened.
            Reader::Npz(_) | Reader::Safetensors(_) => Ok(()),
        }
    }

    /// Reads one tensor.
    pub(super) fn load(&mut self, index: usize) -> Result<HostTensor, ModelError> {
        let tensor = match &mut self.reader {
            Reader::Npz(file) => file.load(index),
            Reader::Safetensors(file) => file.load(index),
            Reader::Pytorch(file) => file.load(index),
        };
        tensor.map_err(|reason| self.unreadable(reason))
    }

    /// Free-text metadata, where the format has some.
    pub(super) fn metadata(&self) -> Option<&BTreeMap<String, String>> {
        match &self.reader {
            Reader::Safetensors(file) => Some(file.metadata()),
            Reader::Npz(_) | Reader::Pytorch(_) => None,
        }
    }

    /// Our own metadata, where the file has it.
    pub(super) fn mixer_header(&self) -> Result<Option<MixerHeader>, ModelError> {
        self.metadata()
            .and_then(|metadata| metadata.get(HEADER_KEY))
            .map(|json| MixerHeader::parse(json).map_err(|reason| self.unreadable(reason)))
            .transpose()
    }

    /// The error for what was passed over beside the tensors, where these are not a network's.
    pub(super) fn fault(&self) -> Option<ModelError> {
        let Reader::Pytorch(file) = &self.reader else { return None };
        let Refusal { reason, hint } = file.fault()?;
        Some(ModelError::Unreadable {
            format: self.format.name(),
            reason: one_line(reason),
            path: self.path.clone(),
            hint: hint.or(Some(DAMAGED)),
        })
    }

    /// The error for a damaged file.
    pub(super) fn unreadable(&self, reason: String) -> ModelError {
        ModelError::Unreadable {
            format: self.format.name(),
            reason: one_line(&reason),
            path: self.path.clone(),
            hint: Some(DAMAGED),
        }
    }
}
