//! A set of Mixer weights in host memory, read from and written to files.
//!
//! Whatever file the weights come from, in memory they have timm's names and layouts, so that one
//! form is checked, resized, fitted into a model and written. Two files of this module know foreign
//! things: `weights/names.rs` foreign names, `weights/element.rs` foreign numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err::{File, OpenOptions};

use crate::config::{Gelu, MixerConfig};
use crate::error::ModelError;

#[path = "recognise.rs"]
mod architecture;
#[path = "formats/element.rs"]
mod element;
mod metadata;
mod names;
#[path = "formats/npz.rs"]
mod npz;
#[path = "formats/pickle.rs"]
mod pickle;
#[path = "formats/pytorch.rs"]
mod pytorch;
#[path = "formats/safetensors.rs"]
mod safetensors;
#[path = "formats/zip.rs"]
mod zip;

pub use metadata::{Interpolation, Metadata, Preprocessing, ResizeRule};

use architecture::Shapes;
use metadata::{FORMAT_VERSION, HEADER_KEY, MixerHeader};
use names::Placement;
use npz::NpzFile;
use pytorch::PytorchFile;
use safetensors::SafetensorsFile;
use zip::Archive;

/// Most axes of a tensor in a file. Convolutions over volumes have 5.
const MAX_RANK: usize = 8;

/// Why a file is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    reason: String,
    /// What to do about it.
    hint: Option<&'static str>,
}

impl Refusal {
    fn new(reason: impl Into<String>) -> Refusal {
        Refusal { reason: reason.into(), hint: None }
    }

    fn with_hint(reason: impl Into<String>, hint: &'static str) -> Refusal {
        Refusal { reason: reason.into(), hint: Some(hint) }
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Refusal {
        Refusal::new(reason)
    }
}

/// The hint for a file that is of a known format, and broken.
const DAMAGED: &str = "the file is incomplete, damaged or made to do harm; compare its checksum with that of its source";

/// A dense tensor in host memory, in C order.
#[derive(Clone, PartialEq)]
pub struct HostTensor {
    /// Sizes of the axes, outermost first.
    pub shape: Vec<usize>,
    /// Values, as many as the product of `shape`.
    pub data: Vec<f32>,
}

impl fmt::Debug for HostTensor {
    /// The shape only: the values of a layer are not for reading.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostTensor{:?}", self.shape)
    }
}

impl HostTensor {
    /// A tensor with one value everywhere.
    #[must_use]
    pub fn filled(shape: &[usize], value: f32) -> HostTensor {
        HostTensor { shape: shape.to_vec(), data: vec![value; shape.iter().product()] }
    }

    /// Reorders the axes: axis `k` of the result is axis `axes[k]` of `self`.
    ///
    /// # Panics
    /// When `axes` is no permutation of the axes.
    #[must_use]
    pub fn permuted(&self, axes: &[usize]) -> HostTensor {
        assert_eq!(axes.len(), self.shape.len(), "one entry per axis");
        let rank = self.shape.len();
        let mut strides = vec![1; rank];
        for axis in (0..rank.saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * self.shape[axis + 1];
        }
        let shape: Vec<usize> = axes.iter().map(|&axis| self.shape[axis]).collect();
        let steps: Vec<usize> = axes.iter().map(|&axis| strides[axis]).collect();
        if rank < 2 || self.data.is_empty() {
            return HostTensor { shape, data: self.data.clone() };
        }
        if let ([1, 0], &[rows, columns]) = (axes, &self.shape[..]) {
            return HostTensor { shape, data: transposed(&self.data, rows, columns) };
        }
        let mut data = Vec::with_capacity(self.data.len());
        let mut index = vec![0; rank];
        let (inner, step) = (shape[rank - 1], steps[rank - 1]);
        let mut source = 0;
        loop {
            data.extend((0..inner).map(|i| self.data[source + i * step]));
            // Counts up the outer axes, like an odometer.
            let mut axis = rank - 1;
            loop {
                if axis == 0 {
                    return HostTensor { shape, data };
                }
                axis -= 1;
                index[axis] += 1;
                source += steps[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                source -= steps[axis] * shape[axis];
                index[axis] = 0;
            }
        }
    }
}

/// A complete set of Mixer weights: timm's names and layouts, every shape as `config` says.
///
/// `stem.proj.weight` is `[C, 3, P, P]`, `blocks.{i}.mlp_tokens.fc1.weight` `[D_S, S]`, `head.weight`
/// `[K, C]`; [`Weights::expected_tensors`] lists them all.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// The architecture.
    pub config: MixerConfig,
    /// Every tensor by its timm name.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Class names, preprocessing, provenance.
    pub metadata: Metadata,
}

/// A file format that weights are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsFormat {
    /// NumPy archive, the official JAX checkpoints.
    Npz,
    /// Safetensors, ours and timm's.
    Safetensors,
    /// PyTorch checkpoint.
    Pytorch,
}

impl WeightsFormat {
    fn name(self) -> &'static str {
        match self {
            WeightsFormat::Npz => "npz",
            WeightsFormat::Safetensors => "safetensors",
            WeightsFormat::Pytorch => "pth",
        }
    }

    /// The GELU that published weights of this format were trained with (npz) or are used with by
    /// the library that ships them (timm).
    #[must_use]
    pub fn default_gelu(self) -> Gelu {
        match self {
            WeightsFormat::Npz => Gelu::Tanh,
            WeightsFormat::Safetensors | WeightsFormat::Pytorch => Gelu::Erf,
        }
    }
}

impl fmt::Display for WeightsFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor as a file lists it, under the file's own name and layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the file.
    pub name: String,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// Element type: `f32`, `bf16`, ...; of other than floating-point arrays the file's own name.
    pub dtype: String,
}

/// What a weights file says of itself.
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
    /// The Mixer in the file, or why it holds none.
    pub architecture: Result<MixerConfig, ModelError>,
}

impl Weights {
    /// Puts tensors together, checked.
    ///
    /// # Errors
    /// [`ModelError::Mismatch`] when they are not those of `config`, [`ModelError::ClassCount`] when
    /// there are class names and not one for each output of the head.
    pub fn new(
        config: MixerConfig,
        tensors: BTreeMap<String, HostTensor>,
        metadata: Metadata,
    ) -> Result<Weights, ModelError> {
        let weights = Weights { config, tensors, metadata };
        weights.validate()?;
        Ok(weights)
    }

    /// Reads weights: `.npz` of the official JAX code (present and legacy names), `.safetensors` (ours
    /// or timm's), or a PyTorch checkpoint (a state dict, bare or within a training checkpoint). The
    /// format is decided by content; the extension means nothing. Any of f16, bf16, f32 and f64 is
    /// read; f64 is rounded.
    ///
    /// `gelu` overrides the activation; else it is the file's own metadata, else
    /// [`WeightsFormat::default_gelu`].
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Unreadable`] for a file that is no weights file or a damaged
    /// one, [`ModelError::NotAMixer`] for another net, [`ModelError::TensorMismatch`] for a nearly
    /// complete Mixer, with every difference.
    ///
    /// Nothing that a file claims is believed: it can neither run code nor make the reader take more memory
    /// than a small multiple of its size.
    pub fn read(path: &Path, gelu: Option<Gelu>) -> Result<Weights, ModelError> {
        Weights::read_open(WeightsFile::open(path)?, gelu)
    }

    /// [`Weights::read`] of a file in memory; `path` is only for messages.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn from_bytes(
        bytes: &[u8],
        path: &Path,
        gelu: Option<Gelu>,
    ) -> Result<Weights, ModelError> {
        let reader = std::io::Cursor::new(bytes);
        Weights::read_open(WeightsFile::of(reader, bytes.len() as u64, path)?, gelu)
    }

    fn read_open<R: Read + Seek>(
        mut file: WeightsFile<R>,
        gelu: Option<Gelu>,
    ) -> Result<Weights, ModelError> {
        let listing = file.tensors();
        let placements = names::placements(file.format, &listing);
        let header = file.mixer_header()?;
        let mut config = recognise(&file, &placements, header.as_ref())?;
        config.gelu = gelu.unwrap_or(config.gelu);

        if let Reader::Pytorch(reader) = &file.reader {
            let indices = placements.iter().map(|placement| placement.index);
            reader.check_sizes(indices, file.bytes).map_err(|reason| file.unreadable(reason))?;
        }
        let mut tensors = BTreeMap::new();
        for Placement { index, name, stored_shape, axes } in placements {
            let mut tensor = file.load(index)?;
            tensor.shape = stored_shape;
            if !axes.is_empty() {
                tensor = tensor.permuted(axes);
            }
            tensors.insert(name, tensor);
        }
        let metadata = match header {
            Some(MixerHeader { classes, preprocessing, provenance, .. }) => {
                Metadata { classes, preprocessing, provenance }
            }
            None => Metadata::default(),
        };
        let weights = Weights { config, tensors, metadata };
        weights.validate().map_err(|error| file.unreadable(error.to_string()))?;
        Ok(weights)
    }

    /// Writes a `.safetensors` file that timm loads as it is: its names and layouts, `f32`. Metadata
    /// lies as JSON under `mixer` in the header, where other programs ignore it.
    ///
    /// The file appears whole or not at all: it is written beside `path`, synced and renamed.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Mismatch`] and [`ModelError::ClassCount`] before anything is
    /// written.
    ///
    /// # Determinism
    /// The bytes are a function of the weights.
    pub fn write_safetensors(&self, path: &Path) -> Result<(), ModelError> {
        self.validate()?;
        let header = self.header()?;
        write_atomically(path, |out| safetensors::write(out, &self.tensors, &header))
            .map_err(|source| ModelError::Io { source })
    }

    /// The bytes that [`Weights::write_safetensors`] writes.
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
        safetensors::write(out, &self.tensors, &self.header()?)
            .map_err(|source| ModelError::Io { source })
    }

    /// Names and shapes of the tensors of an architecture, in the order of its layers: `12 L + 6`.
    #[must_use]
    pub fn expected_tensors(config: &MixerConfig) -> Vec<(String, Vec<usize>)> {
        architecture::expected_tensors(config)
    }

    /// Checks that the weights fit a model: same tensors, same shapes. The activation may differ.
    ///
    /// # Errors
    /// [`ModelError::Mismatch`] with every difference.
    pub fn check_fits(&self, config: &MixerConfig) -> Result<(), ModelError> {
        config.validate()?;
        let shapes: Shapes = self
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
            .collect();
        let mut differences = architecture::differences(config, &shapes);
        for (name, tensor) in &self.tensors {
            let needed = tensor.shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size));
            if needed != Some(tensor.data.len()) {
                let (found, shape) = (tensor.data.len(), &tensor.shape);
                differences.push(format!("{name} has {found} values for the shape {shape:?}"));
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(ModelError::Mismatch {
            config: Box::new(config.clone()),
            differences: architecture::shown(&differences),
        })
    }

    /// Replaces the head by a fresh one, for fine-tuning on other classes: kernel zero, as the paper
    /// has it, and `bias` everywhere. Class names are dropped, since they named the old outputs.
    #[must_use]
    pub fn with_fresh_head(mut self, num_classes: usize, bias: f32) -> Weights {
        let kernel = HostTensor::filled(&[num_classes, self.config.hidden_dim], 0.0);
        self.tensors.insert("head.weight".to_owned(), kernel);
        self.tensors.insert("head.bias".to_owned(), HostTensor::filled(&[num_classes], bias));
        self.config.num_classes = num_classes;
        self.metadata.classes = None;
        self
    }

    /// Counts values that are NaN or infinite, by tensor; tensors without any are left out.
    #[must_use]
    pub fn non_finite(&self) -> BTreeMap<&str, usize> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), count_non_finite(&tensor.data)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// What a file holds, Mixer or not: names, shapes, types, metadata.
    ///
    /// # Errors
    /// [`ModelError::Io`] and [`ModelError::Unreadable`].
    pub fn file_info(path: &Path) -> Result<FileInfo, ModelError> {
        Weights::info_open(WeightsFile::open(path)?)
    }

    /// [`Weights::file_info`] of a file in memory; `path` is only for messages.
    ///
    /// # Errors
    /// As [`Weights::file_info`].
    pub fn bytes_info(bytes: &[u8], path: &Path) -> Result<FileInfo, ModelError> {
        let reader = std::io::Cursor::new(bytes);
        Weights::info_open(WeightsFile::of(reader, bytes.len() as u64, path)?)
    }

    fn info_open<R: Read + Seek>(mut file: WeightsFile<R>) -> Result<FileInfo, ModelError> {
        let tensors = file.tensors();
        let placements = names::placements(file.format, &tensors);
        let architecture =
            file.mixer_header().and_then(|header| recognise(&file, &placements, header.as_ref()));
        // Only tensors that can lie in the file are read; the listing itself needs none of them.
        let readable = match &file.reader {
            Reader::Pytorch(reader) => reader.check_sizes(0..tensors.len(), file.bytes).is_ok(),
            Reader::Npz(_) | Reader::Safetensors(_) => true,
        };
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
        })
    }

    fn validate(&self) -> Result<(), ModelError> {
        self.check_fits(&self.config)?;
        if let Some(classes) = &self.metadata.classes
            && classes.len() != self.config.num_classes
        {
            return Err(ModelError::ClassCount {
                found: classes.len(),
                expected: self.config.num_classes,
            });
        }
        Ok(())
    }

    /// Metadata of the safetensors header.
    fn header(&self) -> Result<BTreeMap<&'static str, String>, ModelError> {
        let Metadata { classes, preprocessing, provenance } = self.metadata.clone();
        let header = MixerHeader {
            format_version: FORMAT_VERSION,
            config: self.config.clone(),
            classes,
            preprocessing,
            provenance,
        };
        let json = serde_json::to_string(&header)
            .map_err(|error| ModelError::Io { source: error.into() })?;
        // `format` is what Hugging Face's loaders look for.
        Ok(BTreeMap::from([("format", "pt".to_owned()), (HEADER_KEY, json)]))
    }
}

fn count_non_finite(values: &[f32]) -> usize {
    values.iter().filter(|value| !value.is_finite()).count()
}

/// The architecture in a file: what its metadata says, else what its shapes say, and then every tensor
/// as it must be.
fn recognise<R: Read + Seek>(
    file: &WeightsFile<R>,
    placements: &[Placement],
    header: Option<&MixerHeader>,
) -> Result<MixerConfig, ModelError> {
    let not_a_mixer = |reason: String| ModelError::NotAMixer {
        reason: one_line(&reason),
        path: file.path.clone(),
    };
    let mut shapes = Shapes::new();
    for placement in placements {
        if shapes.insert(placement.name.clone(), placement.shape()).is_some() {
            return Err(not_a_mixer(format!("`{}` is there twice", placement.name)));
        }
    }
    let config = match header {
        Some(header) => {
            architecture::check_claimed(&header.config, shapes.len()).map_err(|reason| {
                file.unreadable(format!("bad `{HEADER_KEY}` metadata: {reason}"))
            })?;
            header.config.clone()
        }
        None => architecture::infer(&shapes, file.format.default_gelu()).map_err(not_a_mixer)?,
    };
    let differences = architecture::differences(&config, &shapes);
    if differences.is_empty() {
        return Ok(config);
    }
    Err(ModelError::TensorMismatch {
        config: Box::new(config),
        path: file.path.clone(),
        differences: architecture::shown(&differences),
    })
}

/// An open weights file of any format.
struct WeightsFile<R> {
    path: PathBuf,
    format: WeightsFormat,
    bytes: u64,
    reader: Reader<R>,
}

enum Reader<R> {
    Npz(NpzFile<R>),
    Safetensors(SafetensorsFile<R>),
    Pytorch(PytorchFile<R>),
}

impl WeightsFile<BufReader<File>> {
    fn open(path: &Path) -> Result<WeightsFile<BufReader<File>>, ModelError> {
        let io = |source| ModelError::Io { source };
        let file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        WeightsFile::of(BufReader::new(file), bytes, path)
    }
}

impl<R: Read + Seek> WeightsFile<R> {
    /// Finds out the format, and reads what comes before the tensors.
    fn of(mut reader: R, bytes: u64, path: &Path) -> Result<WeightsFile<R>, ModelError> {
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
        Ok(WeightsFile { path: path.to_owned(), format, bytes, reader })
    }

    fn tensors(&self) -> Vec<TensorInfo> {
        match &self.reader {
            Reader::Npz(file) => file.tensors(),
            Reader::Safetensors(file) => file.tensors(),
            Reader::Pytorch(file) => file.tensors(),
        }
    }

    fn load(&mut self, index: usize) -> Result<HostTensor, ModelError> {
        let tensor = match &mut self.reader {
            Reader::Npz(file) => file.load(index),
            Reader::Safetensors(file) => file.load(index),
            Reader::Pytorch(file) => file.load(index),
        };
        tensor.map_err(|reason| self.unreadable(reason))
    }

    fn metadata(&self) -> Option<&BTreeMap<String, String>> {
        match &self.reader {
            Reader::Safetensors(file) => Some(file.metadata()),
            Reader::Npz(_) | Reader::Pytorch(_) => None,
        }
    }

    fn mixer_header(&self) -> Result<Option<MixerHeader>, ModelError> {
        self.metadata()
            .and_then(|metadata| metadata.get(HEADER_KEY))
            .map(|json| MixerHeader::parse(json).map_err(|reason| self.unreadable(reason)))
            .transpose()
    }

    fn unreadable(&self, reason: String) -> ModelError {
        ModelError::Unreadable {
            format: self.format.name(),
            reason: one_line(&reason),
            path: self.path.clone(),
            hint: Some(DAMAGED),
        }
    }
}

/// Outer form of a file, by its first bytes.
#[derive(Debug, PartialEq, Eq)]
enum Container {
    Zip,
    Safetensors,
    Pickle,
}

fn container(start: &[u8], file_bytes: u64) -> Result<Container, Refusal> {
    if start.is_empty() {
        return Err(Refusal::new("the file is empty"));
    }
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        return Ok(Container::Zip);
    }
    if start.get(257..262) == Some(b"ustar") {
        return Err(Refusal::with_hint(
            "a tar archive, expected none",
            "where it is a checkpoint of a PyTorch before 0.1.10, load it there and save it again; \
             otherwise unpack it",
        ));
    }
    // A safetensors file starts with the length of its header, then the header's brace. Its first
    // byte may be that of a pickle, so a length that fits the file decides.
    let header_bytes = start.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    let has_brace = start.get(8) == Some(&b'{');
    if has_brace && header_bytes.is_some_and(|n| n < file_bytes || start[0] != 0x80) {
        return Ok(Container::Safetensors);
    }
    if start[0] == 0x80 {
        return Ok(Container::Pickle);
    }
    // The number "BURN" in either byte order.
    if start.starts_with(b"NRUB") || start.starts_with(b"BURN") {
        return Err(Refusal::with_hint(
            "a record of Burn (`.bpk`), which is not supported",
            "in Burn, load the record into its module and save that with `SafetensorsStore` of \
             `burn-store`, under timm's names and with PyTorch's layouts (`BurnToPyTorchAdapter`)",
        ));
    }
    if start.starts_with(b"version https://git-lfs") {
        return Err(Refusal::with_hint(
            "a Git LFS pointer, not the file that it stands for",
            "`git lfs pull` fetches the file",
        ));
    }
    if start.trim_ascii_start().starts_with(b"<") {
        return Err(Refusal::new("a web page, not the file that was meant to be downloaded"));
    }
    Err(Refusal::new("the content is none of these"))
}

/// Makes foreign text fit for one line of a message: no control characters, bounded length.
fn one_line(text: &str) -> String {
    const MAX_CHARS: usize = 400;
    let mut line: String =
        text.chars().take(MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        line.push_str("...");
    }
    line
}

/// A matrix `[rows, columns]` as `[columns, rows]`, in squares that fit a cache.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const SIDE: usize = 32;
    let mut result = vec![0.0; values.len()];
    for top in (0..rows).step_by(SIDE) {
        for left in (0..columns).step_by(SIDE) {
            for column in left..columns.min(left + SIDE) {
                for row in top..rows.min(top + SIDE) {
                    result[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    result
}

/// Writes any tensors as `.safetensors`: `F32`, sorted by name, with free-text metadata.
///
/// # Errors
/// What `out` raises.
///
/// # Determinism
/// The bytes are a function of the arguments.
pub fn write_tensors(
    out: &mut impl Write,
    tensors: &BTreeMap<String, HostTensor>,
    metadata: &BTreeMap<&str, String>,
) -> std::io::Result<()> {
    safetensors::write(out, tensors, metadata)
}

/// Writes a file that appears whole or not at all, even when the machine loses power: aside, synced,
/// renamed, and the directory synced.
fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let (file, aside) = create_beside(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = write(&mut out)
        .and_then(|()| out.flush())
        .and_then(|()| out.get_ref().sync_all())
        .and_then(|()| fs_err::rename(&aside, path));
    if let Err(error) = written {
        // The first error is the one to report; a leftover file does no harm.
        drop(fs_err::remove_file(&aside));
        return Err(error);
    }
    #[cfg(unix)]
    File::open(directory(path))?.sync_all()?;
    Ok(())
}

/// Creates a file of a new name in the directory of `path`: a rename is atomic only within one.
fn create_beside(path: &Path) -> std::io::Result<(File, PathBuf)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    loop {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let aside = directory(path).join(format!(".{name}.{}-{count}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&aside) {
            Ok(file) => return Ok((file, aside)),
            // Left behind by a killed process that had our id.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permuting_axes_moves_every_value() {
        let tensor =
            HostTensor { shape: vec![2, 3, 4, 5], data: (0..120).map(|i| i as f32).collect() };
        let axes = [3, 2, 0, 1];
        let moved = tensor.permuted(&axes);
        assert_eq!(moved.shape, [5, 4, 2, 3]);
        for a in 0..2 {
            for b in 0..3 {
                for c in 0..4 {
                    for d in 0..5 {
                        let value = tensor.data[((a * 3 + b) * 4 + c) * 5 + d];
                        assert_eq!(moved.data[((d * 4 + c) * 2 + a) * 3 + b], value);
                    }
                }
            }
        }
        assert_eq!(moved.permuted(&[2, 3, 1, 0]), tensor);
        let (rows, columns) = (70, 33);
        let data = (0..rows * columns).map(|i| i as f32).collect();
        let matrix = HostTensor { shape: vec![rows, columns], data };
        let turned = matrix.permuted(&[1, 0]);
        assert_eq!(turned.shape, [columns, rows]);
        for row in 0..rows {
            for column in 0..columns {
                assert_eq!(turned.data[column * rows + row], matrix.data[row * columns + column]);
            }
        }
    }

    #[test]
    fn a_safetensors_header_whose_length_looks_like_a_pickle_is_recognised() {
        let mut bytes = 0x80_u64.to_le_bytes().to_vec();
        bytes.push(b'{');
        assert_eq!(container(&bytes, 1000), Ok(Container::Safetensors));
        assert_eq!(container(b"\x80\x02}q\x00.   ", 10), Ok(Container::Pickle));
        assert_eq!(container(b"PK\x03\x04", 4), Ok(Container::Zip));
        assert!(container(b"version https://git-lfs.github.com", 120).is_err());
    }

    #[test]
    fn messages_stay_on_one_line() {
        assert_eq!(one_line("a\nb\x1b[31m"), "a b [31m");
        assert_eq!(one_line(&"x".repeat(1000)).len(), 403);
    }
}
