//! A folder of class folders.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::decode::options::DecodeOptions;
use crate::decode::read::read_file;
use crate::error::DataError;
use crate::sources::fingerprint::Fingerprint;
use crate::sources::letters::{check_letters, twin};
use crate::sources::passed_over::PassedOver;
use crate::sources::picture_files::{EXTENSIONS, PictureFiles, is_picture_name};
use crate::sources::source::{Example, Source};

/// Images in one folder per class, the layout of torchvision's `ImageFolder`.
///
/// Classes are the folders sorted by name, and the examples of a class are its files sorted by
/// path, those of sub-folders included. Hidden files and folders are passed over; files without an
/// image extension are passed over and [counted](Source::passed_over).
///
/// Paths take about the length of the file name per example in memory.
pub struct FolderSource {
    root: PathBuf,
    options: DecodeOptions,
    class_names: Vec<String>,
    classes: Vec<ClassFiles>,
    len: usize,
    passed_over: PassedOver,
    fingerprint: u64,
}

/// The files of one class folder.
struct ClassFiles {
    /// The folder's name.
    folder: String,
    label: u32,
    /// Index of its first example.
    start: usize,
    /// File names below the folder, joined without separators.
    names: String,
    /// End of each name in `names`.
    ends: Vec<u32>,
}

impl ClassFiles {
    fn name(&self, position: usize) -> &str {
        let start = match position {
            0 => 0,
            _ => self.ends[position - 1] as usize,
        };
        &self.names[start..self.ends[position] as usize]
    }
}

impl FolderSource {
    /// Opens a folder whose class folders define the classes.
    ///
    /// # Errors
    /// When the folder is missing, or holds no class folder or no image.
    pub fn open(root: impl AsRef<Path>, options: DecodeOptions) -> Result<Self, DataError> {
        Self::list(root.as_ref(), None, options)
    }

    /// Opens a folder whose class folders are mapped onto known classes, as a validation folder is
    /// onto the classes of training.
    ///
    /// Classes without a folder, or with an empty one, simply have no examples.
    ///
    /// # Errors
    /// When the folder is missing, holds no class folder or no image, or a class folder is not
    /// among `classes`.
    pub fn open_with_classes(
        root: impl AsRef<Path>,
        classes: &[String],
        options: DecodeOptions,
    ) -> Result<Self, DataError> {
        Self::list(root.as_ref(), Some(classes), options)
    }

    /// The path of an example.
    pub fn path(&self, index: usize) -> PathBuf {
        let (class, position) = self.locate(index);
        self.root.join(&class.folder).join(class.name(position))
    }

    fn list(
        root: &Path,
        known: Option<&[String]>,
        options: DecodeOptions,
    ) -> Result<Self, DataError> {
        let (folders, mut passed_over) = class_folders(root)?;
        check_letters(&folders, root)?;
        let class_names = known.map_or_else(|| folders.clone(), <[String]>::to_vec);
        let mut fingerprint = Fingerprint::new();
        let mut classes = Vec::with_capacity(folders.len());
        let mut len = 0;
        for folder in folders {
            let path = root.join(&folder);
            let Some(label) = class_names.iter().position(|class| *class == folder) else {
                return Err(DataError::UnknownClass {
                    twin: twin(&folder, &class_names).map(str::to_owned),
                    class: folder,
                    expected: class_names.len(),
                    path,
                });
            };
            let found = PictureFiles::below(root, &folder)?;
            passed_over.merge(&found.passed_over);
            let files = found.names;

            let mut names = String::with_capacity(files.iter().map(String::len).sum());
            let mut ends = Vec::with_capacity(files.len());
            fingerprint.string(&folder).number(label as u64);
            for file in &files {
                fingerprint.string(file);
                names.push_str(file);
                ends.push(names.len() as u32);
            }
            classes.push(ClassFiles { folder, label: label as u32, start: len, names, ends });
            len += files.len();
        }
        if len == 0 {
            return Err(DataError::no_examples(root, &passed_over));
        }
        Ok(Self {
            root: root.to_path_buf(),
            options,
            class_names,
            classes,
            len,
            passed_over,
            fingerprint: fingerprint.finish(),
        })
    }

    fn locate(&self, index: usize) -> (&ClassFiles, usize) {
        assert!(index < self.len, "example {index} of {}", self.len);
        let class = self.classes.partition_point(|class| class.start <= index) - 1;
        let class = &self.classes[class];
        (class, index - class.start)
    }
}

impl Source for FolderSource {
    fn len(&self) -> usize {
        self.len
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> u32 {
        self.locate(index).0.label
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

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn passed_over(&self) -> PassedOver {
        self.passed_over.clone()
    }

    fn check_for_training(&self) -> Result<(), DataError> {
        if let [class] = self.class_names.as_slice() {
            return Err(DataError::SingleClass { class: class.clone(), path: self.root.clone() });
        }
        match self.classes.iter().find(|class| class.ends.is_empty()) {
            None => Ok(()),
            Some(class) => Err(DataError::EmptyClass {
                class: class.folder.clone(),
                passed_over: PictureFiles::below(&self.root, &class.folder)?.passed_over,
                extensions: EXTENSIONS,
                path: self.root.join(&class.folder),
            }),
        }
    }
}

/// The names of the class folders in `root`, sorted, and the pictures beside them.
fn class_folders(root: &Path) -> Result<(Vec<String>, PassedOver), DataError> {
    if !root.is_dir() {
        return Err(DataError::NoSuchDirectory { path: root.to_path_buf() });
    }
    let (mut folders, mut passed_over) = (Vec::new(), PassedOver::default());
    for entry in fs::read_dir(root).map_err(DataError::io)? {
        let entry = entry.map_err(DataError::io)?;
        let name = entry.file_name();
        let shown = name.to_string_lossy();
        let is_hidden = shown.starts_with('.');
        if !is_hidden && entry.path().is_dir() {
            // A class cannot be called after anything else.
            let name =
                name.to_str().ok_or_else(|| DataError::NonUnicodeName { path: entry.path() });
            folders.push(name?.to_owned());
        } else if !is_hidden && is_picture_name(&shown) {
            passed_over.add_name(&shown);
        }
    }
    if folders.is_empty() {
        return Err(DataError::NoClassFolders { path: root.to_path_buf() });
    }
    folders.sort_unstable();
    Ok((folders, passed_over))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with empty files; nothing is decoded here.
    fn folder_with(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    fn open(folder: &tempfile::TempDir) -> Result<FolderSource, DataError> {
        FolderSource::open(folder.path(), DecodeOptions::default())
    }

    fn message<T>(outcome: Result<T, DataError>, folder: &tempfile::TempDir) -> String {
        let root = folder.path().display().to_string();
        outcome.err().unwrap().to_string().replace(&root, "DATA")
    }

    #[test]
    fn classes_and_files_are_sorted_and_other_files_are_counted() {
        let folder = folder_with(&[
            "dog/b.JPG",
            "dog/a.jpeg",
            "dog/notes.txt",
            "cat/z.png",
            "cat/.hidden.png",
            "cat/sub/y.webp",
            ".git/x.png",
            "readme.md",
            "left.png",
            "ant/1.gif",
            "ant/2.bmp",
            "ant/none",
        ]);
        let source = open(&folder).unwrap();
        assert_eq!(source.class_names(), ["ant", "cat", "dog"]);
        let found: Vec<(String, u32)> =
            (0..source.len()).map(|index| (source.describe(index), source.label(index))).collect();
        let expected = [
            ("ant/1.gif", 0),
            ("ant/2.bmp", 0),
            ("cat/sub/y.webp", 1),
            ("cat/z.png", 1),
            ("dog/a.jpeg", 2),
            ("dog/b.JPG", 2),
        ];
        let path = |file: &str| folder.path().join(file).display().to_string();
        assert_eq!(found, expected.map(|(file, label)| (path(file), label)));
        assert_eq!(
            source.passed_over().to_string(),
            "3 files: 1 `.png` (left.png), 1 `.txt` (dog/notes.txt), 1 without an ending (ant/none)"
        );
        source.check_for_training().unwrap();
    }

    #[test]
    fn what_is_no_data_set_is_refused_with_its_path() {
        let trainable = |folder| open(folder).and_then(|source| source.check_for_training());
        let folder = folder_with(&["a/1.png", "a/notes.txt", "b/notes.txt"]);
        assert_eq!(
            message(trainable(&folder), &folder),
            "found no image in class `b` (passed over 1 file: 1 `.txt` (b/notes.txt)), expected at \
             least one of jpg, jpeg, jfif, jpe, jfi, jif, png, webp, bmp, gif: DATA/b"
        );
        let folder = folder_with(&["a/1.png"]);
        assert_eq!(
            message(trainable(&folder), &folder),
            "found 1 class (`a`), expected at least 2: DATA"
        );
        let folder = folder_with(&["1.png"]);
        assert_eq!(
            message(open(&folder), &folder),
            "found no class folder, expected one folder per class with its images inside: DATA"
        );
        let missing = FolderSource::open(folder.path().join("no"), DecodeOptions::default());
        assert_eq!(message(missing, &folder), "found no directory at DATA/no");
    }

    #[test]
    fn a_validation_folder_maps_onto_the_classes_of_training() {
        let classes = ["ant", "bee", "cat"].map(String::from);
        let open = |folder: &tempfile::TempDir| {
            FolderSource::open_with_classes(folder.path(), &classes, DecodeOptions::default())
        };
        let folder = folder_with(&["cat/1.png", "ant/1.png"]);
        let source = open(&folder).unwrap();
        assert_eq!(source.class_names(), classes);
        assert_eq!((source.label(0), source.label(1)), (0, 2));

        let folder = folder_with(&["cat/1.png", "cow/1.png"]);
        assert_eq!(
            message(open(&folder), &folder),
            "found class folder `cow`, expected only folders named after the 3 known classes: DATA/cow"
        );
        let folder = folder_with(&["cafe\u{301}/1.png"]);
        let classes = ["caf\u{e9}", "the"].map(String::from);
        let other =
            FolderSource::open_with_classes(folder.path(), &classes, DecodeOptions::default());
        let found = message(other, &folder);
        assert!(
            found.starts_with(
                "found class folder `cafe\\u{301}`, the letters of the known class `caf\\u{e9}` in another form of Unicode, expected"
            ),
            "{found}"
        );
        let folder = folder_with(&["cat/notes.txt"]);
        assert_eq!(
            message(open(&folder), &folder),
            "found no example (passed over 1 file: 1 `.txt` (cat/notes.txt)), expected at least one: DATA"
        );
    }

    #[test]
    fn fingerprint_survives_a_move_and_notices_a_change() {
        let files = ["a/1.png", "b/1.png"];
        let fingerprint = |files: &[&str]| open(&folder_with(files)).unwrap().fingerprint();
        assert_eq!(fingerprint(&files), fingerprint(&files));
        assert_ne!(fingerprint(&files), fingerprint(&["a/1.png", "b/2.png"]));
        assert_ne!(fingerprint(&files), fingerprint(&["a/1.png", "b/1.png", "b/2.png"]));
        assert_ne!(fingerprint(&files), fingerprint(&["a/1.png", "c/1.png"]));
    }

    #[test]
    fn a_file_that_vanished_is_an_error_with_its_path() {
        let folder = folder_with(&["a/1.png", "b/1.png"]);
        let source = open(&folder).unwrap();
        fs::remove_file(folder.path().join("a/1.png")).unwrap();
        let message = message(source.image(0), &folder);
        assert!(message.contains("DATA/a/1.png"), "{message}");
    }
}
