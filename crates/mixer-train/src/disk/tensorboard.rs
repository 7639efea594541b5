//! Event files, as TensorBoard reads them.
//!
//! A record is `length: u64 | mask(crc32c(length)) | message | mask(crc32c(message))`, little endian; a
//! message is protobuf. Scalars are `simple_value`, which every reader knows.
//!
//! Each life of a run has a file of its own, which says at its beginning from which step on it counts; what
//! earlier files have beyond that step is cut off. So every reader shows one curve, also of a run that was
//! killed and went on from an earlier checkpoint.
//!
//! # Source
//! tensorboard 2.21: `compat/proto/{event,summary}.proto`, `plugins/hparams/plugin_data.proto`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mixer_model::protobuf::Message;

use crate::disk::environment::host;
use crate::disk::metrics::Metric;
use crate::draw::canvas::Canvas;
use crate::error::{CheckpointFault, TrainError};
use crate::plan::RunPlan;

/// An event file that is being written; made with its first event.
#[derive(Debug)]
pub(crate) struct EventFile {
    folder: PathBuf,
    /// Updates that are behind the run.
    done: u64,
    file: Option<fs::File>,
}

impl EventFile {
    /// A new file in `folder` for a run of which `done` updates are behind us.
    pub(crate) fn new(folder: PathBuf, done: u64) -> Self {
        Self { folder, done, file: None }
    }

    /// The file, made where there is none yet. What earlier files have beyond `done` is cut off.
    fn open(&mut self) -> std::io::Result<&mut fs::File> {
        if self.file.is_none() {
            fs::create_dir_all(&self.folder)?;
            let earlier = event_files(&self.folder)?;
            earlier.iter().try_for_each(|path| cut(path, self.done))?;
            let mut file = fs::File::create_new(next_name(&self.folder, &earlier))?;
            let now = seconds(SystemTime::now());
            file.write_all(&record(now, 0, Message::new().text(3, "brain.Event:2")))?;
            let first = if earlier.is_empty() { 0 } else { self.done + 1 };
            // `session_log { status: START }`.
            let start = Message::new().message(7, Message::new().number(1, 1));
            file.write_all(&record(now, first, start))?;
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => Ok(file),
            None => unreachable!("it was made above"),
        }
    }

    /// Adds the numbers of a line of metrics, at the time that it has, else now.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the file cannot be written to.
    pub(crate) fn metric(&mut self, metric: &Metric) -> Result<(), TrainError> {
        let Some((step, time, scalars)) = scalars(metric) else { return Ok(()) };
        let time = time.and_then(|time| humantime::parse_rfc3339(time).ok());
        let mut summary = Message::new();
        for (tag, value) in scalars {
            let value = Message::new().text(1, &tag).float(2, value as f32);
            summary = summary.message(1, value);
        }
        let time = seconds(time.unwrap_or_else(SystemTime::now));
        self.write(time, step, Message::new().message(5, summary))
    }

    /// Adds the plan of the run, as text and as hyper-parameters.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the file cannot be written to.
    pub(crate) fn introduce(&mut self, plan: &RunPlan) -> Result<(), TrainError> {
        let text = plan.to_toml()?;
        self.text("plan", &format!("```toml\n{text}```"))?;
        self.hyper_parameters(&hyper_parameters(&text))
    }

    /// Adds a text, which is shown as Markdown.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the file cannot be written to.
    fn text(&mut self, tag: &str, text: &str) -> Result<(), TrainError> {
        // `tensor { dtype: DT_STRING, tensor_shape { dim { size: 1 } }, string_val }`.
        let shape = Message::new().message(2, Message::new().number(1, 1));
        let tensor = Message::new().number(1, 7).message(2, shape).text(8, text);
        let plugin = Message::new().text(1, "text");
        let metadata = Message::new().message(1, plugin).number(4, 2);
        let value = Message::new().text(1, tag).message(8, tensor).message(9, metadata);
        self.write_now(0, Message::new().message(5, Message::new().message(1, value)))
    }

    /// Adds hyper-parameters, by name.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the file cannot be written to.
    fn hyper_parameters(&mut self, values: &[(String, toml::Value)]) -> Result<(), TrainError> {
        let mut session = Message::new();
        for (name, value) in values {
            let value = match value {
                toml::Value::Integer(value) => Message::new().double(2, *value as f64),
                toml::Value::Float(value) => Message::new().double(2, *value),
                toml::Value::Boolean(value) => Message::new().number(4, u64::from(*value)),
                toml::Value::String(value) => Message::new().text(3, value),
                other => Message::new().text(3, &other.to_string()),
            };
            session = session.message(1, Message::new().text(1, name).message(2, value));
        }
        let content = Message::new().number(1, 0).message(3, session);
        let plugin = Message::new().text(1, "hparams").message(2, content);
        let metadata = Message::new().message(1, plugin).number(4, 1);
        // An empty vector of floats.
        let shape = Message::new().message(2, Message::new().number(1, 0));
        let tensor = Message::new().number(1, 1).message(2, shape);
        let value = Message::new()
            .text(1, "_hparams_/session_start_info")
            .message(8, tensor)
            .message(9, metadata);
        self.write_now(0, Message::new().message(5, Message::new().message(1, value)))
    }

    /// Adds a picture.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the file cannot be written to.
    pub(crate) fn picture(
        &mut self,
        step: u64,
        tag: &str,
        picture: &Canvas,
    ) -> Result<(), TrainError> {
        let (width, height) = picture.sides();
        let image = Message::new()
            .number(1, u64::from(height))
            .number(2, u64::from(width))
            .number(3, 3)
            .bytes(4, &picture.png()?);
        let value = Message::new().text(1, tag).message(4, image);
        self.write_now(step, Message::new().message(5, Message::new().message(1, value)))
    }

    fn write_now(&mut self, step: u64, event: Message) -> Result<(), TrainError> {
        self.write(seconds(SystemTime::now()), step, event)
    }

    /// In one piece, so that a reader never sees a part of it for long.
    fn write(&mut self, time: f64, step: u64, event: Message) -> Result<(), TrainError> {
        let record = record(time, step, event);
        let written = self.open().and_then(|file| file.write_all(&record));
        written.map_err(|error| cannot_write(&self.folder, &error))
    }
}

/// An event as it stands in a file.
fn record(time: f64, step: u64, event: Message) -> Vec<u8> {
    let event = Message::new().double(1, time).number(2, step).and(event);
    let event = event.as_bytes();
    let length = (event.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(event);
    record.extend(masked_crc(event).to_le_bytes());
    record
}

/// The values of a plan, each under its key: `optimizer.learning_rate`.
pub(crate) fn hyper_parameters(plan: &str) -> Vec<(String, toml::Value)> {
    fn add(prefix: &str, table: toml::Table, values: &mut Vec<(String, toml::Value)>) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
            match value {
                toml::Value::Table(table) => add(&key, table, values),
                value => values.push((key, value)),
            }
        }
    }
    let mut values = Vec::new();
    let mut table: toml::Table = plan.parse().unwrap_or_default();
    table.remove("facts");
    add("", table, &mut values);
    values
}

fn cannot_write(path: &Path, source: &std::io::Error) -> TrainError {
    TrainError::checkpoint(CheckpointFault::CannotWriteMetrics, source.to_string(), path)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// The event files of a folder in the order in which they are read: by name.
fn event_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.contains("tfevents") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A name behind those of the earlier files, also where a clock was turned back.
fn next_name(folder: &Path, earlier: &[PathBuf]) -> PathBuf {
    let second = |path: &PathBuf| -> Option<u64> {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("events.out.tfevents.")?.split('.').next()?.parse().ok()
    };
    let last = earlier.iter().filter_map(second).max();
    let now = seconds(SystemTime::now()) as u64;
    let at = last.map_or(now, |last| now.max(last + 1));
    let host = host().unwrap_or_else(|| "localhost".to_owned());
    folder.join(format!("events.out.tfevents.{at:010}.{host}.{}.0", std::process::id()))
}

/// Cuts a file before the first record of a step beyond `done`, or that is not whole.
fn cut(path: &Path, done: u64) -> std::io::Result<()> {
    let bytes = fs::read(path)?;
    let mut kept = 0;
    for record in Records(&bytes) {
        if step_of(record).is_none_or(|step| step > done) {
            break;
        }
        kept += record.len() + 16;
    }
    if kept < bytes.len() {
        fs::OpenOptions::new().write(true).open(path)?.set_len(kept as u64)?;
    }
    Ok(())
}

/// The whole messages at the beginning of a file.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(12)?;
        let (length, crc) = head.split_at(8);
        let length = u64::from_le_bytes(length.try_into().ok()?);
        let (message, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let (message_crc, rest) = rest.split_at_checked(4)?;
        let is_whole = masked_crc(&head[..8]).to_le_bytes() == crc
            && masked_crc(message).to_le_bytes() == message_crc;
        self.0 = rest;
        is_whole.then_some(message)
    }
}

/// The step of an event: it is written behind the time, which takes nine bytes.
fn step_of(event: &[u8]) -> Option<u64> {
    let rest = event.get(9..)?;
    let Some((&0x10, varint)) = rest.split_first() else { return Some(0) };
    let mut step = 0;
    for (i, byte) in varint.iter().take(10).enumerate() {
        step |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some(step);
        }
    }
    None
}

/// Step, time and values of a line of metrics.
type Scalars<'a> = (u64, Option<&'a str>, Vec<(String, f64)>);

/// The curves that a line of metrics goes on with; absent for lines that are part of none.
pub(crate) fn scalars(metric: &Metric) -> Option<Scalars<'_>> {
    match metric {
        Metric::Train {
            step, epoch, loss, lr, grad_norm, images_per_sec, data_wait, time, ..
        } => {
            let values = [
                ("train/loss", loss),
                ("train/learning_rate", lr),
                ("train/gradient_norm", grad_norm),
                ("train/epoch", epoch),
                ("speed/images_per_second", images_per_sec),
                ("speed/data_wait", data_wait),
            ];
            let values = values.map(|(tag, value)| (tag.to_owned(), *value)).to_vec();
            Some((*step, time.as_deref(), values))
        }
        Metric::Eval { step, split, weights, loss, top1, top5, time, .. } => {
            let of = weights.as_ref().map_or(String::new(), |weights| format!("_{weights}"));
            let values = [("loss", loss), ("top1", top1), ("top5", top5)];
            let values = values.map(|(name, value)| (format!("{split}{of}/{name}"), *value));
            Some((*step, time.as_deref(), values.to_vec()))
        }
        Metric::LossScale { step, factor } => {
            Some((*step, None, vec![("train/loss_scale".to_owned(), *factor)]))
        }
        Metric::Outlier { .. }
        | Metric::Diverged { .. }
        | Metric::Skipped { .. }
        | Metric::Unknown => None,
    }
}

/// CRC-32C (Castagnoli) by the byte.
const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// The checksum of a record, masked: a checksum of data that holds checksums would be weak.
fn masked_crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| crc >> 8 ^ CRC[((crc ^ u32::from(*byte)) & 0xff) as usize];
    let crc = !bytes.iter().fold(!0u32, step);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64) -> Metric {
        Metric::LossScale { step, factor: step as f64 }
    }

    fn steps(path: &Path) -> Vec<u64> {
        let bytes = std::fs::read(path).unwrap();
        let records: Vec<&[u8]> = Records(&bytes).collect();
        let whole: usize = records.iter().map(|record| record.len() + 16).sum();
        assert_eq!(whole, bytes.len(), "nothing is left over");
        records.into_iter().map(|record| step_of(record).unwrap()).collect()
    }

    #[test]
    fn checksums_are_castagnolis() {
        // The check value of CRC-32C, masked.
        let unmasked = masked_crc(b"123456789").wrapping_sub(0xa282_ead8).rotate_left(15);
        assert_eq!(unmasked, 0xe306_9283);
    }

    #[test]
    fn a_run_that_goes_on_cuts_what_it_will_write_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tensorboard");
        let mut first = EventFile::new(folder.clone(), 0);
        first.text("plan", "seed = 0").unwrap();
        (1..=300).for_each(|step| first.metric(&line(step)).unwrap());
        let path = event_files(&folder).unwrap().remove(0);
        // Killed in the middle of a record.
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let mut second = EventFile::new(folder.clone(), 200);
        second.metric(&line(201)).unwrap();
        let files = event_files(&folder).unwrap();
        assert_eq!(files.len(), 2);
        let expected: Vec<u64> = [0, 0, 0].into_iter().chain(1..=200).collect();
        assert_eq!(steps(&files[0]), expected);
        assert_eq!(steps(&files[1]), [0, 201, 201]);
    }

    #[test]
    fn curves_have_tags() {
        let metric = Metric::Eval {
            step: 7,
            loss_kind: None,
            split: "val".to_owned(),
            weights: Some("average".to_owned()),
            loss: 0.5,
            top1: 0.25,
            top5: 1.0,
            n: 4,
            elapsed_secs: None,
            time: Some("2026-01-02T03:04:05Z".to_owned()),
        };
        let (step, time, values) = scalars(&metric).unwrap();
        assert_eq!((step, time), (7, Some("2026-01-02T03:04:05Z")));
        assert_eq!(values[1], ("val_average/top1".to_owned(), 0.25));
    }
}
