//! docs/config.md, generated from the schema so that it cannot drift from the code.

use std::fmt::Write;

use serde_json::Value;

use super::schema::{Schema, constants, description, tagged};

const HEAD: &str = "\
# The run file

<!-- Generated from the types of the run file. Do not edit: change the doc comments there, then run
     `MEDEVO_BLESS=1 cargo test -p medevo-common --test config_reference`. -->

A run is described by one TOML file. Every key is below with its type, its default and its meaning. **The
defaults are ours**: the Med-Evo paper publishes none. A key without a default has to be written. Unknown
keys are refused.

Relative paths in the file are taken from the file's folder. Any key can be set on the command line, for
example `--set run.seed=3`, `--set stage.1.steps=10` (stages count from 0) or
`--set stage.adapt.objective.beta=0.1` (by the stage's name).
";

/// The reference of the run file as Markdown.
#[must_use]
pub fn reference_markdown() -> String {
    let schema = Schema::of_run();
    let mut page = Page { schema: &schema, text: HEAD.to_owned() };
    let sections = schema.root().get("properties").and_then(Value::as_object);
    for (name, section) in sections.into_iter().flatten() {
        page.section(name, section);
    }
    page.text
}

struct Page<'a> {
    schema: &'a Schema,
    text: String,
}

impl Page<'_> {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    fn heading(&mut self, title: &str, meaning: &str) {
        self.line(format!("\n## {title}\n\n{meaning}"));
    }

    /// One top-level section: a table, a map of tables, or the list of stages.
    fn section(&mut self, name: &str, section: &Value) {
        let meaning = description(section).to_owned();
        if let Some(items) = section.get("items") {
            self.heading(&format!("`[[{name}]]`"), &meaning);
            let items = self.schema.resolve(items);
            for (kind, variant) in tagged(items).unwrap_or_default() {
                let title = format!("`[[{name}]]` with `kind = \"{kind}\"`");
                self.heading(&title, description(variant));
                self.table(&format!("{name}."), variant);
            }
        } else if let Some(others) = section.get("additionalProperties").filter(|s| s.is_object()) {
            self.heading(&format!("`[{name}.NAME]`"), &meaning);
            self.table("", self.schema.resolve(others));
        } else {
            self.heading(&format!("`[{name}]`"), &meaning);
            self.table(&format!("{name}."), self.schema.resolve(section));
        }
    }

    /// The keys of one table, then the tables nested in it.
    fn table(&mut self, prefix: &str, table: &Value) {
        let required: Vec<&str> = table
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut nested = Vec::new();
        self.line("\n| key | type | default | meaning |\n|---|---|---|---|");
        let properties = table.get("properties").and_then(Value::as_object);
        for (key, property) in properties.into_iter().flatten().filter(|(key, _)| *key != "kind") {
            self.row(key, property, required.contains(&key.as_str()), &mut nested);
        }
        // A table's own `kind` (a choice, not a stage's tag) is a key like any other.
        if let Some(kind) = properties.and_then(|p| p.get("kind"))
            && kind.get("const").is_none()
        {
            self.row("kind", kind, required.contains(&"kind"), &mut nested);
        }
        for (key, table) in nested {
            self.line(format!("\n### `{prefix}{key}`\n\n{}", description(table)));
            let resolved = self.schema.resolve(table);
            self.table(prefix, resolved);
        }
    }

    fn row<'v>(
        &mut self,
        key: &'v str,
        property: &'v Value,
        required: bool,
        nested: &mut Vec<(&'v str, &'v Value)>,
    ) {
        let resolved = self.schema.resolve(property);
        if resolved.get("properties").is_some() {
            nested.push((key, property));
            return;
        }
        let kind = kind_of(resolved);
        let default = match property.get("default") {
            Some(Value::Null) => "(none)".to_owned(),
            Some(value) => format!("`{value}`"),
            None if required => "**required**".to_owned(),
            None => "(none)".to_owned(),
        };
        let mut meaning = description(property).replace('\n', " ").replace('|', "\\|");
        if let Some(names) = constants(resolved) {
            meaning.push_str("<br>");
            for (name, what) in names {
                let _ = write!(meaning, "`\"{name}\"`: {} ", what.replace('\n', " "));
            }
        }
        self.line(format!("| `{key}` | {kind} | {default} | {} |", meaning.trim_end()));
    }
}

fn kind_of(schema: &Value) -> &'static str {
    if constants(schema).is_some() {
        return "choice";
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or_default(),
        _ => "",
    };
    match kind {
        "integer" => "integer",
        "number" => "number",
        "boolean" => "boolean",
        "array" => "list of text",
        "object" => "table of text",
        _ => "text",
    }
}
