//! Weights, moments and policy version: everything of a worker that a step changes.

use std::path::Path;

use anyhow::Context;
use medevo_collective::Collective;
use medevo_model::Qwen25Vl;
use medevo_types::{Digest, PolicyVersion, messages::ApplyWork};
use tch::{Device, Kind, Tensor};

use crate::{
    adamw::{AdamStep, Moments, clip_factor},
    error::EngineError,
    shard::{Overlap, Shard, overlap},
};

/// Numbers that each rank brings to one exchange of stepped weights.
const NUMBERS_PER_EXCHANGE: i64 = 1 << 24;

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
    /// Which of the trained numbers this rank keeps moments and masters for, and steps.
    pub shard: Shard,
    /// Of the shard's numbers. None until the first step: all zero, no step taken.
    pub moments: Option<Moments>,
    /// f32 copy of the shard's weights, laid end to end, where the model's own are bf16; none until the
    /// first step, when it is what the weights are.
    pub master: Option<Tensor>,
    pub slots: Vec<Slot>,
    /// Trained numbers.
    pub length: i64,
}

impl State {
    /// Takes over loaded weights, with moments zero, all of them in one shard.
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
        let shard = Shard::whole(offset);
        Self {
            model,
            policy,
            base: None,
            shard,
            moments: None,
            master: None,
            slots,
            length: offset,
        }
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

    /// Whether there is anything that a shard divides.
    pub fn stepped(&self) -> bool {
        self.moments.is_some() || self.master.is_some()
    }

    /// The trained weights that lie in a range of the flat vector, with their place in it.
    pub fn weights_in(
        &self,
        range: std::ops::Range<i64>,
    ) -> impl Iterator<Item = (Overlap, Tensor)> + '_ {
        self.slots.iter().filter_map(move |slot| {
            let common = overlap(&range, slot)?;
            let weight = self.parameter(slot).1.detach().view(-1);
            Some((common, weight.narrow(0, common.in_slot, common.length)))
        })
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

    /// One optimizer step with this rank's part of a normalised gradient, `[shard's numbers]` f32; `norm` is the
    /// norm of the whole. Where the numbers are sharded the ranks then give each other the weights that they
    /// have stepped; when that fails, the weights are neither the old nor the new ones.
    pub fn step(
        &mut self,
        mut gradient: Tensor,
        norm: f64,
        work: &ApplyWork,
        collective: &mut dyn Collective,
    ) -> Result<(), EngineError> {
        let _no_grad = tch::no_grad_guard();
        let (device, shard) = (self.device(), self.shard);
        let moments = self.moments.get_or_insert_with(|| Moments::zeros(shard.length(), device));
        if work.reset_moments {
            moments.reset();
        }
        moments.steps += 1;
        let step = AdamStep::new(&work.optimizer, work.lr, moments.steps);
        let factor = clip_factor(norm, work.optimizer.clip_norm);
        if factor < 1.0 {
            let _ = gradient.g_mul_scalar_(factor);
        }
        if self.kind() != Kind::Float && self.master.is_none() {
            self.master = Some(self.flat(shard.range()).to_kind(Kind::Float));
        }
        let moments = self.moments.as_ref().expect("made above");
        for (common, weight) in self.weights_in(shard.range()) {
            let part = |whole: &Tensor| whole.narrow(0, common.in_range, common.length);
            let (mut first, mut second) = (part(&moments.first), part(&moments.second));
            let mut weight = weight;
            match &self.master {
                Some(master) => {
                    let mut master = part(master);
                    step.apply(&mut master, &part(&gradient), &mut first, &mut second);
                    weight.copy_(&master);
                }
                None => step.apply(&mut weight, &part(&gradient), &mut first, &mut second),
            }
        }
        if !shard.is_whole() {
            self.gather(collective)?;
        }
        self.policy = work.policy;
        Ok(())
    }

    /// Gives the weights of this rank's shard to the others and takes theirs.
    fn gather(&self, collective: &mut dyn Collective) -> Result<(), EngineError> {
        let options = (self.kind(), self.device());
        let (each, count) = (self.shard.padded(), self.shard.count as i64);
        let mut from = 0;
        while from < each {
            let numbers = NUMBERS_PER_EXCHANGE.min(each - from);
            let of_rank = |rank: i64| {
                let start = (rank * each + from).min(self.length);
                start..(start + numbers).min(self.length)
            };
            let mine = Tensor::zeros([numbers], options);
            for (common, weight) in self.weights_in(of_rank(self.shard.index as i64)) {
                mine.narrow(0, common.in_range, common.length).copy_(&weight);
            }
            let mut all = Tensor::zeros([numbers * count], options);
            collective.all_gather_into(&mut all, &mine)?;
            for rank in (0..count).filter(|rank| *rank != self.shard.index as i64) {
                let theirs = all.narrow(0, rank * numbers, numbers);
                for (common, mut weight) in self.weights_in(of_rank(rank)) {
                    weight.copy_(&theirs.narrow(0, common.in_range, common.length));
                }
            }
            from += numbers;
        }
        Ok(())
    }

    /// Number type of the trained weights.
    fn kind(&self) -> Kind {
        self.slots.first().map_or(Kind::Float, |slot| self.parameter(slot).1.kind())
    }

    /// A copy of the trained weights in a range, laid end to end.
    fn flat(&self, range: std::ops::Range<i64>) -> Tensor {
        let flat = Tensor::zeros([range.end - range.start], (self.kind(), self.device()));
        for (common, weight) in self.weights_in(range) {
            flat.narrow(0, common.in_range, common.length).copy_(&weight);
        }
        flat
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

/// Loads weights from a Hugging Face directory.
pub(crate) fn load_model(dir: &Path, kind: Kind, device: Device) -> anyhow::Result<Qwen25Vl> {
    Qwen25Vl::load(dir, kind, device)
        .with_context(|| format!("cannot load the model in {}", dir.display()))
}
