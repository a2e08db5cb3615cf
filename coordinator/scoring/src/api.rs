//! What goes into the scorer and what comes out of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use medevo_types::{
    SampleId,
    messages::TrainAnswer,
    settings::{EmbedderSettings, LabelSettings, RewardSettings, ScaleRewards},
};
use serde::{Deserialize, Serialize};

/// How one `rl` stage scores its groups.
#[derive(Clone, Debug, PartialEq)]
pub struct ScorerSettings {
    /// Which candidate becomes the pseudo label, and when a group abstains.
    pub label: LabelSettings,
    /// What turns an answer into a vector.
    pub embedder: EmbedderSettings,
    /// How hard and soft scores become one reward.
    pub reward: RewardSettings,
    /// How rewards become advantages.
    pub scale: ScaleRewards,
    /// Groups that teach nothing are replaced by others (dynamic sampling), so [`ScaleRewards::Batch`] looks at
    /// those that train alone, as if the others had never been drawn.
    pub dynamic_sampling: bool,
}

/// What a scorer remembers between steps; a resumed run needs it to score as an uninterrupted one would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScorerState {
    /// Distinct normalised answers seen so far: the documents of the inverse document frequency.
    pub seen: BTreeSet<String>,
    /// Normalised pseudo label that each sample got when it was last trained on, for the flip rate.
    pub labels: BTreeMap<SampleId, String>,
}

/// The verdict on one step's groups.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredStep {
    /// One per group, in the order they came in.
    pub groups: Vec<ScoredGroup>,
    /// Label-free figures of the step, by name, all finite. `flip_rate` is left out of a step in which no
    /// sample was seen before.
    pub figures: Vec<(String, f64)>,
}

/// What becomes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupOutcome {
    /// Its answers train.
    Train,
    /// No consensus, or no answer at all: it trains nothing.
    Abstained,
    /// Every candidate earned the same: it trains nothing.
    NoVariance,
}

/// The verdict on one group of N candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredGroup {
    /// Whether it trains.
    pub outcome: GroupOutcome,
    /// Index of the candidate that is the pseudo label (0 when every answer is empty).
    pub pseudo_label: usize,
    /// Share of the N candidates in the pseudo label's cluster, 0 to 1.
    pub share: f64,
    /// That share minus the share of the heaviest other cluster; below 0 when another one is heavier,
    /// which `centroid` allows.
    pub margin: f64,
    /// Reward of each candidate, `[N]`, 0 to 1; in an abstaining group what it would have been.
    pub rewards: Vec<f64>,
    /// Advantage of each candidate, `[N]`; all 0 unless the group trains.
    pub advantages: Vec<f64>,
    /// Candidates with identical token ids joined, in order of first appearance, with the rollout
    /// log-probabilities of the first; empty unless the group trains.
    pub answers: Arc<[TrainAnswer]>,
}

/// Why a step cannot be scored. Nothing was learned from it and the scorer's memory is unchanged, so the
/// same groups, repaired, can be scored again. A failure of the machinery is never a reward of 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// The stage's settings contradict the method.
    #[error("the scoring settings cannot be used: {0}; correct the stage in the run file")]
    Settings(String),
    /// A group without candidates.
    #[error("the group of sample {sample} holds no candidates; draw it again")]
    NoCandidates {
        /// Which sample.
        sample: SampleId,
    },
    /// Token ids and log-probabilities of a candidate do not belong together.
    #[error(
        "candidate {candidate} of sample {sample} has {ids} token ids but {logprobs} log-probabilities; \
         draw the group again"
    )]
    Logprobs {
        /// Which sample.
        sample: SampleId,
        /// Index in the group.
        candidate: usize,
        /// Token ids it has.
        ids: usize,
        /// Log-probabilities it has.
        logprobs: usize,
    },
    /// The `policy` embedder needs a feature that the worker did not send.
    #[error(
        "candidate {candidate} of sample {sample} came without its policy feature; the unit has to be \
         drawn with features, or use embedder.kind = \"lexical\""
    )]
    NoFeature {
        /// Which sample.
        sample: SampleId,
        /// Index in the group.
        candidate: usize,
    },
    /// Features of one step differ in length.
    #[error(
        "the policy feature of candidate {candidate} of sample {sample} has {found} numbers where the \
         step's others have {expected}; all workers must hold the same model"
    )]
    FeatureLength {
        /// Which sample.
        sample: SampleId,
        /// Index in the group.
        candidate: usize,
        /// Numbers in the others.
        expected: usize,
        /// Numbers in this one.
        found: usize,
    },
    /// A number that is infinite or not a number, or a feature without direction.
    #[error(
        "{what} of candidate {candidate} of sample {sample} is not usable (not finite, or all zero); the \
         policy's numbers are broken: go back to the last good checkpoint or lower the learning rate"
    )]
    NotFinite {
        /// Which number.
        what: &'static str,
        /// Which sample.
        sample: SampleId,
        /// Index in the group.
        candidate: usize,
    },
    /// The policy entropy of a group is infinite or not a number.
    #[error(
        "the policy entropy of sample {sample} is not finite; the policy's numbers are broken: go back to \
         the last good checkpoint or lower the learning rate"
    )]
    Entropy {
        /// Which sample.
        sample: SampleId,
    },
}
