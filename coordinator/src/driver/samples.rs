//! Scored groups as people read them in the report. The texts go into the run directory, never into a log.

use std::collections::BTreeMap;

use medevo_core::api::DataIndex;
use medevo_scoring::{GroupOutcome, ScoredGroup};
use medevo_types::messages::Group;

use super::{
    materialise::{Materialiser, NoSample},
    scoring::Finished,
};
use crate::run_dir::{CandidateRecord, SampleOutcome, SampleRecord};

/// A record per group of the round that was scored. With `scale_rewards = "batch"` a further round of the same
/// rollout still changes the advantages; the records keep those of their own round.
pub(super) fn sample_records(
    materialiser: &Materialiser,
    stage: &str,
    data: DataIndex,
    finished: &Finished,
) -> Result<Vec<SampleRecord>, NoSample> {
    let round = &finished.round;
    let groups = round.groups.iter().zip(&finished.scored.groups);
    groups
        .skip(round.earlier)
        .map(|((sample, group), scored)| {
            let question = materialiser.question(data, *sample)?;
            Ok(SampleRecord {
                step: round.step.0,
                stage: stage.to_owned(),
                sample: group.sample.0.clone(),
                image: question.images.first().cloned(),
                question: question.text.clone(),
                candidates: distinct(group, scored),
                pseudo_label: group
                    .candidates
                    .get(scored.pseudo_label)
                    .map(|label| label.text.clone())
                    .filter(|text| !text.is_empty()),
                share: scored.share,
                margin: scored.margin,
                outcome: match scored.outcome {
                    GroupOutcome::Train => SampleOutcome::Train,
                    GroupOutcome::Abstained => SampleOutcome::Abstained,
                    GroupOutcome::NoVariance => SampleOutcome::NoVariance,
                },
            })
        })
        .collect()
}

/// Distinct answers by text, the most frequent first, then by their text.
fn distinct(group: &Group, scored: &ScoredGroup) -> Vec<CandidateRecord> {
    let mut by_text: BTreeMap<&str, CandidateRecord> = BTreeMap::new();
    let scores = scored.rewards.iter().zip(&scored.advantages);
    for (candidate, (&reward, &advantage)) in group.candidates.iter().zip(scores) {
        let record = by_text.entry(&candidate.text).or_insert_with(|| CandidateRecord {
            text: candidate.text.clone(),
            count: 0,
            reward,
            advantage,
        });
        record.count += 1;
    }
    let mut records: Vec<CandidateRecord> = by_text.into_values().collect();
    records.sort_by_key(|record| std::cmp::Reverse(record.count));
    records
}
