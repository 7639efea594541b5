//! Pictures that a file lists, with their labels.

mod columns;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::decode::options::DecodeOptions;
use crate::decode::read::read_file;
use crate::error::{DataError, Place};
use crate::sources::fingerprint::Fingerprint;
use crate::sources::labels::{
    BYTE_ORDER_MARK, ClassList, DistinctLabels, Label, Meaning, number_in,
};
use crate::sources::letters::check_letters;
use crate::sources::passed_over::PassedOver;
use crate::sources::picture_files::PictureFiles;
use crate::sources::source::{Example, Source};
use columns::{Columns, name_of, separator};

/// The largest file of labels or synsets, bytes. Lists with paths are read as a stream instead.
const MAX_LABELS_BYTES: u64 = 64 << 20;

/// Pictures and labels of a list, or the pictures of a flat folder with a list of labels.
///
/// A list has one picture per line: its path, relative to the folder of the list, and its label. The
/// columns are separated by tabs, commas, semicolons, bars or spaces, whichever the first line has (in this
/// order), and may be quoted. A first line that names columns `path` and `label`, or has other usual words
/// for them, may have others too. Labels are
/// class names, sorted, or numbers from 0 on, which a file `classes.txt` beside the list names, see
/// [`crate::read_class_names`].
///
/// The order is that of the list. Paths take their length and eight bytes each in memory.
pub struct ListSource {
    root: PathBuf,
    options: DecodeOptions,
    class_names: Vec<String>,
    paths: Paths,
    labels: Vec<u32>,
    passed_over: PassedOver,
    fingerprint: u64,
}

/// Many paths in one allocation.
#[derive(Default)]
struct Paths {
    text: String,
    /// End of each path in `text`.
    ends: Vec<u32>,
}

impl Paths {
    /// Adds a path, unless there is no more room.
    fn push(&mut self, path: &str, suffix: &str) -> Option<()> {
        self.text.push_str(path);
        self.text.push_str(suffix);
        self.ends.push(u32::try_from(self.text.len()).ok()?);
        Some(())
    }

    fn get(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.text[start..self.ends[index] as usize]
    }
}

/// Contents of a list.
#[derive(Default)]
pub(crate) struct List {
    paths: Paths,
    /// Number of each label in `distinct`.
    ids: Vec<u32>,
    distinct: Vec<Label>,
    /// Line in which each different label stands first.
    lines: Vec<u64>,
    /// Files beside pictures that no list names.
    passed_over: PassedOver,
}

impl ListSource {
    /// Opens a list. `classes` are those of training, where there are some; `root` is the folder
    /// that paths are relative to, where it is not the list's.
    ///
    /// A list of one column has labels and no paths. Then it belongs to the pictures of the folder
    /// that is named as it is without its ending, `val/` for `val.txt`, see
    /// [`open_flat`](Self::open_flat); `synsets.txt` beside it is used where it exists.
    ///
    /// # Errors
    /// When the list cannot be read, a line has no path or label, or a label is not among `classes`.
    pub fn open(
        list: impl AsRef<Path>,
        root: Option<&Path>,
        classes: Option<&[String]>,
        options: DecodeOptions,
    ) -> Result<Self, DataError> {
        let path = list.as_ref();
        let beside = path.parent().unwrap_or(Path::new(""));
        let mut reader =
            BufReader::with_capacity(1 << 16, fs::File::open(path).map_err(DataError::io)?);
        let Some(separator) = separator(reader.fill_buf().map_err(DataError::io)?) else {
            let synsets = beside.join("synsets.txt");
            let synsets = synsets.is_file().then_some(synsets.as_path());
            return Self::open_flat(path.with_extension(""), path, synsets, classes, options);
        };
        let root = root.unwrap_or(beside);
        let list = parse_list(reader, separator, |file| root.join(file).is_file(), path)?;
        Self::new(root, path, list, classes, options)
    }

    /// Opens the pictures of a folder without class folders, whose labels are the lines of `truth`
    /// in the order of the sorted file names: the validation set of ILSVRC 2012 as it is shipped.
    ///
    /// Labels are class names (`n01440764`) or numbers from 0 on, which `classes.txt` names. The numbers from 1 on of
    /// `ILSVRC2012_validation_ground_truth.txt` are neither: they follow the order of the
    /// challenge and not that of the sorted names, and need `synsets`, a file with a name and its
    /// number per line (`n02119789 1`, and anything behind it).
    ///
    /// # Errors
    /// When a file cannot be read, there are not as many labels as pictures, or a label means
    /// nothing.
    pub fn open_flat(
        folder: impl AsRef<Path>,
        truth: impl AsRef<Path>,
        synsets: Option<&Path>,
        classes: Option<&[String]>,
        options: DecodeOptions,
    ) -> Result<Self, DataError> {
        let (folder, truth) = (folder.as_ref(), truth.as_ref());
        if !folder.is_dir() {
            return Err(DataError::NoSuchDirectory { path: folder.to_path_buf() });
        }
        let PictureFiles { names: files, passed_over } = PictureFiles::below(folder, "")?;
        let mut list = parse_labels(&read_text(truth)?, truth)?;
        if files.len() != list.ids.len() {
            let found = format!("{} labels", list.ids.len());
            let expected = format!("{}, one for each picture of {}", files.len(), folder.display());
            return Err(DataError::malformed(truth, Place::File, found, expected));
        }
        if let Some(synsets) = synsets {
            list.number_synsets(&parse_synsets(&read_text(synsets)?, synsets)?, truth)?;
        } else {
            list.refuse_ilsvrc_numbers(classes, truth)?;
        }
        list.passed_over = passed_over;
        for (file, line) in files.iter().zip(1..) {
            list.paths.push(file, "").ok_or_else(|| too_long(truth, line))?;
        }
        Self::new(folder, truth, list, classes, options)
    }

    /// The path of an example.
    pub fn path(&self, index: usize) -> PathBuf {
        self.root.join(self.paths.get(index))
    }

    fn new(
        root: &Path,
        path: &Path,
        list: List,
        classes: Option<&[String]>,
        options: DecodeOptions,
    ) -> Result<Self, DataError> {
        if list.ids.is_empty() {
            return Err(DataError::no_examples(path, &list.passed_over));
        }
        let numbers = ClassList::beside(path)?;
        let Meaning { class_names, by_id } = Meaning::of(&list.distinct, numbers.as_ref(), classes)
            .map_err(|unknown| {
                let line = list.lines[unknown.id as usize];
                unknown.at(path, Place::Line(line))
            })?;
        let labels: Vec<u32> = list.ids.iter().map(|&id| by_id[id as usize]).collect();
        check_letters(&class_names, path)?;
        let mut fingerprint = Fingerprint::new();
        for (index, &label) in labels.iter().enumerate() {
            fingerprint.string(list.paths.get(index)).number(u64::from(label));
        }
        Ok(Self {
            root: root.to_path_buf(),
            options,
            class_names,
            paths: list.paths,
            labels,
            passed_over: list.passed_over,
            fingerprint: fingerprint.finish(),
        })
    }
}

impl Source for ListSource {
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
        read_file(&self.path(index)).map(Example::Encoded)
    }

    fn decode_options(&self) -> DecodeOptions {
        self.options.clone()
    }

    fn describe(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }

    fn passed_over(&self) -> PassedOver {
        self.passed_over.clone()
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl List {
    /// Replaces numbers of the challenge by the names that `synsets` gives them.
    fn number_synsets(
        &mut self,
        synsets: &HashMap<u32, String>,
        path: &Path,
    ) -> Result<(), DataError> {
        for (label, &line) in self.distinct.iter_mut().zip(&self.lines) {
            let number = number_of(label);
            let name = number.and_then(|number| synsets.get(&number)).cloned();
            *label = name.map(Label::Name).ok_or_else(|| {
                let expected = format!("one of the {} numbers of the synsets", synsets.len());
                DataError::malformed(path, Place::Line(line), format!("label `{label}`"), expected)
            })?;
        }
        Ok(())
    }

    /// Labels from 1 to the number of classes are those of the challenge. Taken for positions, all
    /// of them would be wrong, and nothing would show it.
    fn refuse_ilsvrc_numbers(
        &self,
        classes: Option<&[String]>,
        path: &Path,
    ) -> Result<(), DataError> {
        let numbers: Option<Vec<u32>> = self.distinct.iter().map(number_of).collect();
        let numbers = numbers.unwrap_or_default();
        let num_classes = classes.map_or(1000, <[String]>::len) as u32;
        if numbers.iter().min() == Some(&1) && numbers.iter().max() == Some(&num_classes) {
            let found = format!("labels from 1 to {num_classes}");
            let expected = "class names, labels from 0 on, or a `synsets.txt` that names them";
            return Err(DataError::malformed(path, Place::File, found, expected));
        }
        Ok(())
    }

    /// Adds a line.
    fn push(
        &mut self,
        record: &csv::StringRecord,
        columns: &Columns,
        separator: u8,
        distinct: &mut DistinctLabels,
        path: &Path,
    ) -> Result<(), DataError> {
        let line = record.position().map_or(0, csv::Position::line);
        let refuse = |found: String, expected: String| {
            Err(DataError::malformed(path, Place::Line(line), found, expected))
        };
        if record.len() != columns.count {
            let found = format!("{} columns", record.len());
            let (count, by) = (columns.count, name_of(separator));
            return refuse(found, format!("{count} as in the first line, separated by {by}"));
        }
        let (file, mut label) = (&record[columns.path], &record[columns.label]);
        if columns.is_kaggle {
            // The class, and then boxes.
            label = label.split_ascii_whitespace().next().unwrap_or_default();
        }
        for (what, text) in [("path", file), ("label", label)] {
            if text.is_empty() {
                return refuse(format!("an empty {what}"), "a path and a label".to_owned());
            }
        }
        let suffix = if columns.is_kaggle { ".JPEG" } else { "" };
        self.paths.push(file, suffix).ok_or_else(|| too_long(path, line))?;
        self.push_label(label, line, distinct);
        Ok(())
    }

    fn push_label(&mut self, text: &str, line: u64, distinct: &mut DistinctLabels) {
        let id = distinct.id(Label::Either(text.to_owned()));
        if id as usize == self.lines.len() {
            self.lines.push(line);
        }
        self.ids.push(id);
    }
}

fn number_of(label: &Label) -> Option<u32> {
    match label {
        Label::Either(text) => number_in(text).and_then(|number| number.try_into().ok()),
        Label::Name(_) | Label::Position(_) => None,
    }
}

/// Reads a list with paths and labels; `is_file` says whether one of its paths leads to a file.
pub(crate) fn parse_list(
    reader: impl Read,
    separator: u8,
    is_file: impl Fn(&str) -> bool,
    path: &Path,
) -> Result<List, DataError> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator)
        .trim(csv::Trim::All)
        .from_reader(reader);
    let mut next = || {
        let mut record = csv::StringRecord::new();
        match reader.read_record(&mut record) {
            Ok(is_there) => Ok(is_there.then_some(record)),
            Err(error) => Err(csv_error(error, path)),
        }
    };
    let mut list = List::default();
    let mut distinct = DistinctLabels::default();
    let Some(first) = next()? else { return Ok(list) };
    let mut second = next()?;
    let columns = Columns::of(&first, second.as_ref(), separator, is_file, path)?;
    let mut record = if columns.has_header { second.take() } else { Some(first) };
    while let Some(found) = record {
        list.push(&found, &columns, separator, &mut distinct, path)?;
        record = match second.take() {
            Some(second) => Some(second),
            None => next()?,
        };
    }
    list.distinct = distinct.into_labels();
    Ok(list)
}

/// Reads a label per line.
pub(crate) fn parse_labels(text: &str, path: &Path) -> Result<List, DataError> {
    let mut list = List::default();
    let mut distinct = DistinctLabels::default();
    for (label, line) in text.trim_end().lines().map(str::trim).zip(1..) {
        if label.is_empty() {
            let place = Place::Line(line);
            return Err(DataError::malformed(path, place, "an empty line", "a label"));
        }
        list.push_label(label, line, &mut distinct);
    }
    list.distinct = distinct.into_labels();
    Ok(list)
}

/// Reads lines of a name and its number in the challenge.
pub(crate) fn parse_synsets(text: &str, path: &Path) -> Result<HashMap<u32, String>, DataError> {
    let mut synsets = HashMap::new();
    for (content, line) in text.trim_end().lines().zip(1..) {
        let mut words = content.split_ascii_whitespace();
        let entry = words.next().zip(words.next().and_then(|number| number.parse().ok()));
        let refuse = |found: String, expected| {
            Err(DataError::malformed(path, Place::Line(line), found, expected))
        };
        let Some((name, number)) = entry else {
            let start: String = content.chars().take(40).collect();
            return refuse(format!("`{start}`"), "a name and its number, as `n02119789 1`");
        };
        if synsets.insert(number, name.to_owned()).is_some() {
            return refuse(format!("number {number} again"), "different numbers");
        }
    }
    Ok(synsets)
}

/// Tries every parser of this file, for tests.
pub(crate) fn parse_any(bytes: &[u8], path: &Path) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let parsed = parse_list(bytes, separator(bytes).unwrap_or(b','), |_| false, path)
        .and_then(|list| ListSource::new(path, path, list, None, DecodeOptions::default()));
    let labels = parse_labels(&text, path).is_ok();
    parsed.is_ok() | labels | parse_synsets(&text, path).is_ok()
}

fn read_text(path: &Path) -> Result<String, DataError> {
    let found = fs::metadata(path).map_err(DataError::io)?.len();
    if found > MAX_LABELS_BYTES {
        let expected = format!("at most {MAX_LABELS_BYTES} bytes of labels");
        return Err(DataError::malformed(path, Place::File, format!("{found} bytes"), expected));
    }
    let text = fs::read_to_string(path).map_err(DataError::io)?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).map(str::to_owned).unwrap_or(text))
}

fn too_long(path: &Path, line: u64) -> DataError {
    DataError::malformed(path, Place::Line(line), "more than 4 GiB of paths", "a shorter list")
}

fn csv_error(error: csv::Error, path: &Path) -> DataError {
    let place = error.position().map_or(Place::File, |position| Place::Line(position.line()));
    match error.into_kind() {
        csv::ErrorKind::Io(error) => DataError::io(error),
        csv::ErrorKind::Utf8 { .. } => {
            DataError::malformed(path, place, "what is no text", "a list in UTF-8")
        }
        _ => DataError::malformed(path, place, "a broken line", "a path and a label"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sources::labels::CLASSES_FILE;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn open(content: &str, classes: Option<&[String]>) -> Result<ListSource, DataError> {
        let folder = folder_with(&[("list.csv", content)]);
        ListSource::open(folder.path().join("list.csv"), None, classes, DecodeOptions::default())
    }

    fn examples(source: &ListSource) -> Vec<(String, String)> {
        let example = |index: usize| {
            let path = source.path(index);
            let class = &source.class_names()[source.label(index) as usize];
            (path.strip_prefix(&source.root).unwrap().display().to_string(), class.clone())
        };
        (0..source.len()).map(example).collect()
    }

    #[test]
    fn every_spelling_of_a_list_means_the_same() {
        let expected = [("a/1.jpg", "dog"), ("a b.jpg", "ant"), ("c.jpg", "dog")]
            .map(|(path, class)| (path.to_owned(), class.to_owned()));
        for content in [
            "a/1.jpg,dog\na b.jpg,ant\nc.jpg,dog\n",
            "path,label\r\na/1.jpg,dog\r\n\"a b.jpg\",ant\r\nc.jpg,dog",
            "\u{feff}path\tlabel\na/1.jpg\tdog\na b.jpg\tant\nc.jpg\tdog",
            "id,label,path\n1,dog,a/1.jpg\n2,ant,a b.jpg\n3,dog,c.jpg\n",
            "a/1.jpg dog\n\"a b.jpg\" ant\n\nc.jpg dog\n",
            "File Name;Species\na/1.jpg;dog\na b.jpg;ant\nc.jpg;dog\n",
        ] {
            let source = open(content, None).unwrap();
            assert_eq!(source.class_names(), ["ant", "dog"]);
            assert_eq!(examples(&source), expected, "{content}");
        }
        let numbers = open("a/1.jpg 1\nb.jpg 0\n", Some(&["0".into(), "2".into(), "1".into()]));
        let numbers = numbers.unwrap();
        assert_eq!((numbers.label(0), examples(&numbers)[0].1.as_str()), (2, "1"));
    }

    #[test]
    fn numbers_mean_the_classes_of_the_file_beside_the_list() {
        let folder =
            folder_with(&[("list.csv", "a.jpg,1\nb.jpg,0\n"), (CLASSES_FILE, "dog\nant\n")]);
        let open = |classes: Option<&[String]>| {
            let path = folder.path().join("list.csv");
            ListSource::open(path, None, classes, DecodeOptions::default()).unwrap()
        };
        assert_eq!(open(None).class_names(), ["dog", "ant"]);
        let known = ["ant", "bee", "dog"].map(String::from);
        for source in [open(None), open(Some(&known))] {
            assert_eq!(examples(&source).concat_classes(), "a.jpg ant b.jpg dog");
        }
    }

    #[test]
    fn the_list_that_kaggle_ships_is_understood() {
        let content = "ImageId,PredictionString\nILSVRC2012_val_00048981,n03995372 85 1 499 272 \n";
        let source = open(content, Some(&["n0".into(), "n03995372".into()])).unwrap();
        assert_eq!(
            examples(&source),
            [("ILSVRC2012_val_00048981.JPEG".to_owned(), "n03995372".to_owned())]
        );
    }

    #[test]
    fn broken_lists_are_refused_with_their_line() {
        let classes = ["ant", "bee"].map(String::from);
        for (content, message) in [
            (
                "a.jpg,ant,x\n",
                "found 3 columns separated by commas without a header in line 1, expected a path and a label, or a header with `path` and `label`: LIST",
            ),
            (
                "a.jpg,ant\nb.jpg\n",
                "found 1 columns in line 2, expected 2 as in the first line, separated by commas: LIST",
            ),
            (
                "a.jpg,ant\nb.jpg,cow\n",
                "found label `cow` in line 2, expected one of the 2 known classes: LIST",
            ),
            (
                "path,label\n,ant\n",
                "found an empty path in line 2, expected a path and a label: LIST",
            ),
            ("a.jpg,\n", "found an empty label in line 1, expected a path and a label: LIST"),
            ("path,label\n", "found no example, expected at least one: LIST"),
        ] {
            let folder = folder_with(&[("list.csv", content)]);
            let path = folder.path().join("list.csv");
            let outcome = ListSource::open(&path, None, Some(&classes), DecodeOptions::default());
            let found = outcome.err().unwrap().to_string();
            assert_eq!(found.replace(&path.display().to_string(), "LIST"), message);
        }
        let error =
            parse_list(&b"a.jpg,\xff\n"[..], b',', |_| false, Path::new("LIST")).err().unwrap();
        assert_eq!(
            error.to_string(),
            "found what is no text in line 1, expected a list in UTF-8: LIST"
        );
    }

    #[test]
    fn the_validation_set_of_ilsvrc_is_read_as_it_is_shipped() {
        let classes = ["n01", "n02", "n03"].map(String::from);
        let open = |truth: &str, synsets: Option<&str>| {
            let folder = folder_with(&[
                ("val/v_3.JPEG", ""),
                ("val/v_1.JPEG", ""),
                ("val/v_2.JPEG", ""),
                ("val.txt", truth),
            ]);
            if let Some(synsets) = synsets {
                fs::write(folder.path().join("synsets.txt"), synsets).unwrap();
            }
            let path = folder.path().join("val.txt");
            ListSource::open(&path, None, Some(&classes), DecodeOptions::default())
                .map(|source| examples(&source).concat_classes())
                .map_err(|error| {
                    error.to_string().replace(&folder.path().display().to_string(), "DATA")
                })
        };
        assert_eq!(
            open("n03\nn01\nn02\n", None).unwrap(),
            "v_1.JPEG n03 v_2.JPEG n01 v_3.JPEG n02"
        );
        assert!(open("2\n0\n1\n", None).unwrap_err().contains("nothing that says which class"));
        // In the challenge's own order, 1 is n02 here.
        let synsets = "n02 1 kit_fox\nn03 2 English_setter\nn01 3 Siberian_husky\n";
        assert_eq!(
            open("1\n3\n2\n", Some(synsets)).unwrap(),
            "v_1.JPEG n02 v_2.JPEG n01 v_3.JPEG n03"
        );
        for (truth, synsets, message) in [
            (
                "1\n3\n2\n",
                None,
                "found labels from 1 to 3, expected class names, labels from 0 on, or a `synsets.txt` that names them: DATA/val.txt",
            ),
            (
                "1\n2\n",
                None,
                "found 2 labels, expected 3, one for each picture of DATA/val: DATA/val.txt",
            ),
            (
                "1\n4\n2\n",
                Some(synsets),
                "found label `4` in line 2, expected one of the 3 numbers of the synsets: DATA/val.txt",
            ),
            (
                "1\n3\n2\n",
                Some("n01 tench"),
                "found `n01 tench` in line 1, expected a name and its number, as `n02119789 1`: DATA/synsets.txt",
            ),
            (
                "1\n3\n2\n",
                Some("n01 1\nn02 1"),
                "found number 1 again in line 2, expected different numbers: DATA/synsets.txt",
            ),
            ("n01\n\nn02\n", None, "found an empty line in line 2, expected a label: DATA/val.txt"),
        ] {
            assert_eq!(open(truth, synsets).unwrap_err(), message);
        }
    }

    trait ConcatClasses {
        fn concat_classes(&self) -> String;
    }

    impl ConcatClasses for Vec<(String, String)> {
        fn concat_classes(&self) -> String {
            let examples: Vec<String> =
                self.iter().map(|(path, class)| format!("{path} {class}")).collect();
            examples.join(" ")
        }
    }

    #[test]
    fn fingerprint_survives_a_move_and_notices_a_change() {
        let fingerprint = |content| open(content, None).unwrap().fingerprint();
        let first = fingerprint("a.jpg,ant\nb.jpg,bee\n");
        assert_eq!(first, fingerprint("path\tlabel\na.jpg\tant\nb.jpg\tbee\n"));
        assert_ne!(first, fingerprint("b.jpg,bee\na.jpg,ant\n"));
        assert_ne!(first, fingerprint("a.jpg,bee\nb.jpg,ant\n"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            parse_any(&bytes, Path::new("list"));
        }
    }
}
