//! Rules on single values and on the settings of a stage: ranges, and the way out of each.

use std::fmt::Display;

use medevo_types::settings::{
    EmbedderSettings, LabelSettings, LoraSettings, LossType, Objective, OptimizerSettings,
    RewardKind, RewardSettings, Sampling,
};

/// Collects the rules that a run file breaks: the key's path, and a sentence that starts with it.
#[derive(Default)]
pub(super) struct Rules {
    /// Key path and message, in the order in which they were found.
    pub broken: Vec<(String, String)>,
}

impl Rules {
    pub fn require(&mut self, holds: bool, path: &str, message: impl Display) {
        if !holds {
            self.broken.push((path.to_owned(), format!("`{path}` {message}")));
        }
    }

    pub fn at_least_one(&mut self, value: u64, path: &str) {
        self.require(value >= 1, path, "must be at least 1, but it is 0");
    }

    pub fn share(&mut self, value: f64, path: &str) {
        let message = format!("must lie between 0 and 1, but it is {value}");
        self.require((0.0..=1.0).contains(&value), path, message);
    }

    pub fn not_negative(&mut self, value: f64, path: &str) {
        let message = format!("must be 0 or more, but it is {value}");
        self.require(value >= 0.0 && value.is_finite(), path, message);
    }

    pub fn positive(&mut self, value: f64, path: &str) {
        let message = format!("must be more than 0, but it is {value}");
        self.require(value > 0.0 && value.is_finite(), path, message);
    }

    /// Names become folder and file names.
    pub fn name(&mut self, name: &str, path: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let good = !name.is_empty()
            && name.len() <= 64
            && name.chars().all(plain)
            && !name.starts_with('.');
        self.require(
            good,
            path,
            format!(
                "names files, so it may hold up to 64 letters, digits, `-`, `_` and `.` (not first), \
                 but it is {name:?}"
            ),
        );
    }

    /// A deadline: positive and small enough that milliseconds stay exact.
    pub fn seconds(&mut self, value: f64, path: &str) {
        let message =
            format!("must be more than 0 s and at most 604800 s (a week), but it is {value}");
        self.require(value > 0.0 && value <= 604_800.0, path, message);
    }

    pub fn rollout(&mut self, sampling: &Sampling, path: &str) {
        self.require(
            sampling.n >= 2,
            &format!("{path}.n"),
            format!(
                "must be at least 2 (a group of one has no consensus), but it is {}",
                sampling.n
            ),
        );
        self.positive(sampling.temperature, &format!("{path}.temperature"));
        let top_p = sampling.top_p;
        self.require(
            top_p > 0.0 && top_p <= 1.0,
            &format!("{path}.top_p"),
            format!("must be more than 0 and at most 1 (1 keeps all), but it is {top_p}"),
        );
        self.at_least_one(sampling.max_new_tokens as u64, &format!("{path}.max_new_tokens"));
    }

    pub fn label(&mut self, label: &LabelSettings, path: &str) {
        let cosine = label.threshold;
        self.require(
            (-1.0..=1.0).contains(&cosine),
            &format!("{path}.threshold"),
            format!("is a cosine: it must lie between -1 and 1, but it is {cosine}"),
        );
        self.share(label.min_share, &format!("{path}.min_share"));
        self.share(label.min_margin, &format!("{path}.min_margin"));
    }

    pub fn embedder(&mut self, embedder: &EmbedderSettings, path: &str) {
        self.at_least_one(embedder.dims as u64, &format!("{path}.dims"));
        self.at_least_one(embedder.min_gram as u64, &format!("{path}.min_gram"));
        self.require(
            embedder.min_gram <= embedder.max_gram,
            &format!("{path}.max_gram"),
            format!(
                "must be at least min_gram ({}), but it is {}",
                embedder.min_gram, embedder.max_gram
            ),
        );
    }

    pub fn reward(&mut self, reward: &RewardSettings, path: &str) {
        self.not_negative(reward.w_hard, &format!("{path}.w_hard"));
        self.not_negative(reward.w_token, &format!("{path}.w_token"));
        self.not_negative(reward.w_sem, &format!("{path}.w_sem"));
        let soft = reward.w_token + reward.w_sem;
        match reward.kind {
            RewardKind::Hierarchical => self.require(
                soft < 1.0,
                path,
                format!(
                    "has w_token + w_sem = {soft}, but with kind = \"hierarchical\" it must be below 1, \
                     so that a soft score never reaches an exact match; lower one, or use kind = \"sum\""
                ),
            ),
            RewardKind::Sum => self.require(
                soft + reward.w_hard > 0.0,
                path,
                "has only zero weights; give w_hard, w_token or w_sem a weight",
            ),
        }
    }

    pub fn objective(&mut self, objective: &Objective, path: &str) {
        self.not_negative(objective.beta, &format!("{path}.beta"));
        self.share(objective.clip_low, &format!("{path}.clip_low"));
        self.at_least_one(objective.num_iterations, &format!("{path}.num_iterations"));
        let (high, at) = (objective.clip_high, format!("{path}.clip_high"));
        self.not_negative(high, &at);
        self.require(
            objective.loss_type != LossType::Cispo || high >= 1.0,
            &at,
            format!(
                "bounds the ratio itself with loss_type = \"cispo\", so it must be at least 1 (5.0 is \
                 usual), but it is {high}"
            ),
        );
        self.not_negative(objective.entropy_weight, &format!("{path}.entropy_weight"));
        let cap = objective.importance_cap;
        self.require(
            cap == 0.0 || (cap >= 1.0 && cap.is_finite()),
            &format!("{path}.importance_cap"),
            format!(
                "must be 0 (off) or at least 1 (a lower cap would weaken tokens on which rollout and training \
                 agree), but it is {cap}"
            ),
        );
    }

    pub fn lora(&mut self, lora: &LoraSettings) {
        self.at_least_one(lora.rank as u64, "lora.rank");
        self.positive(lora.alpha, "lora.alpha");
        let missing = "is empty; name linear layers, such as \"q_proj\"";
        self.require(!lora.targets.is_empty(), "lora.targets", missing);
        for (i, target) in lora.targets.iter().enumerate() {
            let path = format!("lora.targets[{i}]");
            self.require(
                !target.is_empty(),
                &path,
                "is empty; name a linear layer, such as \"q_proj\"",
            );
            let again = format!("names {target:?} a second time");
            self.require(!lora.targets[..i].contains(target), &path, again);
        }
    }

    pub fn optimizer(&mut self, optimizer: &OptimizerSettings, path: &str) {
        self.positive(optimizer.lr, &format!("{path}.lr"));
        for (value, key) in [(optimizer.beta1, "beta1"), (optimizer.beta2, "beta2")] {
            self.require(
                (0.0..1.0).contains(&value),
                &format!("{path}.{key}"),
                format!("must be at least 0 and below 1, but it is {value}"),
            );
        }
        self.positive(optimizer.eps, &format!("{path}.eps"));
        self.not_negative(optimizer.weight_decay, &format!("{path}.weight_decay"));
        self.share(optimizer.final_fraction, &format!("{path}.final_fraction"));
        self.not_negative(optimizer.clip_norm, &format!("{path}.clip_norm"));
    }
}
