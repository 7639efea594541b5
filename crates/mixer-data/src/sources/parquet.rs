//! Pictures and labels in Parquet files, as Hugging Face stores data sets.
//!
//! A Parquet file is made to be read from front to back. The smallest part that can be unpacked is a
//! page, and what is in a page says its writer: about 1 MiB in the best case, but PyArrow puts up to
//! 1024 rows into one, so that a page is often a whole row group, a hundred pictures or a thousand.
//! Pages before the one that is wanted are stepped over, through the offset index where the file has
//! one. Unpacked pages are kept up to a limit, so that reading in order, as evaluation, inspection and
//! the writing of shards do, unpacks each once, and a small data set stays unpacked. Shuffled reading
//! of a large one unpacks a page for each picture: shards are the better form for that.

mod zstd_pages;

use std::collections::VecDeque;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use fs_err as fs;
use parquet::basic::{Compression, Type};
use parquet::column::page::PageReader;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader,
};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use serde_json::Value;

use crate::decode::error::DecodeError;
use crate::decode::options::{DecodeOptions, MAX_FILE_BYTES};
use crate::error::{DataError, Place};
use crate::foreign;
use crate::sources::fingerprint::Fingerprint;
use crate::sources::labels::{ClassList, DistinctLabels, Label, Meaning};
use crate::sources::letters::check_letters;
use crate::sources::passed_over::PassedOver;
use crate::sources::pattern::expand_pattern;
use crate::sources::read_at::ReadAt;
use crate::sources::source::{Example, Source};
use zstd_pages::ZstdPages;

/// Columns that hold labels, where the file does not say which one does.
const LABEL_COLUMNS: [&str; 3] = ["label", "fine_label", "labels"];

/// Rows of labels that are read at once.
const CHUNK_ROWS: usize = 4096;

/// Unpacked pages that are kept, bytes. The last one is kept even if it is larger.
const CACHE_BYTES: usize = 256 << 20;

/// The rows of Parquet files, each a picture and a label.
///
/// The picture is the column `bytes` in a struct (`image.bytes`), the label a column of whole
/// numbers or of text. Which columns these are, and the names of the classes, is taken from what
/// Hugging Face's `datasets` writes into the file; without that, there must be one such struct and a
/// column `label`, `fine_label` or `labels`.
///
/// Files may be uncompressed or packed with Zstandard, gzip, LZ4 or Snappy. Examples are in the order of the files and rows.
pub struct ParquetSource {
    tables: Vec<Table<fs::File>>,
    groups: Vec<Group>,
    labels: Vec<u32>,
    cache: PageCache,
    options: DecodeOptions,
    class_names: Vec<String>,
    fingerprint: u64,
}

/// A row group.
struct Group {
    /// Index of its first example.
    first: usize,
    table: usize,
    /// Its number in the table.
    number: usize,
}

/// One file.
pub(crate) struct Table<R> {
    path: PathBuf,
    file: Arc<Offsets<R>>,
    metadata: ParquetMetaData,
    /// Positions of the columns.
    image: usize,
    label: usize,
    /// Names of the classes, where the file has them.
    classes: Option<Vec<String>>,
    /// First rows of the pages of pictures in each row group.
    page_starts: Vec<OnceLock<Vec<usize>>>,
}

/// The files in the rows of a page. They share the memory of the page.
type Page = Vec<Option<ByteArray>>;

/// A page that some thread unpacks or has unpacked.
type Slot = Arc<OnceLock<Result<Page, DataError>>>;

/// The pages that were used last.
#[derive(Default)]
struct PageCache {
    /// By table, row group and number, those that were used last at the end.
    slots: Mutex<VecDeque<([usize; 3], Slot)>>,
}

impl PageCache {
    /// The page, which `unpack` unpacks if it is not there. Others who ask for it meanwhile wait.
    fn get(&self, key: [usize; 3], unpack: impl FnOnce() -> Result<Page, DataError>) -> Slot {
        let lock = || self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = {
            let mut slots = lock();
            let position = slots.iter().position(|(other, _)| *other == key);
            let entry = position.and_then(|position| slots.remove(position));
            let entry = entry.unwrap_or_else(|| (key, Slot::default()));
            let slot = Arc::clone(&entry.1);
            slots.push_back(entry);
            slot
        };
        if slot.get().is_none() {
            slot.get_or_init(unpack);
            let mut slots = lock();
            // What went wrong may go right the next time.
            slots.retain(|(_, slot)| !matches!(slot.get(), Some(Err(_))));
            let bytes = |slot: &Slot| match slot.get() {
                Some(Ok(page)) => page.iter().flatten().map(ByteArray::len).sum(),
                _ => 0,
            };
            let mut total: usize = slots.iter().map(|(_, slot)| bytes(slot)).sum();
            while total > CACHE_BYTES && slots.len() > 1 {
                total -= slots.pop_front().map_or(0, |(_, slot)| bytes(&slot));
            }
        }
        slot
    }
}

impl ParquetSource {
    /// Opens the files that a pattern names, `train-*.parquet`. `classes` are those of training,
    /// where there are some.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged, has no such columns or a row without a label, or
    /// when a label is not among the classes.
    pub fn open(
        pattern: impl AsRef<Path>,
        classes: Option<&[String]>,
        options: DecodeOptions,
    ) -> Result<Self, DataError> {
        let pattern = pattern.as_ref();
        let mut distinct = DistinctLabels::default();
        let (mut tables, mut groups, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        let mut own: Option<Vec<String>> = None;
        for path in expand_pattern(pattern)? {
            let file = fs::File::open(&path).map_err(DataError::io)?;
            let table = Table::open(file, &path)?;
            if own.is_some() && table.classes.is_some() && own != table.classes {
                let expected = "the class names of the first file";
                return Err(DataError::malformed(&path, Place::File, "other classes", expected));
            }
            own = own.or_else(|| table.classes.clone());
            for number in 0..table.metadata.num_row_groups() {
                groups.push(Group { first: ids.len(), table: tables.len(), number });
                for label in table.labels(number)? {
                    ids.push(distinct.id(label));
                }
            }
            tables.push(table);
        }
        if ids.is_empty() {
            return Err(DataError::no_examples(pattern, &PassedOver::default()));
        }
        // Numbers of a file that names its classes are names already.
        let list = match own {
            Some(names) => Some(ClassList { names, path: pattern.to_path_buf() }),
            None => ClassList::beside(pattern)?,
        };
        let Meaning { class_names, by_id } =
            Meaning::of(&distinct.into_labels(), list.as_ref(), classes)
                .map_err(|unknown| unknown.at(pattern, Place::File))?;
        let labels: Vec<u32> = ids.into_iter().map(|id| by_id[id as usize]).collect();
        check_letters(&class_names, pattern)?;
        let mut fingerprint = Fingerprint::new();
        fingerprint.string("parquet");
        for table in &tables {
            let name = table.path.file_name().and_then(|name| name.to_str());
            fingerprint.string(name.unwrap_or_default());
        }
        labels.iter().for_each(|&label| {
            fingerprint.number(u64::from(label));
        });
        Ok(Self {
            tables,
            groups,
            labels,
            cache: PageCache::default(),
            options,
            class_names,
            fingerprint: fingerprint.finish(),
        })
    }

    /// Number of the table, number of the row group in it, and row in that.
    fn locate(&self, index: usize) -> (usize, usize, usize) {
        assert!(index < self.labels.len(), "example {index} of {}", self.labels.len());
        // Groups without rows share their first example with the next.
        let group = &self.groups[self.groups.partition_point(|group| group.first <= index) - 1];
        (group.table, group.number, index - group.first)
    }
}

impl Source for ParquetSource {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    fn read(&self, index: usize) -> Result<Example, DataError> {
        let (number, group, row) = self.locate(index);
        let table = &self.tables[number];
        let (page, row) = table.page_of(group, row)?;
        let slot = self.cache.get([number, group, page], || table.unpack(group, page));
        let bytes = match slot.get() {
            Some(Ok(rows)) => rows.get(row).cloned().flatten(),
            Some(Err(error)) => return Err(error.clone()),
            None => None,
        };
        let Some(bytes) = bytes else {
            let expected = "the bytes of a picture";
            let first = self.groups.iter().find(|group| group.table == number);
            let row = index - first.map_or(0, |group| group.first);
            return Err(DataError::malformed(
                &table.path,
                Place::Row(row as u64),
                "nothing",
                expected,
            ));
        };
        let found = bytes.len() as u64;
        if found > MAX_FILE_BYTES {
            let reason = DecodeError::FileTooLarge { found, expected: MAX_FILE_BYTES };
            return Err(DataError::BadExample { example: self.describe(index), reason });
        }
        Ok(Example::Encoded(bytes.data().to_vec()))
    }

    fn decode_options(&self) -> DecodeOptions {
        self.options.clone()
    }

    fn describe(&self, index: usize) -> String {
        let (table, ..) = self.locate(index);
        let first = self.groups.iter().find(|group| group.table == table);
        let row = index - first.map_or(0, |group| group.first);
        format!("{}: row {row}", self.tables[table].path.display())
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl<R: ReadAt + 'static> Table<R> {
    /// Reads what the end of the file says about its content.
    pub(crate) fn open(file: R, path: &Path) -> Result<Self, DataError> {
        let size = file.size().map_err(DataError::io)?;
        let file = Arc::new(Offsets { file: Arc::new(file), size });
        let metadata = guarded(path, || {
            ParquetMetaDataReader::new()
                .with_offset_index_policy(PageIndexPolicy::Optional)
                .parse_and_finish(&*file)
        })?;
        let (image, label, classes) = columns(&metadata, path)?;
        for group in metadata.row_groups() {
            for column in [image, label] {
                let packing = group.columns().get(column).map(|column| column.compression());
                let Some(packing) = packing else {
                    let found = format!("no column {column} in a row group");
                    return Err(DataError::malformed(path, Place::File, found, "the same columns"));
                };
                if matches!(packing, Compression::LZO | Compression::BROTLI(_)) {
                    let name = packing.to_string();
                    let name = name.split('(').next().unwrap_or_default();
                    let found = format!("pages packed with {name}");
                    let expected = "Zstandard, gzip, LZ4, Snappy or no packing (with pandas: \
                                    `df.to_parquet(file, compression=\"zstd\")`)";
                    return Err(DataError::malformed(path, Place::File, found, expected));
                }
            }
        }
        let page_starts = (0..metadata.num_row_groups()).map(|_| OnceLock::new()).collect();
        Ok(Self { path: path.to_path_buf(), file, metadata, image, label, classes, page_starts })
    }

    /// The labels of a row group.
    pub(crate) fn labels(&self, group: usize) -> Result<Vec<Label>, DataError> {
        let rows = guarded(&self.path, || {
            let rows = self.metadata.row_group(group).num_rows();
            let pages = self.pages(group, self.label)?;
            Ok(match self.column(group, self.label, pages) {
                ColumnReader::Int32ColumnReader(column) => {
                    values(column, rows, |&label| Written::Number(i64::from(label)))?
                }
                ColumnReader::Int64ColumnReader(column) => {
                    values(column, rows, |&label| Written::Number(label))?
                }
                ColumnReader::BoolColumnReader(column) => {
                    values(column, rows, |&label| Written::Number(i64::from(label)))?
                }
                ColumnReader::FloatColumnReader(column) => {
                    values(column, rows, |&label| Written::of(f64::from(label)))?
                }
                ColumnReader::DoubleColumnReader(column) => {
                    values(column, rows, |&label| Written::of(label))?
                }
                ColumnReader::ByteArrayColumnReader(column) => values(column, rows, |label| {
                    Written::Text(String::from_utf8_lossy(label.data()).into_owned())
                })?,
                _ => return Err(ParquetError::General("labels of another type".to_owned())),
            })
        })?;
        let before: i64 =
            self.metadata.row_groups()[..group].iter().map(|group| group.num_rows()).sum();
        let refuse = |row: usize, found: String, expected: String| {
            let row = before.unsigned_abs() + row as u64;
            DataError::malformed(&self.path, Place::Row(row), found, expected)
        };
        let label = |(row, written)| match (written, &self.classes) {
            (None, _) => Err(refuse(row, "no label".to_owned(), "a label".to_owned())),
            (Some(Written::Text(text)), _) => Ok(Label::Name(text)),
            (Some(Written::Real(number)), _) => {
                Err(refuse(row, format!("label {number}"), "a whole number".to_owned()))
            }
            (Some(Written::Number(number)), None) => Label::position(number).ok_or_else(|| {
                refuse(row, format!("label {number}"), "a position, counted from 0".to_owned())
            }),
            (Some(Written::Number(number)), Some(classes)) => {
                let name = usize::try_from(number).ok().and_then(|at| classes.get(at));
                name.cloned().map(Label::Name).ok_or_else(|| {
                    // The test sets of competitions have -1 everywhere.
                    let expected = format!("one of the {} classes of the file", classes.len());
                    refuse(row, format!("label {number}"), expected)
                })
            }
        };
        rows.into_iter().enumerate().map(label).collect()
    }

    /// Number of the page that holds a row, and its place in it.
    pub(crate) fn page_of(&self, group: usize, row: usize) -> Result<(usize, usize), DataError> {
        let cell = &self.page_starts[group];
        let starts = match cell.get() {
            Some(starts) => starts,
            None => {
                let starts = guarded(&self.path, || self.walk_pages(group))?;
                cell.get_or_init(|| starts)
            }
        };
        let page = starts.partition_point(|&start| start <= row).saturating_sub(1);
        Ok((page, row - starts.get(page).copied().unwrap_or_default()))
    }

    /// The files in a page of a row group.
    pub(crate) fn unpack(&self, group: usize, page: usize) -> Result<Page, DataError> {
        let starts = self.page_starts[group].get().map(Vec::as_slice).unwrap_or_default();
        guarded(&self.path, || {
            let rows = usize::try_from(self.metadata.row_group(group).num_rows())?;
            let start = starts.get(page).copied().unwrap_or_default();
            let end = starts.get(page + 1).copied().unwrap_or(rows);
            let top =
                self.metadata.file_metadata().schema_descr().column(self.image).max_def_level();
            let pages = self.pages(group, self.image)?;
            let ColumnReader::ByteArrayColumnReader(mut column) =
                self.column(group, self.image, pages)
            else {
                return Err(ParquetError::General("pictures of another type".to_owned()));
            };
            column.skip_records(start)?;
            let mut found = Page::new();
            while found.len() < end.saturating_sub(start) {
                let (mut values, mut levels) = (Vec::new(), Vec::new());
                let at_most = (end - start - found.len()).min(CHUNK_ROWS);
                let (records, _, _) =
                    column.read_records(at_most, Some(&mut levels), None, &mut values)?;
                if records == 0 {
                    break;
                }
                let mut values = values.into_iter();
                // A column that must have values has no levels.
                let is_there =
                    (0..records).map(|at| levels.get(at).is_none_or(|&level| level == top));
                found.extend(is_there.map(|is_there| if is_there { values.next() } else { None }));
            }
            Ok(found)
        })
    }

    /// Steps over the pages of pictures in a row group, and gives the first row of each.
    fn walk_pages(&self, group: usize) -> Result<Vec<usize>, ParquetError> {
        let mut pages = self.pages(group, self.image)?;
        let (mut starts, mut row) = (Vec::new(), 0usize);
        while let Some(page) = pages.peek_next_page()? {
            if !page.is_dict {
                starts.push(row);
                // Without lists, rows and levels are the same.
                let rows = page.num_rows.or(page.num_levels);
                let end = rows.and_then(|rows| row.checked_add(rows));
                row = end.ok_or_else(|| ParquetError::General("a page without rows".to_owned()))?;
            }
            pages.skip_next_page()?;
        }
        Ok(starts)
    }

    /// The number of row groups.
    pub(crate) fn num_groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    /// The pages of one column in one row group, found through the offset index where there is one.
    fn pages(&self, group: usize, column: usize) -> Result<Box<dyn PageReader>, ParquetError> {
        let rows = usize::try_from(self.metadata.row_group(group).num_rows())?;
        let chunk = self.metadata.row_group(group).column(column);
        let index = self.metadata.page_index_for_row_group(group);
        let pages = |chunk: &ColumnChunkMetaData| {
            let locations = index.page_locations(column).cloned();
            SerializedPageReader::new(Arc::clone(&self.file), chunk, rows, locations)
        };
        if !matches!(chunk.compression(), Compression::ZSTD(_)) {
            return Ok(Box::new(pages(chunk)?));
        }
        let most = u64::try_from(chunk.uncompressed_size())?;
        let as_they_are =
            chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
        Ok(Box::new(ZstdPages::new(pages(&as_they_are)?, most)))
    }

    /// A reader of the values in pages of a column.
    fn column(&self, group: usize, column: usize, pages: Box<dyn PageReader>) -> ColumnReader {
        let description = self.metadata.row_group(group).schema_descr().column(column);
        get_column_reader(description, pages)
    }
}

/// Value in a column of labels.
enum Written {
    Number(i64),
    /// A number that is not whole.
    Real(f64),
    Text(String),
}

impl Written {
    /// A number that some programs write with a fraction, even if it is whole.
    fn of(number: f64) -> Self {
        // Larger ones are no positions.
        match number.fract() == 0.0 && number.abs() < 1e15 {
            true => Self::Number(number as i64),
            false => Self::Real(number),
        }
    }
}

/// Reads a column; `None` where it has no value.
fn values<T: DataType>(
    mut column: ColumnReaderImpl<T>,
    rows: i64,
    written: impl Fn(&T::T) -> Written,
) -> Result<Vec<Option<Written>>, ParquetError> {
    let rows = usize::try_from(rows)?;
    let mut found = Vec::new();
    while found.len() < rows {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let at_most = (rows - found.len()).min(CHUNK_ROWS);
        let (records, _, _) = column.read_records(at_most, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            return Err(ParquetError::General(format!("{} of {rows} labels", found.len())));
        }
        let mut values = values.iter().map(&written);
        // A column that must have values has no levels, and an optional one has level 1 for them.
        let is_there = (0..records).map(|at| levels.get(at).is_none_or(|&level| level > 0));
        found.extend(is_there.map(|is_there| if is_there { values.next() } else { None }));
    }
    Ok(found)
}

/// Columns of pictures and labels, and the names of the classes.
fn columns(
    metadata: &ParquetMetaData,
    path: &Path,
) -> Result<(usize, usize, Option<Vec<String>>), DataError> {
    let file = metadata.file_metadata();
    let features = file
        .key_value_metadata()
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface"))
        .and_then(|pair| serde_json::from_str::<Value>(pair.value.as_deref()?).ok())
        .map(|value| value["info"]["features"].clone());
    let has_type = |name: &str, kind: &str| {
        features.as_ref().is_some_and(|features| features[name]["_type"] == kind)
    };

    let mut images = Vec::new();
    let mut labels = Vec::new();
    let mut names = Vec::new();
    for (at, column) in file.schema_descr().columns().iter().enumerate() {
        let parts = column.path().parts();
        names.push(column.path().string());
        if column.max_rep_level() != 0 {
            continue;
        }
        match parts {
            [name, bytes] if bytes == "bytes" && column.physical_type() == Type::BYTE_ARRAY => {
                images.push((!has_type(name, "Image"), at));
            }
            [name]
                if matches!(
                    column.physical_type(),
                    Type::INT32
                        | Type::INT64
                        | Type::BYTE_ARRAY
                        | Type::BOOLEAN
                        | Type::FLOAT
                        | Type::DOUBLE
                ) =>
            {
                let known = LABEL_COLUMNS.iter().position(|known| known == name);
                if known.is_some() || has_type(name, "ClassLabel") {
                    // The usual names first, and then columns that say what they are.
                    labels.push((known.unwrap_or(LABEL_COLUMNS.len()), at, name.clone()));
                }
            }
            _ => {}
        }
    }
    let refuse = |expected: &str| {
        let found = format!("columns {}", names.join(", "));
        DataError::malformed(path, Place::File, found, expected)
    };
    images.sort_unstable();
    labels.sort_unstable();
    let image = match images[..] {
        [(_, at)] | [(false, at), (true, _), ..] => at,
        [] => return Err(refuse("one like `image.bytes`")),
        _ => return Err(refuse("a single one like `image.bytes`")),
    };
    let label = match &labels[..] {
        [] => return Err(refuse("one called `label`")),
        [(first, ..), (second, ..), ..] if first == second => {
            return Err(refuse("one called `label`, as there are several of labels"));
        }
        [label, ..] => label,
    };
    let (_, label, name) = label;
    let classes = features
        .as_ref()
        .and_then(|features| features[name.as_str()]["names"].as_array())
        .and_then(|names| {
            names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        })
        .filter(|classes| !classes.is_empty());
    Ok((image, *label, classes))
}

/// Calls the Parquet reader, whose errors are without a path, and which panics on some damage.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let found = match foreign::guarded(read) {
        Some(Ok(value)) => return Ok(value),
        Some(Err(error)) => one_line(&error.to_string()),
        None => "damage that its reader did not expect".to_owned(),
    };
    Err(DataError::malformed(path, Place::File, found, "a whole Parquet file"))
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// A file that is read at offsets. The reader of `std::fs::File` that comes with Parquet shares one
/// position between all threads.
struct Offsets<R> {
    file: Arc<R>,
    size: u64,
}

/// Reads on from an offset.
pub(crate) struct From<R> {
    file: Arc<R>,
    at: u64,
    size: u64,
}

impl<R: ReadAt> Read for From<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = (self.size.saturating_sub(self.at)).min(buffer.len() as u64) as usize;
        self.file.read_exact_at(&mut buffer[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: ReadAt> Length for Offsets<R> {
    fn len(&self) -> u64 {
        self.size
    }
}

impl<R: ReadAt + 'static> ChunkReader for Offsets<R> {
    type T = BufReader<From<R>>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let reader = From { file: Arc::clone(&self.file), at: start, size: self.size };
        // Only headers of pages are read like this.
        Ok(BufReader::with_capacity(1024, reader))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(ParquetError::EOF(format!(
                "{length} bytes at byte {start} of a file of {} bytes",
                self.size
            )));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(Bytes::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use parquet::data_type::{ByteArrayType, Int64Type};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use proptest::prelude::*;

    use super::*;

    const SCHEMA: &str = "message schema {
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional int64 label;
    }";

    const FEATURES: &str = r#"{"info": {"features": {
        "image": {"_type": "Image"},
        "label": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}
    }}}"#;

    fn picture(row: usize) -> Vec<u8> {
        vec![row as u8; 50 + row * 7 % 400]
    }

    /// A file of row groups with `rows` rows each; `label` says which label a row has, if any.
    fn parquet(
        rows: &[usize],
        features: Option<&str>,
        label: impl Fn(usize) -> Option<i64>,
    ) -> Vec<u8> {
        let metadata =
            features.map(|text| vec![KeyValue::new("huggingface".to_owned(), text.to_owned())]);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(metadata)
            .set_data_page_size_limit(2000)
            .set_write_batch_size(4)
            .set_dictionary_page_size_limit(1000)
            .build();
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let mut writer =
            SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
        let mut first = 0;
        for &rows in rows {
            let mut group = writer.next_row_group().unwrap();
            let range = first..first + rows;
            first += rows;
            let bytes: Vec<ByteArray> = range.clone().map(|row| picture(row).into()).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column
                .typed::<ByteArrayType>()
                .write_batch(&bytes, Some(&vec![2; rows]), None)
                .unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![1; rows]), None).unwrap();
            column.close().unwrap();
            let labels: Vec<i64> = range.clone().filter_map(&label).collect();
            let levels: Vec<i16> = range.map(|row| i16::from(label(row).is_some())).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&labels, Some(&levels), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.into_inner().unwrap()
    }

    fn third(row: usize) -> Option<i64> {
        Some(row as i64 % 3)
    }

    #[test]
    fn rows_are_read_in_any_order_from_several_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("t-0.parquet"), parquet(&[100, 30], Some(FEATURES), third))
            .unwrap();
        fs::write(folder.path().join("t-1.parquet"), parquet(&[50], Some(FEATURES), third))
            .unwrap();
        let pattern = folder.path().join("t-*.parquet");
        let source = ParquetSource::open(&pattern, None, DecodeOptions::default()).unwrap();
        assert_eq!(source.len(), 180);
        assert_eq!(source.class_names(), ["ant", "bee", "cow"]);
        for index in [0, 99, 100, 129, 130, 179, 57, 3] {
            let row = if index < 130 { index } else { index - 130 };
            assert_eq!(source.read(index).unwrap(), Example::Encoded(picture(row)), "{index}");
            assert_eq!(source.label(index), row as u32 % 3);
        }
        assert!(source.describe(101).ends_with("t-0.parquet: row 101"));

        let classes = ["cow", "bee", "ant"].map(String::from);
        let mapped = ParquetSource::open(&pattern, Some(&classes), DecodeOptions::default());
        assert_eq!(mapped.unwrap().label(0), 2);
    }

    #[test]
    fn files_of_pyarrow_are_read_however_they_are_packed() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parquet"));
        for name in ["none", "snappy", "gzip", "lz4", "zstd", "zstd_v2"] {
            let path = folder.join(format!("{name}.parquet"));
            let source = ParquetSource::open(&path, None, DecodeOptions::default()).unwrap();
            assert_eq!(source.class_names(), ["0", "1", "2"], "{name}");
            for row in (0..source.len()).rev() {
                let picture = format!("picture {row} ").repeat(40).into_bytes();
                assert_eq!(source.read(row).unwrap(), Example::Encoded(picture), "{name} {row}");
                assert_eq!(source.label(row), row as u32 % 3);
            }
            assert_eq!(source.len(), 20);
        }
        let path = folder.join("brotli.parquet");
        let error = ParquetSource::open(&path, None, DecodeOptions::default()).err().unwrap();
        let expected = "found pages packed with BROTLI, expected Zstandard, gzip, LZ4, Snappy or no packing (with pandas:";
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[test]
    fn without_names_labels_are_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        fs::write(&path, parquet(&[9], None, third)).unwrap();
        let source = ParquetSource::open(&path, None, DecodeOptions::default()).unwrap();
        assert_eq!(source.class_names(), ["0", "1", "2"]);
        assert_eq!(source.label(5), 2);
    }

    #[test]
    fn files_that_cannot_be_used_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let error = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = ParquetSource::open(&path, None, DecodeOptions::default()).err().unwrap();
            error.to_string().replace(&path.display().to_string(), "P")
        };
        let good = parquet(&[20], Some(FEATURES), third);
        assert_eq!(
            error(&parquet(&[9], Some(FEATURES), |row| Some(row as i64 - 1))),
            "found label -1 in row 0, expected one of the 3 classes of the file: P"
        );
        assert_eq!(
            error(&parquet(&[3, 9], None, |row| (row != 7).then_some(1))),
            "found no label in row 7, expected a label: P"
        );
        assert_eq!(error(&parquet(&[], None, third)), "found no example, expected at least one: P");
        for broken in [&good[..good.len() - 9], b"PAR1", b"", &good[20..]] {
            let error = error(broken);
            assert!(error.ends_with(", expected a whole Parquet file: P"), "{error}");
        }
    }

    /// Everything that opening and reading a file does.
    fn read_all(bytes: Vec<u8>) -> Result<usize, DataError> {
        crate::internals::read_parquet(bytes)
    }

    #[test]
    fn a_damaged_byte_is_an_error_or_another_picture_and_no_panic() {
        let good = parquet(&[12, 5], Some(FEATURES), third);
        assert_eq!(read_all(good.clone()).unwrap(), 17);
        let zstd = include_bytes!("../../tests/fixtures/parquet/zstd.parquet").to_vec();
        assert_eq!(read_all(zstd.clone()).unwrap(), 20);
        for good in [good, zstd] {
            for at in (0..good.len()).step_by(3) {
                let mut bytes = good.clone();
                bytes[at] ^= 0x41;
                let _outcome = read_all(bytes);
            }
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = read_all(bytes.clone());
            let length = (bytes.len() as u32).to_le_bytes();
            let _outcome = read_all([b"PAR1", &bytes[..], &length, b"PAR1"].concat());
        }
    }
}
