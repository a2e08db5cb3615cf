//! The tensors of a model, from its configuration, and the two naming schemes in use.
//!
//! Canonical names are those of the reference's modules: `model.language_model.…`, `model.visual.…`,
//! `lm_head.weight`. The first releases, and what the reference still writes for a full model, say
//! `model.…` and `visual.…` instead.

use crate::config::{Family, ModelConfig, TextConfig, VisionConfig};

/// The output projection, absent where it is tied to the embeddings.
pub(crate) const TIED_HEAD: &str = "lm_head.weight";

/// How a weight file names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `model.language_model.layers…`, `model.visual…`.
    Nested,
    /// `model.layers…`, `visual…`.
    Flat,
}

impl Scheme {
    /// The scheme of a file that holds these names.
    pub(crate) fn of<'a>(mut names: impl Iterator<Item = &'a str>) -> Self {
        let nested =
            |n: &str| n.starts_with("model.language_model.") || n.starts_with("model.visual.");
        if names.any(nested) { Self::Nested } else { Self::Flat }
    }

    /// This scheme's name of a canonical name.
    pub(crate) fn name_of(self, name: &str) -> String {
        if self == Self::Flat {
            if let Some(rest) = name.strip_prefix("model.language_model.") {
                return format!("model.{rest}");
            }
            if let Some(rest) = name.strip_prefix("model.visual.") {
                return format!("visual.{rest}");
            }
        }
        name.to_owned()
    }

    /// The canonical name of a name in a file, whichever scheme it follows.
    pub(crate) fn canonical(name: &str) -> String {
        if name.starts_with("model.language_model.") || name.starts_with("model.visual.") {
            return name.to_owned();
        }
        if name.starts_with("visual.") {
            return format!("model.{name}");
        }
        match name.strip_prefix("model.") {
            Some(rest) => format!("model.language_model.{rest}"),
            None => name.to_owned(),
        }
    }
}

/// Every tensor of the model with its shape, sorted by name.
pub(crate) fn expected(config: &ModelConfig) -> Vec<(String, Vec<i64>)> {
    let mut all = decoder(&config.text);
    all.extend(vision_tower(&config.vision, config.family));
    if !config.tie_word_embeddings {
        all.push((TIED_HEAD.into(), vec![config.text.vocab_size, config.text.hidden_size]));
    }
    all.sort();
    all
}

fn decoder(t: &TextConfig) -> Vec<(String, Vec<i64>)> {
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[i64]| {
        all.push((format!("model.language_model.{name}"), shape.to_vec()));
    };
    let (hidden, inner) = (t.hidden_size, t.intermediate_size);
    let (q, kv) = (t.num_attention_heads * t.head_dim, t.num_key_value_heads * t.head_dim);
    add("embed_tokens.weight".into(), &[t.vocab_size, hidden]);
    add("norm.weight".into(), &[hidden]);
    for i in 0..t.num_hidden_layers {
        let at = format!("layers.{i}");
        add(format!("{at}.input_layernorm.weight"), &[hidden]);
        add(format!("{at}.post_attention_layernorm.weight"), &[hidden]);
        for (part, width) in [("q", q), ("k", kv), ("v", kv)] {
            add(format!("{at}.self_attn.{part}_proj.weight"), &[width, hidden]);
            add(format!("{at}.self_attn.{part}_proj.bias"), &[width]);
        }
        add(format!("{at}.self_attn.o_proj.weight"), &[hidden, q]);
        add(format!("{at}.mlp.gate_proj.weight"), &[inner, hidden]);
        add(format!("{at}.mlp.up_proj.weight"), &[inner, hidden]);
        add(format!("{at}.mlp.down_proj.weight"), &[hidden, inner]);
    }
    all
}

fn vision_tower(v: &VisionConfig, family: Family) -> Vec<(String, Vec<i64>)> {
    let (hidden, inner, patch) = (v.hidden_size, v.intermediate_size, v.patch_size);
    let merged = hidden * v.merge_unit();
    // Name, outputs, inputs.
    let mlp = match family {
        Family::Qwen25Vl => vec![
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ],
        Family::Qwen2Vl => vec![("mlp.fc1", inner, hidden), ("mlp.fc2", hidden, inner)],
    };
    let mut linears = vec![
        ("merger.mlp.0".to_owned(), merged, merged),
        ("merger.mlp.2".to_owned(), v.out_hidden_size, merged),
    ];
    let mut norms = vec!["merger.ln_q".to_owned()];
    for i in 0..v.depth {
        let attention = [("attn.qkv", 3 * hidden, hidden), ("attn.proj", hidden, hidden)];
        let parts = attention.iter().chain(&mlp);
        linears
            .extend(parts.map(|(part, out, inputs)| (format!("blocks.{i}.{part}"), *out, *inputs)));
        norms.extend(["norm1", "norm2"].map(|part| format!("blocks.{i}.{part}")));
    }

    let mut all = Vec::new();
    let mut add = |name: String, shape: &[i64]| {
        all.push((format!("model.visual.{name}"), shape.to_vec()));
    };
    let kernel = [hidden, v.in_channels, v.temporal_patch_size, patch, patch];
    add("patch_embed.proj.weight".into(), &kernel);
    for (name, out, inputs) in linears {
        add(format!("{name}.weight"), &[out, inputs]);
        add(format!("{name}.bias"), &[out]);
    }
    for name in norms {
        add(format!("{name}.weight"), &[hidden]);
        if family == Family::Qwen2Vl {
            add(format!("{name}.bias"), &[hidden]);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::Scheme;

    /// A name that did not survive the way out and back would be lost from a checkpoint.
    #[test]
    fn both_schemes_name_the_same_tensor() {
        for (flat, nested) in [
            ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight"),
            (
                "model.layers.0.mlp.up_proj.weight",
                "model.language_model.layers.0.mlp.up_proj.weight",
            ),
            ("visual.blocks.1.norm1.weight", "model.visual.blocks.1.norm1.weight"),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(Scheme::canonical(flat), nested);
            assert_eq!(Scheme::canonical(nested), nested);
            assert_eq!(Scheme::Flat.name_of(nested), flat);
            assert_eq!(Scheme::Nested.name_of(nested), nested);
        }
    }
}
