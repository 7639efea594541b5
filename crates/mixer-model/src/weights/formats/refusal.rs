//! The reason why a file is not read.

/// The reason why a file is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    /// The way out, where there is one.
    pub(crate) hint: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: None }
    }

    pub(crate) fn with_hint(reason: impl Into<String>, hint: &'static str) -> Self {
        Self { reason: reason.into(), hint: Some(hint) }
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::new(reason)
    }
}
