//! The JSON files of a model directory, of which many may be absent.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Reads a JSON file; none if it is not there.
///
/// # Errors
/// Names the file that cannot be read or parsed.
pub(crate) fn read(path: &Path) -> Result<Option<Value>> {
    if !path.exists() {
        return Ok(None);
    }
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).map(Some).with_context(|| format!("{} is not JSON", path.display()))
}
