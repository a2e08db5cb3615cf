//! SLAKE as published: `train.json`, `validation.json` (older copies: `validate.json`), `test.json`, and
//! images at `imgs/<img_name>` (Liu et al. 2021, "SLAKE: a semantically-labeled knowledge-enhanced
//! dataset for medical visual question answering").

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use medevo_types::SampleId;
use serde_json::Value;

use super::{
    Question, Reference,
    field::{self, Object},
    reader::{Keep, Row, Rows},
    records::{Break, Records, records},
};

/// The splits by their names in a run file, each with its file names, the usual one first.
pub(super) const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train.json"]),
    ("validation", &["validation.json", "validate.json"]),
    ("test", &["test.json"]),
];

/// Fields that become tags. `triple` does not: it can name the answer.
const TAGS: [&str; 6] = ["img_id", "q_lang", "location", "modality", "base_type", "content_type"];

/// The file of a split; none if no such file is there.
pub(super) fn split_file(folder: &Path, split: &str) -> Option<PathBuf> {
    let split = if split == "validate" { "validation" } else { split };
    let known = SPLITS.iter().find(|(name, _)| *name == split).map(|(_, files)| *files);
    let own = format!("{split}.json");
    let names = known.map_or_else(|| vec![own.as_str()], <[_]>::to_vec);
    names.into_iter().map(|name| folder.join(name)).find(|file| file.is_file())
}

/// Reads one split; ids are `<split>/<qid>`.
pub(super) fn read(file: &Path, split: &str, keep: &Keep<'_>) -> Rows {
    let mut rows = Rows::new(file);
    let Some(text) = rows.text() else { return rows };
    let folder = file.parent().unwrap_or(Path::new("")).join("imgs");
    let mut other_languages: BTreeMap<String, usize> = BTreeMap::new();
    let Records { found, end } = records(&text);
    for (line, element) in found {
        if rows.full(keep) {
            return rows;
        }
        let object = match serde_json::from_str(element) {
            Ok(Value::Object(object)) => object,
            Ok(other) => {
                rows.problem(
                    line,
                    format!("the record is {}: it must be an object", field::kind(&other)),
                );
                continue;
            }
            Err(error) => {
                let line = line + error.line().saturating_sub(1);
                rows.problem(line, field::broken(&error));
                continue;
            }
        };
        match language(&object) {
            Ok(Some(language))
                if !keep.language.is_empty() && language != keep.language.to_lowercase() =>
            {
                *other_languages.entry(language).or_default() += 1;
            }
            Ok(language) => {
                record(&mut rows, line, &object, language, split, &folder);
            }
            Err(what) => rows.problem(line, what),
        }
    }
    if let Err(Break { line, why }) = end {
        rows.problem(line, format!("broken JSON: {why}"));
    } else if rows.rows.is_empty() && rows.problems.is_empty() {
        let others: Vec<_> =
            other_languages.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        rows.problem(
            0,
            match others.as_slice() {
                [] => "holds no questions".to_owned(),
                _ => format!(
                    "holds no questions in language {}; it has {}",
                    keep.language,
                    others.join(", ")
                ),
            },
        );
    }
    rows
}

fn language(object: &Object) -> Result<Option<String>, String> {
    let language = field::scalar(object, "q_lang")?;
    Ok(language.map(|language| language.trim().to_lowercase()))
}

/// Adds one record, or all that is wrong with it.
fn record(
    rows: &mut Rows,
    line: usize,
    object: &Object,
    language: Option<String>,
    split: &str,
    folder: &Path,
) {
    let id = field::id(object, "qid");
    let name = match &id {
        Ok(id) => format!("qid {id}: "),
        Err(_) => String::new(),
    };
    let mut wrong = Vec::new();
    let mut noted = |what: String| wrong.push(format!("{name}{what}"));
    let id = id.map_err(&mut noted).ok();
    let text = field::text(object, "question").map_err(&mut noted).ok();
    let image = field::text(object, "img_name").map_err(&mut noted).ok();
    let answer = field::answer(object, "answer").map_err(&mut noted).ok();
    let closed = field::closed(object, "answer_type", answer.as_ref().and_then(Option::as_deref))
        .map_err(&mut noted)
        .ok();
    let mut tags = Vec::new();
    for tag in TAGS {
        match field::scalar(object, tag) {
            Ok(value) => tags.extend(value.map(|value| (tag.to_owned(), value.trim().to_owned()))),
            Err(what) => noted(what),
        }
    }
    for what in wrong {
        rows.problem(line, what);
    }
    if let (Some(id), Some(text), Some(image), Some(answer), Some(closed)) =
        (id, text, image, answer, closed)
    {
        rows.push(Row {
            line,
            question: Question {
                id: SampleId(format!("{split}/{id}")),
                images: vec![folder.join(image)],
                text,
                closed,
                tags,
            },
            reference: answer.map(Reference::new),
            language,
        });
    }
}
