//! How long a data set's prompts are, without a tokenizer: image tokens exactly, words by their bytes.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use medevo_common::dataset::Dataset;
use medevo_memory::Shape;
use medevo_picture::smart_resize;
use serde_json::Value;

/// Tokens of the chat template around a question.
const TEMPLATE_TOKENS: u64 = 24;
/// Bytes of a question that make a token, at least: about four in English, three in Chinese.
const BYTES_PER_TOKEN: u64 = 3;

/// What is known of a data set's prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PromptSizes {
    /// Tokens of the longest.
    pub longest: u64,
    /// Patches of the one with most.
    pub patches: u64,
    /// Mean over the questions, tokens.
    pub mean: f64,
    /// Tokens of all distinct images.
    pub image_tokens: u64,
}

/// Sizes pictures as the model's processor does.
pub(super) struct Sizer {
    shape: Shape,
    pixels: (i64, i64),
    /// Patches by picture.
    seen: HashMap<PathBuf, u64>,
}

impl Sizer {
    /// For a model's directory.
    pub fn new(model: &Path, shape: Shape) -> Self {
        let read = |name: &str| -> Option<Value> {
            serde_json::from_slice(&fs::read(model.join(name)).ok()?).ok()
        };
        let nested = read("processor_config.json").and_then(|v| v.get("image_processor").cloned());
        let settings = nested.or_else(|| read("preprocessor_config.json")).unwrap_or_default();
        let size = |key: &str, in_size: &str| {
            let written = settings.get(key).filter(|v| !v.is_null());
            written.or_else(|| settings.get("size")?.get(in_size)).and_then(Value::as_i64)
        };
        // What is absent has the reference's default.
        let pixels = (
            size("min_pixels", "shortest_edge").unwrap_or(56 * 56),
            size("max_pixels", "longest_edge").unwrap_or(28 * 28 * 1280),
        );
        Self { shape, pixels, seen: HashMap::new() }
    }

    /// The prompts of a data set. Of each picture only the header is read; one that cannot be read counts as the
    /// largest that the processor makes.
    pub fn sizes(&mut self, dataset: &Dataset) -> PromptSizes {
        let square = self.shape.vision.merge * self.shape.vision.merge;
        let before: u64 = self.seen.values().sum();
        let mut sizes = PromptSizes::default();
        let mut total = 0;
        for question in &dataset.questions {
            let patches: u64 = question.images.iter().map(|path| self.patches(path)).sum();
            let words = (question.text.len() as u64).div_ceil(BYTES_PER_TOKEN);
            let marks = 2 * question.images.len() as u64;
            let tokens = TEMPLATE_TOKENS + words + marks + patches / square;
            sizes.longest = sizes.longest.max(tokens);
            sizes.patches = sizes.patches.max(patches);
            total += tokens;
        }
        sizes.mean = total as f64 / dataset.questions.len().max(1) as f64;
        sizes.image_tokens = (self.seen.values().sum::<u64>() - before) / square;
        sizes
    }

    fn patches(&mut self, path: &Path) -> u64 {
        if let Some(known) = self.seen.get(path) {
            return *known;
        }
        let edge = self.shape.vision.edge as i64;
        let factor = edge * self.shape.vision.merge as i64;
        let (least, most) = self.pixels;
        let resized = medevo_picture::size(path).ok().and_then(|(width, height)| {
            smart_resize(i64::from(height), i64::from(width), factor, least, most).ok()
        });
        let pixels = resized.map_or(most, |(height, width)| height * width);
        let patches = (pixels / (edge * edge)) as u64;
        self.seen.insert(path.to_owned(), patches);
        patches
    }
}
