//! The whole model: two towers, the embeddings and the output projection.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

use crate::attend::Attend;
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::image::Pixels;
use crate::layer::{Linear, LowRank};
use crate::lora::Adapter;
use crate::pass::Pass;
use crate::product;
use crate::text::TextModel;
use crate::vision::VisionTower;
use crate::weights::{self, Scheme, TIED_HEAD, Tensors};

/// Qwen2.5-VL or Qwen2-VL: one decoder, two kinds of vision tower.
#[derive(Debug)]
pub struct Qwen25Vl {
    /// Its shape and special tokens.
    pub config: ModelConfig,
    tensors: Tensors,
    scheme: Scheme,
    vision: VisionTower,
    text: TextModel,
    embeddings: Tensor,
    head: Tensor,
    adapter: Option<Adapter>,
}

impl Qwen25Vl {
    /// Loads a Hugging Face directory. Weights of any floating type become `dtype` on `device`.
    ///
    /// # Errors
    /// See [`LoadError`]; a mismatch names every missing, unexpected and misshapen tensor.
    pub fn load(dir: &Path, dtype: Kind, device: Device) -> Result<Self, LoadError> {
        let config = ModelConfig::load(dir)?;
        let (tensors, scheme) = weights::load(dir, &config, dtype, device)?;
        Ok(Self::new(config, tensors, scheme, device))
    }

    /// Like [`Self::load`], on the CPU and in the type that the weights have on disk (f32 where they have
    /// several).
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_as_stored(dir: &Path) -> Result<Self, LoadError> {
        Self::load(dir, weights::stored_kind(dir)?, Device::Cpu)
    }

    /// Fresh f32 weights: norms 1, biases 0, all else normal with the configuration's `initializer_range`
    /// (embeddings and patch projection never wider than 0.02). A seed gives the same weights everywhere.
    #[must_use]
    pub fn random(config: ModelConfig, seed: u64, device: Device) -> Self {
        let tensors = weights::draw(&config, seed, device);
        Self::new(config, tensors, Scheme::Flat, device)
    }

    /// A model whose weights are made one after the other, sorted by name: `make` is given the name and
    /// the shape of each of [`ModelConfig::tensors`].
    ///
    /// # Panics
    /// If a tensor has another shape.
    pub fn from_fn(
        config: ModelConfig,
        device: Device,
        mut make: impl FnMut(&str, &[i64]) -> Tensor,
    ) -> Self {
        let make = |(name, shape): (String, Vec<i64>)| {
            let tensor = make(&name, &shape).to_device(device);
            assert_eq!(tensor.size(), shape, "the shape of {name}");
            (name, tensor)
        };
        let tensors = Tensors(config.tensors().into_iter().map(make).collect());
        Self::new(config, tensors, Scheme::Flat, device)
    }

    fn new(config: ModelConfig, tensors: Tensors, scheme: Scheme, device: Device) -> Self {
        let model = Self::assemble(config, tensors, scheme, device);
        model.set_requires_grad(true, true);
        model
    }

    /// Builds the layers around the tensors.
    fn assemble(config: ModelConfig, tensors: Tensors, scheme: Scheme, device: Device) -> Self {
        let embeddings = tensors.get("model.language_model.embed_tokens.weight");
        let head = if config.tie_word_embeddings {
            embeddings.shallow_clone()
        } else {
            tensors.get(TIED_HEAD)
        };
        Self {
            vision: VisionTower::new(&tensors, &config.vision, config.family, device),
            text: TextModel::new(&tensors, &config.text, device),
            config,
            tensors,
            scheme,
            embeddings,
            head,
            adapter: None,
        }
    }

    /// The same weights, shared and not copied, without an adapter: the adapted model's base.
    #[must_use]
    pub fn base(&self) -> Self {
        let device = self.embeddings.device();
        Self::assemble(self.config.clone(), self.tensors.share(), self.scheme, device)
    }

    /// The same weights, shared and not copied, with `adapter` beside them. From now on the weights are
    /// frozen and the adapter is what is trained.
    ///
    /// # Panics
    /// If the adapter was made for a model of another shape.
    #[must_use]
    pub fn with_adapter(&self, adapter: Adapter) -> Self {
        for (_, tensor) in &self.tensors.0 {
            let _ = tensor.set_requires_grad(false);
        }
        let mut model = self.base();
        let mut terms: BTreeMap<&str, LowRank> = adapter.layers().collect();
        for linear in model.linears() {
            if let Some(term) = terms.remove(linear.name()) {
                linear.adapt(term);
            }
        }
        assert!(terms.is_empty(), "every adapted layer is one of the towers' linear layers");
        model.adapter = Some(adapter);
        model
    }

    /// Adds the adapter's terms to the weights themselves, which every model that shares them then has too,
    /// and makes them trainable again. Each sum is computed in f32 and rounded once.
    #[must_use]
    pub fn merge(mut self) -> Self {
        for linear in self.linears() {
            linear.merge();
        }
        self.adapter = None;
        self.set_requires_grad(true, true);
        self
    }

    fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.vision.linears().chain(self.text.linears())
    }

    /// The adapter beside the weights, if there is one.
    #[must_use]
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// Writes a directory that the reference opens as it lies there: `model.safetensors`, with tensors
    /// named as in the directory that the model came from, and that directory's configuration, tokenizer
    /// and processor files. A model with an adapter writes the adapter alone, in PEFT's layout, which names
    /// the base's directory. The paths written. Not atomic: write beside the final place and rename.
    ///
    /// # Errors
    /// The file that could not be written, or that the model did not come from a directory.
    pub fn save(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let source = self.config.source.as_deref().context(
            "this model was not made from a directory, so there is no config.json to save with it; \
             read its configuration with ModelConfig::load",
        )?;
        match &self.adapter {
            Some(adapter) => adapter.write(dir, source),
            None => weights::save(&self.tensors, self.scheme, source, dir),
        }
    }

    /// Every trainable tensor once, sorted by name: leaves that require gradients. Those are the adapter's
    /// where there is one, else the weights. Names are those of the reference's modules
    /// (`model.language_model.…`, `model.visual.…`), whatever the file called them.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        self.adapter.as_ref().map_or(&self.tensors.0, |adapter| &adapter.parameters)
    }

    /// Whether a parameter belongs to the vision tower.
    #[must_use]
    pub fn is_vision(name: &str) -> bool {
        name.starts_with("model.visual.")
    }

    /// Says which tower is trained. Frozen parameters record no operations.
    pub fn set_requires_grad(&self, vision: bool, text: bool) {
        for (name, tensor) in self.parameters() {
            let wanted = if Self::is_vision(name) { vision } else { text };
            let _ = tensor.set_requires_grad(wanted);
        }
    }

    /// Overwrites every weight with `other`'s, a model of the same shape. Adapters stay as they are.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn copy_from(&self, other: &Self) {
        assert_eq!(self.tensors.0.len(), other.tensors.0.len(), "models of one shape");
        tch::no_grad(|| {
            for ((name, to), (other_name, from)) in self.tensors.0.iter().zip(&other.tensors.0) {
                assert_eq!(name, other_name, "models of one shape");
                to.shallow_clone().copy_(from);
            }
        });
    }

    /// Tokens of each image, `[merged_tokens, hidden]`, in one batched pass.
    #[must_use]
    pub fn vision(&self, images: &[&Pixels]) -> Vec<Tensor> {
        self.vision.forward(images, |_| ())
    }

    /// Like [`Self::vision`], and the state after the patch projection and each block,
    /// `[patches, vision hidden]`.
    #[must_use]
    pub fn vision_states(&self, images: &[&Pixels]) -> (Vec<Tensor>, Vec<Tensor>) {
        let mut states = Vec::new();
        let tokens = self.vision.forward(images, |s| states.push(s.shallow_clone()));
        (tokens, states)
    }

    /// A training pass of `images`, of which there is at least one: `[tokens of all images, hidden]`, image after
    /// image. With `recompute` each block's graph exists only while it is needed.
    #[must_use]
    pub fn vision_pass<'a>(&'a self, images: &[&Pixels], recompute: bool) -> Pass<'a> {
        self.vision.pass(images, recompute)
    }

    /// Token embeddings: `[B, L]` i64 to `[B, L, H]`.
    pub fn embed(&self, ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.embeddings, ids, -1, false, false)
    }

    /// Puts image tokens in the place of `<|image_pad|>`: `embeds` `[B, L, H]`, `ids` `[B, L]`,
    /// `features` `[tokens, H]` each, in the order in which the images appear, row after row.
    ///
    /// # Errors
    /// If there are not exactly as many image tokens as placeholders.
    pub fn place_images(
        &self,
        embeds: &Tensor,
        ids: &Tensor,
        features: &[Tensor],
    ) -> Result<Tensor> {
        let places = ids.reshape([-1]).eq(self.config.image_token_id).nonzero().squeeze_dim(1);
        let tokens: i64 = features.iter().map(|f| f.size()[0]).sum();
        let wanted = places.size()[0];
        ensure!(
            tokens == wanted,
            "the prompts hold {wanted} image placeholders but {} images give {tokens} tokens; \
             build the prompts from the same image grids",
            features.len()
        );
        if features.is_empty() {
            return Ok(embeds.shallow_clone());
        }
        let width = self.config.text.hidden_size;
        let flat = embeds.reshape([-1, width]);
        let all = Tensor::f_cat(features, 0)?.to_kind(embeds.kind());
        Ok(flat.f_index_copy(0, &places, &all)?.reshape(embeds.size()))
    }

    /// The decoder: `embeds` `[B, L, H]`, `positions` `[3, B, L]` i64 (time, height, width), to the last
    /// hidden state after the final norm, `[B, L, H]`.
    pub fn text(&self, embeds: &Tensor, positions: &Tensor, attend: &mut dyn Attend) -> Tensor {
        self.text.forward(embeds, positions, attend, |_| ())
    }

    /// A training pass of what [`Self::text`] computes. With `recompute` each layer's graph exists only while it
    /// is needed, and `attend` is asked for each layer twice.
    pub fn text_pass<'a>(
        &'a self,
        embeds: &Tensor,
        positions: &Tensor,
        attend: &'a mut dyn Attend,
        recompute: bool,
    ) -> Pass<'a> {
        self.text.pass(embeds, positions, attend, recompute)
    }

    /// Like [`Self::text`], and the state after the embeddings and after each layer, `[B, L, H]`.
    pub fn text_states(
        &self,
        embeds: &Tensor,
        positions: &Tensor,
        attend: &mut dyn Attend,
    ) -> (Tensor, Vec<Tensor>) {
        let mut states = Vec::new();
        let last = self.text.forward(embeds, positions, attend, |s| states.push(s.shallow_clone()));
        (last, states)
    }

    /// Scores of the next token: `[n, H]` to `[n, vocab_size]`.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        product::linear(hidden, &self.head, None)
    }
}
