//! From a question and its image files to tokens and pixels, each made once and kept within bounds.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use medevo_model::{Encoder, ImageProcessor, ModelConfig, Pixels, PromptTokens};
use medevo_types::messages::Prompt;

use crate::{bounded::Bounded, error::EngineError};

/// Decoded images kept, bytes of patches.
const PIXEL_BYTES: usize = 256 << 20;
/// Tokenised prompts kept.
const PROMPTS: usize = 1 << 14;

/// A question ready for the model.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Token ids and positions.
    pub tokens: Arc<PromptTokens>,
    /// Its images, in prompt order.
    pub images: Vec<Pixels>,
}

impl Prepared {
    /// Tokens in the prompt.
    #[must_use]
    pub fn length(&self) -> usize {
        self.tokens.ids.len()
    }

    /// Digests of the images: prompts with equal ones can share their image tokens.
    #[must_use]
    pub fn image_key(&self) -> Vec<[u8; 32]> {
        self.images.iter().map(|image| image.digest).collect()
    }
}

/// Tokenizer, image processor and their caches.
pub(crate) struct Prompts {
    pub encoder: Encoder,
    processor: ImageProcessor,
    pixels: Bounded<PathBuf, Pixels>,
    tokens: Bounded<(String, Vec<[i64; 3]>), Arc<PromptTokens>>,
    max_prompt_tokens: usize,
    image_token: u32,
    /// Patches that become one token.
    merge: i64,
}

impl Prompts {
    /// Reads tokenizer, template and processor settings from a model directory.
    pub fn load(dir: &Path, max_prompt_tokens: usize) -> anyhow::Result<Self> {
        let config = ModelConfig::load(dir)?;
        let merge = config.vision.spatial_merge_size * config.vision.spatial_merge_size;
        Ok(Self {
            image_token: u32::try_from(config.image_token_id)?,
            merge,
            encoder: Encoder::load(dir)?,
            processor: ImageProcessor::load(dir)?,
            pixels: Bounded::new(PIXEL_BYTES),
            tokens: Bounded::new(PROMPTS),
            max_prompt_tokens,
        })
    }

    /// Makes a prompt ready.
    ///
    /// # Errors
    /// An image that cannot be read, or a prompt longer than the limit; both name the sample.
    pub fn prepare(&mut self, prompt: &Prompt) -> Result<Prepared, EngineError> {
        let what = || format!("the prompt of sample {}", prompt.sample);
        let images = prompt
            .images
            .iter()
            .map(|path| self.open(path))
            .collect::<anyhow::Result<Vec<Pixels>>>()
            .map_err(|e| EngineError::refused(what(), format!("{e:#}")))?;
        let grids: Vec<[i64; 3]> = images.iter().map(|image| image.grid).collect();
        let key = (prompt.question.clone(), grids);
        let tokens = match self.tokens.get(&key) {
            Some(tokens) => Arc::clone(tokens),
            None => {
                let made = self
                    .encoder
                    .prompt(&prompt.question, &key.1)
                    .map_err(|e| EngineError::refused(what(), format!("{e:#}")))?;
                let made = Arc::new(made);
                self.tokens.insert(key, Arc::clone(&made), 1);
                made
            }
        };
        let (length, limit) = (tokens.ids.len(), self.max_prompt_tokens);
        if length > limit {
            return Err(EngineError::refused(
                what(),
                format!(
                    "it has {length} tokens and the limit is {limit}; raise \
                     engine.max_prompt_tokens or use smaller images (prompts are never cut)"
                ),
            ));
        }
        let placeholders = tokens.ids.iter().filter(|id| **id == self.image_token).count() as i64;
        let expected: i64 =
            images.iter().map(|image| image.grid.iter().product::<i64>() / self.merge).sum();
        if placeholders != expected {
            return Err(EngineError::refused(
                what(),
                format!(
                    "it holds {placeholders} image tokens and its {} images give {expected}; \
                     take special tokens out of the question's text",
                    images.len()
                ),
            ));
        }
        Ok(Prepared { tokens, images })
    }

    fn open(&mut self, path: &Path) -> anyhow::Result<Pixels> {
        if let Some(found) = self.pixels.get(&path.to_path_buf()) {
            return Ok(shallow(found));
        }
        let pixels = self.processor.open(path)?;
        let bytes = pixels.patches.numel() * pixels.patches.kind().elt_size_in_bytes();
        self.pixels.insert(path.to_path_buf(), shallow(&pixels), bytes);
        Ok(pixels)
    }
}

/// The same pixels once more, without copying them.
fn shallow(pixels: &Pixels) -> Pixels {
    Pixels { patches: pixels.patches.shallow_clone(), grid: pixels.grid, digest: pixels.digest }
}
