//! The outer form of a file, by its first bytes.

use super::formats::refusal::Refusal;

/// Outer form of a file, by its first bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Container {
    Zip,
    Safetensors,
    Pickle,
}

/// The container of a file that begins with `start`.
pub(super) fn container(start: &[u8], file_bytes: u64) -> Result<Container, Refusal> {
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
    // A map of which the first key is a text, none of which is the beginning of a pickle.
    let first_key = match start[0] {
        0x81..=0x8f => start.get(1),
        0xde => start.get(3),
        0xdf => start.get(5),
        _ => None,
    };
    if matches!(first_key, Some(0xa0..=0xbf | 0xd9)) {
        return Err(Refusal::with_hint(
            "a msgpack file, as Flax writes them, which is not supported",
            "in Python: `flax.serialization.msgpack_restore`, then `numpy.savez` of \
             `flax.traverse_util.flatten_dict(parameters, sep=\"/\")`",
        ));
    }
    if start.starts_with(b"\x89HDF\r\n") {
        return Err(Refusal::with_hint(
            "an HDF5 file, as Keras writes them, which is not supported",
            "save its tensors under timm's names as safetensors",
        ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_safetensors_header_whose_length_looks_like_a_pickle_is_recognised() {
        let mut bytes = 0x80_u64.to_le_bytes().to_vec();
        bytes.push(b'{');
        assert_eq!(container(&bytes, 1000), Ok(Container::Safetensors));
        assert_eq!(container(b"\x80\x02}q\x00.   ", 10), Ok(Container::Pickle));
        assert_eq!(container(b"PK\x03\x04", 4), Ok(Container::Zip));
        for map in [&b"\x82\xa6params\x84"[..], b"\xde\x00\x10\xa4head", b"\x81\xd9\x20x"] {
            assert!(container(map, 100).unwrap_err().reason.contains("msgpack"));
        }
        assert!(container(b"version https://git-lfs.github.com", 120).is_err());
    }
}
