//! Units of rollout work: handed out to whoever pulls, handed out again when overdue, first answer wins.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Units without an answer.
    open: usize,
    /// Of those, the ones that nobody has.
    free: BTreeSet<usize>,
    /// Who has one, and which.
    held: BTreeMap<WorkerTag, usize>,
    /// When holders become overdue: how many at each moment.
    due: BTreeMap<Millis, usize>,
    /// Holders that have been overdue.
    late: usize,
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
        Units {
            brief,
            units,
            unit_ms,
            stalled_at: 0,
            open: 0,
            free: BTreeSet::new(),
            held: BTreeMap::new(),
            due: BTreeMap::new(),
            late: 0,
        }
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
        let open = self.units.iter().enumerate().filter(|(_, unit)| unit.groups.is_none());
        self.free = open.map(|(index, _)| index).collect();
        self.open = self.free.len();
        (self.held, self.due, self.late) = (BTreeMap::new(), BTreeMap::new(), 0);
        self.progress(now);
    }

    /// A unit goes to a worker.
    fn hold(&mut self, index: usize, tag: &WorkerTag, deadline: Millis) {
        self.free.remove(&index);
        self.held.insert(tag.clone(), index);
        *self.due.entry(deadline).or_insert(0) += 1;
        let holder = Holder { tag: tag.clone(), deadline, overdue: 0 };
        self.units[index].holders.push(holder);
    }

    /// A worker has its unit no longer. Returns which it was.
    fn let_go(&mut self, tag: &WorkerTag) -> Option<usize> {
        let index = self.held.remove(tag)?;
        let holders = &mut self.units[index].holders;
        let holder = holders.remove(holders.iter().position(|holder| holder.tag == *tag)?);
        if holders.is_empty() {
            self.free.insert(index);
        }
        self.late -= usize::from(holder.overdue > 0);
        self.not_due(holder.deadline);
        Some(index)
    }

    fn not_due(&mut self, deadline: Millis) {
        if let Some(count) = self.due.get_mut(&deadline) {
            *count -= 1;
            if *count == 0 {
                self.due.remove(&deadline);
            }
        }
    }

    fn progress(&mut self, now: Millis) {
        self.stalled_at = now + self.unit_ms * Millis::from(STRIKES + 1);
    }

    /// The unit for a puller: its own again, else a free one, else an overdue one. A unit that failed
    /// at this worker is left to others while there are any (`others` says who).
    pub fn pull<'a, I: Iterator<Item = &'a WorkerId>>(
        &mut self,
        now: Millis,
        tag: &WorkerTag,
        others: impl Fn() -> I,
    ) -> Pulled {
        if let Some(&index) = self.held.get(tag) {
            return Pulled::Unit(index);
        }
        let suits = |index: &usize| {
            let unit = &self.units[*index];
            !unit.failed_by.contains(&tag.worker)
                || others().all(|other| unit.failed_by.contains(other))
        };
        let late = |index: &usize| self.units[*index].holders.iter().all(|h| h.overdue > 0);
        let free = self.free.iter().copied().find(suits);
        let overdue = || {
            let held = self.held.values().copied().filter(|_| self.late > 0);
            held.filter(|index| late(index) && suits(index)).min()
        };
        let Some(index) = free.or_else(overdue) else { return Pulled::Nothing };
        let had_by = self.units[index].holders.first().map(|h| h.tag.worker.clone());
        self.hold(index, tag, now + self.unit_ms);
        self.progress(now);
        had_by.map_or(Pulled::Unit(index), |worker| Pulled::Overdue(index, worker))
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
        let index = self.index(id).ok_or(Rejection::UnknownUnit)?;
        let unit = &self.units[index];
        if unit.groups.is_some() {
            return Err(Rejection::Duplicate);
        }
        if policy != brief.policy {
            return Err(Rejection::StalePolicy);
        }
        if groups.len() != unit.samples.len() || !groups.iter().all(|g| fits(g, brief)) {
            return Err(Rejection::Unexpected);
        }
        let holders: Vec<WorkerTag> = unit.holders.iter().map(|h| h.tag.clone()).collect();
        for holder in holders {
            self.let_go(&holder);
        }
        self.free.remove(&index);
        self.open -= 1;
        self.units[index].groups = Some(groups);
        self.progress(now);
        Ok(())
    }

    /// Units are numbered one after the other.
    fn index(&self, id: UnitId) -> Option<usize> {
        let first = self.units.first()?.id;
        let index = usize::try_from(id.0.checked_sub(first.0)?).ok()?;
        (index < self.units.len()).then_some(index)
    }

    /// Takes the unit that a worker holds away from it, because the worker could not do it. Returns
    /// which unit, and how often it has failed by now.
    pub fn failed(&mut self, tag: &WorkerTag) -> Option<(UnitId, u32)> {
        let index = self.let_go(tag)?;
        let unit = &mut self.units[index];
        unit.failures += 1;
        unit.failed_by.insert(tag.worker.clone());
        Some((unit.id, unit.failures))
    }

    /// Frees the unit of a worker that is lost. Returns which, if it had one.
    pub fn release(&mut self, tag: &WorkerTag) -> Option<UnitId> {
        let index = self.let_go(tag)?;
        Some(self.units[index].id)
    }

    /// Marks what is overdue. Returns whether anything became so, and who is to be given up.
    pub fn overdue(&mut self, now: Millis) -> (bool, Vec<WorkerTag>) {
        let (mut changed, mut hopeless) = (false, Vec::new());
        if self.due.keys().next().is_none_or(|first| now < *first) {
            return (changed, hopeless);
        }
        let again = now + self.unit_ms;
        let held: BTreeSet<usize> = self.held.values().copied().collect();
        for index in held {
            for holder in self.units[index].holders.iter_mut().filter(|h| now >= h.deadline) {
                self.late += usize::from(holder.overdue == 0);
                holder.overdue += 1;
                holder.deadline = again;
                *self.due.entry(again).or_insert(0) += 1;
                changed = true;
                if holder.overdue >= STRIKES {
                    hopeless.push(holder.tag.clone());
                }
            }
        }
        self.due.retain(|due, _| *due > now);
        (changed, hopeless)
    }

    /// Whether nothing was handed out or answered for so long that idle workers are given up.
    pub fn stalled(&self, now: Millis) -> bool {
        now >= self.stalled_at
    }

    /// Whether a worker holds an unanswered unit.
    pub fn holds(&self, tag: &WorkerTag) -> bool {
        self.held.contains_key(tag)
    }

    /// All units.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Answered units.
    pub fn done(&self) -> usize {
        self.units.len() - self.open
    }

    /// How many workers hold the others.
    pub fn holders(&self) -> usize {
        self.held.len()
    }

    /// Their names.
    pub fn holder_names(&self) -> impl Iterator<Item = &WorkerId> {
        self.held.keys().map(|tag| &tag.worker)
    }

    /// The next moment at which something becomes overdue.
    pub fn deadline(&self) -> Millis {
        self.due.keys().next().map_or(self.stalled_at, |first| self.stalled_at.min(*first))
    }

    /// Whether every unit is answered.
    pub fn complete(&self) -> bool {
        self.open == 0
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
