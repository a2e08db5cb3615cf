//! Joins identical candidates, so that the update computes each once and weighs it by its count.

use std::collections::HashMap;

use medevo_types::messages::{Group, TrainAnswer};

/// Candidates with identical token ids joined, in order of first appearance. Identical ids are one text,
/// so they share reward and advantage; log-probabilities are those of the first.
pub fn join(group: &Group, advantages: &[f64]) -> Vec<TrainAnswer> {
    let mut place: HashMap<&[u32], usize> = HashMap::new();
    let mut answers: Vec<TrainAnswer> = Vec::new();
    for (candidate, &advantage) in group.candidates.iter().zip(advantages) {
        match place.get(candidate.ids.as_slice()) {
            Some(&at) => answers[at].count += 1,
            None => {
                place.insert(&candidate.ids, answers.len());
                answers.push(TrainAnswer {
                    ids: candidate.ids.clone(),
                    count: 1,
                    advantage,
                    logprobs: candidate.logprobs.clone(),
                });
            }
        }
    }
    answers
}
