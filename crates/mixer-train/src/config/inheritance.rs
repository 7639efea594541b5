//! A configuration that builds upon another one: `extends = "other.toml"`.
//!
//! Files are read from the child to its parents, each is checked by itself, so that an error names the
//! file and the line, and then they are put on top of one another. The keys of the sections are merged
//! one by one; what a key has for its value is replaced as a whole, also where it is a table, because
//! such a table is a choice with its settings (`crop`, `randaugment`, `mix`).

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table};

use crate::config::run_config::RunConfig;
use crate::config::text::{self, INVALID};
use crate::error::TrainError;

/// The key that names the parent.
const EXTENDS: &str = "extends";

/// The longest chain, files.
const MAX_FILES: usize = 8;

/// Words of a hint about the path of a parent.
const RELATIVE: &str = "the path is relative to the folder of the file that names it";

/// A configuration file and those that it extends.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The child first.
    files: Vec<ConfigFile>,
}

#[derive(Debug)]
struct ConfigFile {
    path: PathBuf,
    text: String,
    document: DocumentMut,
}

impl RunConfig {
    /// Reads a configuration with all that it extends, and applies `KEY=VALUE` overrides. Also returns
    /// the text that was parsed: the file, or what it and its parents make together, with the overrides
    /// in it.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a file that cannot be read, TOML that cannot be parsed, an unknown
    /// key (with the nearest one) or a wrong type, with line and column, and for a chain of files that
    /// has no end.
    pub fn read(path: &Path, overrides: &[String]) -> Result<(Self, String), TrainError> {
        let chain = Chain::read(path)?;
        let text = chain.text();
        let alone = chain
            .check()
            .and_then(|()| RunConfig::parse(&text, &[]).map_err(|error| error.in_file(path)));
        match (overrides, alone) {
            ([], alone) => alone,
            // The files are sound, so the error is in the overrides, which have no file.
            (_, Ok(_)) => RunConfig::parse(&text, overrides),
            // An override may repair what is wrong with the files.
            (_, Err(error)) => RunConfig::parse(&text, overrides).map_err(|_| error),
        }
    }
}

impl Chain {
    /// Reads a file and all that it extends.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a file that cannot be read or is no TOML, and for a chain that leads
    /// back to itself or has too many files.
    pub(crate) fn read(path: &Path) -> Result<Chain, TrainError> {
        let text = text::read_text(path).map_err(|source| {
            let hint = "shipped configurations are in `configs/`";
            TrainError::config(format!("cannot read the configuration: {source}")).with_hint(hint)
        })?;
        let mut files = vec![ConfigFile::parse(path.to_owned(), text)?];
        let mut seen = vec![identity(path)];
        while let Some(child) = files.last()
            && let Some(named) = child.parent()
        {
            let path = child.path.parent().unwrap_or(Path::new("")).join(named);
            if files.len() == MAX_FILES {
                return Err(TrainError::config(format!(
                    "`{EXTENDS} = \"{named}\"` makes a chain of more than {MAX_FILES} files, which \
                     starts at `{}`",
                    files[0].path.display()
                ))
                .in_file(&child.path));
            }
            let text = text::read_text(&path).map_err(|source| {
                TrainError::config(format!("cannot read what is extended: {source}"))
                    .with_hint(RELATIVE)
                    .in_file(&child.path)
            })?;
            let own = identity(&path);
            if let Some(before) = seen.iter().position(|other| *other == own) {
                return Err(TrainError::config(format!(
                    "`{EXTENDS} = \"{named}\"` leads back to `{}`, which extends this file",
                    files[before].path.display()
                ))
                .in_file(&child.path));
            }
            files.push(ConfigFile::parse(path, text)?);
            seen.push(own);
        }
        Ok(Chain { files })
    }

    /// Checks every file by itself.
    ///
    /// # Errors
    /// [`TrainError::Config`] for an unknown key or a wrong type, with file, line and column.
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        self.files.iter().try_for_each(|file| {
            text::deserialise(&file.text, INVALID)
                .map(|_| ())
                .map_err(|error| error.in_file(&file.path))
        })
    }

    /// One configuration: the text of the file where there is no other, else all of them merged, with
    /// the file of each value beside it.
    pub(crate) fn text(&self) -> String {
        if let [file] = self.files.as_slice() {
            return file.text.clone();
        }
        let mut merged = DocumentMut::new();
        for file in self.files.iter().rev() {
            file.put_onto(&mut merged);
        }
        merged.to_string()
    }

    /// `true` where the file extends none.
    pub(crate) fn is_single(&self) -> bool {
        self.files.len() == 1
    }

    /// The file in which a key stands that has its effect, `train.steps` or `train`.
    pub(crate) fn file_of_key(&self, key: &str) -> Option<&Path> {
        let mut parts = key.split('.');
        let (section, key) = (parts.next()?, parts.next());
        let has = |file: &&ConfigFile| match (file.document.get(section), key) {
            (Some(item), Some(key)) => item.as_table_like().is_some_and(|t| t.contains_key(key)),
            (item, None) => item.is_some(),
            (None, Some(_)) => false,
        };
        self.files.iter().find(has).map(|file| file.path.as_path())
    }
}

impl ConfigFile {
    fn parse(path: PathBuf, text: String) -> Result<ConfigFile, TrainError> {
        let document = match text.parse() {
            Ok(document) => document,
            Err(error) => {
                let error: toml_edit::TomlError = error;
                // The words of every other mistake, where the other parser sees it too.
                let seen = text::deserialise(&text, INVALID).err();
                let other = || {
                    let excerpt = text::shortened(&error.to_string());
                    TrainError::config(format!("{}\n{excerpt}", INVALID))
                };
                return Err(seen.unwrap_or_else(other).in_file(&path));
            }
        };
        Ok(ConfigFile { path, text, document })
    }

    /// Path of the file that it extends. Something else than a string is found by [`Chain::check`].
    fn parent(&self) -> Option<&str> {
        self.document.get(EXTENDS).and_then(Item::as_str)
    }

    fn put_onto(&self, merged: &mut DocumentMut) {
        for (name, item) in self.document.iter().filter(|(name, _)| *name != EXTENDS) {
            let Some(section) = item.as_table_like() else {
                merged.insert(name, self.marked(item));
                continue;
            };
            let merged = merged.entry(name).or_insert(Item::Table(Table::new()));
            if !merged.is_table_like() {
                *merged = Item::Table(Table::new());
            }
            let Some(merged) = merged.as_table_like_mut() else { continue };
            for (key, item) in section.iter() {
                if let Some(displaced) = text::displaced(&[name, key]) {
                    merged.remove(displaced);
                }
                merged.insert(key, self.marked(item));
            }
        }
    }

    /// The value with the file that it comes from as its comment, in place of its own one, which may
    /// speak of what stood around it.
    fn marked(&self, item: &Item) -> Item {
        // Tables become inline ones, so that a section stays in one piece.
        match item.clone().into_value() {
            Ok(mut value) => {
                let path = self.path.display().to_string().replace(char::is_control, " ");
                value.decor_mut().set_prefix(" ");
                value.decor_mut().set_suffix(format!("  # {path}"));
                Item::Value(value)
            }
            Err(item) => item,
        }
    }
}

/// A configuration error with the file that the first key in its message stands in: `path` or one that
/// it extends.
pub(crate) fn in_file_of_key(error: TrainError, path: &Path) -> TrainError {
    let TrainError::Config { message, path: None, .. } = &error else { return error };
    // What stands between backticks.
    let keys = message.split('`').skip(1).step_by(2);
    let keys = keys.map(|word| word.split_whitespace().next().unwrap_or_default());
    let chain = Chain::read(path).ok();
    let file =
        chain.as_ref().and_then(|chain| keys.filter_map(|key| chain.file_of_key(key)).next());
    let file = file.unwrap_or(path).to_owned();
    error.in_file(&file)
}

/// The same for all names of a file.
fn identity(path: &Path) -> PathBuf {
    fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

impl RunConfig {
    /// Refuses `extends` where there is no file that it could be relative to.
    pub(crate) fn without_parent(self) -> Result<RunConfig, TrainError> {
        match &self.extends {
            None => Ok(self),
            Some(parent) => Err(TrainError::config(format!(
                "`{EXTENDS}` is {}, expected only in a configuration file",
                parent.display()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OptimizerKind;
    use mixer_data::{RandAugment, TrainCrop};

    /// Writes files below a new folder.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        folder
    }

    fn read(folder: &tempfile::TempDir, name: &str) -> Result<(RunConfig, String), TrainError> {
        RunConfig::read(&folder.path().join(name), &[])
    }

    #[test]
    fn keys_of_a_section_are_merged_and_their_values_are_replaced_as_a_whole() {
        let folder = folder(&[
            (
                "parent.toml",
                "seed = 1\n[model]\nvariant = \"S/16\"\n[data]\ncrop = { inception = { area = [0.1, \
                 1.0], aspect = [0.5, 2.0] } }\nmix = { mixup_alpha = 0.5, cutmix_alpha = 1.0 }\n\
                 [data.randaugment]\nflavour = \"big_vision\"\nlayers = 2\nmagnitude = 15\n[train]\n\
                 batch_size = 8\nepochs = 3\n",
            ),
            (
                "child.toml",
                "extends = \"parent.toml\"\noptimizer = { kind = \"sgd\" }\n[data]\nmix = { mixup_alpha \
                 = 0.2 }\n[data.crop.pad]\npixels = 4\n[train]\nsteps = 10\n",
            ),
        ]);
        let (config, text) = read(&folder, "child.toml").unwrap();
        assert_eq!(config.seed, Some(1));
        assert_eq!(config.model.variant.as_deref(), Some("S/16"));
        assert_eq!(config.optimizer.kind, Some(OptimizerKind::Sgd));
        assert_eq!(config.data.crop, Some(TrainCrop::Pad { pixels: 4 }));
        assert_eq!(
            config.data.randaugment,
            Some(RandAugment::BigVision { layers: 2, magnitude: 15.0 })
        );
        let mix = config.data.mix.clone().unwrap();
        assert_eq!((mix.mixup_alpha, mix.cutmix_alpha), (0.2, 0.0));
        // The one form of the length takes the place of the other.
        let train = &config.train;
        assert_eq!((train.batch_size, train.steps, train.epochs), (Some(8), Some(10), None));

        // What is kept with a run needs no other file, means the same, and says where it comes from.
        assert!(!text.contains(EXTENDS), "{text}");
        assert_eq!(RunConfig::parse(&text, &[]).unwrap().0, config);
        let line = text.lines().find(|line| line.starts_with("batch_size")).unwrap();
        assert!(line.starts_with("batch_size = 8  # ") && line.ends_with("parent.toml"), "{line}");
    }

    #[test]
    fn a_path_is_relative_to_the_file_that_names_it_and_chains_are_followed() {
        let folder = folder(&[
            ("a/one.toml", "extends = \"../b/two.toml\"\nseed = 1\n"),
            ("b/two.toml", "extends = \"deep/three.toml\"\nseed = 2\n[train]\nsteps = 2\n"),
            ("b/deep/three.toml", "seed = 3\n[train]\nsteps = 3\nbatch_size = 3\n"),
        ]);
        let (config, _) = read(&folder, "a/one.toml").unwrap();
        let found = (config.seed, config.train.steps, config.train.batch_size);
        assert_eq!(found, (Some(1), Some(2), Some(3)));
    }

    #[test]
    fn a_file_that_extends_none_is_kept_as_it_was_typed() {
        let text = "# words\n\nseed = 1   # more\n";
        let folder = folder(&[("alone.toml", text)]);
        assert_eq!(read(&folder, "alone.toml").unwrap().1, text);
    }

    #[test]
    fn a_circle_is_an_error_of_one_line_with_both_files() {
        let folder = folder(&[
            ("one.toml", "extends = \"two.toml\"\n"),
            ("two.toml", "extends = \"./one.toml\"\n"),
            ("self.toml", "extends = \"self.toml\"\n"),
        ]);
        let error = read(&folder, "one.toml").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("leads back to") && text.contains("one.toml"), "{text}");
        assert!(text.ends_with("two.toml") && !text.contains('\n'), "{text}");
        assert_eq!(error.exit_code(), 3);
        assert!(read(&folder, "self.toml").unwrap_err().to_string().contains("leads back to"));
    }

    #[test]
    fn a_chain_has_at_most_eight_files() {
        let chain: Vec<(String, String)> = (1..=9)
            .map(|i| (format!("{i}.toml"), format!("extends = \"{}.toml\"\n", i + 1)))
            .chain([("10.toml".to_owned(), "seed = 1\n".to_owned())])
            .collect();
        let chain: Vec<(&str, &str)> =
            chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let folder = folder(&chain);
        assert_eq!(read(&folder, "3.toml").unwrap().0.seed, Some(1));
        let text = read(&folder, "2.toml").unwrap_err().to_string();
        assert!(text.contains("more than 8 files") && text.contains("2.toml"), "{text}");
        assert!(text.ends_with("9.toml") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn mistakes_in_a_parent_name_the_parent() {
        let folder = folder(&[
            ("child.toml", "extends = \"parent.toml\"\n"),
            ("parent.toml", "seed = 1\n[train]\nbatch_sise = 3\n"),
            ("lost.toml", "extends = \"nowhere.toml\"\n"),
            ("number.toml", "extends = 3\n"),
            ("broken.toml", "extends = \"syntax.toml\"\n"),
            ("syntax.toml", "[train\n"),
        ]);
        let error = read(&folder, "child.toml").unwrap_err();
        let text = error.to_string();
        assert!(text.lines().next().unwrap().ends_with("parent.toml"), "{text}");
        assert!(text.contains("line 3, column 1"), "{text}");
        assert_eq!(error.hint().as_deref(), Some("did you mean `batch_size`?"));

        let error = read(&folder, "lost.toml").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("nowhere.toml") && text.ends_with("lost.toml"), "{text}");
        assert_eq!(error.hint().as_deref(), Some(RELATIVE));

        let text = read(&folder, "number.toml").unwrap_err().to_string();
        assert!(text.contains("line 1, column 11"), "{text}");
        assert!(text.contains("expected a path in quotes"), "{text}");
        let text = read(&folder, "broken.toml").unwrap_err().to_string();
        assert!(text.lines().next().unwrap().ends_with("syntax.toml"), "{text}");
    }

    #[test]
    fn overrides_beat_every_file_and_repair_a_parent() {
        let folder = folder(&[
            ("child.toml", "extends = \"parent.toml\"\n[train]\nepochs = 2\n"),
            ("parent.toml", "[train]\nbatch_size = \"many\"\n"),
        ]);
        let set = |entries: &[&str]| {
            let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
            RunConfig::read(&folder.path().join("child.toml"), &entries)
        };
        assert!(set(&["seed=1"]).unwrap_err().to_string().contains("parent.toml"));
        let (config, _) = set(&["train.batch_size=4", "train.steps=7"]).unwrap();
        let train = &config.train;
        assert_eq!((train.batch_size, train.steps, train.epochs), (Some(4), Some(7), None));
        std::fs::write(folder.path().join("parent.toml"), "seed = 1\n").unwrap();
        let error = set(&["extends=parent.toml"]).unwrap_err().to_string();
        assert!(error.contains("expected only in a configuration file"), "{error}");
    }

    #[test]
    fn an_error_about_a_key_names_the_file_that_it_stands_in() {
        let folder = folder(&[
            ("child.toml", "extends = \"parent.toml\"\n[train]\nsteps = 5\n"),
            ("parent.toml", "[schedule]\nwarmup_steps = 9\n[train]\nsteps = 50\n"),
        ]);
        let child = folder.path().join("child.toml");
        let located = |message: &str| {
            let error = in_file_of_key(TrainError::config(message), &child);
            match error {
                TrainError::Config { path: Some(path), .. } => {
                    path.file_name().unwrap().to_string_lossy().into_owned()
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(located("`schedule.warmup_steps` is 9, expected fewer than 5"), "parent.toml");
        assert_eq!(located("`train.steps` is 5"), "child.toml");
        assert_eq!(located("`schedule` has no meaning"), "parent.toml");
        assert_eq!(located("`train.epochs` and `data.path` are in none"), "child.toml");
        assert_eq!(located("nothing is named"), "child.toml");
    }
}
