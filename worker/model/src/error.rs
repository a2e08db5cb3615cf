//! Why a model directory could not be loaded.

use std::path::PathBuf;

/// What is wrong with a model directory. A tensor mismatch lists every tensor concerned at once.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file is missing or cannot be read.
    #[error(
        "cannot read {path}: {source}. Check that the model directory is complete and readable"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A configuration file says something that this crate cannot run.
    #[error("{path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do about it.
        reason: String,
    },
    /// A weight file is broken.
    #[error("{path}: {reason}. The file is damaged or incomplete: copy it again")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The index names weight files that are not there.
    #[error("{dir} lacks {}, which its model.safetensors.index.json names: copy them there", .files.join(", "))]
    Incomplete {
        /// The model directory.
        dir: PathBuf,
        /// The files.
        files: Vec<String>,
    },
    /// The tensors in the weight files are not those that the configuration asks for.
    #[error("the weights in {dir} do not fit its config.json:{}", list(.missing, .extra, .misshapen, .misplaced))]
    Tensors {
        /// The model directory.
        dir: PathBuf,
        /// Tensors that the configuration asks for and no file holds.
        missing: Vec<String>,
        /// Tensors that a file holds and the configuration has no place for.
        extra: Vec<String>,
        /// Tensors of another shape or an unusable element type, each with both shapes.
        misshapen: Vec<String>,
        /// Tensors that are not in the file where the index looks for them, or in two places.
        misplaced: Vec<String>,
    },
    /// The tensors of an adapter do not fit the model that it is to be used with.
    #[error("the adapter in {dir} does not fit the model: {}; is it that model's adapter?", .misfits.join(", "))]
    Adapter {
        /// The adapter's directory.
        dir: PathBuf,
        /// Each tensor that has no place, with its shape, and each that is missing.
        misfits: Vec<String>,
    },
}

fn list(
    missing: &[String],
    extra: &[String],
    misshapen: &[String],
    misplaced: &[String],
) -> String {
    let mut out = String::new();
    for (what, names) in [
        ("missing", missing),
        ("unexpected", extra),
        ("misshapen", misshapen),
        ("misplaced", misplaced),
    ] {
        if !names.is_empty() {
            out += &format!("\n  {what} ({}): {}", names.len(), names.join(", "));
        }
    }
    out
}
