//! Element types of stored tensors, and their conversion to `f32`: the one place that interprets the
//! bytes of a weights file.

use std::io::Read;

use half::{bf16, f16};

/// Bytes that are taken and converted at a time, in a cache; a multiple of every element size.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// A floating-point type that a weights file may store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F16,
    BF16,
    F32,
    F64,
}

/// Order of the bytes of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    /// The order of this machine.
    pub(super) const NATIVE: Self =
        if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}

impl Element {
    /// Bytes of one value.
    pub(super) const fn size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Name as in a safetensors header, in lower case.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// Reads so many values. `f64` is rounded to the nearest `f32`; the other three convert exactly.
    ///
    /// Memory for all of them is taken at once: that they are there has to be known.
    pub(super) fn read(
        self,
        reader: &mut impl Read,
        order: ByteOrder,
        num_values: usize,
    ) -> std::io::Result<Vec<f32>> {
        let mut values = Vec::with_capacity(num_values);
        let mut left = num_values * self.size();
        let mut chunk = vec![0; CHUNK_BYTES.min(left)];
        while left > 0 {
            let chunk = &mut chunk[..CHUNK_BYTES.min(left)];
            reader.read_exact(chunk)?;
            match self {
                Self::F16 => extend(chunk, order, &mut values, |b| f16::from_le_bytes(b).to_f32()),
                Self::BF16 => {
                    extend(chunk, order, &mut values, |b| bf16::from_le_bytes(b).to_f32());
                }
                Self::F32 => extend(chunk, order, &mut values, f32::from_le_bytes),
                Self::F64 => extend(chunk, order, &mut values, |b| f64::from_le_bytes(b) as f32),
            }
            left -= chunk.len();
        }
        Ok(values)
    }
}

/// Appends the values of `bytes`, a whole number of them.
fn extend<const N: usize>(
    bytes: &[u8],
    order: ByteOrder,
    values: &mut Vec<f32>,
    from_little: impl Fn([u8; N]) -> f32,
) {
    let (words, rest) = bytes.as_chunks::<N>();
    debug_assert!(rest.is_empty(), "the caller passes whole values");
    match order {
        ByteOrder::Little => values.extend(words.iter().map(|word| from_little(*word))),
        ByteOrder::Big => values.extend(words.iter().map(|word| {
            let mut word = *word;
            word.reverse();
            from_little(word)
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(element: Element, mut bytes: &[u8], order: ByteOrder) -> Vec<f32> {
        let num_values = bytes.len() / element.size();
        element.read(&mut bytes, order, num_values).unwrap()
    }

    #[test]
    fn half_precision_values_convert_exactly() {
        let half = |bits: u16| decode(Element::F16, &bits.to_le_bytes(), ByteOrder::Little)[0];
        for (bits, value) in [
            (0x0000_u16, 0.0_f32),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), value, "{bits:#06x}");
        }
        assert!(half(0x8000).is_sign_negative());
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn every_element_type_decodes_in_both_byte_orders() {
        let little = ByteOrder::Little;
        assert_eq!(decode(Element::F32, &1.5_f32.to_le_bytes(), little), [1.5]);
        assert_eq!(decode(Element::F32, &1.5_f32.to_be_bytes(), ByteOrder::Big), [1.5]);
        assert_eq!(decode(Element::F64, &0.1_f64.to_le_bytes(), little), [0.1]);
        assert_eq!(decode(Element::BF16, &[0x80, 0x3f, 0x00, 0xc0], little), [1.0, -2.0]);
        assert_eq!(decode(Element::F16, &[0x3c, 0x00], ByteOrder::Big), [1.0]);
    }
}
