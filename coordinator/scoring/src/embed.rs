//! Embeddings of a group's distinct answers, by the embedder that the stage names.

use medevo_types::{
    messages::{Candidate, Group},
    settings::EmbedderKind,
};

use crate::{ScoreError, answers::Answers};

/// An L2-normalised vector, `[d]`.
pub type Embedding = Vec<f64>;

/// Cosine of two L2-normalised vectors, kept within -1 to 1 against rounding.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>().clamp(-1.0, 1.0)
}

/// Scales a vector to length 1; false when it has no direction.
pub fn normalize(v: &mut [f64]) -> bool {
    let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    if !norm.is_finite() || norm <= f64::MIN_POSITIVE {
        return false;
    }
    v.iter_mut().for_each(|x| *x /= norm);
    true
}

/// The weighted sum of embeddings, scaled to length 1; the zero vector when they cancel out.
pub fn centre<'a>(parts: impl Iterator<Item = (f64, &'a Embedding)>) -> Embedding {
    let mut sum = Embedding::new();
    for (weight, part) in parts {
        sum.resize(part.len(), 0.0);
        sum.iter_mut().zip(part).for_each(|(s, x)| *s += weight * x);
    }
    if !normalize(&mut sum) {
        sum.fill(0.0);
    }
    sum
}

/// Embedding of each distinct answer from the policy's features, `[distinct]`: the mean over the
/// candidates that gave it, so that copies of an answer have one embedding and earn one reward.
///
/// # Errors
/// A feature that is missing, of another length than `length` (set by the first one of the step), not
/// finite or all zero. An empty answer needs none: it has no embedding.
pub fn from_policy(
    group: &Group,
    answers: &Answers,
    length: &mut Option<usize>,
) -> Result<Vec<Embedding>, ScoreError> {
    answers
        .distinct
        .iter()
        .map(|answer| {
            let mut parts = Vec::with_capacity(answer.count());
            for &i in &answer.members {
                parts.push(feature(group, i, length)?);
            }
            // In an order of their own, so that the sum does not depend on who was drawn first.
            parts.sort_by(|a, b| a.partial_cmp(b).expect("features were checked to be finite"));
            let mut sum = centre(parts.iter().map(|part| (1.0, part)));
            // Copies whose features cancel out say nothing as a mean; the first stands for them.
            if sum.iter().all(|x| *x == 0.0) {
                sum.clone_from(&parts[0]);
            }
            Ok(sum)
        })
        .collect()
}

/// One candidate's feature, checked and scaled to length 1.
fn feature(
    group: &Group,
    candidate: usize,
    length: &mut Option<usize>,
) -> Result<Embedding, ScoreError> {
    let sample = || group.sample.clone();
    let Some(feature) = &group.candidates[candidate].feature else {
        return Err(ScoreError::NoFeature { sample: sample(), candidate });
    };
    let expected = *length.get_or_insert(feature.len());
    if feature.len() != expected {
        let found = feature.len();
        return Err(ScoreError::FeatureLength { sample: sample(), candidate, expected, found });
    }
    let mut feature: Embedding = feature.iter().copied().map(f64::from).collect();
    if !normalize(&mut feature) {
        return Err(ScoreError::NotFinite {
            what: "the policy feature",
            sample: sample(),
            candidate,
        });
    }
    Ok(feature)
}

/// Checks what every embedder and the update rely on.
///
/// # Errors
/// A group without candidates, token ids without log-probabilities, numbers that are not finite.
pub fn check(group: &Group, kind: EmbedderKind) -> Result<(), ScoreError> {
    let sample = || group.sample.clone();
    if group.candidates.is_empty() {
        return Err(ScoreError::NoCandidates { sample: sample() });
    }
    if !group.entropy.is_finite() {
        return Err(ScoreError::Entropy { sample: sample() });
    }
    for (candidate, Candidate { ids, logprobs, feature, .. }) in group.candidates.iter().enumerate()
    {
        if ids.len() != logprobs.len() {
            let (ids, logprobs) = (ids.len(), logprobs.len());
            return Err(ScoreError::Logprobs { sample: sample(), candidate, ids, logprobs });
        }
        if !logprobs.iter().all(|x| x.is_finite()) {
            let what = "a log-probability";
            return Err(ScoreError::NotFinite { what, sample: sample(), candidate });
        }
        let broken = feature.iter().flatten().any(|x| !x.is_finite());
        if kind == EmbedderKind::Policy && broken {
            let what = "the policy feature";
            return Err(ScoreError::NotFinite { what, sample: sample(), candidate });
        }
    }
    Ok(())
}
