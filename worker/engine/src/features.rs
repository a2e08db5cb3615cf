//! Vision features: each image goes through the tower once per policy version (once ever, where the tower is
//! frozen), and once per micro-batch where its gradient is wanted.

use std::collections::HashMap;

use medevo_model::{Pixels, Qwen25Vl};
use tch::Tensor;

use crate::{bounded::Bounded, engine::Engine, error::EngineError, prompts::Prepared};

/// Features kept, bytes.
const FEATURE_BYTES: usize = 256 << 20;
/// Patches that go through the tower in one pass when no gradient is kept.
const PATCHES_PER_PASS: usize = 1 << 14;

/// Features of images by digest, for one set of vision weights.
#[derive(Debug)]
pub(crate) struct FeatureCache(Bounded<[u8; 32], Tensor>);

impl FeatureCache {
    pub fn new() -> Self {
        Self(Bounded::new(FEATURE_BYTES))
    }

    /// The vision weights have changed.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Features `[merged patches, hidden]` of all images of `prompts`, in order, without gradient.
    pub fn of(
        &mut self,
        model: &Qwen25Vl,
        prompts: &[&Prepared],
    ) -> Result<Vec<Tensor>, EngineError> {
        let mut made: HashMap<[u8; 32], Tensor> = HashMap::new();
        let mut missing: Vec<&Pixels> = Vec::new();
        for image in prompts.iter().flat_map(|prompt| &prompt.images) {
            if let Some(found) = self.0.get(&image.digest) {
                made.insert(image.digest, found.shallow_clone());
            } else if !missing.iter().any(|other| other.digest == image.digest) {
                missing.push(image);
            }
        }
        let _no_grad = tch::no_grad_guard();
        let mut from = 0;
        while from < missing.len() {
            let (mut to, mut patches) = (from, 0);
            while to < missing.len() && (to == from || patches < PATCHES_PER_PASS) {
                patches += missing[to].patches.size()[0] as usize;
                to += 1;
            }
            let part = &missing[from..to];
            for (image, feature) in part.iter().zip(model.vision(part)) {
                let feature = feature.contiguous();
                let bytes = feature.numel() * feature.kind().elt_size_in_bytes();
                self.0.insert(image.digest, feature.copy(), bytes);
                made.insert(image.digest, feature);
            }
            from = to;
        }
        in_order(&made, prompts)
    }
}

impl Engine {
    /// Features for an update: in the graph where the tower learns, from the cache where it is frozen.
    pub(crate) fn training_features(
        &mut self,
        prompts: &[&Prepared],
    ) -> Result<Vec<Tensor>, EngineError> {
        let (state, cache) = self.state_and_features()?;
        if state.trains_vision() {
            with_gradient(&state.model, prompts)
        } else {
            cache.of(&state.model, prompts)
        }
    }
}

/// Features with the tower in the graph; an image that occurs in several prompts is processed once.
fn with_gradient(model: &Qwen25Vl, prompts: &[&Prepared]) -> Result<Vec<Tensor>, EngineError> {
    let mut images: Vec<&Pixels> = Vec::new();
    for image in prompts.iter().flat_map(|prompt| &prompt.images) {
        if !images.iter().any(|other| other.digest == image.digest) {
            images.push(image);
        }
    }
    let features = if images.is_empty() { Vec::new() } else { model.vision(&images) };
    let made = images.iter().map(|image| image.digest).zip(features).collect();
    in_order(&made, prompts)
}

fn in_order(
    made: &HashMap<[u8; 32], Tensor>,
    prompts: &[&Prepared],
) -> Result<Vec<Tensor>, EngineError> {
    prompts
        .iter()
        .flat_map(|prompt| &prompt.images)
        .map(|image| {
            made.get(&image.digest).map(Tensor::shallow_clone).ok_or_else(|| {
                EngineError::Other(anyhow::anyhow!(
                    "the vision tower returned fewer features than it was given images"
                ))
            })
        })
        .collect()
}
