//! What a new coordinator makes of what it finds: the one place that knows how a run is recovered.

use std::collections::BTreeMap;

use medevo_core::{Ledger, Record, Recovered, Rollout, SampleIndex};
use medevo_types::{Digest, PolicyVersion, Step, Term, messages::Group};

/// What the records, and the rollouts that were kept, say to a coordinator whose term is `term`.
#[must_use]
pub fn recovered<'a>(
    term: Term,
    records: impl IntoIterator<Item = &'a Record>,
    rollouts: &BTreeMap<Step, Rollout>,
) -> Recovered {
    let mut ledger = Ledger::default();
    records.into_iter().cloned().for_each(|record| ledger.replay(record));
    let mut recovered = ledger.recovered(term);
    recovered.rollouts = rollouts.values().cloned().collect();
    recovered
}

/// What a driver keeps of a round that is scored: the groups of its step so far.
pub fn keep(
    rollouts: &mut BTreeMap<Step, Rollout>,
    stage: usize,
    step: Step,
    policy: PolicyVersion,
    holding: Digest,
    earlier: usize,
    groups: &[(SampleIndex, Group)],
) {
    let mut rounds = match rollouts.get(&step) {
        Some(before) if earlier > 0 => before.rounds.clone(),
        _ => Vec::new(),
    };
    rounds.push(groups.len());
    let groups = groups.to_vec();
    rollouts.insert(step, Rollout { stage, step, policy, holding, rounds, groups });
}
