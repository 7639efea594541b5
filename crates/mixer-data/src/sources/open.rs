//! From a name to a source: which kind of data a split is, and how it is opened.

use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decode::options::DecodeOptions;
use crate::error::DataError;
use crate::shards::shard_source::ShardSource;
use crate::sources::cifar::CifarSource;
use crate::sources::folder::FolderSource;
use crate::sources::idx::IdxSource;
use crate::sources::list::ListSource;
use crate::sources::source::Source;
use crate::sources::split::SplitSpec;
use crate::sources::subset::Subset;

/// Layout of a data set on disk.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A folder of class folders for each split.
    Folder,
    /// A file with paths and labels, or a flat folder and a file with labels.
    List,
    /// Tar shards named as those of WebDataset.
    Shards,
    /// Parquet files of Hugging Face.
    Parquet,
    /// The binary version of CIFAR-10 or CIFAR-100.
    Cifar,
    /// The IDX files of MNIST.
    Idx,
}

impl SourceKind {
    /// The kind that the name of a split in `root` means: by its ending, by the files that are
    /// there, or else a folder of class folders.
    pub fn of(root: &Path, name: &str) -> Self {
        let ends_with = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        // Packed ones are no shards, and it is the reader of shards that says so.
        if ends_with(&[".tar", ".tgz"]) || name.contains(".tar.") {
            Self::Shards
        } else if ends_with(&[".parquet"]) {
            Self::Parquet
        } else if ends_with(&[".csv", ".tsv", ".txt"]) {
            Self::List
        } else if root.join(name).is_dir() {
            Self::Folder
        } else if ["batches.meta.txt", "fine_label_names.txt"]
            .iter()
            .any(|file| root.join(file).is_file())
        {
            Self::Cifar
        } else if ["train-labels-idx1-ubyte", "train-labels-idx1-ubyte.gz"]
            .iter()
            .any(|file| root.join(file).is_file())
        {
            Self::Idx
        } else {
            Self::Folder
        }
    }
}

/// Opens a split below `root`.
///
/// The meaning of a split's name depends on the kind: a folder (`train`, or `.` for `root` itself), a
/// list (`train.csv`), a pattern of files (`train-{000..127}.tar`, `train-*.parquet`), or `train` and
/// `test` for CIFAR and IDX. A range in brackets takes a part of it, `train[:98%]`. Without a kind,
/// [`SourceKind::of`] finds it. `classes` are those of training, where there are some.
///
/// # Errors
/// When the split does not parse or the source cannot be opened.
pub fn open_split(
    kind: Option<SourceKind>,
    root: &Path,
    split: &str,
    classes: Option<&[String]>,
    options: &DecodeOptions,
) -> Result<Arc<dyn Source>, DataError> {
    let SplitSpec { folder: name, range } = split.parse()?;
    let path = if name == "." { root.to_path_buf() } else { root.join(&name) };
    let options = options.clone();
    let source: Arc<dyn Source> = match kind.unwrap_or_else(|| SourceKind::of(root, &name)) {
        SourceKind::Folder => match classes {
            Some(classes) => Arc::new(FolderSource::open_with_classes(path, classes, options)?),
            None => Arc::new(FolderSource::open(path, options)?),
        },
        SourceKind::List => Arc::new(ListSource::open(path, None, classes, options)?),
        SourceKind::Shards => Arc::new(ShardSource::open(path, classes, options)?),
        #[cfg(feature = "parquet")]
        SourceKind::Parquet => {
            Arc::new(crate::sources::parquet::ParquetSource::open(path, classes, options)?)
        }
        #[cfg(not(feature = "parquet"))]
        SourceKind::Parquet => {
            return Err(DataError::BadSetting {
                setting: "source",
                found: "parquet".to_owned(),
                expected: "a build with the feature `parquet`".to_owned(),
            });
        }
        SourceKind::Cifar => Arc::new(CifarSource::open(root, &name, classes)?),
        SourceKind::Idx => Arc::new(IdxSource::open(root, &name, classes)?),
    };
    Subset::of(source, &range)
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;
    use crate::shards::shard_writer::{ShardWriterConfig, png_bytes, write_shards};
    use crate::sources::builtin::{BuiltinKind, BuiltinSource, BuiltinSplit};
    use crate::stream::loader::OnCorrupt;

    #[test]
    fn a_name_says_what_a_split_is() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("train")).unwrap();
        for (name, kind) in [
            ("train", SourceKind::Folder),
            ("missing", SourceKind::Folder),
            ("t-{00..12}.tar", SourceKind::Shards),
            ("t-0.tar.gz", SourceKind::Shards),
            ("t-*.parquet", SourceKind::Parquet),
            ("val.txt", SourceKind::List),
        ] {
            assert_eq!(SourceKind::of(root, name), kind);
        }
        fs::write(root.join("train-labels-idx1-ubyte.gz"), "").unwrap();
        assert_eq!(SourceKind::of(root, "test"), SourceKind::Idx);
        fs::write(root.join("batches.meta.txt"), "").unwrap();
        assert_eq!(SourceKind::of(root, "test"), SourceKind::Cifar);
    }

    #[test]
    fn the_same_pictures_come_from_folders_lists_and_shards() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let source =
            BuiltinSource::new(BuiltinKind::Shapes, BuiltinSplit::Train, 20, 16, 0).unwrap();
        let mut list = "path,label\n".to_owned();
        let mut names: Vec<&String> = source.class_names().iter().collect();
        names.sort_unstable();
        for name in names {
            for index in 0..20 {
                if source.class_names()[source.label(index) as usize] == *name {
                    let path = format!("train/{name}/{index:02}.png");
                    fs::create_dir_all(root.join("train").join(name)).unwrap();
                    fs::write(root.join(&path), png_bytes(&source.image(index).unwrap()).unwrap())
                        .unwrap();
                    list += &format!("{path},{name}\n");
                }
            }
        }
        fs::write(root.join("train.csv"), list).unwrap();
        let options = DecodeOptions::default();
        let open = |split: &str| open_split(None, root, split, None, &options).unwrap();
        let folders = open("train");
        let config = ShardWriterConfig::new("t");
        write_shards(folders.as_ref(), root, &config, OnCorrupt::Stop, 2, |_| {}).unwrap();
        for split in ["train.csv", "t-000000.tar", "t-*.tar"] {
            let other = open(split);
            assert_eq!((other.len(), other.class_names()), (20, folders.class_names()), "{split}");
            for index in 0..20 {
                assert_eq!(other.label(index), folders.label(index));
                assert_eq!(other.read(index).unwrap(), folders.read(index).unwrap());
            }
        }
        assert_eq!(open("t-*.tar[:50%]").len(), 10);
    }
}
