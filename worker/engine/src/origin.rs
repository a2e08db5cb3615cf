//! Where a worker's weights come from: a model directory whole or, for a run with adapters, the frozen base
//! and the adapter beside it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use medevo_model::{Adapter, ModelConfig, Qwen25Vl, base_directory};
use medevo_types::{Digest, PolicyVersion, messages::EngineSetup, settings::LoraSettings};
use tch::{Device, Kind};

use crate::{
    digest,
    error::EngineError,
    fingerprint,
    state::{State, load_model},
};

/// The weights under an adapter. They never change, so they are read and hashed once.
struct Base {
    model: Qwen25Vl,
    digest: Digest,
}

/// How weights are made for one set-up.
pub(crate) struct Origin {
    /// The whole model that the set-up names, or the base of the adapter that it names.
    pub dir: PathBuf,
    /// Adapters are trained.
    lora: Option<LoraSettings>,
    freeze_vision: bool,
    seed: u64,
    kind: Kind,
    device: Device,
    base: Option<Base>,
}

impl Origin {
    /// Reads no weights yet.
    ///
    /// # Errors
    /// An adapter without its base, or targets that mean no layer of the model.
    pub fn new(setup: &EngineSetup, kind: Kind, device: Device) -> anyhow::Result<Self> {
        let dir = base_directory(&setup.model)?;
        let (lora, freeze_vision, seed) = (setup.lora.clone(), setup.freeze_vision, setup.seed);
        let origin = Self { dir, lora, freeze_vision, seed, kind, device, base: None };
        if let Some(lora) = &origin.lora {
            let config = ModelConfig::load(&origin.dir)?;
            Adapter::targets(&config, lora, freeze_vision).map_err(anyhow::Error::msg)?;
        }
        Ok(origin)
    }

    /// Whether adapters are trained; the reference policy is then the base without one.
    pub fn trains_adapters(&self) -> bool {
        self.lora.is_some()
    }

    /// Weights to begin with: those of `dir`, with a fresh adapter where adapters are trained and `dir` holds
    /// none.
    pub fn start(&mut self, dir: &Path, policy: PolicyVersion) -> Result<State, EngineError> {
        match &self.lora {
            _ if Adapter::lies_in(dir) => self.adapted(dir, policy),
            Some(lora) => {
                let (lora, freeze_vision) = (lora.clone(), self.freeze_vision);
                let (seed, device) = (self.seed, self.device);
                let base = self.base()?;
                let config = &base.model.config;
                let fresh = Adapter::draw(config, &lora, freeze_vision, seed, device)
                    .map_err(|why| EngineError::refused("making an adapter", why))?;
                self.beside_base(fresh, policy)
            }
            None => {
                let mut model = load_model(dir, self.kind, self.device)?;
                // What goes with the weights is copied from there into each checkpoint. A checkpoint that the run
                // went on from is deleted one day, the run's model is not.
                model.config.source = Some(self.dir.clone());
                Ok(State::new(model, policy, self.freeze_vision))
            }
        }
    }

    /// Weights of a checkpoint that a run with this set-up has written.
    pub fn resume(&mut self, dir: &Path, policy: PolicyVersion) -> Result<State, EngineError> {
        if self.trains_adapters() && !Adapter::lies_in(dir) {
            return Err(EngineError::refused(
                format!("restoring from {}", dir.display()),
                "it holds no adapter, and the run trains one; start a new run from it, with model.path",
            ));
        }
        self.start(dir, policy)
    }

    /// The base without an adapter, sharing its weights.
    pub fn reference(&mut self) -> Result<Qwen25Vl, EngineError> {
        Ok(self.base()?.model.base())
    }

    fn adapted(&mut self, dir: &Path, policy: PolicyVersion) -> Result<State, EngineError> {
        let (lora, freeze_vision, device) = (self.lora.clone(), self.freeze_vision, self.device);
        let config = &self.base()?.model.config;
        let adapter = Adapter::read(dir, config, device).map_err(anyhow::Error::from)?;
        if let Some(lora) = lora {
            adapter.expect(config, &lora, freeze_vision).map_err(|why| {
                EngineError::refused(format!("training the adapter in {}", dir.display()), why)
            })?;
        }
        self.beside_base(adapter, policy)
    }

    fn beside_base(
        &mut self,
        adapter: Adapter,
        policy: PolicyVersion,
    ) -> Result<State, EngineError> {
        let freeze_vision = self.freeze_vision;
        let base = self.base()?;
        let mut state = State::new(base.model.with_adapter(adapter), policy, freeze_vision);
        state.base = Some(base.digest.clone());
        Ok(state)
    }

    fn base(&mut self) -> Result<&Base, EngineError> {
        if self.base.is_none() {
            let model = load_model(&self.dir, self.kind, self.device)?;
            model.set_requires_grad(false, false);
            let mut hasher = blake3::Hasher::new();
            for (name, tensor) in model.parameters() {
                hasher.update(name.as_bytes());
                digest::add_fingerprint(&mut hasher, fingerprint::of(tensor, 0));
            }
            self.base = Some(Base { model, digest: digest::finish(&hasher) });
        }
        Ok(self.base.as_ref().context("it was read just now")?)
    }
}
