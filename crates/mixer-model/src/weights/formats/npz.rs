//! Reader and writer of `.npz` files: a zip archive of `.npy` arrays, the format of the official JAX checkpoints.
//!
//! Nothing that a file claims is believed before it is checked against what the file holds: the size
//! of an array must follow from its shape and element type, and be possible for the bytes stored.
//! Arrays of pickled Python objects are refused, since reading one means running its code.
//!
//! # Source
//! NumPy Enhancement Proposal 1 and `numpy/lib/format.py` (versions 1.0, 2.0 and 3.0).

use std::borrow::Cow;
use std::io::{Read, Seek, Write};

use super::element::{ByteOrder, CHUNK_BYTES, Element};
use super::zip::{Archive, Writer};
use crate::tensor::HostTensor;
use crate::weights::tensor_info::{MAX_RANK, TensorInfo};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Longest header that is read; NumPy itself stops at 10 000 bytes.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Longest name of an element type: `<M8[ns]`.
const MAX_DTYPE_BYTES: usize = 32;

/// The most that arrays may take in memory: so many times the file, and so much more. Weights are noise
/// to a packer: it takes off a tenth.
const MAX_UNPACKED: (u64, u64) = (8, 4 << 20);

/// An open archive, with the headers of its arrays read.
pub(crate) struct NpzFile<R> {
    archive: Archive<R>,
    arrays: Vec<Array>,
}

struct Array {
    /// Index in the archive.
    member: usize,
    name: String,
    /// Bytes before the data.
    data_offset: usize,
    header: NpyHeader,
}

impl<R: Read + Seek> NpzFile<R> {
    /// Reads the header of every array.
    pub(crate) fn open(mut archive: Archive<R>, file_bytes: u64) -> Result<Self, String> {
        let mut arrays = Vec::new();
        let mut unpacked_bytes = 0_u64;
        for index in 0..archive.members().len() {
            let member = &archive.members()[index];
            let Some(name) = member.name.strip_suffix(".npy").map(str::to_owned) else {
                continue;
            };
            let say = |reason: String| format!("array `{name}`: {reason}");
            let size = member.bytes;
            let (header, data_offset) =
                NpyHeader::read(&mut archive.read(index).map_err(say)?).map_err(say)?;
            let data_bytes = header.data_bytes().map_err(say)?;
            if data_bytes.checked_add(data_offset as u64) != Some(size) {
                return Err(say(format!(
                    "shape {:?} of {} needs {data_bytes} bytes, the member holds {}",
                    header.shape,
                    header.dtype.name(),
                    size.saturating_sub(data_offset as u64)
                )));
            }
            unpacked_bytes = unpacked_bytes.saturating_add(header.bytes_in_memory());
            arrays.push(Array { member: index, name, data_offset, header });
        }
        let (times, more) = MAX_UNPACKED;
        let most = file_bytes.saturating_mul(times).saturating_add(more);
        if unpacked_bytes > most {
            return Err(format!(
                "arrays of {unpacked_bytes} bytes in a file of {file_bytes}, expected at most {most}"
            ));
        }
        Ok(Self { archive, arrays })
    }

    /// The arrays in the order of the archive.
    pub(crate) fn tensors(&self) -> Vec<TensorInfo> {
        self.arrays
            .iter()
            .map(|array| TensorInfo {
                name: array.name.clone(),
                shape: array.header.shape.clone(),
                dtype: array.header.dtype.name().to_owned(),
            })
            .collect()
    }

    /// Reads one array, in C order.
    pub(crate) fn load(&mut self, index: usize) -> Result<HostTensor, String> {
        let array = &self.arrays[index];
        let say = |reason: String| format!("array `{}`: {reason}", array.name);
        let io = |error: std::io::Error| say(error.to_string());
        let (element, order) = match &array.header.dtype {
            Dtype::Float(element, order) => (*element, *order),
            Dtype::Other(descr) => {
                return Err(say(format!("is `{descr}`, expected f16, f32 or f64")));
            }
        };
        let data_bytes = usize::try_from(array.header.data_bytes().map_err(say)?)
            .map_err(|error| say(error.to_string()))?;
        // What all arrays take was compared with the size of the file when it was opened.
        let mut member = self.archive.read(array.member).map_err(say)?;
        let mut header = vec![0; array.data_offset];
        member.read_exact(&mut header).map_err(io)?;
        let data = element.read(&mut member, order, data_bytes / element.size()).map_err(io)?;
        member.finish().map_err(say)?;
        let shape = array.header.shape.clone();
        if array.header.fortran_order && shape.len() > 1 {
            // Fortran order is C order of the reversed shape.
            let reversed: Vec<usize> = shape.iter().rev().copied().collect();
            let axes: Vec<usize> = (0..shape.len()).rev().collect();
            return Ok(HostTensor { shape: reversed, data }.permuted(&axes));
        }
        Ok(HostTensor { shape, data })
    }
}

/// Element type of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Dtype {
    Float(Element, ByteOrder),
    /// A type of fixed size that weights are never of, by its NumPy code (`<i8`).
    Other(String),
}

impl Dtype {
    fn parse(descr: &str) -> Result<Self, String> {
        if descr.len() > MAX_DTYPE_BYTES {
            return Err(format!("element type of {} characters", descr.len()));
        }
        let (order, code) = match descr.split_at_checked(1) {
            Some(("<", code)) => (ByteOrder::Little, code),
            Some((">", code)) => (ByteOrder::Big, code),
            Some(("=", code)) => (ByteOrder::NATIVE, code),
            Some(("|", code)) => (ByteOrder::Little, code),
            _ => return Err(format!("unknown element type `{descr}`")),
        };
        if code.starts_with('O') {
            return Err("holds pickled Python objects, which are never read".to_owned());
        }
        match code {
            "f2" => Ok(Self::Float(Element::F16, order)),
            "f4" => Ok(Self::Float(Element::F32, order)),
            "f8" => Ok(Self::Float(Element::F64, order)),
            // How NumPy writes bfloat16, which it does not know: as two anonymous bytes.
            "V2" => {
                Err("is of raw 2-byte values, probably bfloat16; save it as float32".to_owned())
            }
            _ => Ok(Self::Other(descr.to_owned())),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Float(element, _) => element.name(),
            Self::Other(descr) => descr,
        }
    }

    /// Bytes of one element.
    fn size(&self) -> Result<u64, String> {
        match self {
            Self::Float(element, _) => Ok(element.size() as u64),
            Self::Other(descr) => {
                let unsupported = || format!("unsupported element type `{descr}`");
                let kind = descr.as_bytes().get(1).ok_or_else(unsupported)?;
                // Dates carry a unit after the size: `<M8[ns]`.
                let digits = descr.get(2..).ok_or_else(unsupported)?;
                let digits = digits.split('[').next().unwrap_or_default();
                let count: u64 = digits.parse().map_err(|_| unsupported())?;
                match kind {
                    b'U' => count.checked_mul(4).ok_or_else(unsupported),
                    b'b' | b'i' | b'u' | b'f' | b'c' | b'S' | b'V' | b'M' | b'm' | b'?' => {
                        Ok(count)
                    }
                    _ => Err(unsupported()),
                }
            }
        }
    }
}

/// The header of an `.npy` file.
#[derive(Debug, PartialEq, Eq)]
struct NpyHeader {
    dtype: Dtype,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl NpyHeader {
    /// Reads the header; returns it and the number of bytes that it took.
    fn read(reader: &mut impl Read) -> Result<(Self, usize), String> {
        let say = |error: std::io::Error| format!("unreadable header ({error})");
        let mut start = [0; 8];
        reader.read_exact(&mut start).map_err(say)?;
        if &start[..6] != MAGIC {
            return Err("is no .npy array".to_owned());
        }
        let (length_bytes, length) = match start[6] {
            1 => {
                let mut bytes = [0; 2];
                reader.read_exact(&mut bytes).map_err(say)?;
                (2, usize::from(u16::from_le_bytes(bytes)))
            }
            2 | 3 => {
                let mut bytes = [0; 4];
                reader.read_exact(&mut bytes).map_err(say)?;
                (4, usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX))
            }
            version => return Err(format!("is .npy version {version}, expected 1 to 3")),
        };
        if length > MAX_HEADER_BYTES {
            return Err(format!("header of {length} bytes, expected at most {MAX_HEADER_BYTES}"));
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text).map_err(say)?;
        let text = std::str::from_utf8(&text).map_err(|error| format!("bad header ({error})"))?;
        let header = Self::parse(text)?;
        Ok((header, start.len() + length_bytes + length))
    }

    /// Parses the Python dictionary literal of the header, whose keys come in any order.
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || "bad header".to_owned();
        let mut rest = text.trim().strip_prefix('{').ok_or_else(bad)?.trim_start();
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        while !rest.starts_with('}') {
            let (key, after) = quoted(rest).ok_or_else(bad)?;
            rest = after.trim_start().strip_prefix(':').ok_or_else(bad)?.trim_start();
            match key {
                "descr" => {
                    let (value, after) =
                        quoted(rest).ok_or("has a structured element type, expected floats")?;
                    descr = Some(Dtype::parse(value)?);
                    rest = after;
                }
                "fortran_order" => {
                    let (value, after) = if let Some(after) = rest.strip_prefix("True") {
                        (true, after)
                    } else {
                        (false, rest.strip_prefix("False").ok_or_else(bad)?)
                    };
                    fortran_order = Some(value);
                    rest = after;
                }
                "shape" => {
                    let inside = rest.strip_prefix('(').ok_or_else(bad)?;
                    let (inside, after) = inside.split_once(')').ok_or_else(bad)?;
                    let sizes: Result<Vec<usize>, String> = inside
                        .split(',')
                        .take(MAX_RANK + 2)
                        .map(str::trim)
                        .filter(|size| !size.is_empty())
                        // Python 2 wrote long integers with an L.
                        .map(|size| size.trim_end_matches('L'))
                        .map(|size| size.parse().map_err(|_| format!("bad shape ({inside})")))
                        .collect();
                    let sizes = sizes?;
                    if sizes.len() > MAX_RANK {
                        return Err(format!("more axes than {MAX_RANK}"));
                    }
                    shape = Some(sizes);
                    rest = after;
                }
                _ => return Err(bad()),
            }
            rest = rest.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        match (descr, fortran_order, shape) {
            (Some(dtype), Some(fortran_order), Some(shape)) => {
                Ok(Self { dtype, fortran_order, shape })
            }
            _ => Err(bad()),
        }
    }

    /// Bytes of the data, by shape and element type.
    fn data_bytes(&self) -> Result<u64, String> {
        self.shape
            .iter()
            .try_fold(self.dtype.size()?, |bytes, &size| bytes.checked_mul(size as u64))
            .ok_or_else(|| format!("shape {:?} overflows", self.shape))
    }

    /// Bytes of the values as they are read, 0 where they are not.
    fn bytes_in_memory(&self) -> u64 {
        let values = match &self.dtype {
            Dtype::Float(..) => self.shape.iter().fold(1_u64, |n, &s| n.saturating_mul(s as u64)),
            Dtype::Other(_) => 0,
        };
        values.saturating_mul(size_of::<f32>() as u64)
    }
}

/// Writes arrays by name, as `<f4` in C order, stored as `numpy.savez` does.
///
/// # Determinism
/// The bytes are a function of the arguments.
pub(crate) fn write(
    out: &mut impl Write,
    arrays: impl Iterator<Item = (String, HostTensor)>,
) -> std::io::Result<()> {
    let mut archive = Writer::new(out);
    for (name, tensor) in arrays {
        let header = header_of(&tensor.shape);
        let pieces = || {
            let encode = |values: &[f32]| -> Vec<u8> {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            };
            let data = tensor.data.chunks(CHUNK_BYTES / size_of::<f32>()).map(encode);
            std::iter::once(Cow::from(&header)).chain(data.map(Cow::from))
        };
        archive.add(&format!("{name}.npy"), pieces)?;
    }
    archive.finish()
}

/// Writes an array as an `.npy` file: `<f4` in C order.
///
/// # Errors
/// Those of `out`.
pub fn write_npy(out: &mut impl Write, shape: &[usize], values: &[f32]) -> std::io::Result<()> {
    out.write_all(&header_of(shape))?;
    for piece in values.chunks(CHUNK_BYTES / size_of::<f32>()) {
        let bytes: Vec<u8> = piece.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// The beginning of an `.npy` file of version 1.0, padded so that the data is aligned.
fn header_of(shape: &[usize]) -> Vec<u8> {
    const ALIGNMENT: usize = 64;
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let shape = format!("({}{comma})", sizes.join(", "));
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version, length of the text, the text, padding, end of line.
    let bytes = (MAGIC.len() + 4 + text.len() + 1).next_multiple_of(ALIGNMENT);
    let text_bytes = bytes - MAGIC.len() - 4;
    let mut header = MAGIC.to_vec();
    header.extend([1, 0]);
    header.extend((text_bytes as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header.resize(bytes - 1, b' ');
    header.push(b'\n');
    header
}

/// A quoted string at the start of `text`, and what follows it. NumPy writes no escapes here.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NpyHeader, String> {
        NpyHeader::parse(text)
    }

    #[test]
    fn headers_of_numpy_are_parsed_in_any_key_order() {
        let expected = NpyHeader {
            dtype: Dtype::Float(Element::F32, ByteOrder::Little),
            fortran_order: false,
            shape: vec![36, 14],
        };
        for text in [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (36, 14), }          \n",
            "{\"shape\": (36L, 14L), \"fortran_order\": False, \"descr\": \"<f4\"}",
            "{'descr':'<f4','fortran_order':False,'shape':(36,14)}",
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&expected), "{text}");
        }
        let scalar = parse("{'descr': '>f8', 'fortran_order': True, 'shape': (), }").unwrap();
        assert_eq!(scalar.shape, [0_usize; 0]);
        assert_eq!(scalar.data_bytes(), Ok(8));
        assert_eq!(
            parse("{'descr': '<f2', 'fortran_order': False, 'shape': (7,), }").unwrap().shape,
            [7]
        );
    }

    #[test]
    fn headers_that_cannot_be_read_say_why() {
        for (text, reason) in [
            ("{'descr': '|O', 'fortran_order': False, 'shape': (), }", "pickled Python objects"),
            ("{'descr': '|V2', 'fortran_order': False, 'shape': (3,), }", "bfloat16"),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }", "structured"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }", "bad shape"),
            ("{'descr': '<f4', 'fortran_order': False}", "bad header"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,", "bad header"),
            ("{", "bad header"),
            ("", "bad header"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_shape_whose_product_overflows_is_refused() {
        let header =
            parse("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }");
        assert!(header.unwrap().data_bytes().unwrap_err().contains("overflows"));
    }

    #[test]
    fn integer_arrays_have_a_size_so_that_they_can_be_listed() {
        for (descr, size) in [("<i8", 8), ("|b1", 1), ("<U5", 20), ("|S3", 3), ("<M8[ns]", 8)] {
            assert_eq!(Dtype::parse(descr).unwrap().size(), Ok(size), "{descr}");
        }
    }
}
