//! The generic format: one JSON object a line.
//!
//! `id` (string or whole number), `image` (a path or a list of paths, relative to the file's folder; null
//! for a question without image), `question`, and optionally `answer` (string or number), `answer_type`
//! ("OPEN" or "CLOSED"), `tags` (an object of strings and numbers). A literal `<image>` in a question is
//! text like any other: images go in front of the question.

use std::path::{Path, PathBuf};

use medevo_types::SampleId;
use serde_json::Value;

use super::{
    Question, Reference,
    field::{self, Object},
    reader::{Keep, Row, Rows},
};

/// Reads the file. The language filter is SLAKE's: it does not apply here.
pub(super) fn read(file: &Path, keep: &Keep<'_>) -> Rows {
    let mut rows = Rows::new(file);
    let Some(text) = rows.text() else { return rows };
    let folder = file.parent().unwrap_or(Path::new(""));
    for (line, row) in text.lines().enumerate().map(|(i, row)| (i + 1, row)) {
        if rows.full(keep) {
            break;
        }
        if row.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(row) {
            Ok(Value::Object(object)) => record(&mut rows, line, &object, folder),
            Ok(other) => {
                rows.problem(
                    line,
                    format!("the line is {}: it must be an object", field::kind(&other)),
                );
            }
            Err(error) => {
                rows.problem(line, format!("{} (column {})", field::broken(&error), error.column()))
            }
        }
    }
    if rows.rows.is_empty() && rows.problems.is_empty() {
        rows.problem(0, "holds no questions");
    }
    rows
}

/// Adds one line's record, or all that is wrong with it.
fn record(rows: &mut Rows, line: usize, object: &Object, folder: &Path) {
    let mut wrong = Vec::new();
    let mut noted = |what: String| wrong.push(what);
    let id = field::id(object, "id").map_err(&mut noted).ok();
    let images = images(object, folder).map_err(&mut noted).ok();
    let text = field::text(object, "question").map_err(&mut noted).ok();
    let answer = field::answer(object, "answer").map_err(&mut noted).ok();
    let closed = field::closed(object, "answer_type", answer.as_ref().and_then(Option::as_deref))
        .map_err(&mut noted)
        .ok();
    let tags = tags(object).map_err(&mut noted).ok();
    for what in wrong {
        rows.problem(line, what);
    }
    if let (Some(id), Some(images), Some(text), Some(answer), Some(closed), Some(tags)) =
        (id, images, text, answer, closed, tags)
    {
        rows.push(Row {
            line,
            question: Question { id: SampleId(id), images, text, closed, tags },
            reference: answer.map(Reference::new),
            language: None,
        });
    }
}

fn images(object: &Object, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let path = |value: &Value| match value {
        Value::String(path) if !path.trim().is_empty() => Ok(folder.join(path)),
        Value::String(_) => Err("image is an empty path".to_owned()),
        other => Err(format!(
            "image is {}: it must be a path, a list of paths or null",
            field::kind(other)
        )),
    };
    match object.get("image") {
        None => Err("has no image: give a path, a list of paths, or null for none".into()),
        Some(Value::Null) => Ok(vec![]),
        Some(Value::Array(paths)) => paths.iter().map(path).collect(),
        Some(value) => Ok(vec![path(value)?]),
    }
}

fn tags(object: &Object) -> Result<Vec<(String, String)>, String> {
    match object.get("tags") {
        None | Some(Value::Null) => Ok(vec![]),
        Some(Value::Object(tags)) => {
            let mut read = Vec::with_capacity(tags.len());
            for name in tags.keys() {
                let value = field::scalar(tags, name).map_err(|what| format!("tags: {what}"))?;
                read.extend(value.map(|value| (name.clone(), value)));
            }
            Ok(read)
        }
        Some(other) => Err(format!("tags is {}: it must be an object", field::kind(other))),
    }
}
