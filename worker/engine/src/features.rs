//! Vision features: each image goes through the tower once per policy version (once ever, where the tower is
//! frozen), and once per micro-batch where its gradient is wanted.

use std::collections::HashMap;

use medevo_model::{Pass, Pixels, Qwen25Vl};
use tch::Tensor;

use crate::{bounded::Bounded, engine::Engine, error::EngineError, prompts::Prepared};

/// Features kept, bytes.
const FEATURE_BYTES: usize = 256 << 20;

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
        for image in missing {
            // Alone, although several at once would be a little faster: what is kept must not depend on which
            // images happened to be asked for together, or a resumed run would not repeat the last bits.
            let feature = model.vision(&[image]).remove(0).contiguous();
            let bytes = feature.numel() * feature.kind().elt_size_in_bytes();
            self.0.insert(image.digest, feature.copy(), bytes);
            made.insert(image.digest, feature);
        }
        in_order(&made, prompts)
    }
}

/// The images of a micro-batch.
pub(crate) enum Vision<'a> {
    /// Their features, of a tower that does not learn.
    Frozen(Vec<Tensor>),
    /// Images that are yet to go through the tower, each once, and which of them comes where in the rows.
    Learning { images: Vec<&'a Pixels>, order: Vec<usize> },
}

impl Engine {
    /// What an update needs of the images of `prompts`.
    pub(crate) fn training_vision<'a>(
        &mut self,
        prompts: &[&'a Prepared],
    ) -> Result<Vision<'a>, EngineError> {
        if !self.state()?.trains_vision() {
            return Ok(Vision::Frozen(self.cached_features(prompts)?));
        }
        let mut images: Vec<&Pixels> = Vec::new();
        let mut order = Vec::new();
        for image in prompts.iter().flat_map(|prompt| &prompt.images) {
            let known = images.iter().position(|other| other.digest == image.digest);
            order.push(known.unwrap_or(images.len()));
            if known.is_none() {
                images.push(image);
            }
        }
        Ok(Vision::Learning { images, order })
    }

    /// Features of all images of `prompts`, in order, without gradient.
    pub(crate) fn cached_features(
        &mut self,
        prompts: &[&Prepared],
    ) -> Result<Vec<Tensor>, EngineError> {
        let (state, cache) = self.state_and_features()?;
        cache.of(&state.model, prompts)
    }
}

impl Vision<'_> {
    /// Features in the rows' order, and the pass that they came from, if they learn.
    pub fn features<'m>(
        &self,
        model: &'m Qwen25Vl,
        recompute: bool,
    ) -> (Vec<Tensor>, Option<Pass<'m>>) {
        match self {
            Self::Frozen(features) => (features.iter().map(Tensor::shallow_clone).collect(), None),
            Self::Learning { images, .. } if images.is_empty() => (Vec::new(), None),
            Self::Learning { images, order } => {
                let pass = model.vision_pass(images, recompute);
                let merge = model.config.vision.spatial_merge_size;
                let sizes: Vec<i64> = images.iter().map(|i| i.merged_tokens(merge)).collect();
                let each = pass.output().split_with_sizes(&sizes, 0);
                let features = order.iter().map(|at| each[*at].shallow_clone()).collect();
                (features, Some(pass))
            }
        }
    }
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
