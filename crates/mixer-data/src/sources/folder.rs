//! A folder of class folders.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::decode::options::DecodeOptions;
use crate::decode::read::read_file;
use crate::error::DataError;
use crate::sources::fingerprint::Fingerprint;
use crate::sources::source::{Example, Source};

/// File name extensions that count as images, in any case. The format itself is taken from the
/// bytes.
pub(crate) const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "webp", "bmp", "gif"];

/// Images in one folder per class, the layout of torchvision's `ImageFolder`.
///
/// Classes are the folders sorted by name, and the examples of a class are its files sorted by
/// path, those of sub-folders included. Hidden files and folders are passed over; files without an
/// image extension are passed over and [counted](Self::ignored).
///
/// Paths take about the length of the file name per example in memory.
pub struct FolderSource {
    root: PathBuf,
    options: DecodeOptions,
    class_names: Vec<String>,
    classes: Vec<ClassFiles>,
    len: usize,
    ignored: usize,
    fingerprint: u64,
}

/// The files of one class folder.
struct ClassFiles {
    /// The folder's name.
    folder: String,
    label: u32,
    /// Files that were passed over.
    ignored: usize,
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
    /// When the folder is missing, holds fewer than two class folders, or one of them has no image.
    pub fn open(root: impl AsRef<Path>, options: DecodeOptions) -> Result<Self, DataError> {
        let root = root.as_ref();
        let class_names = class_folders(root)?;
        if let [class] = class_names.as_slice() {
            return Err(DataError::SingleClass { class: class.clone(), path: root.to_path_buf() });
        }
        let source = Self::list(root, class_names.clone(), class_names, options)?;
        let empty = source.classes.iter().find(|class| class.ends.is_empty());
        if let Some(class) = empty {
            return Err(DataError::EmptyClass {
                class: class.folder.clone(),
                ignored: class.ignored,
                extensions: EXTENSIONS,
                path: root.join(&class.folder),
            });
        }
        Ok(source)
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
        let root = root.as_ref();
        let folders = class_folders(root)?;
        let source = Self::list(root, folders, classes.to_vec(), options)?;
        if source.is_empty() {
            return Err(DataError::NoExamples { description: root.display().to_string() });
        }
        Ok(source)
    }

    /// Files that were passed over because their extension is not that of an image.
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    /// The path of an example.
    pub fn path(&self, index: usize) -> PathBuf {
        let (class, position) = self.locate(index);
        self.root.join(&class.folder).join(class.name(position))
    }

    fn list(
        root: &Path,
        folders: Vec<String>,
        class_names: Vec<String>,
        options: DecodeOptions,
    ) -> Result<Self, DataError> {
        let mut fingerprint = Fingerprint::new();
        let mut classes = Vec::with_capacity(folders.len());
        let (mut len, mut ignored) = (0, 0);
        for folder in folders {
            let path = root.join(&folder);
            let Some(label) = class_names.iter().position(|class| *class == folder) else {
                return Err(DataError::UnknownClass {
                    class: folder,
                    expected: class_names.len(),
                    path,
                });
            };
            let mut files = Vec::new();
            let class_ignored = list_images(&path, "", &mut files)?;
            ignored += class_ignored;
            files.sort_unstable();

            let mut names = String::with_capacity(files.iter().map(String::len).sum());
            let mut ends = Vec::with_capacity(files.len());
            fingerprint.string(&folder).number(label as u64);
            for file in &files {
                fingerprint.string(file);
                names.push_str(file);
                ends.push(names.len() as u32);
            }
            classes.push(ClassFiles {
                folder,
                label: label as u32,
                ignored: class_ignored,
                start: len,
                names,
                ends,
            });
            len += files.len();
        }
        Ok(Self {
            root: root.to_path_buf(),
            options,
            class_names,
            classes,
            len,
            ignored,
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
}

/// The picture files below a folder, as training takes them: by their endings, at any depth, hidden ones
/// left out, sorted by path; and the number of other files.
///
/// # Errors
/// When the folder cannot be listed.
pub fn picture_files(folder: &Path) -> Result<(Vec<PathBuf>, usize), DataError> {
    let mut names = Vec::new();
    let ignored = list_images(folder, "", &mut names)?;
    names.sort_unstable();
    Ok((names.iter().map(|name| folder.join(name)).collect(), ignored))
}

/// The names of the class folders in `root`, sorted.
fn class_folders(root: &Path) -> Result<Vec<String>, DataError> {
    if !root.is_dir() {
        return Err(DataError::NoSuchDirectory { path: root.to_path_buf() });
    }
    let mut folders = Vec::new();
    for entry in fs::read_dir(root).map_err(DataError::io)? {
        let entry = entry.map_err(DataError::io)?;
        let name = unicode_name(&entry)?;
        if !name.starts_with('.') && entry.path().is_dir() {
            folders.push(name);
        }
    }
    if folders.is_empty() {
        return Err(DataError::NoClassFolders { path: root.to_path_buf() });
    }
    folders.sort_unstable();
    Ok(folders)
}

/// Collects the image files below `folder` as `/`-separated paths that start with `prefix`, and
/// counts the files that are none.
pub(crate) fn list_images(
    folder: &Path,
    prefix: &str,
    files: &mut Vec<String>,
) -> Result<usize, DataError> {
    let mut ignored = 0;
    for entry in fs::read_dir(folder).map_err(DataError::io)? {
        let entry = entry.map_err(DataError::io)?;
        let name = unicode_name(&entry)?;
        if name.starts_with('.') {
            continue;
        }
        let file_type = entry.file_type().map_err(DataError::io)?;
        let is_folder = file_type.is_dir() || (file_type.is_symlink() && entry.path().is_dir());
        if is_folder {
            ignored += list_images(&entry.path(), &format!("{prefix}{name}/"), files)?;
        } else if has_image_extension(&name) {
            files.push(format!("{prefix}{name}"));
        } else {
            ignored += 1;
        }
    }
    Ok(ignored)
}

fn unicode_name(entry: &fs::DirEntry) -> Result<String, DataError> {
    let not_unicode = |_| DataError::NonUnicodeName { path: entry.path() };
    entry.file_name().into_string().map_err(not_unicode)
}

pub(crate) fn has_image_extension(name: &str) -> bool {
    let Some((_, extension)) = name.rsplit_once('.') else {
        return false;
    };
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
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
        assert_eq!(source.ignored(), 2);
    }

    #[test]
    fn what_is_no_data_set_is_refused_with_its_path() {
        let folder = folder_with(&["a/1.png", "a/notes.txt", "b/notes.txt"]);
        assert_eq!(
            message(open(&folder), &folder),
            "found no image in class `b` (1 files ignored), expected at least one of jpg, jpeg, \
             png, webp, bmp, gif: DATA/b"
        );
        let folder = folder_with(&["a/1.png"]);
        assert_eq!(
            message(open(&folder), &folder),
            "found 1 class folder (`a`), expected at least 2: DATA"
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
        let folder = folder_with(&["cat/notes.txt"]);
        assert_eq!(
            message(open(&folder), &folder),
            "found no example, expected at least one: DATA"
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
