//! Checks a tree against the JSON schema of the run file, so that every problem is found at once and
//! named where it stands.

use serde_json::{Map, Value};

use super::{
    document::{Content, Entry, Node},
    error::{ConfigProblem, Place},
    raw::RunConfig,
};

/// The schema of the run file; generated from the types, so it cannot drift from them.
pub(super) struct Schema {
    root: Value,
}

impl Schema {
    /// Schema of [`RunConfig`].
    pub fn of_run() -> Self {
        Self { root: schemars::schema_for!(RunConfig).to_value() }
    }

    /// The root table's schema.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// Follows a `$ref` to a definition; of a section that may be left out, that of the section.
    pub fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let alternatives = schema.get("anyOf").and_then(Value::as_array);
        let section = alternatives.and_then(|all| all.iter().find(|one| one.get("$ref").is_some()));
        let schema = section.unwrap_or(schema);
        let name = schema.get("$ref").and_then(Value::as_str);
        let name = name.and_then(|r| r.strip_prefix("#/$defs/"));
        match name {
            Some(name) => self.root.get("$defs").and_then(|d| d.get(name)).unwrap_or(schema),
            None => schema,
        }
    }

    /// The problems of a whole run file.
    pub fn problems(&self, root: &Node) -> Vec<ConfigProblem> {
        let mut check = Check { schema: self, problems: Vec::new() };
        check.node(root, &self.root, "");
        check.problems
    }
}

/// Names that a schema of constants allows, with their descriptions.
pub(super) fn constants(schema: &Value) -> Option<Vec<(&str, &str)>> {
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return names.iter().map(|n| n.as_str().map(|n| (n, ""))).collect();
    }
    let variants = schema.get("oneOf").and_then(Value::as_array)?;
    variants.iter().map(|v| Some((v.get("const")?.as_str()?, description(v)))).collect()
}

/// The doc comment that became this schema's description.
pub(super) fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// Variants of a `kind`-tagged table: the tag's value and the table's schema.
pub(super) fn tagged(schema: &Value) -> Option<Vec<(&str, &Value)>> {
    let variants = schema.get("oneOf").and_then(Value::as_array)?;
    variants
        .iter()
        .map(|v| Some((v.get("properties")?.get("kind")?.get("const")?.as_str()?, v)))
        .collect()
}

struct Check<'a> {
    schema: &'a Schema,
    problems: Vec<ConfigProblem>,
}

impl Check<'_> {
    fn problem(&mut self, place: &Place, message: String) {
        self.problems.push(ConfigProblem { place: place.clone(), message });
    }

    fn node(&mut self, node: &Node, schema: &Value, path: &str) {
        let schema = self.schema.resolve(schema);
        if let Some(names) = constants(schema) {
            return self.constant(node, &names, path);
        }
        if let Some(variants) = tagged(schema) {
            return self.variant(node, &variants, path);
        }
        let kinds: Vec<&str> = match schema.get("type") {
            Some(Value::String(s)) => vec![s],
            Some(Value::Array(a)) => a.iter().filter_map(Value::as_str).collect(),
            _ => return,
        };
        let fits = match &node.content {
            Content::Table(_) => kinds.contains(&"object"),
            Content::Array(_) => kinds.contains(&"array"),
            Content::Scalar(toml::Value::String(_)) => kinds.contains(&"string"),
            Content::Scalar(toml::Value::Integer(_)) => {
                kinds.contains(&"integer") || kinds.contains(&"number")
            }
            Content::Scalar(toml::Value::Float(_)) => kinds.contains(&"number"),
            Content::Scalar(toml::Value::Boolean(_)) => kinds.contains(&"boolean"),
            Content::Scalar(_) => false,
        };
        if !fits {
            let wanted = wanted(kinds.first().copied().unwrap_or_default());
            return self.problem(
                &node.place,
                format!("`{path}` must be {wanted}, but this is {}", node.kind()),
            );
        }
        match &node.content {
            Content::Table(entries) => self.table(node, entries, schema, path),
            Content::Array(nodes) => {
                if let Some(items) = schema.get("items") {
                    for (i, child) in nodes.iter().enumerate() {
                        self.node(child, items, &format!("{path}[{i}]"));
                    }
                }
            }
            Content::Scalar(toml::Value::Integer(x))
                if *x < 0 && schema.get("minimum").and_then(Value::as_f64) == Some(0.0) =>
            {
                self.problem(&node.place, format!("`{path}` must not be negative, but it is {x}"));
            }
            Content::Scalar(toml::Value::Float(x)) if !x.is_finite() => {
                self.problem(&node.place, format!("`{path}` must be a finite number"));
            }
            Content::Scalar(_) => {}
        }
    }

    fn constant(&mut self, node: &Node, names: &[(&str, &str)], path: &str) {
        let known: Vec<&str> = names.iter().map(|(n, _)| *n).collect();
        match node.as_str() {
            Some(name) if known.contains(&name) => {}
            Some(name) => self.problem(
                &node.place,
                format!("`{path}` cannot be \"{name}\"; {}", advice(name, &known)),
            ),
            None => self.problem(
                &node.place,
                format!("`{path}` must be one of {}, but this is {}", list(&known), node.kind()),
            ),
        }
    }

    fn variant(&mut self, node: &Node, variants: &[(&str, &Value)], path: &str) {
        let Content::Table(entries) = &node.content else {
            return self.problem(
                &node.place,
                format!("`{path}` must be a table, but this is {}", node.kind()),
            );
        };
        let known: Vec<&str> = variants.iter().map(|(n, _)| *n).collect();
        let Some(kind) = node.get("kind") else {
            return self.problem(
                &node.place,
                format!("`{path}` lacks `kind`; write one of {}", list(&known)),
            );
        };
        match kind.node.as_str().and_then(|k| variants.iter().find(|(n, _)| *n == k)) {
            Some((_, schema)) => self.table(node, entries, schema, path),
            None => {
                let names: Vec<(&str, &str)> = known.iter().map(|n| (*n, "")).collect();
                self.constant(&kind.node, &names, &join(path, "kind"));
            }
        }
    }

    fn table(&mut self, node: &Node, entries: &[Entry], schema: &Value, path: &str) {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let others = schema.get("additionalProperties").filter(|s| s.is_object());
        for entry in entries {
            let path = join(path, &entry.key);
            match properties.get(&entry.key).or(others) {
                Some(schema) => self.node(&entry.node, schema, &path),
                None => {
                    let advice = self.unknown(&entry.key, properties);
                    self.problem(&entry.place, format!("unknown key `{path}`; {advice}"));
                }
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for key in required.filter_map(Value::as_str) {
            if !entries.iter().any(|e| e.key == key) {
                let meaning = properties.get(key).map(description).unwrap_or_default();
                let meaning = meaning.trim_end_matches('.');
                self.problem(&node.place, format!("`{}` is missing ({meaning})", join(path, key)));
            }
        }
    }

    /// The nearest known key, a key of that name one table deeper, or all that is known here.
    fn unknown(&self, key: &str, properties: &Map<String, Value>) -> String {
        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
        if nearest(key, &known).is_none() {
            let deeper = properties.iter().find(|(_, schema)| {
                let table = self.schema.resolve(schema);
                table.get("properties").is_some_and(|p| p.get(key).is_some())
            });
            if let Some((table, _)) = deeper {
                return format!("did you mean `{table}.{key}`?");
            }
        }
        advice(key, &known)
    }
}

fn wanted(kind: &str) -> &'static str {
    match kind {
        "object" => "a table",
        "array" => "an array",
        "string" => "text in quotes",
        "integer" => "an integer",
        "number" => "a number",
        _ => "true or false",
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn list(names: &[&str]) -> String {
    names.join(", ")
}

/// The known name that is a typing slip away, if there is one.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(name, k), *k))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, k)| k)
}

fn advice(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "no key is known here".into(),
        None => format!("known here: {}", list(known)),
    }
}
