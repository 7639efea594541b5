//! Reader and writer of `.safetensors` files.
//!
//! The reader checks that the tensors tile the file exactly, and then reads one tensor at a time, so a
//! file is never in memory twice. It reads the header by itself: that of the `safetensors` crate keeps
//! the last of two tensors of one name, and holds the whole header in an intermediate form that takes
//! many times its bytes. The writer is our own because the crate's hashes its metadata: two writes of the
//! same weights would differ.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Seek, SeekFrom, Write};

use ::safetensors::tensor::Dtype;
use burn::tensor::bf16;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::element::{ByteOrder, CHUNK_BYTES, Element};
use crate::tensor::HostTensor;
use crate::weights::tensor_info::{MAX_RANK, TensorInfo};

/// Largest header that is read. The format allows 100 MB; that of a Mixer of 32 blocks has 40 kB, and some
/// hundred more where it names many classes.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// An open file, with its header read.
pub(crate) struct SafetensorsFile<R> {
    reader: R,
    header: Header,
    data_start: u64,
}

impl<R: Read + Seek> SafetensorsFile<R> {
    /// Reads and checks the header.
    pub(crate) fn open(mut reader: R, file_bytes: u64) -> Result<Self, String> {
        let say = |error: std::io::Error| error.to_string();
        reader.seek(SeekFrom::Start(0)).map_err(say)?;
        let mut length = [0; 8];
        reader.read_exact(&mut length).map_err(say)?;
        let length = u64::from_le_bytes(length);
        let after_length = file_bytes.saturating_sub(8);
        if length > MAX_HEADER_BYTES {
            return Err(format!("header of {length} bytes, expected at most {MAX_HEADER_BYTES}"));
        }
        if length > after_length {
            return Err(format!("truncated: header of {length} bytes in a file of {file_bytes}"));
        }
        let mut json = Vec::with_capacity(length as usize);
        reader.by_ref().take(length).read_to_end(&mut json).map_err(say)?;
        let mut header: Header =
            serde_json::from_slice(&json).map_err(|error| format!("bad header ({error})"))?;
        drop(json);
        let (found, expected) = (
            after_length - length,
            header.sort_and_check().map_err(|reason| format!("bad header ({reason})"))?,
        );
        if found < expected {
            return Err(format!("truncated: {found} bytes of data, the header says {expected}"));
        }
        if found > expected {
            return Err(format!(
                "{} bytes follow the last tensor, expected none",
                found - expected
            ));
        }
        Ok(Self { reader, header, data_start: 8 + length })
    }

    /// The tensors in the order of their data.
    pub(crate) fn tensors(&self) -> Vec<TensorInfo> {
        self.header
            .tensors
            .iter()
            .map(|(name, info)| TensorInfo {
                name: name.clone(),
                shape: info.shape.0.clone(),
                dtype: lower_case(info.dtype),
            })
            .collect()
    }

    /// Free-text metadata of the header.
    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// Reads one tensor.
    pub(crate) fn load(&mut self, index: usize) -> Result<HostTensor, String> {
        let (name, info) = &self.header.tensors[index];
        let element = match info.dtype {
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::BF16,
            Dtype::F32 => Element::F32,
            Dtype::F64 => Element::F64,
            other => {
                return Err(format!(
                    "tensor `{name}` is {}, expected f16, bf16, f32 or f64",
                    lower_case(other)
                ));
            }
        };
        let say = |error: std::io::Error| format!("tensor `{name}`: {error}");
        // The header was checked against the size of the file: this much is there.
        let (start, end) = info.data_offsets;
        self.reader.seek(SeekFrom::Start(self.data_start + start)).map_err(say)?;
        let bytes = usize::try_from(end - start).map_err(|error| error.to_string())?;
        let num_values = bytes / element.size();
        let data = element.read(&mut self.reader, ByteOrder::Little, num_values).map_err(say)?;
        Ok(HostTensor { shape: info.shape.0.clone(), data })
    }
}

fn lower_case(dtype: Dtype) -> String {
    format!("{dtype:?}").to_lowercase()
}

/// The header of a file.
#[derive(Debug, Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Info)>,
}

/// A tensor in the header.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: Dtype,
    shape: Shape,
    /// Beginning and end of the data, from the end of the header.
    data_offsets: (u64, u64),
}

/// Sizes of at most [`MAX_RANK`] axes: a longer list ends the reading.
#[derive(Debug)]
struct Shape(Vec<usize>);

impl Header {
    /// Sorts the tensors by where they lie, and checks that they fill the data without gaps and without
    /// overlap; gives its bytes.
    fn sort_and_check(&mut self) -> Result<u64, String> {
        self.tensors.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if let Some([(name, _), _]) = self.tensors.array_windows::<2>().find(|[a, b]| a.0 == b.0) {
            return Err(format!("two tensors `{name}`"));
        }
        self.tensors.sort_by_key(|(_, info)| info.data_offsets);
        let mut at = 0;
        for (name, info) in &self.tensors {
            let (start, end) = info.data_offsets;
            if start != at || end < start {
                return Err(format!(
                    "tensor `{name}` lies at {start} to {end}, expected from {at}"
                ));
            }
            let bits = info
                .shape
                .0
                .iter()
                .try_fold(info.dtype.bitsize() as u64, |bits, &n| bits.checked_mul(n as u64))
                .ok_or_else(|| format!("shape {:?} of tensor `{name}` overflows", info.shape.0))?;
            if bits != (end - start).saturating_mul(8) {
                return Err(format!(
                    "tensor `{name}` of shape {:?} and type {} has {} bytes",
                    info.shape.0,
                    lower_case(info.dtype),
                    end - start
                ));
            }
            at = end;
        }
        Ok(at)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name != "__metadata__" {
                header.tensors.push((name, map.next_value()?));
            } else if std::mem::replace(&mut has_metadata, true) {
                return Err(A::Error::custom("`__metadata__` is there twice"));
            } else {
                header.metadata = map.next_value()?;
            }
        }
        Ok(header)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX_RANK} sizes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Shape, A::Error> {
        let mut shape = Vec::new();
        while let Some(size) = sizes.next_element()? {
            if shape.len() == MAX_RANK {
                return Err(A::Error::invalid_length(MAX_RANK + 1, &self));
            }
            shape.push(size);
        }
        Ok(Shape(shape))
    }
}

/// An entry of the header. Sorted by name, `__metadata__` comes before every tensor of a Mixer.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Metadata(&'a BTreeMap<&'a str, String>),
    Tensor { dtype: &'a str, shape: &'a [usize], data_offsets: [usize; 2] },
}

/// Writes all tensors, sorted by name: first those in `F32`, then those that `in_bf16` chooses in `BF16`, so
/// that each lies where its type may.
///
/// # Determinism
/// The bytes are a function of the arguments.
pub(crate) fn write(
    out: &mut impl Write,
    tensors: &BTreeMap<String, HostTensor>,
    metadata: &BTreeMap<&str, String>,
    in_bf16: impl Fn(&str) -> bool,
) -> std::io::Result<()> {
    let (narrow, wide): (Vec<_>, Vec<_>) = tensors.iter().partition(|(name, _)| in_bf16(name));
    let mut header = BTreeMap::from([("__metadata__", Entry::Metadata(metadata))]);
    let mut offset = 0;
    for (dtype, bytes, tensors) in [("F32", 4, &wide), ("BF16", 2, &narrow)] {
        for (name, tensor) in tensors {
            let end = offset + bytes * tensor.data.len();
            let entry = Entry::Tensor { dtype, shape: &tensor.shape, data_offsets: [offset, end] };
            header.insert(name, entry);
            offset = end;
        }
    }
    let mut json = serde_json::to_vec(&header)?;
    // The format wants the data aligned to 8 bytes.
    json.resize(json.len().next_multiple_of(8), b' ');
    out.write_all(&(json.len() as u64).to_le_bytes())?;
    out.write_all(&json)?;
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    for (_, tensor) in wide {
        for values in tensor.data.chunks(CHUNK_BYTES / 4) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            out.write_all(&bytes)?;
        }
    }
    for (_, tensor) in narrow {
        for values in tensor.data.chunks(CHUNK_BYTES / 2) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()));
            out.write_all(&bytes)?;
        }
    }
    Ok(())
}
