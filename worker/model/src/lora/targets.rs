//! Which linear layers get an adapter: PEFT's rule for `target_modules`.

use medevo_types::settings::LoraSettings;

use crate::config::ModelConfig;
use crate::model::Qwen25Vl;
use crate::weights::{TIED_HEAD, expected};

/// A linear layer and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Name of the reference's module, without `.weight`.
    pub name: String,
    /// Width of what comes out.
    pub out: i64,
    /// Width of what goes in.
    pub inner: i64,
}

/// The linear layers of both towers, sorted by name.
pub(crate) fn linear_layers(config: &ModelConfig) -> Vec<Module> {
    let of = |(name, shape): (String, Vec<i64>)| {
        let name = name.strip_suffix(".weight")?.to_owned();
        match shape[..] {
            [out, inner] if !is_table(&name) => Some(Module { name, out, inner }),
            _ => None,
        }
    };
    expected(config).into_iter().filter_map(of).collect()
}

/// The layers that `settings` mean: those whose name is a target or ends in a dot and a target. With
/// `freeze_vision` the vision tower is left out, whatever the targets say.
///
/// # Errors
/// A sentence about each target that means no layer, or one that cannot have an adapter here.
pub(crate) fn targeted(
    config: &ModelConfig,
    settings: &LoraSettings,
    freeze_vision: bool,
) -> Result<Vec<Module>, String> {
    let layers = linear_layers(config);
    let is_open = |name: &str| !(freeze_vision && Qwen25Vl::is_vision(name));
    let mut problems = Vec::new();
    for target in &settings.targets {
        let mut meant = layers.iter().filter(|layer| means(target, &layer.name)).peekable();
        if let Some(other) = without_adapter(config, target).filter(|name| is_open(name)) {
            let instead = meant.peek().map_or(String::new(), |layer| {
                let name = last_parts(&layer.name, 2);
                format!("; a longer target such as {name:?} leaves it out")
            });
            problems
                .push(format!("target {target:?} means {other}, which has no adapter{instead}"));
        } else if meant.peek().is_none() {
            let known = nearest(target, &layers);
            problems.push(format!("target {target:?} means no layer; the nearest are {known}"));
        } else if !meant.any(|layer| is_open(&layer.name)) {
            problems.push(format!(
                "target {target:?} lies in the vision tower only, which model.freeze_vision leaves as it is"
            ));
        }
    }
    if !problems.is_empty() {
        return Err(format!("lora.targets: {}", problems.join("; ")));
    }
    let is_meant = |layer: &Module| {
        is_open(&layer.name) && settings.targets.iter().any(|target| means(target, &layer.name))
    };
    Ok(layers.into_iter().filter(is_meant).collect())
}

/// PEFT's `check_target_module_exists` for a list.
fn means(target: &str, name: &str) -> bool {
    name == target || name.strip_suffix(target).is_some_and(|before| before.ends_with('.'))
}

/// Embeddings and output projection: matrices that are no linear layer of a tower.
fn is_table(name: &str) -> bool {
    name.ends_with("embed_tokens") || TIED_HEAD.strip_suffix(".weight") == Some(name)
}

/// A module that PEFT would adapt for this target and this crate does not: the patch projection (a
/// convolution), the embeddings and the output projection.
fn without_adapter(config: &ModelConfig, target: &str) -> Option<String> {
    let mut names: Vec<String> = expected(config)
        .into_iter()
        .filter(|(_, shape)| shape.len() > 1)
        .filter_map(|(name, shape)| {
            let name = name.strip_suffix(".weight")?.to_owned();
            (shape.len() > 2 || is_table(&name)).then_some(name)
        })
        .collect();
    // Where it is tied it is not among the tensors, and PEFT would adapt it all the same.
    names.push("lm_head".to_owned());
    names.into_iter().find(|name| means(target, name))
}

/// The last parts of the layers' names, the most similar first, at most five.
fn nearest(target: &str, layers: &[Module]) -> String {
    let mut names: Vec<&str> = layers.iter().map(|layer| last_parts(&layer.name, 1)).collect();
    names.sort_unstable();
    names.dedup();
    // Numbers are places in a list, not names.
    names.retain(|name| name.parse::<u32>().is_err());
    names.sort_by(|a, b| {
        let likeness = |name: &str| strsim::jaro_winkler(target, name);
        likeness(b).total_cmp(&likeness(a))
    });
    names.truncate(5);
    names.join(", ")
}

fn last_parts(name: &str, count: usize) -> &str {
    let start = name.rmatch_indices('.').nth(count - 1).map_or(0, |(dot, _)| dot + 1);
    &name[start..]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn config() -> ModelConfig {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ops/demo/tiny-qwen2.5-vl");
        ModelConfig::load(&dir).unwrap()
    }

    fn names(targets: &[&str], freeze_vision: bool) -> Result<Vec<String>, String> {
        let targets = targets.iter().map(|t| (*t).to_owned()).collect();
        let settings = LoraSettings { targets, ..LoraSettings::default() };
        let found = targeted(&config(), &settings, freeze_vision)?;
        Ok(found.into_iter().map(|layer| layer.name).collect())
    }

    /// Another rule than PEFT's would train other layers than those that the adapter's file says.
    #[test]
    fn a_target_means_whole_parts_of_a_name() {
        let both = names(&["up_proj"], false).unwrap();
        assert!(both.iter().any(|n| n.starts_with("model.visual.blocks.0.mlp")), "{both:?}");
        let text = names(&["up_proj"], true).unwrap();
        assert_eq!(text.len() as i64, config().text.num_hidden_layers);
        assert!(text.iter().all(|n| n.starts_with("model.language_model.")));
        assert_eq!(names(&["layers.0.mlp.up_proj"], false).unwrap().len(), 1);
        assert_eq!(names(&["model.language_model.layers.0.mlp.up_proj"], false).unwrap().len(), 1);
        assert!(names(&["mlp.0"], false).unwrap()[0].ends_with("merger.mlp.0"));
        let vision = names(&["qkv", "attn.proj"], false).unwrap();
        assert_eq!(vision.len() as i64, 2 * config().vision.depth);
    }

    #[test]
    fn a_target_without_a_layer_is_refused_with_what_was_perhaps_meant() {
        let said = |targets: &[&str], freeze| names(targets, freeze).unwrap_err();
        let message = said(&["q_prj", "up_proj", "v_projs"], false);
        assert!(
            message.contains("\"q_prj\"") && message.contains("nearest are q_proj"),
            "{message}"
        );
        assert!(message.contains("\"v_projs\"") && !message.contains("\"up_proj\""), "{message}");
        assert!(said(&["proj_"], false).contains("means no layer"));
        assert!(said(&["qkv"], true).contains("freeze_vision"));
        assert!(said(&["lm_head"], false).contains("no adapter"));
        let message = said(&["proj"], false);
        assert!(message.contains("patch_embed.proj"), "{message}");
        assert!(message.contains("\"attn.proj\""), "{message}");
    }

    proptest! {
        /// The rule, said in another way: the last parts of the name are the target's parts.
        #[test]
        fn the_rule_compares_parts(name in "[ab]{1,2}(\\.[ab]{1,2}){0,3}", target in "[ab]{1,2}(\\.[ab]{1,2}){0,2}") {
            let (name_parts, parts): (Vec<_>, Vec<_>) = (name.split('.').collect(), target.split('.').collect());
            prop_assert_eq!(means(&target, &name), name_parts.ends_with(&parts));
        }
    }
}
