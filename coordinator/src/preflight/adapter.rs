//! Adapters in PEFT's layout: a directory that names the model directory under it.

use std::path::{Path, PathBuf};

use medevo_common::config::{RunConfig, StageSection};
use serde_json::Value;

use super::{
    Refused,
    model::{json, tensors},
};

const CONFIG: &str = "adapter_config.json";

/// The model directory under the adapter in `dir`, once the adapter's own files are readable; none where
/// `dir` holds no adapter.
///
/// # Errors
/// [`Refused`], with every problem of the adapter.
pub fn base_of(dir: &Path) -> Result<Option<PathBuf>, Refused> {
    if !dir.join(CONFIG).exists() {
        return Ok(None);
    }
    let mut problems = Vec::new();
    let mut base = None;
    match json(&dir.join(CONFIG)) {
        Err(problem) => problems.push(problem),
        Ok(config) => {
            let named = config.get("base_model_name_or_path").and_then(Value::as_str);
            let named = PathBuf::from(named.unwrap_or_default());
            if named.is_dir() && !named.join(CONFIG).exists() {
                base = Some(named);
            } else {
                problems.push(format!(
                    "{CONFIG} names the base model {:?}, which is no model directory here; write its \
                     directory into base_model_name_or_path",
                    named.display()
                ));
            }
        }
    }
    problems.extend(tensors(&dir.join("adapter_model.safetensors")).err());
    if problems.is_empty() {
        return Ok(base);
    }
    Err(Refused::new(format!(
        "the adapter in {} cannot be used:\n  {}",
        dir.display(),
        problems.join("\n  ")
    )))
}

/// What is wrong with training the run's model as the run file says.
pub(super) fn cannot_train(config: &RunConfig) -> Option<String> {
    let dir = &config.model.path;
    let trains = config.stage.iter().any(|stage| !matches!(stage, StageSection::Evaluate(_)));
    (trains && config.lora.is_none() && dir.join(CONFIG).exists()).then(|| {
        format!(
            "model.path {} holds an adapter; add a [lora] section to train it further, or make a whole model \
             of it with `medevo-worker merge`",
            dir.display()
        )
    })
}
