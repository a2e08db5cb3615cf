//! `--set key=value`: overrides laid over the run file before it is checked.

use super::{
    document::{Content, Entry, Node},
    error::{ConfigProblem, Place},
};

/// Lays one override over the tree. Stages are addressed by number (from 0) or by name:
/// `stage.1.steps=10`, `stage.adapt.objective.beta=0.1`. The value is TOML, or else bare text.
///
/// # Errors
/// What is wrong with the override; keys are checked later, with those of the file.
pub(super) fn apply(root: &mut Node, text: &str) -> Result<(), ConfigProblem> {
    let problem = |message: String| ConfigProblem { place: Place::Set(text.to_owned()), message };
    let (path, value) = text.split_once('=').ok_or_else(|| {
        problem("an override is written key=value, for example run.seed=3".into())
    })?;
    let keys = toml_edit::Key::parse(path.trim())
        .map_err(|_| problem(format!("`{}` is not a dotted key", path.trim())))?;
    let mut node = root;
    for key in &keys {
        node = descend(node, key.get(), text).map_err(problem)?;
    }
    *node = Node::from_override(value.trim(), text);
    Ok(())
}

/// The child of this key; made if a table lacks it.
fn descend<'a>(node: &'a mut Node, key: &str, text: &str) -> Result<&'a mut Node, String> {
    let place = Place::Set(text.to_owned());
    let kind = node.kind();
    match &mut node.content {
        Content::Table(entries) => {
            let at = entries.iter().position(|e| e.key == key).unwrap_or_else(|| {
                let node = Node { place: place.clone(), content: Content::Table(Vec::new()) };
                entries.push(Entry { key: key.to_owned(), place: place.clone(), node });
                entries.len() - 1
            });
            // The key itself now comes from the override: a complaint about it must name that.
            entries[at].place = place;
            Ok(&mut entries[at].node)
        }
        Content::Array(nodes) => {
            let count = nodes.len();
            let names: Vec<String> = nodes
                .iter()
                .filter_map(|n| n.get("name").and_then(|e| e.node.as_str()).map(str::to_owned))
                .collect();
            let at = match key.parse::<usize>() {
                Ok(index) => Some(index).filter(|i| *i < count),
                Err(_) => nodes.iter().position(|n| {
                    n.get("name").and_then(|e| e.node.as_str()).is_some_and(|name| name == key)
                }),
            };
            at.and_then(|i| nodes.get_mut(i)).ok_or_else(|| {
                format!(
                    "there is no `{key}` among the {count} here; say 0 to {} or one of the names: {}",
                    count.saturating_sub(1),
                    if names.is_empty() { "(none)".into() } else { names.join(", ") }
                )
            })
        }
        Content::Scalar(_) => Err(format!("`{key}` cannot be set: its parent is {kind}")),
    }
}
