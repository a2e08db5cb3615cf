//! The run file as a tree in which every key and value knows its place, whether it came from a line of
//! the file or from an override on the command line.

use std::ops::Range;

use toml_edit::{Item, Key, TableLike, Value};

use super::error::{ConfigProblem, Place};

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where it is written.
    pub place: Place,
    /// What it is.
    pub content: Content,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A table: keys in file order.
    Table(Vec<Entry>),
    /// An array, or an array of tables.
    Array(Vec<Node>),
    /// Text, number, boolean or date.
    Scalar(toml::Value),
}

/// A key of a table with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The key, unquoted.
    pub key: String,
    /// Where the key is written.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// Reads TOML text.
    ///
    /// # Errors
    /// The syntax error with its line.
    pub fn parse(text: &str) -> Result<Self, ConfigProblem> {
        let refused = |span: Option<Range<usize>>, message: &str| ConfigProblem {
            place: span.map_or(Place::File, |span| line_of(text, &span)),
            message: format!("this is not TOML: {}", message.replace('\n', ", ")),
        };
        // The editing parser knows places but panics on some broken texts (0.23.10, while it recovers from
        // a first error), so it only sees what the plain parser has accepted.
        toml::from_str::<toml::Table>(text).map_err(|e| refused(e.span(), e.message()))?;
        let document =
            toml_edit::Document::parse(text).map_err(|e| refused(e.span(), e.message()))?;
        Ok(table(text, document.as_table(), Place::File))
    }

    /// An override's value: TOML if it reads as TOML, else the bare text.
    pub fn from_override(text: &str, whole: &str) -> Self {
        let place = Place::Set(whole.to_owned());
        let table = toml::from_str::<toml::Table>(&format!("value = {text}")).ok();
        // More than one key would mean that the text has lines of its own.
        let value = table.filter(|t| t.len() == 1).and_then(|mut t| t.remove("value"));
        plain(value.unwrap_or_else(|| toml::Value::String(text.to_owned())), &place)
    }

    /// The table's entry of this key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Table(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// Place of the key of this path (`stage[1].label.threshold`), or of the nearest table around it.
    pub fn place_of(&self, path: &str) -> Place {
        let (mut node, mut place) = (self, self.place.clone());
        for key in path.split(['.', '[', ']']).filter(|k| !k.is_empty()) {
            let child = match &node.content {
                Content::Table(_) => node.get(key).map(|e| (&e.node, e.place.clone())),
                Content::Array(nodes) => key
                    .parse::<usize>()
                    .ok()
                    .and_then(|i| nodes.get(i))
                    .map(|n| (n, n.place.clone())),
                Content::Scalar(_) => None,
            };
            match child {
                Some((child, at)) => (node, place) = (child, at),
                None => break,
            }
        }
        place
    }

    /// Whether something is written at a dotted path of tables.
    pub fn has(&self, path: &str) -> bool {
        let found = path.split('.').try_fold(self, |node, key| node.get(key).map(|e| &e.node));
        found.is_some()
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(v) => v.as_str(),
            _ => None,
        }
    }

    /// What it is, for a message.
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Table(_) => "a table",
            Content::Array(_) => "an array",
            Content::Scalar(toml::Value::String(_)) => "text",
            Content::Scalar(toml::Value::Integer(_)) => "an integer",
            Content::Scalar(toml::Value::Float(_)) => "a number",
            Content::Scalar(toml::Value::Boolean(_)) => "a boolean",
            Content::Scalar(_) => "a date",
        }
    }

    /// The value without its places, for deserialization.
    pub fn to_toml(&self) -> toml::Value {
        match &self.content {
            Content::Table(entries) => toml::Value::Table(
                entries.iter().map(|e| (e.key.clone(), e.node.to_toml())).collect(),
            ),
            Content::Array(nodes) => toml::Value::Array(nodes.iter().map(Self::to_toml).collect()),
            Content::Scalar(v) => v.clone(),
        }
    }
}

/// A plain value, all of it at one place.
fn plain(value: toml::Value, place: &Place) -> Node {
    let content = match value {
        toml::Value::Table(table) => Content::Table(
            table
                .into_iter()
                .map(|(key, value)| Entry { key, place: place.clone(), node: plain(value, place) })
                .collect(),
        ),
        toml::Value::Array(values) => {
            Content::Array(values.into_iter().map(|value| plain(value, place)).collect())
        }
        scalar => Content::Scalar(scalar),
    };
    Node { place: place.clone(), content }
}

fn line_of(text: &str, span: &Range<usize>) -> Place {
    let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
    Place::Line(1 + before.iter().filter(|b| **b == b'\n').count())
}

fn place_of(text: &str, span: Option<Range<usize>>, parent: &Place) -> Place {
    span.map_or_else(|| parent.clone(), |span| line_of(text, &span))
}

/// A table; dotted keys become nested tables, which is what they mean.
fn table(text: &str, table: &dyn TableLike, place: Place) -> Node {
    let entries = table
        .iter()
        .filter_map(|(name, child)| {
            let key: Option<&Key> = table.key(name);
            let place = place_of(text, key.and_then(Key::span), &place);
            let node = item(text, child, place.clone())?;
            Some(Entry { key: name.to_owned(), place, node })
        })
        .collect();
    Node { place, content: Content::Table(entries) }
}

fn item(text: &str, item: &Item, place: Place) -> Option<Node> {
    match item {
        Item::None => None,
        Item::Value(v) => Some(value(text, v, place)),
        Item::Table(t) => {
            let place = place_of(text, t.span(), &place);
            Some(table(text, t, place))
        }
        Item::ArrayOfTables(tables) => {
            let nodes =
                tables.iter().map(|t| table(text, t, place_of(text, t.span(), &place))).collect();
            Some(Node { place, content: Content::Array(nodes) })
        }
    }
}

fn value(text: &str, value: &Value, place: Place) -> Node {
    let place = place_of(text, value.span(), &place);
    let content = match value {
        Value::String(s) => Content::Scalar(toml::Value::String(s.value().clone())),
        Value::Integer(i) => Content::Scalar(toml::Value::Integer(*i.value())),
        Value::Float(x) => Content::Scalar(toml::Value::Float(*x.value())),
        Value::Boolean(b) => Content::Scalar(toml::Value::Boolean(*b.value())),
        Value::Datetime(d) => Content::Scalar(toml::Value::Datetime(*d.value())),
        Value::Array(array) => {
            Content::Array(array.iter().map(|v| self::value(text, v, place.clone())).collect())
        }
        Value::InlineTable(inline) => return table(text, inline, place),
    };
    Node { place, content }
}
