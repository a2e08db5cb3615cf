//! `adapter_config.json`, PEFT's description of an adapter.

use std::path::{Path, PathBuf};

use medevo_types::settings::LoraSettings;
use serde_json::{Value, json};

use crate::error::LoadError;

/// Name of the file; a directory that holds it is an adapter's.
pub(super) const CONFIG_FILE: &str = "adapter_config.json";

/// Says to PEFT what `model.freeze_vision` says here: a regular expression over the modules' names.
const EXCLUDE_VISION: &str = r"model\.visual\..*";

/// PEFT's options that change what an adapter computes, in ways that this crate does not know. Each must be
/// absent, null, false or empty.
const UNKNOWN: [&str; 12] = [
    "alora_invocation_tokens",
    "alpha_pattern",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
    "use_qalora",
    "use_rslora",
];

/// What this crate takes from `adapter_config.json`.
#[derive(Debug)]
pub(super) struct PeftConfig {
    /// The base model's directory, as the file names it.
    pub base: PathBuf,
    pub rank: usize,
    pub alpha: f64,
    /// None where the file holds a regular expression instead of a list.
    pub targets: Option<Vec<String>>,
    pub freeze_vision: bool,
}

impl PeftConfig {
    /// Reads the file of `dir`.
    ///
    /// # Errors
    /// [`LoadError`] with the key that cannot be obeyed.
    pub fn read(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join(CONFIG_FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| LoadError::Io { path: path.clone(), source })?;
        let parse = || -> Result<Self, String> {
            let value: Value = serde_json::from_str(&text).map_err(|e| format!("not JSON: {e}"))?;
            Self::parse(&value)
        };
        parse().map_err(|reason| LoadError::Config { path, reason })
    }

    fn parse(value: &Value) -> Result<Self, String> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        if text("peft_type") != Some("LORA") {
            let kind = value.get("peft_type").unwrap_or(&Value::Null);
            return Err(format!("peft_type is {kind}; only \"LORA\" can be run"));
        }
        for key in UNKNOWN {
            if let Some(set) = value.get(key).filter(|v| !is_unset(v)) {
                return Err(format!("{key} is {set}, which cannot be run"));
            }
        }
        if let Some(bias) = text("bias").filter(|bias| *bias != "none") {
            return Err(format!("bias is {bias:?}; only \"none\" can be run"));
        }
        // Named ways to begin (PiSSA, OLoRA and their like) also change the base, which a file cannot show.
        if let Some(init) = text("init_lora_weights").filter(|init| *init != "gaussian") {
            return Err(format!(
                "init_lora_weights is {init:?}, which changes the base model too; merge it with PEFT"
            ));
        }
        let rank = value.get("r").and_then(Value::as_u64).filter(|rank| *rank > 0);
        let alpha = value.get("lora_alpha").and_then(Value::as_f64);
        let targets = match value.get("target_modules") {
            Some(list @ Value::Array(_)) => Some(
                serde_json::from_value(list.clone())
                    .map_err(|e| format!("target_modules is no list of names: {e}"))?,
            ),
            _ => None,
        };
        Ok(Self {
            base: text("base_model_name_or_path").unwrap_or_default().into(),
            rank: rank.ok_or("r is no rank of at least 1")? as usize,
            alpha: alpha.ok_or("lora_alpha is no number")?,
            targets,
            freeze_vision: text("exclude_modules") == Some(EXCLUDE_VISION),
        })
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// The file's text. `freeze_vision` is the adapter's.
pub(super) fn text(settings: &LoraSettings, freeze_vision: bool, base: &Path) -> String {
    // PEFT declares the key as a whole number and calculates with either.
    let alpha = if settings.alpha.fract() == 0.0 {
        json!(settings.alpha as i64)
    } else {
        json!(settings.alpha)
    };
    let value = json!({
        "base_model_name_or_path": base.to_string_lossy(),
        "bias": "none",
        "exclude_modules": if freeze_vision { json!(EXCLUDE_VISION) } else { Value::Null },
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": settings.rank,
        "target_modules": settings.targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    });
    format!("{value:#}\n")
}
