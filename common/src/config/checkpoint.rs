//! `[checkpoint]`: when one is written, which are kept, where they are copied to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    raw::{RunConfig, StageSection},
    rules::Rules,
};

/// Checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSection {
    /// Steps between checkpoints; one is always written at a training stage's end. 0: only there.
    pub every_steps: u64,
    /// Checkpoints kept, the newest; stage references and the last of each stage are always kept.
    pub keep: usize,
    /// Checkpoints whose step is a multiple of this are kept for good; 0 keeps none for that reason.
    pub keep_every: u64,
    /// So many of the best checkpoints are kept, by `best_by`; 0 keeps none for that reason.
    pub keep_best: usize,
    /// What makes a checkpoint good. A figure of `step_committed` (`reward_mean`, `cluster_share`, `kl`, `loss`,
    /// ...): its mean over the steps since the checkpoint before, within the stage. Or `evaluation:NAME`: the accuracy
    /// of greedy answers on the data set NAME, measured at that very step. No label-free figure tells
    /// improvement from collapse for sure (a model that gives one answer to everything agrees with itself); where
    /// there are labelled questions to watch a run with, use `evaluation:`.
    pub best_by: String,
    /// Whether the largest or the smallest `best_by` is the best.
    pub best_is: BestIs,
    /// Copy every published checkpoint here, in the background: `s3://bucket/prefix` or `file:///folder`. The copies lie
    /// in a folder named as the run; its `latest.json` names the newest. A checkpoint that is damaged when the
    /// run is resumed is fetched from here. Training never waits for a copy. Credentials and region come from
    /// the usual `AWS_*` environment variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_to: Option<String>,
    /// Copies kept, the newest, where that is to differ from `keep`; the other rules hold for copies too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_keep: Option<usize>,
    /// Address of an S3-compatible store other than Amazon's (`https://host:port`), instead of `AWS_ENDPOINT_URL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Deadline of writing one, and of copying one, seconds; at the end the run waits so long for its last copy.
    pub timeout_s: f64,
}

/// Which end of a figure is its best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BestIs {
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

impl Default for CheckpointSection {
    fn default() -> Self {
        Self {
            every_steps: 50,
            keep: 3,
            keep_every: 0,
            keep_best: 0,
            best_by: "reward_mean".into(),
            best_is: BestIs::Max,
            copy_to: None,
            copy_keep: None,
            endpoint: None,
            timeout_s: 600.0,
        }
    }
}

impl CheckpointSection {
    /// The data set whose accuracy says which checkpoint is best; none when a figure of the steps does.
    #[must_use]
    pub fn best_by_data(&self) -> Option<&str> {
        self.best_by.strip_prefix("evaluation:").map(str::trim)
    }
}

impl Rules {
    pub(super) fn checkpoint(&mut self, config: &RunConfig) {
        let section = &config.checkpoint;
        self.at_least_one(section.keep as u64, "checkpoint.keep");
        self.seconds(section.timeout_s, "checkpoint.timeout_s");
        match section.best_by_data() {
            Some(data) => self.require(
                evaluated(config, data),
                "checkpoint.best_by",
                format!(
                    "names the data set {data:?}, which no stage evaluates; give a stage evaluate = [{data:?}] \
                     and evaluate_every, or choose a figure of the steps"
                ),
            ),
            None => self.require(
                !section.best_by.is_empty()
                    && section.best_by.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
                "checkpoint.best_by",
                format!(
                    "must be a figure of the steps (reward_mean, kl, ...) or evaluation:NAME, but it is {:?}",
                    section.best_by
                ),
            ),
        }
        if let Some(keep) = section.copy_keep {
            self.at_least_one(keep as u64, "checkpoint.copy_keep");
        }
        if let Some(url) = &section.copy_to {
            self.require(
                is_destination(url),
                "checkpoint.copy_to",
                "must be s3://BUCKET, s3://BUCKET/PREFIX or file:///FOLDER; credentials belong into the \
                 environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), never here",
            );
        }
        if let Some(endpoint) = &section.endpoint {
            let address =
                endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
            self.require(
                address.is_some_and(|host| !host.is_empty() && !host.contains('@')),
                "checkpoint.endpoint",
                "must be https://HOST:PORT, or http://HOST:PORT on a network that you trust, without credentials",
            );
        }
    }
}

/// Whether some stage measures greedy answers on a data set.
fn evaluated(config: &RunConfig, data: &str) -> bool {
    config.stage.iter().any(|stage| match stage {
        StageSection::Sft(_) => false,
        StageSection::Rl(rl) => {
            rl.evaluate_every > 0 && rl.evaluate.iter().any(|name| name == data)
        }
        StageSection::Evaluate(stage) => stage.data.iter().any(|name| name == data),
    })
}

/// The two kinds of places, without user names or passwords in them. The value itself is not repeated in
/// messages: what is not a place may be a secret.
fn is_destination(url: &str) -> bool {
    if let Some(place) = url.strip_prefix("s3://") {
        let bucket = place.split('/').next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        return !bucket.is_empty() && bucket.chars().all(plain);
    }
    url.strip_prefix("file://").is_some_and(|path| path.starts_with('/'))
}
