//! The engine's own state: what it was set up with, what it holds, and what it remembers between calls.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use medevo_collective::{Collective, Solo};
use medevo_model::{ModelConfig, Qwen25Vl};
use medevo_types::{
    PolicyVersion,
    messages::{ApplyWork, CheckpointWork, EngineSetup, FileEntry, Holding},
    settings::Dtype,
};
use tch::{Device, Kind, Tensor};

use crate::{
    digest,
    error::EngineError,
    features::FeatureCache,
    gradient::Kept,
    layout::Row,
    optimizer_file,
    origin::Origin,
    prompts::{Prepared, Prompts},
    sampling::Vocabulary,
    score,
    state::{State, load_model},
};

/// The frozen weights that the KL term measures against.
struct Reference {
    dir: PathBuf,
    model: Qwen25Vl,
    features: FeatureCache,
}

/// A worker's weights and all that is done with them. One thread uses it at a time.
pub struct Engine {
    pub(crate) setup: EngineSetup,
    pub(crate) prompts: Prompts,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) stop_ids: Vec<u32>,
    vocabulary_size: i64,
    pub(crate) device: Device,
    kind: Kind,
    pub(crate) origin: Origin,
    pub(crate) state: Option<State>,
    pub(crate) features: FeatureCache,
    reference: Option<Reference>,
    pub(crate) holding: Option<Holding>,
    pub(crate) kept: Option<Kept>,
}

impl Engine {
    /// Reads tokenizer, template, processor and configuration. No weights yet.
    ///
    /// # Errors
    /// A file of the model directory that is missing or cannot be used.
    pub fn new(setup: &EngineSetup, device: Device) -> anyhow::Result<Self> {
        if setup.threads > 0 {
            let threads = i32::try_from(setup.threads).context("engine.threads is too large")?;
            tch::set_num_threads(threads);
        }
        let kind = match setup.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::Bf16 => Kind::BFloat16,
        };
        let origin = Origin::new(setup, kind, device)?;
        let prompts = Prompts::load(&origin.dir, setup.max_prompt_tokens)?;
        let config = ModelConfig::load(&origin.dir)?;
        let size = config.text.vocab_size;
        Ok(Self {
            vocabulary: Vocabulary::without(prompts.encoder.banned_ids(), size, device),
            stop_ids: prompts.encoder.stop_ids().to_vec(),
            setup: setup.clone(),
            prompts,
            vocabulary_size: size,
            device,
            kind,
            origin,
            state: None,
            features: FeatureCache::new(),
            reference: None,
            holding: None,
            kept: None,
        })
    }

    /// What this engine holds: none before the first restore.
    #[must_use]
    pub fn holding(&self) -> Option<Holding> {
        self.holding.clone()
    }

    /// Applies the kept gradient: clips, steps AdamW, and takes the new version's number. Where the optimizer's
    /// numbers are sharded, every rank takes part.
    ///
    /// # Errors
    /// [`EngineError::Stale`] unless a gradient of exactly this generation, step and attempt is kept (INV-2);
    /// the weights are then untouched. [`EngineError::Collective`] when the ranks could not give each other what
    /// they stepped; then this one holds nothing any more.
    pub fn apply(
        &mut self,
        work: &ApplyWork,
        collective: &mut dyn Collective,
    ) -> Result<Holding, EngineError> {
        let Some(kept) = &self.kept else {
            return Err(EngineError::stale(
                format!("applying step {}, attempt {}", work.step, work.attempt),
                "no gradient is kept (none computed, void, or already applied)",
            ));
        };
        kept.check(work)?;
        let kept = self.kept.take().expect("checked above");
        self.holding = None;
        let mut state = self.state.take().expect("a gradient is kept only with weights in place");
        state.step(kept.gradient, kept.norm, work, collective)?;
        if state.trains_vision() {
            self.features.clear();
        }
        let start = Instant::now();
        let holding = state.holding(collective)?;
        tracing::debug!(us = start.elapsed().as_micros(), "digest of weights and moments");
        self.state = Some(state);
        self.holding = Some(holding.clone());
        Ok(holding)
    }

    /// The kept gradient, normalised and not clipped: the trained parameters' numbers laid end to end, in the
    /// order of their names, `[numbers]` f32; where the optimizer is sharded, this rank's part. None when no attempt awaits its commit.
    #[must_use]
    pub fn gradient(&self) -> Option<&Tensor> {
        self.kept.as_ref().map(|kept| &kept.gradient)
    }

    /// Forgets the kept gradient: its attempt is void.
    pub fn discard(&mut self) {
        self.kept = None;
    }

    /// Writes the weights as a Hugging Face directory (an adapter in PEFT's layout, without its base) with
    /// `optimizer.safetensors` beside them, flushed to the disk, and lists the files. Where the optimizer's
    /// numbers are sharded, every rank writes its part of them into a file of its own, and the first rank
    /// writes all else. What a failed try has written is deleted again: on a full disk it would leave no room
    /// for the next one, nor for anything else of the run.
    ///
    /// # Errors
    /// A directory that exists and is not empty, another version than asked for, a disk that refuses.
    pub fn save(&mut self, work: &CheckpointWork) -> Result<Vec<FileEntry>, EngineError> {
        let what = format!("the checkpoint of step {} in {}", work.step, work.dir.display());
        self.expect_policy(&what, work.policy)?;
        let at = || format!("cannot write {what}");
        std::fs::create_dir_all(&work.dir).with_context(at)?;
        let state = self.state()?;
        let (first, own) = (state.shard.index == 0, optimizer_file::file_name(state.shard));
        // The others' parts may be there already; whatever else is there is not this try's.
        let theirs = |name: &str| {
            !state.shard.is_whole() && name != own && optimizer_file::is_optimizer_file(name)
        };
        let ours = |name: &str| name == own || (first && !theirs(name));
        for entry in std::fs::read_dir(&work.dir).with_context(at)? {
            if ours(&entry.with_context(at)?.file_name().to_string_lossy()) {
                return Err(EngineError::refused(
                    what,
                    "the directory is not empty; name a fresh one",
                ));
            }
        }
        let write = || -> Result<Vec<FileEntry>, EngineError> {
            if first {
                state.model.save(&work.dir).with_context(at)?;
            }
            optimizer_file::write(state, &work.dir)?;
            Ok(digest::sync_and_list(&work.dir, ours)?)
        };
        write().inspect_err(|_| {
            // The directory was empty before, so everything in it is this try's. What cannot be deleted
            // is in nobody's way: the next try has a directory of its own.
            let _ = match first {
                true => std::fs::remove_dir_all(&work.dir),
                false => std::fs::remove_file(work.dir.join(&own)),
            };
        })
    }

    /// Loads weights only, for [`Engine::logprobs`] and [`Engine::generate`]. An adapter is put beside the
    /// model that the engine was set up with, or the one under the adapter that it was set up with.
    ///
    /// # Errors
    /// A directory that is not a model, by the tensor that is missing or misshapen.
    pub fn load_model(&mut self, dir: &Path) -> anyhow::Result<()> {
        let state = self.origin.start(dir, PolicyVersion(0))?;
        state.model.set_requires_grad(false, false);
        self.take(state, &mut Solo)?;
        Ok(())
    }

    /// Where all its tensors are.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// The weights in place.
    pub(crate) fn state(&self) -> Result<&State, EngineError> {
        self.state.as_ref().ok_or_else(no_weights)
    }

    /// The weights and the cache of their vision features.
    pub(crate) fn state_and_features(
        &mut self,
    ) -> Result<(&State, &mut FeatureCache), EngineError> {
        Ok((self.state.as_ref().ok_or_else(no_weights)?, &mut self.features))
    }

    /// Refuses work on other weights than those held.
    pub(crate) fn expect_policy(
        &self,
        what: &str,
        policy: PolicyVersion,
    ) -> Result<(), EngineError> {
        let held = self.state()?.policy;
        if held == policy {
            return Ok(());
        }
        Err(EngineError::stale(
            what,
            format!(
                "it is for policy version {policy} and this worker holds {held}; restore first"
            ),
        ))
    }

    /// Whether an answer may hold token `id`.
    pub(crate) fn can_draw(&self, id: u32) -> bool {
        i64::from(id) < self.vocabulary_size && !self.vocabulary.bans(id)
    }

    pub(crate) fn tokens_per_batch(&self) -> usize {
        self.setup.tokens_per_batch
    }

    /// Makes the reference weights those in `dir`; they stay until another directory is asked for. Where
    /// adapters are trained the reference is the base without an adapter, whatever `dir` says: its weights are
    /// in memory already.
    pub(crate) fn load_reference(&mut self, dir: Option<&Path>) -> Result<(), EngineError> {
        let adapters = self.origin.trains_adapters();
        let dir = match dir {
            _ if adapters => self.origin.dir.clone(),
            Some(dir) => dir.to_path_buf(),
            None => {
                return Err(EngineError::refused(
                    "a policy update with beta above 0",
                    "it names no reference weights; send a reference directory or set beta to 0",
                ));
            }
        };
        if self.reference.as_ref().is_some_and(|reference| reference.dir == dir) {
            return Ok(());
        }
        self.reference = None;
        let model = if adapters {
            self.origin.reference()?
        } else {
            load_model(&dir, self.kind, self.device)?
        };
        model.set_requires_grad(false, false);
        self.reference = Some(Reference { dir, model, features: FeatureCache::new() });
        Ok(())
    }

    /// Log-probabilities of the rows' answers under the reference, in the batch's order.
    pub(crate) fn reference_log_probabilities(
        &mut self,
        temperature: f64,
        rows: &[Row],
        prompts: &[&Prepared],
    ) -> Result<Vec<f32>, EngineError> {
        let reference = self.reference.as_mut().context("the reference is loaded first")?;
        let features = reference.features.of(&reference.model, prompts)?;
        score::log_probabilities(&reference.model, &self.vocabulary, temperature, rows, &features)
    }
}

pub(crate) fn no_weights() -> EngineError {
    EngineError::stale("work on the model", "no weights are in place; restore first")
}
