//! The bytes of a picture file to RGB. [`picture`] decodes a whole picture of any format, [`part`] only the
//! region that a transform looks at; [`read`] opens files.

pub(crate) mod format;
pub(crate) mod part;
pub(crate) mod picture;
pub(crate) mod read;
pub(crate) mod rgb_image;
