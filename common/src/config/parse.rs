//! Run file text to [`RunConfig`].

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    document::Node,
    error::{ConfigErrors, Place},
    raw::RunConfig,
    schema::Schema,
    set,
};

impl RunConfig {
    /// Reads a run file without overrides. `path` names the file in messages, and relative paths in the
    /// file (`model.path`, `data.*.path`, `cluster.certificates`) are taken from its folder.
    ///
    /// # Errors
    /// All syntax errors, unknown keys, missing keys and wrong types, each with its line.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse_with(text, path, &[])
    }

    /// Reads a run file and lays `overrides` (`key=value`, in order, the last wins) over it.
    ///
    /// # Errors
    /// As [`RunConfig::parse`]; a problem that an override brings names the override.
    pub fn parse_with(text: &str, path: &Path, overrides: &[String]) -> Result<Self, ConfigErrors> {
        Self::parse_with_places(text, path, overrides).map(|(config, _)| config)
    }

    fn parse_with_places(
        text: &str,
        path: &Path,
        overrides: &[String],
    ) -> Result<(Self, Node), ConfigErrors> {
        let mut root = Node::parse(text)
            .map_err(|problem| ConfigErrors::new(path.to_owned(), vec![problem]))?;
        let mut problems: Vec<_> =
            overrides.iter().filter_map(|text| set::apply(&mut root, text).err()).collect();
        problems.extend(Schema::of_run().problems(&root));
        if !problems.is_empty() {
            return Err(ConfigErrors::new(path.to_owned(), problems));
        }
        let mut config = Self::deserialize(root.to_toml()).map_err(|e| {
            ConfigErrors::one(path.to_owned(), Place::File, e.to_string().replace('\n', " "))
        })?;
        config.resolve_paths(path);
        Ok((config, root))
    }

    /// Reads a run file from disk and lays `overrides` over it.
    ///
    /// # Errors
    /// As [`RunConfig::parse_with`], or that the file cannot be read.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigErrors> {
        Self::load_with_places(path, overrides).map(|(config, _)| config)
    }

    /// Whether a run file or its `overrides` say anything of a key (`cluster.workers`), rather than leave it to its
    /// default.
    ///
    /// # Errors
    /// As [`RunConfig::load`].
    pub fn says(path: &Path, overrides: &[String], key: &str) -> Result<bool, ConfigErrors> {
        Self::load_with_places(path, overrides).map(|(_, root)| root.has(key))
    }

    /// As [`RunConfig::load`], with the tree that knows the place of every key.
    pub(super) fn load_with_places(
        path: &Path,
        overrides: &[String],
    ) -> Result<(Self, Node), ConfigErrors> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let message = match e.kind() {
                ErrorKind::IsADirectory => {
                    "this is a directory; a run that exists goes on with `medevo-coord resume`, \
                                            or on Slurm with `medevo-coord launch ... --on slurm`"
                        .to_owned()
                }
                _ => format!("the run file cannot be read: {e}"),
            };
            ConfigErrors::one(path.to_owned(), Place::File, message)
        })?;
        Self::parse_with_places(&text, path, overrides)
    }

    /// Workers run elsewhere than where the command is typed, so paths become absolute here.
    fn resolve_paths(&mut self, run_file: &Path) {
        let folder = run_file.parent().unwrap_or(Path::new(""));
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        resolve(folder, &mut self.model.path);
        for data in self.data.values_mut() {
            resolve(folder, &mut data.path);
        }
        if let Some(certificates) = &mut self.cluster.certificates {
            resolve(folder, certificates);
        }
        let store = &mut self.store;
        for file in [&mut store.ca, &mut store.cert, &mut store.key].into_iter().flatten() {
            resolve(folder, file);
        }
    }
}

fn resolve(folder: &Path, path: &mut PathBuf) {
    let joined = folder.join(&*path);
    // `absolute` fails only on an empty path or a lost working folder; the path then stays as written
    // and the check that it exists names it.
    *path = std::path::absolute(&joined).unwrap_or(joined);
}
