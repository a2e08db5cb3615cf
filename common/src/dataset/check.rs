//! `medevo-coord data check PATH`: what lies there, and all that is wrong with it.

use std::{
    collections::{BTreeMap, HashSet},
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{
    DataProblems, jsonl,
    load::{absolute, refused},
    picture::{Look, look_at},
    reader::{Keep, Rows},
    slake,
};

/// What a check found. Displays for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was taken to lie there: "SLAKE" or "JSONL".
    pub format: &'static str,
    /// Each split, or the one file.
    pub sets: Vec<SetReport>,
    /// Distinct image files over all sets.
    pub images: usize,
    /// All that is wrong; empty if the data can be used.
    pub problems: DataProblems,
}

/// One split of SLAKE, or one JSONL file. Questions that cannot be read are not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetReport {
    /// Name of the split, or of the file.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// Questions, in all languages.
    pub questions: usize,
    /// Closed questions.
    pub closed: usize,
    /// Open questions.
    pub open: usize,
    /// Questions with a reference answer.
    pub answered: usize,
    /// Closed questions whose reference is neither yes nor no.
    pub closed_other: usize,
    /// Distinct image files.
    pub images: usize,
    /// Questions by language, where the file says it.
    pub languages: BTreeMap<String, usize>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.problems.is_empty()
    }

    /// Questions over all sets.
    #[must_use]
    pub fn questions(&self) -> usize {
        self.sets.iter().map(|set| set.questions).sum()
    }
}

/// Checks a SLAKE folder (each split that is there), one split file of it, or a JSONL file; which it is, is
/// found out. Every image is decoded, each once.
#[must_use]
pub fn check(path: &Path) -> Report {
    let path = absolute(path);
    let (format, read) = if path.is_dir() {
        ("SLAKE", splits(&path))
    } else if starts_with_list(&path) {
        let split = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        ("SLAKE", vec![(split.clone(), slake::read(&path, &split, &Keep::default()))])
    } else {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ("JSONL", vec![(name, jsonl::read(&path, &Keep::default()))])
    };
    let mut problems = DataProblems { subject: path.display().to_string(), problems: vec![] };
    let mut seen = HashSet::new();
    let mut sets = Vec::new();
    for (name, mut rows) in read {
        look_at(&mut rows, Look::Decoded, &mut seen);
        problems.problems.append(&mut rows.problems);
        if rows.file.is_file() {
            sets.push(count(name, &rows));
        }
    }
    problems.problems.sort();
    Report { format, sets, images: seen.len(), problems }
}

/// Every split of a SLAKE folder.
fn splits(folder: &Path) -> Vec<(String, Rows)> {
    let read: Vec<_> = slake::SPLITS
        .iter()
        .filter_map(|(split, _)| {
            let file = slake::split_file(folder, split)?;
            Some(((*split).to_owned(), slake::read(&file, split, &Keep::default())))
        })
        .collect();
    if !read.is_empty() {
        return read;
    }
    let mut below: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            slake::SPLITS.iter().any(|(split, _)| slake::split_file(path, split).is_some())
        })
        .map(|path| path.display().to_string())
        .collect();
    below.sort();
    let mut what =
        "has no train.json, validation.json or test.json: is this a SLAKE folder?".to_owned();
    if !below.is_empty() {
        what += &format!(" Check one of these: {}", below.join(", "));
    }
    vec![(String::new(), refused(folder, &what))]
}

/// SLAKE's files are one list, JSONL files are objects.
fn starts_with_list(file: &Path) -> bool {
    use std::io::Read;
    let mut head = String::new();
    // Only the head: a large file is read once, by its reader. An unreadable file is its reader's to report.
    let _ = fs::File::open(file).map(|file| {
        let mut bytes = vec![0; 4096];
        let length = file.take(4096).read(&mut bytes).unwrap_or(0);
        head = String::from_utf8_lossy(&bytes[..length]).into_owned();
    });
    head.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace()).starts_with('[')
}

fn count(name: String, rows: &Rows) -> SetReport {
    let questions = rows.rows.len();
    let closed = rows.rows.iter().filter(|row| row.question.closed).count();
    let yes_no = |answer: &str| matches!(medevo_text::normalize(answer).as_str(), "yes" | "no");
    let other = rows.rows.iter().filter(|row| {
        row.question.closed && row.reference.as_ref().is_some_and(|answer| !yes_no(answer.reveal()))
    });
    let mut images: Vec<_> = rows.rows.iter().flat_map(|row| &row.question.images).collect();
    images.sort();
    images.dedup();
    let mut languages = BTreeMap::new();
    for language in rows.rows.iter().filter_map(|row| row.language.clone()) {
        *languages.entry(language).or_default() += 1;
    }
    SetReport {
        name,
        file: rows.file.clone(),
        questions,
        closed,
        open: questions - closed,
        answered: rows.rows.iter().filter(|row| row.reference.is_some()).count(),
        closed_other: other.count(),
        images: images.len(),
        languages,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.problems.subject, self.format)?;
        for set in &self.sets {
            writeln!(f, "  {set}")?;
        }
        if self.is_clean() {
            write!(
                f,
                "No problems: {} questions, {} images decoded.",
                self.questions(),
                self.images
            )
        } else {
            write!(f, "{}", self.problems)
        }
    }
}

impl fmt::Display for SetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, questions, open, closed, images, answered, .. } = self;
        write!(f, "{name}: {questions} questions ({open} open, {closed} closed")?;
        if self.closed_other > 0 {
            write!(f, ", {} of these not yes/no", self.closed_other)?;
        }
        write!(f, ") on {images} images, {answered} with a reference")?;
        if !self.languages.is_empty() {
            let languages: Vec<_> =
                self.languages.iter().map(|(name, count)| format!("{name} {count}")).collect();
            write!(f, "; languages: {}", languages.join(", "))?;
        }
        Ok(())
    }
}
