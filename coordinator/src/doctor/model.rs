//! The model's directory.

use std::{fs, path::Path};

use medevo_common::config::RunConfig;

use super::Finding;
use crate::{
    budget::gibibytes,
    preflight::{base_of, check_model},
};

/// Whether it is whole, as `launch` checks it.
pub(super) fn finding(config: &RunConfig) -> Finding {
    let path = &config.model.path;
    match check_model(path) {
        Ok(()) => Finding::ok(
            "model",
            format!("{} is whole, {} of weights", path.display(), gibibytes(weights(path))),
        ),
        Err(refused) => Finding::failed(
            "model",
            refused.to_string(),
            "download it again, or set model.path to a whole Hugging Face directory",
        ),
    }
}

/// Bytes of weights in a model directory, or in that of an adapter's base.
pub(super) fn weights(dir: &Path) -> u64 {
    let base = base_of(dir).ok().flatten();
    let entries = fs::read_dir(base.as_deref().unwrap_or(dir)).into_iter().flatten().flatten();
    let weights =
        entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "safetensors"));
    weights.filter_map(|entry| fs::metadata(entry.path()).ok()).map(|file| file.len()).sum()
}
