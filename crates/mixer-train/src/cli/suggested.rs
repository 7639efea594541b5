//! Values that a shell completes although others are taken too: devices, variants, keys.

use std::ffi::OsStr;
use std::sync::LazyLock;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, Error};
use mixer_model::{BIT_VARIANTS, VARIANTS, VIT_VARIANTS};

use crate::config::schema::Key;
use crate::device;

/// Takes any text, and suggests some.
#[derive(Debug, Clone)]
pub(super) struct Suggested(Vec<&'static str>);

/// Takes the name of a device.
pub(super) fn device() -> Suggested {
    let backends = device::BACKENDS.iter().filter(|(.., compiled)| *compiled);
    let names = ["auto", "cpu"].into_iter().chain(backends.map(|(name, ..)| *name));
    Suggested(names.collect())
}

/// Takes the name of a variant.
pub(super) fn variant() -> Suggested {
    let all = VARIANTS.iter().chain(&VIT_VARIANTS).chain(&BIT_VARIANTS);
    Suggested(all.map(|variant| variant.name).collect())
}

/// Takes a key with a value.
pub(super) fn setting() -> Suggested {
    static SETTINGS: LazyLock<Vec<String>> =
        LazyLock::new(|| Key::all().iter().map(|key| format!("{}=", key.address())).collect());
    Suggested(SETTINGS.iter().map(String::as_str).collect())
}

impl TypedValueParser for Suggested {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().copied().map(PossibleValue::new)))
    }
}
