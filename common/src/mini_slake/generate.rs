//! Puts a data set in place: generated in a folder beside the destination, then renamed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    grammar::Family,
    sets::{write_json, write_sets},
};

/// Marks a folder as generated, and says with which options.
const MARKER: &str = ".mini-slake.json";
/// Rises when the same options give other files.
const FORMAT: u32 = 1;

/// What to generate. Same options, same files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MiniSlake {
    /// Seed of everything random.
    pub seed: u64,
    /// Labelled images of the source hospital.
    pub source_images: usize,
    /// Images to adapt on.
    pub target_images: usize,
    /// Further images of the target's kind that are never adapted on.
    pub heldout_images: usize,
    /// Questions on each image of the target and the held-out set, 1 to 5; each asks for something else.
    pub questions_per_image: usize,
}

impl Default for MiniSlake {
    fn default() -> Self {
        Self {
            seed: 0,
            source_images: 4000,
            target_images: 150,
            heldout_images: 150,
            questions_per_image: 4,
        }
    }
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The folder.
    pub out: PathBuf,
    /// Its sets: each a SLAKE directory of its own.
    pub sets: Vec<SetSummary>,
    /// The folder held the same data already, and nothing was written.
    pub reused: bool,
}

/// One set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSummary {
    /// Folder within [`Summary::out`].
    pub name: String,
    /// Its one split: "train" or "test".
    pub split: String,
    /// How many images.
    pub images: usize,
    /// How many questions.
    pub questions: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done = if self.reused { "was there already" } else { "written" };
        write!(f, "mini-SLAKE in {} {done}:", self.out.display())?;
        for SetSummary { name, split, images, questions } in &self.sets {
            write!(f, "\n  {name}/{split}.json: {questions} questions on {images} images")?;
        }
        Ok(())
    }
}

/// Contents of the marker file.
#[derive(PartialEq, Serialize, Deserialize)]
struct Marker {
    format: u32,
    options: MiniSlake,
    sets: Vec<SetSummary>,
}

/// Generates the data set in `out`:
///
/// - `source/train.json`: labelled, 85 % of the answers canonical, the rest in other styles.
/// - `source-styled/train.json`: the same images, other questions, answers in heterogeneous styles.
/// - `target/test.json`: noisy scans and new question wordings, to adapt on.
/// - `heldout/test.json`: of the target's kind, never adapted on.
///
/// References of the target and the held-out set are canonical and serve to measure only. `out` appears
/// whole or not at all. A folder that was generated with the same options is left as it is, one that was
/// generated with others is replaced.
///
/// # Errors
/// If an option is out of range, if `out` exists and was not generated, or if writing fails.
pub fn generate(out: &Path, options: &MiniSlake) -> Result<Summary> {
    ensure!(
        (1..=Family::ALL.len()).contains(&options.questions_per_image),
        "questions per image is {}: it must be 1 to {}, one for each family of questions",
        options.questions_per_image,
        Family::ALL.len()
    );
    let old = existing(out)?;
    if let Existing::Generated(Some(marker)) = &old
        && marker.format == FORMAT
        && marker.options == *options
    {
        return Ok(Summary { out: out.to_owned(), sets: marker.sets.clone(), reused: true });
    }
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    // Beside the destination: a rename does not cross file systems. Removed on every way out.
    let workshop = tempfile::Builder::new()
        .prefix(".mini-slake-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot create a folder in {}", parent.display()))?;
    let fresh = workshop.path().join("new");
    let sets = write_sets(&fresh, options)?;
    let marker = Marker { format: FORMAT, options: options.clone(), sets: sets.clone() };
    write_json(&fresh.join(MARKER), &serde_json::to_value(marker)?)?;
    match old {
        Existing::Nothing => {}
        Existing::Empty => fs::remove_dir(out)
            .with_context(|| format!("cannot replace the empty folder {}", out.display()))?,
        Existing::Generated(_) => fs::rename(out, workshop.path().join("old"))
            .with_context(|| format!("cannot move the old {} away", out.display()))?,
    }
    fs::rename(&fresh, out)
        .with_context(|| format!("cannot move the data to {}", out.display()))?;
    Ok(Summary { out: out.to_owned(), sets, reused: false })
}

/// What stands at the destination.
enum Existing {
    Nothing,
    Empty,
    /// Made by the generator; none: the marker is of another format.
    Generated(Option<Marker>),
}

fn existing(out: &Path) -> Result<Existing> {
    if out.symlink_metadata().is_err() {
        return Ok(Existing::Nothing);
    }
    if let Ok(text) = fs::read_to_string(out.join(MARKER)) {
        return Ok(Existing::Generated(serde_json::from_str(&text).ok()));
    }
    let empty = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if empty && !out.is_symlink() {
        return Ok(Existing::Empty);
    }
    bail!(
        "{} exists and was not made by the mini-SLAKE generator: choose another folder, or remove it",
        out.display()
    )
}
