//! Tar shards from any source.
//!
//! Shards may hold the bytes of the source, or smaller pictures, which is the largest thing that can
//! be done for the speed of training: most of the time goes into decoding pixels that the network
//! never sees.
//!
//! # Files
//! `NAME-000000.tar` and so on, `NAME.manifest.json` with what they hold, and `classes.txt`. The bytes
//! of shards depend on the source and the settings alone. A shard gets its name when it is whole, and
//! stands in the manifest after that, so that writing can be stopped at any time and goes on behind
//! the last shard of the manifest.

use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use image::ImageEncoder;
use image::codecs::png::PngEncoder;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::decode::error::DecodeError;
use crate::decode::format::PictureFormat;
use crate::decode::picture::decode;
use crate::decode::rgb_image::RgbImage;
use crate::error::{DataError, Place};
use crate::resample::interpolation::Interpolation;
use crate::resample::patches::Layout;
use crate::resample::resampler::{Output, Resampler};
use crate::shards::tar::{BLOCK, header};
use crate::shards::whole_file::write_whole;
use crate::sources::labels::{CLASSES_FILE, parse_class_names};
use crate::sources::source::{Example, Source};
use crate::stream::in_order::map_in_order;
use crate::stream::loader::OnCorrupt;

/// The version of the manifest.
const VERSION: u32 = 1;

/// Quality of pictures that have to be encoded where no other is asked for.
const DEFAULT_QUALITY: u8 = 90;

/// Pictures that are read ahead, per worker.
const AHEAD: usize = 8;

/// The largest manifest, bytes.
const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// Settings for writing a source to shards: everything but the source that decides their bytes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ShardWriterConfig {
    /// Start of the file names, `train`.
    pub name: String,
    /// Examples per shard, at most.
    pub examples_per_shard: u64,
    /// Bytes per shard, at most, unless a single example is larger.
    pub max_shard_bytes: u64,
    /// Pictures whose shorter side is longer are shrunk to this, px, and stored as JPEG.
    pub max_short_side: Option<u32>,
    /// Store every picture as JPEG of this quality, 1 to 100. Without it, only pictures that are
    /// shrunk are encoded again, at 90; the bytes of all others stay as they are.
    pub jpeg_quality: Option<u8>,
    /// Store colour at half the resolution (4:2:0) where JPEG is written.
    pub subsample: bool,
}

impl ShardWriterConfig {
    /// 1000 examples or 256 MiB per shard, with the bytes of the source.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            examples_per_shard: 1000,
            max_shard_bytes: 256 << 20,
            max_short_side: None,
            jpeg_quality: None,
            subsample: true,
        }
    }

    fn check(&self) -> Result<(), DataError> {
        let refuse = |setting, found: String, expected: &str| {
            Err(DataError::BadSetting { setting, found, expected: expected.to_owned() })
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(is_plain) {
            return refuse("name", self.name.clone(), "1 to 64 letters, digits, `-` or `_`");
        }
        if self.examples_per_shard == 0 {
            return refuse("examples_per_shard", "0".to_owned(), "at least 1");
        }
        if self.max_shard_bytes == 0 {
            return refuse("max_shard_bytes", "0".to_owned(), "at least 1");
        }
        if self.max_short_side == Some(0) {
            return refuse("max_short_side", "0".to_owned(), "at least 1 px");
        }
        match self.jpeg_quality {
            Some(quality) if !(1..=100).contains(&quality) => {
                refuse("jpeg_quality", quality.to_string(), "1 to 100")
            }
            _ => Ok(()),
        }
    }
}

/// Contents of a set of shards.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ShardManifest {
    /// Version of this format, 1.
    pub version: u32,
    /// Fingerprint of the source, in hexadecimal digits.
    pub source: String,
    /// Examples of the source, unreadable ones included.
    pub num_examples: u64,
    /// Settings that they were written with.
    pub config: ShardWriterConfig,
    /// The shards that are finished.
    pub shards: Vec<ShardRecord>,
    /// Examples that could not be read and were left out.
    pub skipped: Vec<SkippedRecord>,
    /// `true` where all shards are there.
    pub is_complete: bool,
}

/// A finished shard.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// Its file name.
    pub file: String,
    /// Index in the source behind its last example.
    pub end: u64,
    /// Number of its examples.
    pub num_examples: u64,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// An example that is in no shard.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SkippedRecord {
    /// Its index in the source.
    pub index: u64,
    /// One line that says why.
    pub reason: String,
}

impl ShardManifest {
    /// The file name of the manifest of shards called `name`.
    pub fn file_name(name: &str) -> String {
        format!("{name}.manifest.json")
    }

    /// The pattern that means all shards, `train-{000000..000127}.tar`.
    pub fn pattern(&self) -> String {
        match self.shards.len() {
            1 => shard_name(&self.config.name, 0),
            count => {
                format!("{}-{{000000..{:06}}}.tar", self.config.name, count.saturating_sub(1))
            }
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When it cannot be read or is of another version.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let found = fs::metadata(path).map_err(DataError::io)?.len();
        let refuse = |found: String, expected: String| {
            DataError::malformed(path, Place::File, found, expected)
        };
        if found > MAX_MANIFEST_BYTES {
            return Err(refuse(format!("{found} bytes"), format!("at most {MAX_MANIFEST_BYTES}")));
        }
        let bytes = fs::read(path).map_err(DataError::io)?;
        let manifest: Self = serde_json::from_slice(&bytes)
            .map_err(|error| refuse(error.to_string(), "a manifest of shards".to_owned()))?;
        if manifest.version != VERSION {
            let found = format!("a manifest of version {}", manifest.version);
            return Err(refuse(found, format!("version {VERSION}")));
        }
        Ok(manifest)
    }

    fn write(&self, path: &Path) -> Result<(), DataError> {
        let text =
            serde_json::to_string_pretty(self).map_err(|error| DataError::io(error.into()))?;
        write_whole(path, |out| out.write_all((text + "\n").as_bytes())).map_err(DataError::io)
    }
}

/// Writes a source to shards in `folder`, or goes on where an earlier call was stopped.
///
/// `on_corrupt` is for examples that cannot be read. Where nothing is encoded again, files are not
/// decoded either, and only what starts like no picture is noticed. `workers` threads read and encode
/// (0 is 1), and change no byte. `progress` is told how many examples of the source are done.
///
/// # Errors
/// When a setting has no meaning; when shards of this name come from another source or other
/// settings; when an example cannot be read and [`OnCorrupt`] does not let it pass; when the disk
/// says no.
pub fn write_shards(
    source: &dyn Source,
    folder: impl AsRef<Path>,
    config: &ShardWriterConfig,
    on_corrupt: OnCorrupt,
    workers: usize,
    mut progress: impl FnMut(u64),
) -> Result<ShardManifest, DataError> {
    config.check()?;
    let folder = folder.as_ref();
    fs::create_dir_all(folder).map_err(DataError::io)?;
    write_classes(source.class_names(), &folder.join(CLASSES_FILE))?;
    let manifest_path = folder.join(ShardManifest::file_name(&config.name));
    let mut manifest = begin(source, folder, config, &manifest_path)?;

    let len = source.len();
    if manifest.is_complete {
        progress(len as u64);
        return Ok(manifest);
    }
    let mut index = manifest.shards.last().map_or(0, |shard| shard.end as usize);
    progress(index as u64);
    let mut shard: Option<OpenShard> = None;
    let ahead = workers.max(1) * AHEAD;
    while index < len {
        let range = index..len.min(index + ahead);
        let pictures = map_in_order(range, workers, Resampler::new, |resampler, index| {
            prepare(source, index, config, resampler)
        });
        for picture in pictures {
            match picture {
                Err(error) => skip(&mut manifest, index, error, on_corrupt)?,
                Ok((format, bytes)) => {
                    let label = source.label(index).to_string();
                    let size = member_size(bytes.len()) + member_size(label.len());
                    if let Some(full) = shard.take_if(|shard| shard.is_full(size, config)) {
                        full.finish(index, &mut manifest, &manifest_path)?;
                    }
                    let open = match &mut shard {
                        Some(open) => open,
                        None => shard.insert(OpenShard::create(folder, config, &manifest)?),
                    };
                    let key = format!("{index:08}");
                    open.add(&format!("{key}.{}", format.extension()), &bytes)?;
                    open.add(&format!("{key}.cls"), label.as_bytes())?;
                    open.num_examples += 1;
                }
            }
            index += 1;
        }
        progress(index as u64);
    }
    if let Some(last) = shard {
        last.finish(len, &mut manifest, &manifest_path)?;
    }
    manifest.is_complete = true;
    manifest.write(&manifest_path)?;
    Ok(manifest)
}

/// Reads shards and compares them with their manifest.
///
/// `progress` is told how many bytes are done.
///
/// # Errors
/// When the manifest says that shards are missing, and at the first shard that is missing or has
/// another size or checksum.
pub fn verify_shards(
    manifest: impl AsRef<Path>,
    mut progress: impl FnMut(u64),
) -> Result<ShardManifest, DataError> {
    let path = manifest.as_ref();
    let manifest = ShardManifest::read(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut done = 0;
    for shard in &manifest.shards {
        let path = folder.join(&shard.file);
        check_size(&path, shard)?;
        let mut file = fs::File::open(&path).map_err(DataError::io)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer).map_err(DataError::io)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            done += read as u64;
            progress(done);
        }
        let found = hex(&hash.finalize());
        if found != shard.sha256 {
            let found = format!("checksum {found}");
            let expected = format!("{} of the manifest", shard.sha256);
            return Err(DataError::malformed(&path, Place::File, found, expected));
        }
    }
    match manifest.is_complete {
        true => Ok(manifest),
        false => {
            let end = manifest.shards.last().map_or(0, |shard| shard.end);
            let found = format!("{end} of {} examples", manifest.num_examples);
            Err(DataError::malformed(path, Place::File, found, "all of them (write them again)"))
        }
    }
}

/// The manifest to go on from.
fn begin(
    source: &dyn Source,
    folder: &Path,
    config: &ShardWriterConfig,
    path: &Path,
) -> Result<ShardManifest, DataError> {
    let new = ShardManifest {
        version: VERSION,
        source: format!("{:016x}", source.fingerprint()),
        num_examples: source.len() as u64,
        config: config.clone(),
        shards: Vec::new(),
        skipped: Vec::new(),
        is_complete: false,
    };
    if !path.is_file() {
        return Ok(new);
    }
    let mut old = ShardManifest::read(path)?;
    let refuse =
        |found: &str, expected: &str| Err(DataError::malformed(path, Place::File, found, expected));
    if (&old.source, old.num_examples) != (&new.source, new.num_examples) {
        return refuse("shards of another source", "those of this one, or an empty folder");
    }
    if old.config != new.config {
        return refuse("shards of other settings", "those of these, or an empty folder");
    }
    // A shard that is not as it was finished, and all behind it, are written again.
    let whole =
        old.shards.iter().take_while(|shard| check_size(&folder.join(&shard.file), shard).is_ok());
    let whole = whole.count();
    if whole < old.shards.len() {
        old.shards.truncate(whole);
        old.is_complete = false;
    }
    let end = old.shards.last().map_or(0, |shard| shard.end);
    if !old.is_complete {
        old.skipped.retain(|skipped| skipped.index < end);
    }
    Ok(old)
}

fn check_size(path: &Path, shard: &ShardRecord) -> Result<(), DataError> {
    let found = fs::metadata(path).map_err(DataError::io)?.len();
    if found == shard.bytes {
        return Ok(());
    }
    let expected = format!("{} of the manifest", shard.bytes);
    Err(DataError::malformed(path, Place::File, format!("{found} bytes"), expected))
}

/// Leaves an example out, if that is allowed.
fn skip(
    manifest: &mut ShardManifest,
    index: usize,
    error: DataError,
    on_corrupt: OnCorrupt,
) -> Result<(), DataError> {
    let OnCorrupt::Skip { at_most } = on_corrupt else { return Err(error) };
    manifest.skipped.push(SkippedRecord { index: index as u64, reason: error.to_string() });
    let skipped = manifest.skipped.len() as u64;
    match skipped > at_most {
        true => Err(DataError::TooManyCorrupt { skipped, at_most, last: Box::new(error) }),
        false => Ok(()),
    }
}

/// Writes the class names, or makes sure that those that are there are the same.
fn write_classes(names: &[String], path: &Path) -> Result<(), DataError> {
    let text = names.join("\n") + "\n";
    if parse_class_names(text.as_bytes(), path).ok().as_deref() != Some(names) {
        return Err(DataError::BadSetting {
            setting: "class names",
            found: format!("{} names", names.len()),
            expected: "at least 2 different ones of one line each".to_owned(),
        });
    }
    if !path.is_file() {
        return write_whole(path, |out| out.write_all(text.as_bytes())).map_err(DataError::io);
    }
    match fs::read(path).map_err(DataError::io)? == text.as_bytes() {
        true => Ok(()),
        false => Err(DataError::malformed(
            path,
            Place::File,
            "other classes",
            format!("the {} of this source", names.len()),
        )),
    }
}

fn shard_name(name: &str, number: usize) -> String {
    format!("{name}-{number:06}.tar")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that a member takes in an archive.
fn member_size(content: usize) -> u64 {
    BLOCK + (content as u64).next_multiple_of(BLOCK)
}

/// A shard that is being written under another name.
struct OpenShard {
    name: String,
    path: PathBuf,
    temporary: PathBuf,
    writer: BufWriter<fs::File>,
    hash: Sha256,
    bytes: u64,
    num_examples: u64,
}

impl OpenShard {
    fn create(
        folder: &Path,
        config: &ShardWriterConfig,
        manifest: &ShardManifest,
    ) -> Result<Self, DataError> {
        let name = shard_name(&config.name, manifest.shards.len());
        let temporary = folder.join(format!("{name}.tmp"));
        let file = fs::File::create(&temporary).map_err(DataError::io)?;
        Ok(Self {
            path: folder.join(&name),
            name,
            temporary,
            writer: BufWriter::with_capacity(1 << 20, file),
            hash: Sha256::new(),
            bytes: 0,
            num_examples: 0,
        })
    }

    /// `true` where an example of `size` bytes has no room any more, end marker included.
    fn is_full(&self, size: u64, config: &ShardWriterConfig) -> bool {
        self.num_examples >= config.examples_per_shard
            || self.bytes + size + 2 * BLOCK > config.max_shard_bytes
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.writer.write_all(bytes).map_err(DataError::io)
    }

    fn add(&mut self, name: &str, content: &[u8]) -> Result<(), DataError> {
        let size = content.len() as u64;
        let header = header(name, size).ok_or_else(|| {
            let found = format!("`{name}` of {size} bytes");
            DataError::malformed(&self.path, Place::File, found, "a member that ustar can hold")
        })?;
        self.put(&header)?;
        self.put(content)?;
        let padding = size.next_multiple_of(BLOCK) - size;
        self.put(&[0; BLOCK as usize][..padding as usize])
    }

    /// Gives the shard its name, and then writes it down.
    fn finish(
        mut self,
        end: usize,
        manifest: &mut ShardManifest,
        manifest_path: &Path,
    ) -> Result<(), DataError> {
        self.put(&[0; 2 * BLOCK as usize])?;
        self.writer.flush().map_err(DataError::io)?;
        self.writer.get_ref().sync_all().map_err(DataError::io)?;
        fs::rename(&self.temporary, &self.path).map_err(DataError::io)?;
        manifest.shards.push(ShardRecord {
            file: self.name,
            end: end as u64,
            num_examples: self.num_examples,
            bytes: self.bytes,
            sha256: hex(&self.hash.finalize()),
        });
        manifest.write(manifest_path)
    }
}

/// Reads an example, and encodes it again where that is asked for.
fn prepare(
    source: &dyn Source,
    index: usize,
    config: &ShardWriterConfig,
    resampler: &mut Resampler,
) -> Result<(PictureFormat, Vec<u8>), DataError> {
    let bad = |reason| DataError::BadExample { example: source.describe(index), reason };
    let example = source.read(index)?;
    let original = match &example {
        Example::Encoded(bytes) => {
            let format = PictureFormat::of(bytes).ok_or_else(|| {
                bad(match bytes.as_slice() {
                    [] => DecodeError::Empty,
                    bytes => DecodeError::NotAnImage {
                        start: bytes[..bytes.len().min(4)].escape_ascii().to_string(),
                    },
                })
            })?;
            Some(format)
        }
        Example::Pixels(_) => None,
    };
    let must_decode = config.max_short_side.is_some() || config.jpeg_quality.is_some();
    let image = match (example, original) {
        (Example::Encoded(bytes), Some(format)) if !must_decode => return Ok((format, bytes)),
        (Example::Encoded(bytes), format) => {
            let image = decode(&bytes, &source.decode_options()).map_err(bad)?;
            let is_small =
                config.max_short_side.is_none_or(|most| image.width.min(image.height) <= most);
            if let (None, true, Some(format)) = (config.jpeg_quality, is_small, format) {
                return Ok((format, bytes));
            }
            image
        }
        (Example::Pixels(image), _) => image,
    };
    let shrunk = match config.max_short_side {
        Some(most) if image.width.min(image.height) > most => {
            Some(shrink(&image, most, resampler)?)
        }
        _ => None,
    };
    match (shrunk, config.jpeg_quality) {
        (None, None) => png_bytes(&image).map(|bytes| (PictureFormat::Png, bytes)),
        (shrunk, quality) => {
            let image = shrunk.unwrap_or(image);
            let quality = quality.unwrap_or(DEFAULT_QUALITY);
            let bytes = encode_jpeg(&image, quality, config.subsample)
                .map_err(|message| bad(DecodeError::Broken { format: "JPEG", message }))?;
            Ok((PictureFormat::Jpeg, bytes))
        }
    }
}

/// Shrinks a picture to a shorter side of `short` px with the triangle filter, antialiased.
fn shrink(image: &RgbImage, short: u32, resampler: &mut Resampler) -> Result<RgbImage, DataError> {
    let scaled = |long: u32, by: u32| {
        let length = (u64::from(long) * u64::from(short) + u64::from(by / 2)) / u64::from(by);
        (length as u32).max(short)
    };
    let (width, height) = match image.width <= image.height {
        true => (short, scaled(image.height, image.width)),
        false => (scaled(image.width, image.height), short),
    };
    let mut pixels = vec![0; width as usize * height as usize * 3];
    let output = Output { width, height, is_mirrored: false, layout: Layout::Rows };
    let filter = Interpolation::Bilinear;
    resampler.crop_and_resize(image, image.whole(), filter, output, &mut pixels)?;
    Ok(RgbImage { width, height, pixels })
}

pub(crate) fn encode_jpeg(
    image: &RgbImage,
    quality: u8,
    subsample: bool,
) -> Result<Vec<u8>, String> {
    let side = |length: u32| u16::try_from(length).map_err(|_| format!("{length} px a side"));
    let mut bytes = Vec::with_capacity(image.pixels.len() / 8);
    let mut encoder = Encoder::new(&mut bytes, quality);
    let (width, height) = (side(image.width)?, side(image.height)?);
    let (sampling, mcu_width) = match subsample {
        true => (SamplingFactor::R_4_2_0, 16),
        false => (SamplingFactor::R_4_4_4, 8),
    };
    encoder.set_sampling_factor(sampling);
    // A marker for each row of MCUs lets a decoder of a region jump over what lies above and beside
    // it, for less than a thousandth of the bytes.
    encoder.set_restart_interval(width.div_ceil(mcu_width));
    encoder
        .encode(&image.pixels, width, height, ColorType::Rgb)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// A picture as the bytes of a PNG file.
///
/// # Errors
/// [`DataError::BadBuffer`] when the picture has not as many pixels as its sides say.
pub fn png_bytes(image: &RgbImage) -> Result<Vec<u8>, DataError> {
    let expected = image.width as usize * image.height as usize * 3;
    let found = image.pixels.len();
    if found != expected {
        return Err(DataError::BadBuffer { what: "an image", found, expected });
    }
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(&image.pixels, image.width, image.height, image::ExtendedColorType::Rgb8)
        .map_err(|error| DataError::io(io::Error::other(error)))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decode::options::DecodeOptions;
    use crate::shards::shard_source::ShardSource;
    use crate::sources::builtin::{BuiltinKind, BuiltinSource, BuiltinSplit};
    use crate::sources::folder::FolderSource;

    fn builtin(len: usize, image_size: u32) -> BuiltinSource {
        let split = BuiltinSplit::Train;
        BuiltinSource::new(BuiltinKind::Shapes, split, len, image_size, 0).unwrap()
    }

    fn config(examples_per_shard: u64) -> ShardWriterConfig {
        ShardWriterConfig { examples_per_shard, ..ShardWriterConfig::new("train") }
    }

    fn write(
        source: &dyn Source,
        folder: &tempfile::TempDir,
        config: &ShardWriterConfig,
    ) -> Result<ShardManifest, DataError> {
        write_shards(source, folder, config, OnCorrupt::Stop, 3, |_| {})
    }

    fn open(folder: &Path, manifest: &ShardManifest) -> ShardSource {
        let pattern = folder.join(manifest.pattern());
        ShardSource::open(pattern, None, DecodeOptions::default()).unwrap()
    }

    fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()))
            .filter(|(name, _)| !name.ends_with(".index"))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn shards_hold_the_examples_of_their_source() {
        let folder = tempfile::tempdir().unwrap();
        let source = builtin(25, 16);
        let mut seen = Vec::new();
        let manifest =
            write_shards(&source, &folder, &config(10), OnCorrupt::Stop, 3, |done| seen.push(done))
                .unwrap();
        assert_eq!(seen.last(), Some(&25));
        assert_eq!(manifest.pattern(), "train-{000000..000002}.tar");
        let counts: Vec<u64> = manifest.shards.iter().map(|shard| shard.num_examples).collect();
        assert_eq!(counts, [10, 10, 5]);
        let shards = open(folder.path(), &manifest);
        assert_eq!((shards.len(), shards.passed_over().count()), (25, 0));
        assert_eq!(shards.class_names(), source.class_names());
        for index in 0..25 {
            assert_eq!(shards.label(index), source.label(index));
            assert_eq!(shards.image(index).unwrap(), source.image(index).unwrap());
        }
        let path = folder.path().join("train.manifest.json");
        assert_eq!(verify_shards(path, |_| {}).unwrap(), manifest);
    }

    #[test]
    fn the_bytes_depend_on_source_and_settings_alone() {
        let write = |workers| {
            let folder = tempfile::tempdir().unwrap();
            let config = ShardWriterConfig { jpeg_quality: Some(80), ..config(7) };
            let stop = OnCorrupt::Stop;
            write_shards(&builtin(20, 24), &folder, &config, stop, workers, |_| {}).unwrap();
            files(folder.path())
        };
        assert!(write(1) == write(4));
    }

    #[test]
    fn an_interrupted_set_is_finished_as_if_it_had_not_been() {
        let folder = tempfile::tempdir().unwrap();
        let source = builtin(30, 16);
        let whole = write(&source, &folder, &config(10)).unwrap();
        let expected = files(folder.path());

        // Killed within the second shard.
        let mut cut = whole.clone();
        cut.shards.truncate(1);
        cut.is_complete = false;
        cut.write(&folder.path().join("train.manifest.json")).unwrap();
        fs::remove_file(folder.path().join("train-000001.tar")).unwrap();
        fs::write(folder.path().join("train-000001.tar.tmp"), "half").unwrap();
        let kept = folder.path().join("train-000000.tar");
        let before = fs::metadata(&kept).unwrap().modified().unwrap();
        let mut first = None;
        write_shards(&source, &folder, &config(10), OnCorrupt::Stop, 1, |done| {
            first.get_or_insert(done);
        })
        .unwrap();
        assert_eq!(first, Some(10));
        assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), before);
        assert!(files(folder.path()) == expected);

        // A shard that was cut afterwards is written again.
        fs::write(folder.path().join("train-000002.tar"), "short").unwrap();
        write(&source, &folder, &config(10)).unwrap();
        assert!(files(folder.path()) == expected);
    }

    #[test]
    fn shards_of_something_else_are_not_continued() {
        let folder = tempfile::tempdir().unwrap();
        write(&builtin(10, 16), &folder, &config(10)).unwrap();
        let error = |source: &BuiltinSource, config: &ShardWriterConfig| {
            let error = write(source, &folder, config).err().unwrap().to_string();
            error.replace(&folder.path().display().to_string(), "D")
        };
        assert_eq!(
            error(&builtin(11, 16), &config(10)),
            "found shards of another source, expected those of this one, or an empty folder: D/train.manifest.json"
        );
        assert_eq!(
            error(&builtin(10, 16), &config(9)),
            "found shards of other settings, expected those of these, or an empty folder: D/train.manifest.json"
        );
        fs::write(folder.path().join("classes.txt"), "a\nb\n").unwrap();
        assert_eq!(
            error(&builtin(10, 16), &config(10)),
            "found other classes, expected the 10 of this source: D/classes.txt"
        );
        let nameless = ShardWriterConfig::new("a/b");
        assert_eq!(
            error(&builtin(10, 16), &nameless),
            "found `name = a/b`, expected 1 to 64 letters, digits, `-` or `_`"
        );
    }

    #[test]
    fn verification_finds_a_changed_byte_and_missing_shards() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = write(&builtin(20, 16), &folder, &config(10)).unwrap();
        let path = folder.path().join("train.manifest.json");
        let shard = folder.path().join("train-000001.tar");
        let mut bytes = fs::read(&shard).unwrap();
        bytes[600] ^= 1;
        fs::write(&shard, &bytes).unwrap();
        let error = verify_shards(&path, |_| {}).unwrap_err().to_string();
        assert!(error.starts_with("found checksum ") && error.contains("000001.tar"), "{error}");
        bytes[600] ^= 1;
        fs::write(&shard, &bytes).unwrap();
        ShardManifest { is_complete: false, ..manifest }.write(&path).unwrap();
        let error = verify_shards(&path, |_| {}).unwrap_err().to_string();
        assert!(error.starts_with("found 20 of 20 examples, expected all of them"), "{error}");
        fs::remove_file(&shard).unwrap();
        assert!(verify_shards(&path, |_| {}).unwrap_err().to_string().contains("000001.tar"));
    }

    #[test]
    fn large_pictures_are_shrunk_and_small_ones_keep_their_bytes() {
        let files = tempfile::tempdir().unwrap();
        for class in ["a", "b"] {
            fs::create_dir(files.path().join(class)).unwrap();
            for (number, size) in [(1, 20), (2, 64)] {
                let image = builtin(1, size).image(0).unwrap();
                let wide = RgbImage { width: size * 2, height: size / 2, ..image };
                let path = files.path().join(class).join(format!("{number}.png"));
                fs::write(path, png_bytes(&wide).unwrap()).unwrap();
            }
        }
        let source: Arc<dyn Source> =
            Arc::new(FolderSource::open(&files, DecodeOptions::default()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let config = ShardWriterConfig { max_short_side: Some(16), ..config(10) };
        let manifest = write(source.as_ref(), &folder, &config).unwrap();
        let shards = open(folder.path(), &manifest);
        assert_eq!(shards.read(0).unwrap(), source.read(0).unwrap());
        let image = shards.image(1).unwrap();
        assert_eq!((image.width, image.height), (64, 16));
        let Example::Encoded(bytes) = shards.read(1).unwrap() else { panic!("pixels") };
        assert_eq!(PictureFormat::of(&bytes), Some(PictureFormat::Jpeg));
    }

    #[test]
    fn a_shard_is_as_small_as_it_has_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let config = ShardWriterConfig { max_shard_bytes: 5000, ..config(1000) };
        let manifest = write(&builtin(9, 16), &folder, &config).unwrap();
        assert!(manifest.shards.len() > 3);
        assert!(manifest.shards.iter().all(|shard| shard.bytes <= 5000));
    }

    #[test]
    fn what_is_no_picture_stops_or_is_left_out_and_counted() {
        let files = tempfile::tempdir().unwrap();
        for (class, content) in [("a", "no picture"), ("b", "BM of a kind")] {
            fs::create_dir(files.path().join(class)).unwrap();
            fs::write(files.path().join(class).join("1.png"), content).unwrap();
        }
        let source = FolderSource::open(&files, DecodeOptions::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |config: &ShardWriterConfig, on_corrupt| {
            write_shards(&source, &folder, config, on_corrupt, 2, |_| {})
        };
        let error = write(&config(10), OnCorrupt::Stop).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot decode image: not an image: starts with `no p`"),
            "{error}"
        );
        // Allowing for it after the fact goes on with the same shards.
        let skip = OnCorrupt::Skip { at_most: 1 };
        let manifest = write(&config(10), skip).unwrap();
        assert_eq!((manifest.skipped.len(), manifest.skipped[0].index), (1, 0));
        let name = "other".to_owned();
        let strict = ShardWriterConfig { jpeg_quality: Some(90), name, ..config(10) };
        assert!(matches!(write(&strict, skip), Err(DataError::TooManyCorrupt { skipped: 2, .. })));
    }
}
