//! Weights, moments and policy version: everything of a worker that a step changes.

use std::path::Path;

use anyhow::Context;
use medevo_model::Qwen25Vl;
use medevo_types::{
    Digest, PolicyVersion,
    messages::{ApplyWork, Holding},
};
use tch::{Device, Kind, Tensor};

use crate::{
    adamw::{AdamStep, Moments, clip_factor},
    digest,
};

/// A trained parameter's place in the flat gradient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Index in the model's parameters.
    pub index: usize,
    pub offset: i64,
    pub length: i64,
}

/// One set of weights with its moments.
pub(crate) struct State {
    /// With an adapter, what is trained is the adapter alone: the weights under it are not in the slots.
    pub model: Qwen25Vl,
    pub policy: PolicyVersion,
    /// Digest of the frozen weights under an adapter; none without one.
    pub base: Option<Digest>,
    /// None until the first step: all zero, no step taken.
    pub moments: Option<Moments>,
    /// f32 copy of the trained weights, laid end to end, where the model's own are bf16; none until the
    /// first step, when it is what the weights are.
    pub master: Option<Tensor>,
    pub slots: Vec<Slot>,
    /// Trained numbers.
    pub length: i64,
}

impl State {
    /// Takes over loaded weights, with moments zero.
    pub fn new(model: Qwen25Vl, policy: PolicyVersion, freeze_vision: bool) -> Self {
        model.set_requires_grad(!freeze_vision, true);
        let mut slots = Vec::new();
        let mut offset = 0;
        for (index, (name, tensor)) in model.parameters().iter().enumerate() {
            if freeze_vision && Qwen25Vl::is_vision(name) {
                continue;
            }
            let length = tensor.numel() as i64;
            slots.push(Slot { index, offset, length });
            offset += length;
        }
        Self { model, policy, base: None, moments: None, master: None, slots, length: offset }
    }

    /// Whether a step moves the vision tower, so that its features have to be made anew.
    pub fn trains_vision(&self) -> bool {
        self.slots.iter().any(|slot| Qwen25Vl::is_vision(self.parameter(slot).0))
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.model.parameters().first().map_or(Device::Cpu, |(_, tensor)| tensor.device())
    }

    /// Name and weight of a slot.
    pub fn parameter(&self, slot: &Slot) -> (&str, &Tensor) {
        let (name, tensor) = &self.model.parameters()[slot.index];
        (name, tensor)
    }

    /// Adds the gradients that lie on the parameters to `flat` `[length]` f32, and clears them.
    pub fn take_gradients(&self, flat: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        for slot in &self.slots {
            let mut gradient = self.parameter(slot).1.grad();
            if gradient.defined() {
                let mut part = flat.narrow(0, slot.offset, slot.length);
                let _ = part.g_add_(&gradient.to_kind(Kind::Float).reshape([-1]));
                let _ = gradient.zero_();
            }
        }
    }

    /// One optimizer step with a normalised gradient `[length]` f32 of global norm `norm`.
    pub fn step(&mut self, gradient: &Tensor, norm: f64, work: &ApplyWork) {
        let _no_grad = tch::no_grad_guard();
        let device = self.device();
        let moments = self.moments.get_or_insert_with(|| Moments::zeros(self.length, device));
        if work.reset_moments {
            moments.reset();
        }
        moments.steps += 1;
        let factor = clip_factor(norm, work.optimizer.clip_norm);
        let gradient = if factor < 1.0 { gradient * factor } else { gradient.shallow_clone() };
        let step = AdamStep::new(&work.optimizer, work.lr, moments.steps);
        let parameters = self.model.parameters();
        let half = self.slots.first().is_some_and(|s| parameters[s.index].1.kind() != Kind::Float);
        if half && self.master.is_none() {
            self.master = Some(flat(parameters, &self.slots).to_kind(Kind::Float));
        }
        for slot in &self.slots {
            let part = |whole: &Tensor| whole.narrow(0, slot.offset, slot.length);
            let weight = parameters[slot.index].1.detach();
            let (mut first, mut second) = (part(&moments.first), part(&moments.second));
            match &self.master {
                Some(master) => {
                    let mut master = part(master);
                    step.apply(&mut master, &part(&gradient), &mut first, &mut second);
                    weight.view(-1).copy_(&master);
                }
                None => step.apply(&mut weight.view(-1), &part(&gradient), &mut first, &mut second),
            }
        }
        self.policy = work.policy;
    }

    /// What this is: the version, and a digest over version, weights (with an adapter: the base's own digest
    /// and the adapter), masters and moments.
    pub fn holding(&self) -> Holding {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.policy.0.to_le_bytes());
        if let Some(base) = &self.base {
            hasher.update(base.0.as_bytes());
        }
        for (name, tensor) in self.model.parameters() {
            hasher.update(name.as_bytes());
            digest::add_tensor(&mut hasher, tensor);
        }
        if let Some(master) = &self.master {
            digest::add_tensor(&mut hasher, master);
        }
        if let Some(moments) = &self.moments {
            hasher.update(&moments.steps.to_le_bytes());
            digest::add_tensor(&mut hasher, &moments.first);
            digest::add_tensor(&mut hasher, &moments.second);
        }
        Holding { policy: self.policy, digest: digest::finish(&hasher) }
    }

    /// Overwrites all trainable weights with `weights`, all parameters laid end to end.
    pub fn set_weights(&mut self, weights: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        let mut offset = 0;
        for (_, tensor) in self.model.parameters() {
            let length = tensor.numel() as i64;
            tensor.detach().view(-1).copy_(&weights.narrow(0, offset, length));
            offset += length;
        }
    }

    /// All trainable weights laid end to end, in their number type; with an adapter those are the adapter's.
    pub fn all_weights(&self) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let parts: Vec<Tensor> = self
            .model
            .parameters()
            .iter()
            .map(|(_, tensor)| tensor.detach().reshape([-1]))
            .collect();
        Tensor::cat(&parts, 0)
    }
}

fn flat(parameters: &[(String, Tensor)], slots: &[Slot]) -> Tensor {
    let parts: Vec<Tensor> =
        slots.iter().map(|slot| parameters[slot.index].1.detach().reshape([-1])).collect();
    Tensor::cat(&parts, 0)
}

/// Loads weights from a Hugging Face directory.
pub(crate) fn load_model(dir: &Path, kind: Kind, device: Device) -> anyhow::Result<Qwen25Vl> {
    Qwen25Vl::load(dir, kind, device)
        .with_context(|| format!("cannot load the model in {}", dir.display()))
}
