//! Which weight files a model directory has: one, or those of its index.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::LoadError;

/// `model.safetensors.index.json`.
pub(super) struct Index {
    /// The file of each tensor, by the index's own names.
    pub(super) file_of: BTreeMap<String, String>,
}

impl Index {
    /// Reads the index; none if the directory has one weight file.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, LoadError> {
        let path = dir.join("model.safetensors.index.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|source| LoadError::Io { path: path.clone(), source })?;
        let bad = |reason: String| LoadError::Weights { path: path.clone(), reason };
        let value: Value =
            serde_json::from_str(&text).map_err(|e| bad(format!("not JSON: {e}")))?;
        let map = value
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| bad("it has no weight_map".to_owned()))?;
        let mut file_of = BTreeMap::new();
        for (tensor, file) in map {
            let file = file
                .as_str()
                .ok_or_else(|| bad(format!("its weight_map names no file for {tensor}")))?;
            if file.contains('/') || file.contains('\\') {
                let reason = format!("its weight_map leads out of the directory, to {file:?}");
                return Err(bad(reason));
            }
            file_of.insert(tensor.clone(), file.to_owned());
        }
        let index = Self { file_of };
        let absent = index.files().into_iter().filter(|file| !dir.join(file).exists());
        let files: Vec<String> = absent.map(str::to_owned).collect();
        if files.is_empty() {
            return Ok(Some(index));
        }
        Err(LoadError::Incomplete { dir: dir.to_path_buf(), files })
    }

    /// The weight files, each once, sorted.
    pub(super) fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = self.file_of.values().map(String::as_str).collect();
        files.sort_unstable();
        files.dedup();
        files
    }
}
