//! From a run file's data section to a data set in memory.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use super::{
    DataProblem, DataProblems, Dataset, jsonl,
    picture::{Look, look_at},
    reader::{Keep, Rows},
    slake,
};
use crate::config::{DataFormat, DataSection};

/// Reads a data set. Every image is looked for, none is decoded.
///
/// # Errors
/// All problems at once: an unreadable file, broken JSON, wrong types, an empty question, a duplicate id, a
/// missing image, each with file and line.
pub fn load(name: &str, section: &DataSection) -> Result<Dataset, DataProblems> {
    load_looking(name, section, Look::Present)
}

/// Reads a data set and decodes each of its images once: a truncated picture is found before any worker
/// starts.
///
/// # Errors
/// As [`load`], and every image that cannot be decoded.
pub fn load_checked(name: &str, section: &DataSection) -> Result<Dataset, DataProblems> {
    load_looking(name, section, Look::Decoded)
}

fn load_looking(name: &str, section: &DataSection, look: Look) -> Result<Dataset, DataProblems> {
    let mut rows = read(section);
    look_at(&mut rows, look, &mut HashSet::new());
    let Rows { rows, mut problems, .. } = rows;
    if !problems.is_empty() {
        problems.sort();
        return Err(DataProblems { subject: name.to_owned(), problems });
    }
    let (questions, references) = rows.into_iter().map(|row| (row.question, row.reference)).unzip();
    Ok(Dataset { name: name.to_owned(), questions, references })
}

fn read(section: &DataSection) -> Rows {
    let path = absolute(&section.path);
    let keep = Keep { language: section.language.trim(), limit: section.limit };
    match section.format {
        DataFormat::Jsonl if path.is_dir() => refused(
            &path,
            "is a folder: format jsonl takes a file (for a SLAKE folder, set format to slake)",
        ),
        DataFormat::Jsonl => jsonl::read(&path, &keep),
        DataFormat::Slake if path.is_file() => refused(
            &path,
            "is a file: format slake takes the folder that holds the split files and imgs/",
        ),
        DataFormat::Slake => match slake::split_file(&path, &section.split) {
            Some(file) => slake::read(&file, &section.split, &keep),
            None => refused(&path, &no_split(&path, &section.split)),
        },
    }
}

/// Why there is no such split.
fn no_split(folder: &Path, split: &str) -> String {
    if !folder.is_dir() {
        return "no such folder".into();
    }
    let there: Vec<_> = slake::SPLITS
        .iter()
        .filter(|(name, _)| slake::split_file(folder, name).is_some())
        .map(|(name, _)| *name)
        .collect();
    match there.as_slice() {
        [] => format!("has no split file ({split}.json): is this a SLAKE folder?"),
        _ => format!("has no split {split}; it has {}", there.join(", ")),
    }
}

/// Nothing read, for one reason.
pub(super) fn refused(path: &Path, what: &str) -> Rows {
    let mut rows = Rows::new(path);
    rows.problems.push(DataProblem { file: path.to_owned(), line: 0, what: what.to_owned() });
    rows
}

/// The absolute path, links kept: workers open images from another folder.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
