//! Weights as chains of digests, so that a lost, doubled or half-done update shows.

use medevo_core::SampleIndex;
use medevo_types::{
    Digest, Generation, PolicyVersion, SampleId, Step,
    messages::{Candidate, Group},
};

/// Digest of the starting model.
#[must_use]
pub fn model() -> Digest {
    Digest("model".into())
}

/// The reduced gradient of a step at some weights from a batch. Another roster rounds otherwise, so a step that
/// is redone makes other weights.
#[must_use]
pub fn gradient(weights: &Digest, step: Step, generation: Generation, batch: &str) -> Digest {
    Digest(format!("g({weights},{step},{batch})/{generation}"))
}

/// What of a gradient does not depend on the roster: equal for every attempt at a step, since a voided attempt is
/// made again from the same groups.
#[must_use]
pub fn content(gradient: &Digest) -> &str {
    gradient.0.rsplit_once('/').map_or("", |(content, _)| content)
}

/// Weights after an update.
#[must_use]
pub fn stepped(weights: &Digest, gradient: &Digest) -> Digest {
    Digest(format!("{:016x}", hash(weights.0.bytes().chain(gradient.0.bytes()))))
}

/// FNV-1a.
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    bytes.into_iter().fold(start, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// How drawn answers name the weights that drew them, in their token ids.
#[must_use]
pub fn mark(weights: &Digest) -> u32 {
    hash(weights.0.bytes()) as u32
}

/// What a policy answers to a sample: the version and its weights stand in the token ids.
#[must_use]
pub fn group(sample: SampleIndex, n: usize, policy: PolicyVersion, weights: &Digest) -> Group {
    let candidate = |i: usize| Candidate {
        ids: vec![policy.0 as u32, sample as u32, i as u32, mark(weights)],
        text: String::new(),
        logprobs: vec![-0.5; 4],
        finished: true,
        feature: None,
    };
    Group {
        sample: SampleId(sample.to_string()),
        prompt_tokens: 10 + sample as u32,
        candidates: (0..n).map(candidate).collect(),
        entropy: 0.1,
    }
}
