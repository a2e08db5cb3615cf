//! Units of rollout work: handed out to whoever pulls, handed out again when overdue, first answer wins.

use std::collections::BTreeSet;

use medevo_types::{
    PolicyVersion, Step, UnitId, WorkerId, WorkerTag,
    messages::{Group, Purpose, Rejection},
    settings::Sampling,
};

use crate::{DataIndex, Millis, Order, SampleIndex};

/// A holder overdue this many times is given up: it is alive but does nothing.
const STRIKES: u32 = 3;
/// A unit that failed this often fails the run.
pub(crate) const MAX_UNIT_FAILURES: u32 = 3;

/// What all units of a rollout share.
#[derive(Clone, Debug)]
pub(crate) struct Brief {
    /// Weights.
    pub policy: PolicyVersion,
    /// Step that the work is reported under.
    pub step: Step,
    /// Training or evaluation.
    pub purpose: Purpose,
    /// Which data.
    pub data: DataIndex,
    /// How to draw.
    pub sampling: Sampling,
    /// With policy features.
    pub features: bool,
}

/// A worker that was handed a unit.
#[derive(Clone, Debug)]
struct Holder {
    tag: WorkerTag,
    deadline: Millis,
    overdue: u32,
}

/// Some prompts.
#[derive(Clone, Debug)]
struct Unit {
    id: UnitId,
    samples: Vec<SampleIndex>,
    holders: Vec<Holder>,
    failures: u32,
    failed_by: BTreeSet<WorkerId>,
    groups: Option<Vec<Group>>,
}

/// A rollout's units.
#[derive(Clone, Debug)]
pub(crate) struct Units {
    /// What they share.
    pub brief: Brief,
    units: Vec<Unit>,
    unit_ms: Millis,
    /// When idle workers are given up, if nothing is handed out or answered before.
    stalled_at: Millis,
}

/// What a puller gets.
pub(crate) enum Pulled {
    /// Nothing to do now.
    Nothing,
    /// This unit, by index.
    Unit(usize),
    /// This unit, which the named worker has had for too long.
    Overdue(usize, WorkerId),
}

impl Units {
    /// Cuts `samples` into units of `per_unit` prompts; `first` numbers them and is moved on.
    pub fn cut(
        brief: Brief,
        samples: &[SampleIndex],
        per_unit: usize,
        unit_ms: Millis,
        first: &mut UnitId,
    ) -> Units {
        let units = samples
            .chunks(per_unit.max(1))
            .map(|chunk| {
                let id = *first;
                *first = id.next();
                Unit {
                    id,
                    samples: chunk.to_vec(),
                    holders: Vec::new(),
                    failures: 0,
                    failed_by: BTreeSet::new(),
                    groups: None,
                }
            })
            .collect();
        Units { brief, units, unit_ms, stalled_at: 0 }
    }

    /// Takes answers that were there before: `groups` in the order of the samples, from the first on. Units that
    /// they answer whole are answered. Returns how many groups were taken.
    pub fn keep(&mut self, groups: &[(SampleIndex, Group)]) -> usize {
        let (mut rest, mut kept) = (groups, 0);
        for unit in &mut self.units {
            let Some((these, others)) = rest.split_at_checked(unit.samples.len()) else { break };
            let same = these
                .iter()
                .zip(&unit.samples)
                .all(|((sample, group), wanted)| sample == wanted && fits(group, &self.brief));
            if !same {
                break;
            }
            unit.groups = Some(these.iter().map(|(_, group)| group.clone()).collect());
            kept += these.len();
            rest = others;
        }
        kept
    }

    /// A roster begins to work on these units: earlier holders are forgotten.
    pub fn begin(&mut self, now: Millis) {
        for unit in &mut self.units {
            unit.holders.clear();
        }
        self.progress(now);
    }

    fn progress(&mut self, now: Millis) {
        self.stalled_at = now + self.unit_ms * Millis::from(STRIKES + 1);
    }

    /// The unit for a puller: its own again, else a free one, else an overdue one. A unit that failed
    /// at this worker is left to others while there are any (`others` says who).
    pub fn pull(&mut self, now: Millis, tag: &WorkerTag, others: &[WorkerId]) -> Pulled {
        let open = |unit: &Unit| unit.groups.is_none();
        let own = |unit: &Unit| unit.holders.iter().any(|h| h.tag == *tag);
        if let Some(i) = self.units.iter().position(|u| open(u) && own(u)) {
            return Pulled::Unit(i);
        }
        let suits = |unit: &Unit| {
            open(unit)
                && (!unit.failed_by.contains(&tag.worker)
                    || others.iter().all(|other| unit.failed_by.contains(other)))
        };
        let free = self.units.iter().position(|u| suits(u) && u.holders.is_empty());
        let late = |u: &Unit| suits(u) && u.holders.iter().all(|h| h.overdue > 0);
        let Some(i) = free.or_else(|| self.units.iter().position(late)) else {
            return Pulled::Nothing;
        };
        let had_by = self.units[i].holders.first().map(|h| h.tag.worker.clone());
        let deadline = now + self.unit_ms;
        self.units[i].holders.push(Holder { tag: tag.clone(), deadline, overdue: 0 });
        self.progress(now);
        had_by.map_or(Pulled::Unit(i), |worker| Pulled::Overdue(i, worker))
    }

    /// The order for a unit.
    pub fn order(&self, index: usize) -> Order {
        let (unit, brief) = (&self.units[index], &self.brief);
        Order::Rollout {
            unit: unit.id,
            policy: brief.policy,
            step: brief.step,
            purpose: brief.purpose,
            data: brief.data,
            samples: unit.samples.clone(),
            sampling: brief.sampling.clone(),
            features: brief.features,
        }
    }

    /// Id of a unit.
    pub fn id(&self, index: usize) -> UnitId {
        self.units[index].id
    }

    /// Takes an answer: the first one that fits wins.
    pub fn answer(
        &mut self,
        now: Millis,
        id: UnitId,
        policy: PolicyVersion,
        groups: Vec<Group>,
    ) -> Result<(), Rejection> {
        let brief = &self.brief;
        let unit = self.units.iter_mut().find(|u| u.id == id).ok_or(Rejection::UnknownUnit)?;
        if unit.groups.is_some() {
            return Err(Rejection::Duplicate);
        }
        if policy != brief.policy {
            return Err(Rejection::StalePolicy);
        }
        if groups.len() != unit.samples.len() || !groups.iter().all(|g| fits(g, brief)) {
            return Err(Rejection::Unexpected);
        }
        unit.groups = Some(groups);
        unit.holders.clear();
        self.progress(now);
        Ok(())
    }

    /// Takes the unit that a worker holds away from it, because the worker could not do it. Returns
    /// which unit, and how often it has failed by now.
    pub fn failed(&mut self, tag: &WorkerTag) -> Option<(UnitId, u32)> {
        let unit = self
            .units
            .iter_mut()
            .find(|u| u.groups.is_none() && u.holders.iter().any(|h| h.tag == *tag))?;
        unit.holders.retain(|h| h.tag != *tag);
        unit.failures += 1;
        unit.failed_by.insert(tag.worker.clone());
        Some((unit.id, unit.failures))
    }

    /// Frees the units of a worker that is lost. Returns which.
    pub fn release(&mut self, tag: &WorkerTag) -> Vec<UnitId> {
        let mut freed = Vec::new();
        for unit in self.units.iter_mut().filter(|u| u.groups.is_none()) {
            let before = unit.holders.len();
            unit.holders.retain(|h| h.tag != *tag);
            if unit.holders.len() < before {
                freed.push(unit.id);
            }
        }
        freed
    }

    /// Marks what is overdue. Returns whether anything became so, and who is to be given up.
    pub fn overdue(&mut self, now: Millis) -> (bool, Vec<WorkerTag>) {
        let (mut changed, mut hopeless) = (false, Vec::new());
        for unit in self.units.iter_mut().filter(|u| u.groups.is_none()) {
            for holder in unit.holders.iter_mut().filter(|h| now >= h.deadline) {
                holder.overdue += 1;
                holder.deadline = now + self.unit_ms;
                changed = true;
                if holder.overdue >= STRIKES {
                    hopeless.push(holder.tag.clone());
                }
            }
        }
        (changed, hopeless)
    }

    /// Whether nothing was handed out or answered for so long that idle workers are given up.
    pub fn stalled(&self, now: Millis) -> bool {
        now >= self.stalled_at
    }

    /// Whether a worker holds an unanswered unit.
    pub fn holds(&self, tag: &WorkerTag) -> bool {
        self.units.iter().any(|u| u.groups.is_none() && u.holders.iter().any(|h| h.tag == *tag))
    }

    /// Answered units, all units, and who holds the others.
    pub fn progress_figures(&self) -> (usize, usize, BTreeSet<WorkerId>) {
        let done = self.units.iter().filter(|u| u.groups.is_some()).count();
        let open = self.units.iter().filter(|u| u.groups.is_none());
        let holders = open.flat_map(|u| u.holders.iter().map(|h| h.tag.worker.clone())).collect();
        (done, self.units.len(), holders)
    }

    /// The next moment at which something becomes overdue.
    pub fn deadline(&self) -> Millis {
        let open = self.units.iter().filter(|u| u.groups.is_none());
        open.flat_map(|u| u.holders.iter().map(|h| h.deadline))
            .min()
            .map_or(self.stalled_at, |first| first.min(self.stalled_at))
    }

    /// Whether every unit is answered.
    pub fn complete(&self) -> bool {
        self.units.iter().all(|u| u.groups.is_some())
    }

    /// The groups with their samples, in the order of the samples.
    pub fn into_groups(self) -> Vec<(SampleIndex, Group)> {
        self.units
            .into_iter()
            .flat_map(|unit| unit.samples.into_iter().zip(unit.groups.unwrap_or_default()))
            .collect()
    }
}

/// Whether a group is what was asked for.
fn fits(group: &Group, brief: &Brief) -> bool {
    group.candidates.len() == brief.sampling.n.max(1)
        && group.candidates.iter().all(|candidate| {
            candidate.ids.len() == candidate.logprobs.len()
                && candidate.logprobs.iter().all(|logprob| logprob.is_finite())
                && (!brief.features || candidate.feature.is_some())
        })
}
