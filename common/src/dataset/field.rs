//! Fields of a JSON object, read in the types that data sets come with. An error is a sentence about the
//! field and never quotes its value, which may be an answer.

use medevo_text::normalize;
use serde_json::{Map, Value};

pub(super) type Object = Map<String, Value>;

/// A text that must be there and not be blank.
pub(super) fn text(object: &Object, name: &str) -> Result<String, String> {
    match object.get(name) {
        Some(Value::String(text)) if text.trim().is_empty() => Err(format!("{name} is empty")),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("{name} is {}: it must be a string", kind(other))),
        None => Err(format!("has no {name}")),
    }
}

/// An id: a string or a whole number.
pub(super) fn id(object: &Object, name: &str) -> Result<String, String> {
    match object.get(name) {
        Some(Value::Number(number)) if !number.is_f64() => Ok(number.to_string()),
        Some(Value::String(_)) => text(object, name).map(|id| id.trim().to_owned()),
        Some(other) => {
            Err(format!("{name} is {}: it must be a string or a whole number", kind(other)))
        }
        None => Err(format!("has no {name}")),
    }
}

/// An answer: a string or a number; none where it is missing, null or blank.
pub(super) fn answer(object: &Object, name: &str) -> Result<Option<String>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.trim().is_empty())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(other) => Err(format!("{name} is {}: it must be a string or a number", kind(other))),
    }
}

/// Whether the question is closed: "OPEN" or "CLOSED" in any case and spacing; where the field is missing,
/// a question is closed if its answer is yes or no.
pub(super) fn closed(object: &Object, name: &str, answer: Option<&str>) -> Result<bool, String> {
    match object.get(name) {
        None | Some(Value::Null) => {
            Ok(answer.is_some_and(|answer| matches!(normalize(answer).as_str(), "yes" | "no")))
        }
        Some(Value::String(text)) => {
            let letters = text.chars().filter(|c| c.is_alphabetic()).collect::<String>();
            match letters.to_lowercase().as_str() {
                "open" => Ok(false),
                "closed" | "close" => Ok(true),
                _ => Err(format!("{name} is neither OPEN nor CLOSED")),
            }
        }
        Some(other) => Err(format!("{name} is {}: it must be OPEN or CLOSED", kind(other))),
    }
}

/// A string, number or boolean as text; none where it is missing or null.
pub(super) fn scalar(object: &Object, name: &str) -> Result<Option<String>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
        Some(other) => Err(format!("{name} is {}: it must be a string or a number", kind(other))),
    }
}

/// Why text is no JSON, without serde_json's position, which counts from the record's start.
pub(super) fn broken(error: &serde_json::Error) -> String {
    let text = error.to_string();
    format!("broken JSON: {}", text.split(" at line ").next().unwrap_or_default())
}

/// What a value is, for a sentence.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
