//! The two vision towers' part of `config.json`.

use serde_json::Value;

use super::VisionConfig;
use super::fields::Fields;

pub(super) fn qwen25(f: &Fields) -> Result<VisionConfig, String> {
    f.must_be("hidden_act", "silu")?;
    let depth = f.int_or("depth", 32)?;
    let fullatt_block_indexes = match f.value.get("fullatt_block_indexes") {
        None => vec![7, 15, 23, 31],
        Some(v) => serde_json::from_value(v.clone())
            .map_err(|e| format!("{}fullatt_block_indexes is not a list of numbers: {e}", f.at))?,
    };
    let config = VisionConfig {
        depth,
        hidden_size: f.int("hidden_size")?,
        intermediate_size: f.int("intermediate_size")?,
        window_size: f.int_or("window_size", 112)?,
        out_hidden_size: f.int("out_hidden_size")?,
        fullatt_block_indexes,
        ..shared(f)?
    };
    if config.window_size / config.spatial_merge_size / config.patch_size < 1 {
        return Err(format!("{}window_size is smaller than one merged token", f.at));
    }
    divides(f, "hidden_size", config)
}

pub(super) fn qwen2(f: &Fields) -> Result<VisionConfig, String> {
    f.must_be("hidden_act", "quick_gelu")?;
    let depth = f.int_or("depth", 32)?;
    let width = f.int_or("embed_dim", 1280)?;
    let shape = shared(f)?;
    let config = VisionConfig {
        depth,
        hidden_size: width,
        intermediate_size: (width as f64 * f.float_or("mlp_ratio", 4.0)?) as i64,
        window_size: shape.patch_size * shape.spatial_merge_size,
        out_hidden_size: f.int_or("hidden_size", 3584)?,
        fullatt_block_indexes: (0..depth).collect(),
        ..shape
    };
    if config.intermediate_size < 1 {
        return Err(format!("{}mlp_ratio leaves the MLP without a width", f.at));
    }
    divides(f, "embed_dim", config)
}

/// What both families write alike. The widths and windows are for the caller to fill in.
fn shared(f: &Fields) -> Result<VisionConfig, String> {
    let rope =
        f.value.get("rope_parameters").and_then(|r| r.get("rope_theta")).and_then(Value::as_f64);
    Ok(VisionConfig {
        depth: 0,
        hidden_size: 0,
        intermediate_size: 0,
        num_heads: f.int_or("num_heads", 16)?,
        // The first releases call it `in_chans`.
        in_channels: f.int_or("in_chans", f.int_or("in_channels", 3)?)?,
        patch_size: f.int_or("patch_size", 14)?,
        spatial_merge_size: f.int_or("spatial_merge_size", 2)?,
        temporal_patch_size: f.int_or("temporal_patch_size", 2)?,
        window_size: 0,
        out_hidden_size: 0,
        fullatt_block_indexes: Vec::new(),
        rope_theta: rope.unwrap_or(10_000.0),
        initializer_range: f.float_or("initializer_range", 0.02)?,
    })
}

/// Refuses a width that the heads, or the two directions and halves of the rotation, do not divide.
fn divides(f: &Fields, key: &str, config: VisionConfig) -> Result<VisionConfig, String> {
    let (width, heads) = (config.hidden_size, config.num_heads);
    if width % heads != 0 || (width / heads) % 4 != 0 {
        return Err(format!(
            "{}{key} {width} does not divide into {heads} heads of a width that four divides",
            f.at
        ));
    }
    Ok(config)
}
