//! A folder of class folders.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::decode::{DecodeError, DecodeOptions, MAX_FILE_BYTES, decode};
use crate::error::DataError;
use crate::fingerprint::Fingerprint;
use crate::rgb_image::RgbImage;
use crate::source::Source;

/// File name extensions that count as images, in any case. The format itself is taken from the
/// bytes.
const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "webp", "bmp", "gif"];

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
            return Err(DataError::SingleClass {
                class: class.clone(),
                path: root.to_path_buf(),
            });
        }
        let source = Self::read(root, class_names.clone(), class_names, options)?;
        let empty = source.classes.iter().find(|class| class.ends.is_empty());
        if let Some(class) = empty {
            return Err(DataError::EmptyClass {
                class: class.folder.clone(),
                ignored: source.ignored,
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
        let source = Self::read(root, folders, classes.to_vec(), options)?;
        if source.is_empty() {
            return Err(DataError::NoExamples {
                description: root.display().to_string(),
            });
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

    fn read(
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
            ignored += list_images(&path, "", &mut files)?;
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

    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        let path = self.path(index);
        let bad = |reason| DataError::BadExample {
            example: path.display().to_string(),
            reason,
        };
        let found = fs::metadata(&path).map_err(DataError::io)?.len();
        if found > MAX_FILE_BYTES {
            return Err(bad(DecodeError::FileTooLarge {
                found,
                expected: MAX_FILE_BYTES,
            }));
        }
        let bytes = fs::read(&path).map_err(DataError::io)?;
        decode(&bytes, &self.options).map_err(bad)
    }

    fn describe(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// The names of the class folders in `root`, sorted.
fn class_folders(root: &Path) -> Result<Vec<String>, DataError> {
    if !root.is_dir() {
        return Err(DataError::NoSuchDirectory {
            path: root.to_path_buf(),
        });
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
        return Err(DataError::NoClassFolders {
            path: root.to_path_buf(),
        });
    }
    folders.sort_unstable();
    Ok(folders)
}

/// Collects the image files below `folder` as `/`-separated paths that start with `prefix`, and
/// counts the files that are none.
fn list_images(folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<usize, DataError> {
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

fn has_image_extension(name: &str) -> bool {
    let Some((_, extension)) = name.rsplit_once('.') else {
        return false;
    };
    EXTENSIONS
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
}
