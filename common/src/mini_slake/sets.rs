//! The sets of the data set, in SLAKE's files.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};
use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};
use serde_json::{Value, json};

use super::{
    MiniSlake, SetSummary,
    anatomy::Finding,
    grammar::{CANONICAL, Exchange, Family, HETEROGENEOUS, MOSTLY_CANONICAL, StyleShares, ask},
    random::Random,
    scan::{Look, SIDE, SOURCE, TARGET, scan},
};

/// Questions on each image of a training set.
const TRAINING_QUESTIONS: usize = 8;
/// Share of the target's open questions that are put in new words.
const NEW_WORDINGS: f64 = 0.6;
/// JPEG quality: high, so that the noise is the scanner's.
const QUALITY: u8 = 95;

/// Writes all sets below `root`.
pub(super) fn write_sets(root: &Path, options: &MiniSlake) -> Result<Vec<SetSummary>> {
    let source = root.join("source");
    let findings = write_images(&source, options.source_images, &SOURCE, options, 1)?;
    let styled = root.join("source-styled");
    fs::create_dir_all(&styled)?;
    std::os::unix::fs::symlink("../source/imgs", styled.join("imgs"))
        .context("cannot link source-styled/imgs to source/imgs")?;
    let mut sets = vec![
        write_training(&source, &findings, &MOSTLY_CANONICAL, options, 2)?,
        write_training(&styled, &findings, &HETEROGENEOUS, options, 3)?,
    ];
    for (name, images, stream) in
        [("target", options.target_images, 4), ("heldout", options.heldout_images, 6)]
    {
        let folder = root.join(name);
        let findings = write_images(&folder, images, &TARGET, options, stream)?;
        sets.push(write_test(&folder, &findings, options, stream + 1)?);
    }
    Ok(sets)
}

/// Draws the scans of a set into `imgs/xmlab<n>/source.jpg`.
fn write_images(
    folder: &Path,
    count: usize,
    look: &Look,
    options: &MiniSlake,
    stream: u64,
) -> Result<Vec<Finding>> {
    let mut random = Random::new(options.seed, stream);
    fs::create_dir_all(folder.join("imgs"))
        .with_context(|| format!("cannot create {}", folder.display()))?;
    (0..count)
        .map(|number| {
            let (pixels, finding) = scan(&mut random, look);
            let mut jpeg = Vec::new();
            JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
                .encode(&pixels, SIDE as u32, SIDE as u32, ExtendedColorType::L8)
                .context("cannot encode a scan")?;
            let path = folder.join("imgs").join(image_name(number));
            fs::create_dir(path.parent().expect("an image lies in its folder"))
                .and_then(|()| fs::write(&path, jpeg))
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(finding)
        })
        .collect()
}

/// `train.json`: several questions on each image, in the weights and styles of a training set.
fn write_training(
    folder: &Path,
    findings: &[Finding],
    styles: &StyleShares,
    options: &MiniSlake,
    stream: u64,
) -> Result<SetSummary> {
    let mut random = Random::new(options.seed, stream);
    let mut records = Records::default();
    for (image, finding) in findings.iter().enumerate() {
        let mut asked = BTreeSet::new();
        while asked.len() < TRAINING_QUESTIONS {
            let family = Family::ALL[random.weighted(&Family::TRAINING_WEIGHTS)];
            let exchange = ask(&mut random, finding, family, 0.0, styles);
            if asked.insert(exchange.question.clone()) {
                records.push(image, finding, &exchange);
            }
        }
    }
    records.write(folder, "train", findings.len())
}

/// `test.json`: a few questions on each image, of different families, with canonical references.
fn write_test(
    folder: &Path,
    findings: &[Finding],
    options: &MiniSlake,
    stream: u64,
) -> Result<SetSummary> {
    let mut random = Random::new(options.seed, stream);
    let mut records = Records::default();
    for (image, finding) in findings.iter().enumerate() {
        let mut families = Family::ALL;
        random.shuffle(&mut families);
        for family in families.into_iter().take(options.questions_per_image) {
            let exchange = ask(&mut random, finding, family, NEW_WORDINGS, &CANONICAL);
            records.push(image, finding, &exchange);
        }
    }
    records.write(folder, "test", findings.len())
}

fn image_name(number: usize) -> String {
    format!("xmlab{number}/source.jpg")
}

/// The rows of one SLAKE file.
#[derive(Default)]
struct Records(Vec<Value>);

impl Records {
    fn push(&mut self, image: usize, finding: &Finding, exchange: &Exchange) {
        self.0.push(json!({
            "img_id": image,
            "img_name": image_name(image),
            "question": exchange.question,
            "answer": exchange.answer,
            "q_lang": "en",
            "location": finding.region.label(),
            "modality": finding.modality.label,
            "answer_type": if exchange.closed { "CLOSED" } else { "OPEN" },
            "base_type": "vqa",
            "content_type": exchange.content,
            "triple": ["vhead", "_", "_"],
            "qid": self.0.len(),
        }));
    }

    fn write(self, folder: &Path, split: &str, images: usize) -> Result<SetSummary> {
        let name = folder.file_name().expect("a set has a folder").to_string_lossy().into_owned();
        let questions = self.0.len();
        write_json(&folder.join(format!("{split}.json")), &Value::Array(self.0))?;
        Ok(SetSummary { name, split: split.to_owned(), images, questions })
    }
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
