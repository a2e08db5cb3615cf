//! The model's shape, as far as memory is concerned, from its `config.json`.

use serde_json::Value;

/// Shape of a Qwen2.5-VL (or Qwen2-VL) model. Counts are numbers, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the embedding matrix.
    pub vocabulary: u64,
    /// Width of the decoder's residual stream.
    pub hidden: u64,
    /// Width of the decoder's SwiGLU layer.
    pub inner: u64,
    /// Decoder layers.
    pub layers: u64,
    /// Width of all query heads together.
    pub queries: u64,
    /// Width of all key heads together; that of the value heads is the same.
    pub keys: u64,
    /// Query heads.
    pub heads: u64,
    /// Whether the output projection is the embedding matrix.
    pub tied: bool,
    /// The vision tower.
    pub vision: Vision,
}

/// Shape of the vision tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vision {
    /// Blocks.
    pub depth: u64,
    /// Width of the residual stream.
    pub width: u64,
    /// Width of a block's feed-forward layer.
    pub inner: u64,
    /// Matrices of a feed-forward layer: 3 where it is gated (Qwen2.5-VL), 2 where it is not (Qwen2-VL).
    pub matrices: u64,
    /// Numbers of one flattened patch.
    pub patch: u64,
    /// Edge of a patch, pixels.
    pub edge: u64,
    /// Edge of the square of patches that becomes one token.
    pub merge: u64,
}

impl Shape {
    /// Reads a parsed `config.json`, with the text's fields at the top level or under `text_config`.
    ///
    /// # Errors
    /// A sentence that names the key that is missing or no number.
    pub fn from_json(root: &Value) -> Result<Self, String> {
        let text = root.get("text_config").filter(|v| v.is_object()).unwrap_or(root);
        let tower = root
            .get("vision_config")
            .filter(|v| v.is_object())
            .ok_or("vision_config is missing; is this a text-only model?")?;
        let hidden = number(text, "hidden_size")?;
        let heads = number(text, "num_attention_heads")?.max(1);
        let kv_heads = number_or(text, "num_key_value_heads", heads)?;
        let tied = |v: &Value| v.get("tie_word_embeddings").and_then(Value::as_bool);
        let edge = number_or(tower, "patch_size", 14)?.max(1);
        let channels = number_or(tower, "in_chans", number_or(tower, "in_channels", 3)?)?;
        let frames = number_or(tower, "temporal_patch_size", 2)?;
        // Qwen2-VL calls the width embed_dim and gives the inner one as a ratio.
        let gated = tower.get("embed_dim").is_none();
        let width = if gated { number(tower, "hidden_size")? } else { number(tower, "embed_dim")? };
        let inner = if gated {
            number(tower, "intermediate_size")?
        } else {
            width * number_or(tower, "mlp_ratio", 4)?
        };
        Ok(Self {
            vocabulary: number(text, "vocab_size")?,
            hidden,
            inner: number(text, "intermediate_size")?,
            layers: number(text, "num_hidden_layers")?,
            queries: hidden,
            keys: hidden / heads * kv_heads,
            heads,
            tied: tied(root).or_else(|| tied(text)).unwrap_or(false),
            vision: Vision {
                depth: number_or(tower, "depth", 32)?,
                width,
                inner,
                matrices: if gated { 3 } else { 2 },
                patch: channels * frames * edge * edge,
                edge,
                merge: number_or(tower, "spatial_merge_size", 2)?.max(1),
            },
        })
    }

    /// Numbers of the decoder, embeddings included.
    #[must_use]
    pub fn text_parameters(&self) -> u64 {
        let (h, q, k) = (self.hidden, self.queries, self.keys);
        let attention = (h * q + q) + 2 * (h * k + k) + q * h;
        let layer = 2 * h + attention + 3 * h * self.inner;
        let matrices = if self.tied { 1 } else { 2 };
        matrices * self.embedding() + self.layers * layer + h
    }

    /// Numbers of the vision tower with its merger.
    #[must_use]
    pub fn vision_parameters(&self) -> u64 {
        let Vision { depth, width: d, inner, matrices, patch, merge, .. } = self.vision;
        let joined = merge * merge * d;
        // Qwen2-VL has layer norms, with a bias, where Qwen2.5-VL has root mean square norms.
        let norm = if matrices == 3 { d } else { 2 * d };
        let feed_forward = matrices * d * inner + (matrices - 1) * inner + d;
        let block = 2 * norm + (3 * d * d + 3 * d) + (d * d + d) + feed_forward;
        let merger = norm + (joined * joined + joined) + (joined * self.hidden + self.hidden);
        patch * d + depth * block + merger
    }

    /// All numbers of the model.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.text_parameters() + self.vision_parameters()
    }

    /// Numbers of the embedding matrix: the largest tensor.
    #[must_use]
    pub fn embedding(&self) -> u64 {
        self.vocabulary * self.hidden
    }

    /// Numbers of the adapters of `rank` on the layers that `targets` names, in both towers or, with the vision tower
    /// frozen, in the decoder.
    #[must_use]
    pub fn adapter_parameters(&self, rank: u64, targets: &[String], freeze_vision: bool) -> u64 {
        let (h, q, k, i) = (self.hidden, self.queries, self.keys, self.inner);
        let Vision { depth, width: d, inner, .. } = self.vision;
        let depth = if freeze_vision { 0 } else { depth };
        let linear = [
            ("q_proj", self.layers, h + q),
            ("k_proj", self.layers, h + k),
            ("v_proj", self.layers, h + k),
            ("o_proj", self.layers, q + h),
            ("gate_proj", self.layers, h + i),
            ("up_proj", self.layers, h + i),
            ("down_proj", self.layers, i + h),
            ("gate_proj", depth, d + inner),
            ("up_proj", depth, d + inner),
            ("down_proj", depth, inner + d),
            ("qkv", depth, 4 * d),
            ("proj", depth, 2 * d),
        ];
        let named = |name: &str| {
            targets.iter().any(|target| target == name || target.ends_with(&format!(".{name}")))
        };
        let sides = linear.iter().filter(|(name, ..)| named(name));
        rank * sides.map(|(_, times, sides)| times * sides).sum::<u64>()
    }
}

fn number(at: &Value, key: &str) -> Result<u64, String> {
    let value = at.get(key).ok_or(format!("{key} is missing"))?;
    value.as_u64().ok_or(format!("{key} is {value}, not a whole number"))
}

fn number_or(at: &Value, key: &str, usual: u64) -> Result<u64, String> {
    if at.get(key).is_none_or(Value::is_null) { Ok(usual) } else { number(at, key) }
}
