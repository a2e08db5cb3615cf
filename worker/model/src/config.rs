//! `config.json`: the shape of the model.
//!
//! Two layouts are in use: text fields at the top level beside `vision_config` (the first releases), and
//! text fields nested under `text_config`. Both are read; what cannot be run is refused by name.

mod fields;
mod vision;

use std::path::{Path, PathBuf};

use fields::Fields;
use serde_json::Value;

use crate::error::LoadError;
use crate::weights;

/// The model families that can be run. They share the decoder; their vision towers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `qwen2_vl`: LayerNorm, an MLP of two layers with the quick GELU, attention over the whole image.
    Qwen2Vl,
    /// `qwen2_5_vl`: RMSNorm, SwiGLU, attention in windows in most blocks.
    Qwen25Vl,
}

/// The shape of a Qwen2.5-VL or Qwen2-VL model and its special token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Which vision tower it has (`model_type`).
    pub family: Family,
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// Id of `<|image_pad|>`, one per merged image token.
    pub image_token_id: i64,
    /// Id of `<|video_pad|>`.
    pub video_token_id: i64,
    /// Id of `<|vision_start|>`.
    pub vision_start_token_id: i64,
    /// Id of `<|vision_end|>`.
    pub vision_end_token_id: i64,
    /// Whether the output projection is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// The directory that it was read from; its configuration and tokenizer files go with saved weights.
    pub source: Option<PathBuf>,
}

/// The decoder's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Rows of the embedding matrix; at least the tokenizer's vocabulary.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width of the SwiGLU layer.
    pub intermediate_size: i64,
    /// Decoder layers.
    pub num_hidden_layers: i64,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: i64,
    /// `hidden_size / num_attention_heads`.
    pub head_dim: i64,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Rotary frequencies that turn with time, height and width; they sum to `head_dim / 2`.
    pub mrope_section: [i64; 3],
    /// Longest sequence the model was made for, in tokens.
    pub max_position_embeddings: i64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
}

/// The vision tower's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Transformer blocks.
    pub depth: i64,
    /// Width of the residual stream. Qwen2-VL's file calls it `embed_dim`.
    pub hidden_size: i64,
    /// Width inside the MLP. Qwen2-VL's file gives it as `mlp_ratio` times the width.
    pub intermediate_size: i64,
    /// Attention heads.
    pub num_heads: i64,
    /// Colour channels.
    pub in_channels: i64,
    /// Edge of a patch, pixels.
    pub patch_size: i64,
    /// Edge of the square of patches that becomes one token.
    pub spatial_merge_size: i64,
    /// Frames in a patch; a still image is repeated.
    pub temporal_patch_size: i64,
    /// Edge of an attention window, pixels; of one token, and unused, in Qwen2-VL.
    pub window_size: i64,
    /// Width of the merged tokens: the decoder's `hidden_size`.
    pub out_hidden_size: i64,
    /// Blocks that attend over the whole image instead of a window: all of them in Qwen2-VL.
    pub fullatt_block_indexes: Vec<i64>,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
}

impl VisionConfig {
    /// Width of one flattened patch: channels × frames × edge².
    #[must_use]
    pub fn patch_dim(&self) -> i64 {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Patches that become one token.
    #[must_use]
    pub fn merge_unit(&self) -> i64 {
        self.spatial_merge_size * self.spatial_merge_size
    }
}

impl ModelConfig {
    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    /// [`LoadError::Io`] where there is none, [`LoadError::Config`] where it describes another model.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|source| LoadError::Io { path: path.clone(), source })?;
        let value: Value = serde_json::from_str(&text).map_err(|e| LoadError::Config {
            path: path.clone(),
            reason: format!("not JSON: {e}"),
        })?;
        let mut config =
            Self::from_json(&value).map_err(|reason| LoadError::Config { path, reason })?;
        config.source = Some(dir.to_path_buf());
        Ok(config)
    }

    /// Reads the parsed `config.json`.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn from_json(root: &Value) -> Result<Self, String> {
        let family = match root.get("model_type").and_then(Value::as_str) {
            Some("qwen2_5_vl") => Family::Qwen25Vl,
            Some("qwen2_vl") => Family::Qwen2Vl,
            Some(other) => {
                return Err(format!(
                    "model_type is {other:?}; only \"qwen2_5_vl\" and \"qwen2_vl\" can be run"
                ));
            }
            None => {
                return Err(
                    "model_type is missing; it must say \"qwen2_5_vl\" or \"qwen2_vl\"".into()
                );
            }
        };
        let nested = root.get("text_config").filter(|v| v.is_object());
        let text_fields =
            Fields { value: nested.unwrap_or(root), at: nested.map_or("", |_| "text_config.") };
        let vision_value = root.get("vision_config").filter(|v| v.is_object());
        let vision_fields = Fields {
            value: vision_value.ok_or("vision_config is missing; is this a text-only model?")?,
            at: "vision_config.",
        };
        let top = Fields { value: root, at: "" };
        let text = text_config(&text_fields)?;
        let vision = match family {
            Family::Qwen25Vl => vision::qwen25(&vision_fields)?,
            Family::Qwen2Vl => vision::qwen2(&vision_fields)?,
        };
        if vision.out_hidden_size != text.hidden_size {
            let key = match family {
                Family::Qwen25Vl => "out_hidden_size",
                Family::Qwen2Vl => "hidden_size",
            };
            return Err(format!(
                "vision_config.{key} is {} but the decoder's hidden_size is {}; they must be equal",
                vision.out_hidden_size, text.hidden_size
            ));
        }
        let tied =
            |v: &Value| v.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self {
            family,
            text,
            vision,
            image_token_id: top.int_or("image_token_id", 151_655)?,
            video_token_id: top.int_or("video_token_id", 151_656)?,
            vision_start_token_id: top.int_or("vision_start_token_id", 151_652)?,
            vision_end_token_id: top.int_or("vision_end_token_id", 151_653)?,
            tie_word_embeddings: tied(root) || nested.is_some_and(tied),
            source: None,
        })
    }

    /// Every tensor of the model with its shape, sorted by name; names are those of the reference's
    /// modules (`model.language_model.…`, `model.visual.…`). Nothing is allocated.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        weights::expected(self)
    }
}

fn text_config(f: &Fields) -> Result<TextConfig, String> {
    f.must_be("hidden_act", "silu")?;
    if f.value.get("use_sliding_window").and_then(Value::as_bool) == Some(true) {
        return Err(format!("{}use_sliding_window is true; sliding windows cannot be run", f.at));
    }
    let hidden_size = f.int("hidden_size")?;
    let heads = f.int("num_attention_heads")?;
    let kv_heads = f.int_or("num_key_value_heads", heads)?;
    if hidden_size % heads != 0 || heads % kv_heads != 0 || (hidden_size / heads) % 2 != 0 {
        return Err(format!(
            "{}hidden_size {hidden_size}, num_attention_heads {heads} and num_key_value_heads {kv_heads} \
             do not divide into heads of even width",
            f.at
        ));
    }
    let head_dim = hidden_size / heads;
    let rope = ["rope_parameters", "rope_scaling"]
        .iter()
        .find_map(|k| f.value.get(*k).filter(|v| v.is_object()));
    let kind = rope
        .and_then(|r| r.get("rope_type").or(r.get("type")))
        .and_then(Value::as_str)
        .unwrap_or("default");
    if kind != "default" && kind != "mrope" {
        return Err(format!(
            "{}rope_scaling has type {kind:?}; only \"mrope\" and \"default\" can be run",
            f.at
        ));
    }
    let rope_theta = rope
        .and_then(|r| r.get("rope_theta"))
        .or(f.value.get("rope_theta"))
        .map_or(Ok(1_000_000.0), |v| {
            v.as_f64().ok_or(format!("{}rope_theta is not a number", f.at))
        })?;
    let mrope_section: [i64; 3] = match rope.and_then(|r| r.get("mrope_section")) {
        None => [16, 24, 24],
        Some(v) => serde_json::from_value(v.clone())
            .map_err(|e| format!("{}rope_scaling.mrope_section is not three numbers: {e}", f.at))?,
    };
    if mrope_section.iter().sum::<i64>() != head_dim / 2 || mrope_section.iter().any(|n| *n < 0) {
        return Err(format!(
            "{}rope_scaling.mrope_section {mrope_section:?} does not sum to half the head width, {}",
            f.at,
            head_dim / 2
        ));
    }
    Ok(TextConfig {
        vocab_size: f.int("vocab_size")?,
        hidden_size,
        intermediate_size: f.int("intermediate_size")?,
        num_hidden_layers: f.int("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        rms_norm_eps: f.float_or("rms_norm_eps", 1e-5)?,
        rope_theta,
        mrope_section,
        max_position_embeddings: f.int_or("max_position_embeddings", 32_768)?,
        initializer_range: f.float_or("initializer_range", 0.02)?,
    })
}
