//! Messages of protocol buffers, written field by field: ONNX files here, event files in the trainer.

/// A message that is being put together. Field numbers are those of its definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// With an integer or a truth value.
    #[must_use]
    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    /// With a `double`.
    #[must_use]
    pub fn double(mut self, field: u64, value: f64) -> Self {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// With a `float`.
    #[must_use]
    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// With the beginning of a field of `length` bytes, which are written elsewhere.
    #[must_use]
    pub fn announced(mut self, field: u64, length: usize) -> Self {
        self.varint(field << 3 | 2);
        self.varint(length as u64);
        self
    }

    /// With bytes.
    #[must_use]
    pub fn bytes(self, field: u64, value: &[u8]) -> Self {
        let mut message = self.announced(field, value.len());
        message.0.extend(value);
        message
    }

    /// With a `string`.
    #[must_use]
    pub fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    /// With another message.
    #[must_use]
    pub fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// With the fields of another message of the same kind.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the encoding's documentation: 150 and `testing`.
    #[test]
    fn fields_are_encoded_as_documented() {
        assert_eq!(Message::new().number(1, 150).as_bytes(), [0x08, 0x96, 0x01]);
        let text = Message::new().text(2, "testing");
        assert_eq!(text.as_bytes(), b"\x12\x07testing");
        let nested = Message::new().message(3, Message::new().number(1, 150));
        assert_eq!(nested.as_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }
}
