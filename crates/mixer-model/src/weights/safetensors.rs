//! Reader and writer of `.safetensors` files.
//!
//! The reader takes the header through the `safetensors` crate, which checks that the tensors tile the
//! file exactly, and then reads one tensor at a time, so a file is never in memory twice. The writer is
//! our own because the crate's hashes its metadata: two writes of the same weights would differ.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ::safetensors::tensor::{Dtype, Metadata as Header};
use fs_err::File;
use serde::Serialize;

use super::element::{ByteOrder, Element};
use super::{HostTensor, TensorInfo};

/// Largest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Bytes converted at a time; a multiple of every element size.
const CHUNK_BYTES: usize = 256 * 1024;

/// An open file, with its header read.
pub(super) struct SafetensorsFile {
    reader: BufReader<File>,
    header: Header,
    /// Names in the order of the data.
    names: Vec<String>,
    data_start: u64,
}

impl SafetensorsFile {
    /// Reads and checks the header.
    pub(super) fn open(path: &Path) -> Result<SafetensorsFile, String> {
        let say = |error: std::io::Error| error.to_string();
        let file = File::open(path).map_err(say)?;
        let file_bytes = file.metadata().map_err(say)?.len();
        let mut reader = BufReader::new(file);
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
        let mut json = Vec::new();
        (&mut reader).take(length).read_to_end(&mut json).map_err(say)?;
        let header: Header =
            serde_json::from_slice(&json).map_err(|error| format!("bad header ({error})"))?;
        let (found, expected) = (after_length - length, header.data_len() as u64);
        if found < expected {
            return Err(format!("truncated: {found} bytes of data, the header says {expected}"));
        }
        if found > expected {
            return Err(format!(
                "{} bytes follow the last tensor, expected none",
                found - expected
            ));
        }
        let names = header.offset_keys();
        Ok(SafetensorsFile { reader, header, names, data_start: 8 + length })
    }

    /// The tensors in the order of their data.
    pub(super) fn tensors(&self) -> Vec<TensorInfo> {
        self.names
            .iter()
            .filter_map(|name| {
                let info = self.header.info(name)?;
                Some(TensorInfo {
                    name: name.clone(),
                    shape: info.shape.clone(),
                    dtype: format!("{:?}", info.dtype).to_lowercase(),
                })
            })
            .collect()
    }

    /// Free-text metadata of the header.
    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        self.header
            .metadata()
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Reads one tensor.
    pub(super) fn load(&mut self, index: usize) -> Result<HostTensor, String> {
        let name = &self.names[index];
        let info = self.header.info(name).ok_or_else(|| format!("no tensor `{name}`"))?;
        let element = match info.dtype {
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::BF16,
            Dtype::F32 => Element::F32,
            Dtype::F64 => Element::F64,
            other => {
                return Err(format!(
                    "tensor `{name}` is {}, expected f16, bf16, f32 or f64",
                    format!("{other:?}").to_lowercase()
                ));
            }
        };
        let say = |error: std::io::Error| format!("tensor `{name}`: {error}");
        // The header was checked against the size of the file: this much is there.
        let (start, end) = info.data_offsets;
        self.reader.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(say)?;
        let mut data = Vec::with_capacity((end - start) / element.size());
        let mut chunk = vec![0; CHUNK_BYTES.min(end - start)];
        let mut left = end - start;
        while left > 0 {
            let chunk = &mut chunk[..CHUNK_BYTES.min(left)];
            self.reader.read_exact(chunk).map_err(say)?;
            element.decode_into(chunk, ByteOrder::Little, &mut data);
            left -= chunk.len();
        }
        Ok(HostTensor { shape: info.shape.clone(), data })
    }
}

/// An entry of the header. Sorted by name, `__metadata__` comes before every tensor of a Mixer.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Metadata(&'a BTreeMap<&'a str, String>),
    Tensor { dtype: &'a str, shape: &'a [usize], data_offsets: [usize; 2] },
}

/// Writes all tensors as `F32`, sorted by name.
///
/// # Determinism
/// The bytes are a function of the arguments.
pub(super) fn write(
    out: &mut impl Write,
    tensors: &BTreeMap<String, HostTensor>,
    metadata: &BTreeMap<&str, String>,
) -> std::io::Result<()> {
    let mut header = BTreeMap::from([("__metadata__", Entry::Metadata(metadata))]);
    let mut offset = 0;
    for (name, tensor) in tensors {
        let end = offset + 4 * tensor.data.len();
        let entry =
            Entry::Tensor { dtype: "F32", shape: &tensor.shape, data_offsets: [offset, end] };
        header.insert(name, entry);
        offset = end;
    }
    let mut json = serde_json::to_vec(&header)?;
    // The format wants the data aligned to 8 bytes.
    json.resize(json.len().next_multiple_of(8), b' ');
    out.write_all(&(json.len() as u64).to_le_bytes())?;
    out.write_all(&json)?;
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    for tensor in tensors.values() {
        for values in tensor.data.chunks(CHUNK_BYTES / 4) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            out.write_all(&bytes)?;
        }
    }
    Ok(())
}
